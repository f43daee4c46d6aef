"""What the daemon remembers over a restart."""

from __future__ import annotations

import errno
import os
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest

from netmond.errors import NetmondError
from netmond.state import load_targets, save_targets

TARGETS = [ip_network(text) for text in ("192.0.2.1", "198.51.100.0/24", "2001:db8::/32")]


def test_targets_come_back(tmp_path: Path) -> None:
    """What was saved is what is loaded, in the same order; the directory is made as needed."""
    directory = tmp_path / "lib" / "netmond"
    save_targets(directory, TARGETS)

    assert load_targets(directory) == TARGETS
    assert os.listdir(directory) == ["targets.json"]


def test_nothing_saved(tmp_path: Path) -> None:
    """A first start has no targets, with or without a directory."""
    assert load_targets(tmp_path) == []
    assert load_targets(tmp_path / "missing") == []


def test_saving_replaces(tmp_path: Path) -> None:
    """The last saved set is all there is, an empty one too."""
    save_targets(tmp_path, TARGETS)
    save_targets(tmp_path, TARGETS[1:2])
    assert load_targets(tmp_path) == TARGETS[1:2]
    save_targets(tmp_path, [])

    assert load_targets(tmp_path) == []


def test_ten_thousand_targets(tmp_path: Path) -> None:
    """As many as may be added can be saved and loaded."""
    targets = [ip_network((0x20010DB8 << 96 | number << 64, 64)) for number in range(10_007)]
    save_targets(tmp_path, targets)

    assert load_targets(tmp_path) == targets


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    """Neither file nor directory is open to others."""
    directory = tmp_path / "netmond"
    save_targets(directory, TARGETS)

    assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE((directory / "targets.json").stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '["192.0.2.1"',
        '["192.0.2.300"]',
        '["192.0.2.1/8"]',
        "5",
        "null",
        "[5]",
        "[[]]",
        '{"192.0.2.1": 1}',
        "\xff",
    ],
)
def test_a_damaged_file(tmp_path: Path, text: str) -> None:
    """It is an error that says which file to remove; nothing of it is believed."""
    (tmp_path / "targets.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(
        NetmondError, match=r"cannot read the saved targets: .*; remove .*/targets\.json to start"
    ) as raised:
        load_targets(tmp_path)

    assert "\n" not in str(raised.value)


def test_a_planted_link_is_not_read(tmp_path: Path) -> None:
    """A symbolic link in the place of the file is refused."""
    (tmp_path / "elsewhere").write_text('["192.0.2.1"]')
    (tmp_path / "targets.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(NetmondError, match="cannot read the saved targets"):
        load_targets(tmp_path)


def test_a_planted_link_is_not_written(tmp_path: Path) -> None:
    """Nor is one followed when saving: what it points to stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "targets.new").symlink_to(victim)

    with pytest.raises(NetmondError, match="cannot save the targets in"):
        save_targets(tmp_path, TARGETS)

    assert victim.read_text() == "precious"


def test_an_unwritable_directory(tmp_path: Path) -> None:
    """One line that names the directory and the cause (here: a file is in the way, which stops root too)."""
    (tmp_path / "file").touch()

    with pytest.raises(NetmondError, match=f"cannot save the targets in {tmp_path}/file: File exists"):
        save_targets(tmp_path / "file", TARGETS)


def test_a_full_disk_keeps_the_old_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all: what was saved before is still there when writing fails halfway."""
    save_targets(tmp_path, TARGETS)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NetmondError, match="No space left on device"):
        save_targets(tmp_path, [])

    assert load_targets(tmp_path) == TARGETS
