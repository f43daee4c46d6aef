"""Rotated files are compressed in the background: nothing waits for it, and no row is lost or doubled."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netmond.outputs import compressor, rotated
from netmond.outputs.compressor import compress
from netmond.outputs.files import remove
from tests.kernel.deadline import eventually
from tests.unit.csvflows import ALICE, START, path_of
from tests.unit.csvlogs import append, files, logs, numbers, rows, used


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """The directory of a user, as a descriptor."""
    path_of(tmp_path).parent.mkdir(parents=True)
    fd = os.open(path_of(tmp_path).parent, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Compression does not begin until this is set."""
    go_on = threading.Event()

    def wait(name: str, directory: int, uid: int, interrupted: Callable[[], bool]) -> None:
        assert go_on.wait(60)
        compress(name, directory, uid, interrupted)

    monkeypatch.setattr(compressor, "compress", wait)
    yield go_on
    go_on.set()


def test_rotation_does_not_wait(tmp_path: Path, held: threading.Event) -> None:
    """Rows are written and files rotated while nothing can be compressed; later all are."""
    with logs(tmp_path, rotate_size=4096) as written:
        for _ in range(7):
            append(written, 40)
        assert [file.suffix == ".gz" for file in files(tmp_path)] == [False] * 7

        held.set()
        assert written.compressor.settle(60)
        assert [file.suffix == ".gz" for file in files(tmp_path)] == [True] * 6 + [False]
        assert numbers(tmp_path) == list(range(1, 281))


def test_falling_behind(tmp_path: Path, held: threading.Event) -> None:
    """Plain files count as they are: the cap holds all the time, the oldest go, the newest rows stay."""
    with logs(tmp_path, rotate_size=4096, keep_per_user=20000) as written:
        for _ in range(31):
            append(written, 40)
            assert used(tmp_path) <= 20000 + 2 * 4096

        found = numbers(tmp_path)
        assert found == list(range(found[0], 31 * 40 + 1))
        assert found[0] > 1
        held.set()
        assert written.compressor.settle(60)
        assert numbers(tmp_path) == found


def test_closed_before_it_is_done(tmp_path: Path, held: threading.Event) -> None:
    """What waits when the output closes stays plain, and is compressed after the next start."""
    with logs(tmp_path, rotate_size=4096) as written:
        for _ in range(3):
            append(written, 40)
        held.set()
    with logs(tmp_path) as written:
        written.clean_up(START)
        assert written.compressor.settle(60)

    assert [file.suffix for file in files(tmp_path)[:-1]] == [".gz", ".gz"]
    assert numbers(tmp_path) == list(range(1, 121))


def test_interrupted(tmp_path: Path, directory: int) -> None:
    """The plain file stays as it is, and nothing half-made."""
    file = path_of(tmp_path).with_name(f"{path_of(tmp_path).name}-20261121T033001Z")
    file.write_bytes(rows(1, 23))

    compress(file.name, directory, ALICE, lambda: True)

    assert [each.name for each in file.parent.iterdir()] == [file.name]
    assert numbers(tmp_path) == list(range(1, 24))


def test_deleted_while_it_is_compressed(tmp_path: Path, directory: int) -> None:
    """A file that a cap deletes meanwhile does not come back, neither in part."""
    file = path_of(tmp_path).with_name(f"{path_of(tmp_path).name}-20261121T033001Z")
    file.write_bytes(rows(1, 7000))
    assert file.stat().st_size > 2 * compressor.BLOCK

    def delete() -> bool:
        if file.exists():
            remove(file.name, directory)
        return False

    compress(file.name, directory, ALICE, delete)

    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize("what_ends_it", ["release", "close"])
def test_it_does_not_wait_for_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what_ends_it: str
) -> None:
    """Whoever needs the directory, or the end, interrupts it."""
    begun = threading.Event()

    def compress_for_ever(name: str, directory: int, uid: int, interrupted: Callable[[], bool]) -> None:
        begun.set()
        eventually(interrupted, "it is interrupted")

    monkeypatch.setattr(compressor, "compress", compress_for_ever)
    with logs(tmp_path, rotate_size=4096) as written:
        append(written, 40)
        append(written, 40)
        assert begun.wait(60)
        if what_ends_it == "release":
            written.release(ALICE)
            assert written.compressor.settle(0)


def test_what_a_kill_leaves(tmp_path: Path, directory: int) -> None:
    """A half-made file goes, and so does one that was emptied to be deleted."""
    name = f"{path_of(tmp_path).name}-20261121T033001Z"
    path_of(tmp_path).with_name(name).touch()
    path_of(tmp_path).with_name(f"{path_of(tmp_path).name}-20261121T020000Z.gz.tmp").write_bytes(b"half")

    assert compressor.finish(directory, ALICE, lambda: False) == []
    assert list(path_of(tmp_path).parent.iterdir()) == []


def test_released_users_are_left_alone(tmp_path: Path, held: threading.Event) -> None:
    """While another process writes a user's log, this one neither cuts, rotates nor compresses it."""
    with logs(tmp_path, rotate_size=4096) as mine, logs(tmp_path) as others:
        for _ in range(3):
            append(mine, 40)
        held.set()
        assert mine.release(ALICE) == (120, 0)
        before = {file.name: file.read_bytes() for file in files(tmp_path)}
        with path_of(tmp_path).open("ab") as log:
            log.write(b"in,1,half a li")
        mine.clean_up(START + 1e6)
        assert mine.compressor.settle(60)
        assert path_of(tmp_path).read_bytes() == before[path_of(tmp_path).name] + b"in,1,half a li"
        assert {file.name for file in files(tmp_path)} == before.keys()

        assert others.totals(ALICE) == (120, 0)
        append(others, 3)
        assert others.release(ALICE) == (123, 0)
        mine.claim(ALICE)
        append(mine, 7)
        assert mine.compressor.settle(60)

        assert numbers(tmp_path) == list(range(1, 131))
        users = os.open(path_of(tmp_path).parent, os.O_RDONLY)
        assert all(file.is_compressed for file in rotated.listing(users, ALICE)[1])
        os.close(users)


def test_totals_that_no_file_tells(tmp_path: Path) -> None:
    """Handed over with the user they are right although the rows were lost."""
    with logs(tmp_path) as written:
        append(written, 3)
        written.release(ALICE)
        written.claim(ALICE, (1000, 0))
        append(written, 1)

    assert numbers(tmp_path) == [1, 2, 3, 1001]
