"""The file in which totals and targets outlast the daemon."""

from __future__ import annotations

import errno
import json
import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond import state
from netmond.accounts import Earlier
from netmond.errors import NetmondError
from netmond.state import KINDS, Book, State, load, save

MOST = 2**64 - 1


def book(*rows: tuple[Any, ...]) -> Book:
    """Rows of a key and one number for all counters."""
    counters = np.array([[row[-1]] * 8 for row in rows], np.uint64).reshape(-1, 8)
    return Earlier([row[:-1] for row in rows], counters)


def state_of(**books: Book) -> State:
    return State(boot="b007", since=1795231800.25, books={kind: books.get(kind, book()) for kind in KINDS})


FULL = state_of(
    target=book(("192.0.2.1", 1795231801.5, True, 7), ("2001:db8::/32", 1795231800.25, False, MOST)),
    user=book((0, 0), (1234, 1009), (2**32 - 2, MOST)),
    unit=book(("/", 5), ("/system.slice/käse\n\udcff.service", 13), ("", 17)),
    process=book((77, "cu\xe9rl", 1234, 1, 11), (0, "", 0, 2, 3)),
)


def contents(saved: State | None) -> Any:
    """Everything in a state, for comparing."""
    assert saved is not None
    books = {kind: (list(each.keys), each.counters.tolist()) for kind, each in saved.books.items()}
    return saved.boot, saved.since, books


def lines(directory: Path) -> list[Any]:
    return [json.loads(line) for line in (directory / state.FILE).read_text().splitlines()]


def write(directory: Path, *values: Any) -> None:
    """A whole file with these lines before its last."""
    body = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    end = json.dumps({"crc32": zlib.crc32(body)}).encode() + b"\n"
    (directory / state.FILE).write_bytes(body + end)


def refused(directory: Path, reason: str = "the file is damaged") -> None:
    """It cannot be loaded, in one line that tells why and where it is kept; after that nothing is saved."""
    kept = directory / "state.unusable"
    with pytest.raises(NetmondError, match=r"cannot use the saved totals: .*; they are kept in ") as raised:
        load(directory)

    assert reason in str(raised.value)
    assert str(raised.value).endswith(f"kept in {kept}")
    assert "\n" not in str(raised.value)
    assert os.path.lexists(kept)
    assert load(directory) is None


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Keys of any characters and counters of any size, in the same order; directories are made as needed."""
    directory = tmp_path / "lib" / "netmond"
    save(directory, FULL)

    assert contents(load(directory)) == contents(FULL)
    assert os.listdir(directory) == ["state.jsonl"]


def test_the_format(tmp_path: Path) -> None:
    """What is in the file: other versions of netmond will read it. A change needs another number."""
    save(
        tmp_path,
        state_of(user=book((1234, 23)), unit=book(("/a.service", 5)), process=book((7, "x", 1, 0, 3))),
    )

    assert lines(tmp_path)[:-1] == [
        {"format": 1, "boot": "b007", "since": 1795231800.25},
        ["user", 1234, 23, 23, 23, 23, 23, 23, 23, 23],
        ["unit", "/a.service", 5, 5, 5, 5, 5, 5, 5, 5],
        ["process", 7, "x", 1, 0, 3, 3, 3, 3, 3, 3, 3, 3],
    ]


def test_nothing_saved(tmp_path: Path) -> None:
    """A first start has nothing, with or without a directory."""
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None


def test_saving_replaces(tmp_path: Path) -> None:
    """The last that was saved is all there is, also if it is nothing."""
    save(tmp_path, FULL)
    save(tmp_path, state_of())

    assert contents(load(tmp_path)) == contents(state_of())


def test_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Neither file nor directory is open to others."""
    directory = tmp_path / "netmond"
    save(directory, FULL)

    assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0
    assert stat.S_IMODE((directory / state.FILE).stat().st_mode) & 0o007 == 0


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{", b"5", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff", bytes(999)]
)
def test_a_file_of_something_else(tmp_path: Path, text: bytes) -> None:
    """It is put aside and nothing of it is believed."""
    (tmp_path / state.FILE).write_bytes(text)

    refused(tmp_path, "")


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    """A file that ends early, at whichever byte (the newline at the very end tells nothing)."""
    save(tmp_path, FULL)
    whole = (tmp_path / state.FILE).read_bytes()

    for length in range(len(whole) - 1):
        (tmp_path / state.FILE).write_bytes(whole[:length])
        refused(tmp_path, "")


def test_every_changed_digit_is_noticed(tmp_path: Path) -> None:
    """Totals that look well-formed but are not what was written."""
    save(tmp_path, FULL)
    whole = (tmp_path / state.FILE).read_bytes()
    places = [place for place, byte in enumerate(whole) if chr(byte).isdigit()]

    for place in places:
        digit = whole[place]
        changed = digit ^ 1 if digit != ord("1") else ord("2")
        (tmp_path / state.FILE).write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
        refused(tmp_path, "")


@pytest.mark.parametrize(
    "row",
    [
        [],
        ["user"],
        ["planet", 5, *[1] * 8],
        ["user", 5, *[1] * 7, -1],
        ["user", 5, *[1] * 7, 2**64],
        ["user", 5, *[1] * 7, 1.5],
        ["user", 5, *[1] * 7, "1"],
    ],
)
def test_lines_that_netmond_does_not_write(tmp_path: Path, row: Sequence[Any]) -> None:
    """Other kinds and impossible counters, though the check is right."""
    write(tmp_path, {"format": 1, "boot": "b007", "since": 5.0}, row)

    refused(tmp_path, "")


def test_another_format(tmp_path: Path) -> None:
    """What a later version wrote is kept for it."""
    write(tmp_path, {"format": 2, "boot": "b007"}, ["planet", 5])

    refused(tmp_path, "their format is 2, this version of netmond has 1")


def test_the_last_damaged_file_is_kept(tmp_path: Path) -> None:
    """Others before it are not: they do not pile up."""
    for text in ("one", "two"):
        (tmp_path / state.FILE).write_text(text)
        refused(tmp_path, "")

    assert (tmp_path / "state.unusable").read_text() == "two"
    assert os.listdir(tmp_path) == ["state.unusable"]


def test_a_planted_link_is_not_read(tmp_path: Path) -> None:
    """A symbolic link in the place of the file is refused and put aside; what it points to stays."""
    save(tmp_path / "elsewhere", FULL)
    victim = tmp_path / "elsewhere" / state.FILE
    (tmp_path / state.FILE).symlink_to(victim)

    refused(tmp_path, "")

    assert contents(load(tmp_path / "elsewhere")) == contents(FULL)


def test_a_planted_link_is_not_written(tmp_path: Path) -> None:
    """Nor is one followed when saving."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state.new").symlink_to(victim)

    with pytest.raises(NetmondError, match="cannot save the totals in"):
        save(tmp_path, FULL)

    assert victim.read_text() == "precious"


def test_an_unwritable_directory(tmp_path: Path) -> None:
    """One line that names the directory and the cause (here: a file is in the way, which stops root too)."""
    (tmp_path / "file").touch()

    with pytest.raises(NetmondError, match=f"cannot save the totals in {tmp_path}/file: File exists"):
        save(tmp_path / "file", FULL)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole or not at all: what was saved before is still there if writing fails, at once or at the end."""
    save(tmp_path, FULL)
    many = state_of(user=book(*((uid, uid) for uid in range(10_007))))
    really_open = os.open

    def full(path: Any, flags: int, mode: int = 0o777) -> int:
        return really_open("/dev/full" if str(path).endswith(".new") else path, flags & ~os.O_CREAT, mode)

    monkeypatch.setattr(os, "open", full)
    for anything in (state_of(), many):
        with pytest.raises(NetmondError, match="No space left on device"):
            save(tmp_path, anything)

        assert contents(load(tmp_path)) == contents(FULL)


def test_a_disk_that_fails_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file takes the place of the old one only when it is safely on the disk."""
    save(tmp_path, FULL)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(NetmondError, match="Input/output error"):
        save(tmp_path, state_of())

    assert contents(load(tmp_path)) == contents(FULL)


def test_the_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is left out from the end: targets and users stay, and the file can be read."""
    monkeypatch.setattr(state, "MAX_BYTES", 5000)
    many = state_of(
        target=book(("192.0.2.1", 5.0, True, 7)),
        user=book(*((uid, 1) for uid in range(23))),
        unit=book(*((f"/{number:0100}", 1) for number in range(101))),
        process=book(*((pid, "x", 0, pid, 1) for pid in range(101))),
    )
    save(tmp_path, many)

    loaded = load(tmp_path)

    assert loaded is not None
    assert {kind: len(each.keys) for kind, each in loaded.books.items()} == {
        "target": 1,
        "user": 23,
        "rdma": 0,
        "unit": 29,
        "process": 0,
    }
    assert (tmp_path / state.FILE).stat().st_size < 5100


def test_ten_thousand_of_each(tmp_path: Path) -> None:
    """As much as a big machine has."""
    count = 10_007
    many = state_of(
        target=book(*((f"2001:db8::{number:x}", 5.0, True, number) for number in range(count))),
        user=book(*((uid, MOST - uid) for uid in range(count))),
        unit=book(*((f"/system.slice/a{number}.service", number) for number in range(count))),
        process=book(*((pid, "python3", pid, pid, pid) for pid in range(count))),
    )
    save(tmp_path, many)

    assert contents(load(tmp_path)) == contents(many)
    assert (tmp_path / state.FILE).stat().st_size < state.MAX_BYTES / 10
