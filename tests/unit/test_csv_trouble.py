"""Disks that are full and files that others move, replace or lock while rows are written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netmond.outputs.logs import Logs
from tests.unit.csvflows import ALICE, BOB, START, path_of
from tests.unit.csvlogs import append, files, logs, numbers

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount and to act as another user")

NOBODY = 65534


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,nr_inodes=200,mode=755", "netmond-test", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def leave_inodes(disk: Path, count: int) -> None:
    """So many more files can be made."""
    info = os.statvfs(disk)
    limit = info.f_files - info.f_ffree + count
    subprocess.run(["mount", "-o", f"remount,nr_inodes={limit}", str(disk)], check=True)


@needs_root
def test_full_disk_while_files_rotate(disk: Path) -> None:
    """Every row is in a file, whole, or counted; no half compressed file stays; later all goes on."""
    (disk / "filler").write_bytes(bytes(360 << 10))
    with logs(disk, rotate_size=16 << 10) as written:
        total = lost = 0
        while lost < 3000:
            lost += append(written, 53)
            total += 53
            assert lost or written.compressor.settle(60)
        assert written.compressor.settle(60)

        found = numbers(disk)
        assert sorted(set(found)) == found
        assert len(found) + written.lost_rows == total
        assert any(file.suffix == ".gz" for file in files(disk))
        assert not list(path_of(disk).parent.glob("*.tmp"))

        (disk / "filler").unlink()
        assert append(written, 1) == 0
        written.clean_up(START)
        assert written.compressor.settle(60)
        assert numbers(disk) == [*found, total + 1]
        assert {file.suffix for file in files(disk)[:-1]} == {".gz"}


@needs_root
def test_no_room_to_compress(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotated file stays plain and whole; the next clean-up with room compresses it."""
    with logs(disk, rotate_size=16 << 10) as written:
        append(written, 150)
        monkeypatch.setattr(written.compressor, "submit", lambda uid: True)
        append(written, 150)
        monkeypatch.undo()
        filler = disk / "filler"
        fill(filler)
        written.compressor.submit(ALICE)
        assert written.compressor.settle(60)
        assert [path.suffix for path in files(disk)] == [".log-20261121T033230Z", ".log"]
        assert numbers(disk) == list(range(1, 301))
        assert not list(path_of(disk).parent.glob("*.tmp"))

        filler.unlink()
        written.clean_up(START)
        assert written.compressor.settle(60)
        assert [path.suffix for path in files(disk)] == [".gz", ".log"]
        assert numbers(disk) == list(range(1, 301))


@needs_root
def test_no_room_for_a_new_file(disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Rotated, but the next file cannot be made: that is what is said, rows are counted, and later there."""
    with logs(disk, rotate_size=16 << 10) as written:
        append(written, 150)
        leave_inodes(disk, 1)  # which the totals take
        assert append(written, 150) == append(written, 150) == 150
        assert [record.message for record in caplog.records] == [
            f"CSV files of user 1009 cannot be used: {path_of(disk).name}: No space left on device"
        ]
        leave_inodes(disk, 20)
        assert append(written, 7) == 0
        assert numbers(disk) == [*range(1, 151), *range(451, 458)]


def fill(path: Path) -> None:
    """Take all the room there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert os.statvfs(path.parent).f_bavail == 0


def aside(path: Path) -> Path:
    """Rename it."""
    return path.rename(path.with_name(f"{path.name}.aside"))


def moved(path: Path, victim: Path) -> None:
    aside(path)


def linked(path: Path, victim: Path) -> None:
    aside(path)
    path.symlink_to(victim, target_is_directory=victim.is_dir())


def replaced(path: Path, victim: Path) -> None:
    old = aside(path)
    if old.is_dir():
        path.mkdir(0o700)
    else:
        path.touch(0o600)


def by_the_other_kind(path: Path, victim: Path) -> None:
    if aside(path).is_dir():
        path.touch()
    else:
        path.mkdir()


@pytest.mark.parametrize("what", ["log_dir", "users", "user", "log"])
@pytest.mark.parametrize("change", [moved, linked, replaced, by_the_other_kind])
def test_moved_and_replaced(tmp_path: Path, what: str, change: Callable[[Path, Path], object]) -> None:
    """Nothing is written where it should not be; each row is in one place or counted; then all goes on."""
    victim = tmp_path / "victim"
    victim.mkdir()
    precious = victim / "precious"
    precious.write_text("precious\n")
    log_dir = tmp_path / "log"
    log_dir.mkdir()
    with logs(log_dir) as written:
        append(written, 3)
        append(written, 5, BOB)
        log = path_of(log_dir)
        path = {"log_dir": log_dir, "users": log_dir / "users", "user": log.parent, "log": log}[what]
        change(path, precious if what == "log" else victim)
        append(written, 7)
        append(written, 11, BOB)
        lost = written.lost_rows
        found = {uid: all_numbers(tmp_path, uid) for uid in (ALICE, BOB)}
        assert len(found[ALICE]) + len(found[BOB]) + lost == 3 + 5 + 7 + 11
        assert len(set(found[ALICE])) == len(found[ALICE])
        assert precious.read_text() == "precious\n"
        assert what in ("log_dir", "users") or len(found[BOB]) == 16

        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        path.with_name(f"{path.name}.aside").rename(path)
        assert append(written, 1) == append(written, 1, BOB) == 0
    assert all_numbers(tmp_path, ALICE)[-1] == 3 + 7 + 1
    assert all_numbers(tmp_path, BOB)[-1] == 5 + 11 + 1
    assert precious.read_text() == "precious\n"
    assert sorted(path.name for path in victim.rglob("*")) == ["precious"] or what == "log_dir"


def all_numbers(root: Path, uid: int) -> list[int]:
    """Of all rows of a user wherever they are below `root`."""
    found = [
        int(line.split(b",")[5])
        for path in root.rglob(f"*traffic_user_all_{uid}.log*")
        if path.is_file() and not path.is_symlink()
        for line in path.read_bytes().splitlines()
        if line.startswith(b"in,")
    ]
    return sorted(found)


@needs_root
@pytest.mark.parametrize(("what", "lost"), [("users", 5), ("user", 5), ("log", 0)])
def test_locked(what: str, lost: int) -> None:
    """chmod 0 of what the daemon, which is not root, owns: rows are counted until it is undone; an open file
    is written to, and opened again it has its access."""
    log_dir = Path(tempfile.mkdtemp(prefix="netmond-test-"))
    try:
        os.chown(log_dir, NOBODY, NOBODY)
        path = {"users": log_dir / "users", "user": path_of(log_dir).parent, "log": path_of(log_dir)}[what]

        def act(written: Logs) -> list[int]:
            append(written, 3)
            mode = path.stat().st_mode
            path.chmod(0)
            found = [append(written, 5)]
            path.chmod(mode)
            return [*found, append(written, 7), *written.totals(ALICE)]

        assert as_nobody(log_dir, act) == [lost, 0, 15, 0]
        assert len(numbers(log_dir)) == 15 - lost
    finally:
        shutil.rmtree(log_dir)


@needs_root
def test_a_locked_file_at_the_start() -> None:
    """A log that may not be opened costs its rows, and is used again once it may."""
    log_dir = Path(tempfile.mkdtemp(prefix="netmond-test-"))
    try:
        os.chown(log_dir, NOBODY, NOBODY)
        assert as_nobody(log_dir, lambda written: append(written, 3)) == 0
        path_of(log_dir).chmod(0)

        def act(written: Logs) -> list[int]:
            found = [append(written, 5)]
            path_of(log_dir).chmod(0o600)
            return [*found, append(written, 7), *written.totals(ALICE)]

        assert as_nobody(log_dir, act) == [5, 0, 15, 0]
    finally:
        shutil.rmtree(log_dir)


def as_nobody(log_dir: Path, act: Callable[[Logs], object]) -> object:
    """What the function returns, called in a process without any privilege."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with logs(log_dir) as written:
                os.write(write, json.dumps(act(written)).encode())
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    os.close(write)
    with open(read, "rb") as answer:
        told = answer.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return json.loads(told)
