"""What a crash leaves of the CSV files, at whatever byte: whole lines, and the totals that those tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from netmond.outputs import csvrows
from netmond.outputs.compressor import compress
from netmond.outputs.userlog import GZIP, UserLog
from tests.kernel.deadline import eventually
from tests.unit.csvflows import ALICE, START, flow, outputs, path_of, snapshot
from tests.unit.csvlogs import append, files, logs, numbers, rows

LOG = path_of(Path()).name
STAMPED = f"{LOG}-20261121T033001Z"


def comment(text: str, total_in: int, total_out: int) -> bytes:
    """A comment that tells the totals."""
    return f"# {text} timestamp={START:.9f} total_in={total_in} total_out={total_out}\n".encode()


def written_by_all(log_dir: Path) -> list[tuple[bytes, tuple[int, int] | None]]:
    """Lines as both modes write them, hostile names and comments among them, and the totals each tells."""
    unit = 'in,1,,,1.0,7,7\n"café" # total_in=9 total_out=9'
    with outputs(log_dir) as start:
        output = start()
        output.write(snapshot(1, flow(1, received=23, sent=29)))
        output.write(snapshot(2, flow(2, received=31, comm=b'a,"\n\xff# ', unit_index=1), units=("", unit)))
        output.write(snapshot(3, flow(3, sent=37, comm="ж# total_in=9".encode())))
    interval = path_of(log_dir).read_bytes().splitlines(keepends=True)
    assert len(interval) == 5
    packet = b"in,1500,192.0.2.7,198.51.100.4,1795231800.123456789,%d,66,1,443,51544,tcp,a.scope,4211,curl\n"
    return [
        *zip(interval, (None, (23, 0), (23, 29), (54, 29), (54, 66)), strict=True),
        (b"# packet mode begins: every packet\n", None),
        (packet % 1554, (1554, 66)),
        (comment("lost: packets=12 bytes_in=18000 bytes_out=0", 19554, 66), (19554, 66)),
        (packet % 21054, (21054, 66)),
        (b"# total_in=99999999 total_out=99999999\n", None),
        (b"# packet mode ends: \xc3\xa9\n", None),
    ]


Lines = list[tuple[bytes, tuple[int, int] | None]]


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    """What `written_by_all` says."""
    return written_by_all(tmp_path / "original")


@pytest.fixture
def users(tmp_path: Path) -> Iterator[int]:
    """The directory of all users, with one of ALICE in it, as a descriptor."""
    path_of(tmp_path).parent.mkdir(parents=True)
    fd = os.open(tmp_path / "users", os.O_RDONLY)
    yield fd
    os.close(fd)


def opened(users: int) -> tuple[int, int]:
    """Open a log as a new daemon does; the totals it finds."""
    user = UserLog(users, ALICE, LOG)
    try:
        return user.totals()
    finally:
        user.close()


def kept(lines: Lines, size: int) -> tuple[bytes, tuple[int, int]]:
    """The whole ones of these lines in so many bytes, and the last totals in them."""
    whole, totals = b"", (0, 0)
    for line, told in lines:
        if len(whole) + len(line) > size:
            break
        whole += line
        totals = told or totals
    return whole, totals


def test_log_cut_anywhere(tmp_path: Path, users: int, lines: Lines) -> None:
    """Within a number, an escape, a quoted field or a letter of two bytes: never more, never less."""
    whole = b"".join(line for line, _ in lines)
    log = path_of(tmp_path)
    for cut in range(len(whole) + 1):
        log.write_bytes(whole[:cut])

        assert (opened(users), log.read_bytes()) == kept(lines, cut)[::-1], cut


def test_a_hole_at_the_end(tmp_path: Path, users: int, lines: Lines) -> None:
    """Zeros behind what had been written, as some file systems leave them, are cut like half a line."""
    whole = b"".join(line for line, _ in lines)
    log = path_of(tmp_path)
    for cut in range(0, len(whole), 7):
        log.write_bytes(whole[:cut] + bytes(100_000))

        assert (opened(users), log.read_bytes()) == kept(lines, cut)[::-1], cut


def test_rotated_file_cut_anywhere(tmp_path: Path, users: int, lines: Lines) -> None:
    """Killed when the new log was empty, and the totals file lost: all tell that can be read of it."""
    whole = b"".join(line for line, _ in lines)
    log, plain = path_of(tmp_path), path_of(tmp_path).with_name(STAMPED)
    plain.write_bytes(whole)
    directory = os.open(plain.parent, os.O_RDONLY)
    compress(STAMPED, directory, ALICE, lambda: False)
    os.close(directory)
    packed = plain.with_name(f"{STAMPED}.gz").read_bytes()
    assert opened(users) == kept(lines, len(whole))[1]

    for cut in range(0, len(packed), 3):
        plain.with_name(f"{STAMPED}.gz").write_bytes(packed[:cut])
        text = zlib.decompressobj(wbits=GZIP).decompress(packed[:cut])
        assert opened(users) == kept(lines, len(text))[1], cut
    assert log.read_bytes() == b""
    plain.with_name(f"{STAMPED}.gz").unlink()

    for cut in range(0, len(whole), 7):
        plain.write_bytes(whole[:cut])
        assert opened(users) == kept(lines, cut)[1], cut


@pytest.mark.parametrize("hole", [0, 1 << 20])
def test_rotated_file_that_lost_its_end(tmp_path: Path, users: int, hole: int) -> None:
    """After a loss of power: what is compressed of it are its whole lines."""
    plain = path_of(tmp_path).with_name(STAMPED)
    plain.write_bytes(rows(1, 5000)[:-7] + bytes(hole))
    directory = os.open(plain.parent, os.O_RDONLY)
    compress(STAMPED, directory, ALICE, lambda: False)
    os.close(directory)

    assert numbers(tmp_path) == list(range(1, 5000))
    assert opened(users) == (4999, 0)


def test_totals_file_cut_anywhere(tmp_path: Path, users: int) -> None:
    """It counts only if it is whole; what the log tells counts in any case."""
    log, totals = path_of(tmp_path), path_of(tmp_path).with_name("totals")
    user = UserLog(users, ALICE, LOG)
    user.save_totals(1234567, 89)
    user.close()
    whole = totals.read_bytes()
    for text, told in ((b"", (0, 0)), (rows(23, 23), (23, 0))):
        log.write_bytes(text)
        for cut in range(len(whole)):
            totals.write_bytes(whole[:cut])
            assert opened(users) == told, cut
        totals.write_bytes(whole)
        assert opened(users) == (1234567, 89)


def test_counting_rows_among_comments() -> None:
    """A comment is not a row, wherever it is."""
    assert csvrows.count(b"") == 0
    assert csvrows.count(b"# a\n" + rows(1, 3) + b"# b\n# c\n" + rows(4, 4) + b"# d\n") == 4


WRITER = """
import sys
from pathlib import Path
from netmond.outputs.compressor import Compressor
from tests.unit.csvflows import START
from tests.unit.csvlogs import append, logs

with logs(Path(sys.argv[1]), rotate_size=65536, keep_per_user=1 << 30) as written:
    written.clean_up(START)
    while True:
        append(written, 101)
"""


def has_files(log_dir: Path, enough: int) -> bool:
    """Whether there are so many."""
    return len(files(log_dir)) >= enough


def test_killed_while_it_writes(tmp_path: Path) -> None:
    """SIGKILL at any moment, again and again: each row is there once, and the next goes on from the last."""
    last = 0
    for _ in range(3):
        enough = len(files(tmp_path)) + 5
        writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=Path(__file__).parents[2])
        try:
            eventually(partial(has_files, tmp_path, enough), "files are rotated")
        finally:
            writer.kill()
            assert writer.wait(60) == -signal.SIGKILL
        with logs(tmp_path) as written:
            total = written.totals(ALICE)[0]
            assert written.compressor.settle(60)  # else a plain file may be empty by now
            found = numbers(tmp_path)
            assert found == list(range(1, total + 1))
            assert total > last
            last = total

    with logs(tmp_path, keep_per_user=1 << 30) as written:
        written.clean_up(START)
        assert written.compressor.settle(60)
        append(written, 1)
    assert numbers(tmp_path) == list(range(1, last + 2))
    left = {path.suffix for path in path_of(tmp_path).parent.iterdir()}
    assert left <= {".gz", ".log", ""}, "nothing half made stays"
