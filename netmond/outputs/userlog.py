"""One user's log in ``users/<uid>``: appended to, put aside, compressed; and the running totals it tells.

In a user's directory: the log itself, ``<log>-<UTC time>`` when rotated and ``<log>-<UTC time>.gz`` when
compressed, ``*.tmp`` while something is made, and ``totals``, the running totals at the last rotation.
The user may read all but the unfinished (`files`). Functions raise OSError.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from netmond.model import NOBODY_UID
from netmond.outputs import csvrows
from netmond.outputs.access import is_open_to
from netmond.outputs.files import Replacement, open_directory, open_file, remove

BLOCK = 1 << 16

#: The fastest of gzip's levels. Its default, 6, takes six times as long to make files a fifth smaller: with
#: 100,000 active flows that is more than everything else the output does.
_COMPRESSION = 1

_TOTALS = "totals"
_STAMP = "%Y%m%dT%H%M%SZ"
_UID = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_ROTATED = re.compile(r"(?P<log>.+)-(?P<stamp>[0-9]{8}T[0-9]{6}Z)(?P<gz>\.gz)?", re.ASCII)


def uids(users: int) -> list[int]:
    """The users that have a directory."""
    return sorted(int(name) for name in os.listdir(users) if _UID.fullmatch(name) and int(name) < NOBODY_UID)


@dataclass(frozen=True, slots=True, order=True)
class Rotated:
    """A rotated file; the order is by age, oldest first."""

    stamp: str
    uid: int
    name: str
    size: int


class UserLog:
    """One user's log, open for appending. Opening cuts off a torn last line."""

    def __init__(self, users: int, uid: int, name: str) -> None:
        self.uid = uid
        self.name = name
        self.directory = open_directory(str(uid), users, reader=uid)
        try:
            self._open()
        except BaseException:
            os.close(self.directory)
            raise

    def _open(self) -> None:
        self._fd = open_file(self.name, self.directory, os.O_RDWR | os.O_APPEND | os.O_CREAT, self.uid)
        try:
            self._cut_torn_line()
            first = next(
                filter(None, map(csvrows.mark, os.pread(self._fd, BLOCK, 0).split(b"\n")[:-1])), None
            )
        except BaseException:
            os.close(self._fd)
            raise
        self.started = first.timestamp if first else None  #: time of the first row

    def _cut_torn_line(self) -> None:
        size = end = os.fstat(self._fd).st_size
        while end > 0:
            begin = max(0, end - BLOCK)
            newline = os.pread(self._fd, end - begin, begin).rfind(b"\n")
            end = begin + newline + 1 if newline >= 0 else begin
            if newline >= 0:
                break
        if end != size:
            os.ftruncate(self._fd, end)

    @property
    def size(self) -> int:
        return os.fstat(self._fd).st_size

    @property
    def is_open_to_user(self) -> bool:
        """Whether the user may read it; not so where the file system has no access control lists."""
        return is_open_to(self._fd, self.uid)

    def is_current(self, users: int) -> bool:
        """Whether this still is the file at its path: nobody removed or replaced it or its directory."""
        try:
            there = os.stat(f"{self.uid}/{self.name}", dir_fd=users, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._fd))

    def append(self, lines: bytes) -> OSError | None:
        """Write whole lines. On failure the file ends with a whole line, `size` tells with which."""
        before = self.size
        done = 0
        try:
            while done < len(lines):
                done += os.write(self._fd, memoryview(lines)[done:])
        except OSError as error:
            with suppress(OSError):  # then the line is cut when the file is opened again
                os.ftruncate(self._fd, before + lines.rfind(b"\n", 0, done) + 1)
            return error
        return None

    def totals(self) -> tuple[int, int]:
        """The running totals (in, out) as the files tell them: they only grow, so the greatest counts."""
        mark = self._mark_of_log()
        files = rotated(self.directory, self.uid, self.name)
        while mark is None and files:
            mark = _mark_of_rotated(files.pop().name, self.directory, self.uid)
        total_in, total_out = _read_totals(self.directory, self.uid)
        return (
            (max(mark.total_in, total_in), max(mark.total_out, total_out)) if mark else (total_in, total_out)
        )

    def _mark_of_log(self) -> csvrows.Mark | None:
        begin = size = self.size
        while begin > 0:
            begin = max(0, size - 4 * (size - begin) - BLOCK)
            lines = os.pread(self._fd, size - begin, begin)
            if begin:  # somewhere within a line, whose rest might look like a row
                lines = lines.partition(b"\n")[2]
            if (found := csvrows.last_mark(lines)) is not None:
                return found
        return None

    def save_totals(self, total_in: int, total_out: int) -> None:
        """Replace the totals file."""
        with Replacement(_TOTALS, self.directory, self.uid) as fd:
            os.write(fd, b"%d %d\n" % (total_in, total_out))

    def rotate(self, now: float, totals: tuple[int, int]) -> None:
        """Put the file aside under a name with the time, compressed if possible, and begin a new one."""
        self.save_totals(*totals)
        stamp = datetime.fromtimestamp(int(now), UTC).strftime(_STAMP)
        files = rotated(self.directory, self.uid, self.name)
        if files and files[-1].stamp >= stamp:  # the clock went back, or twice within a second
            newest = datetime.strptime(files[-1].stamp, _STAMP).replace(tzinfo=UTC).timestamp()
            stamp = datetime.fromtimestamp(newest + 1, UTC).strftime(_STAMP)
        aside = f"{self.name}-{stamp}"
        os.rename(self.name, aside, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        os.close(self._fd)
        self._fd = -1
        self._open()
        with suppress(OSError):  # a full disk: the next clean-up tries again
            compress(aside, self.directory, self.uid)

    def close(self) -> None:
        for fd in (self._fd, self.directory):
            with suppress(OSError):
                os.close(fd)


def rotated(directory: int, uid: int, log: str) -> list[Rotated]:
    """The rotated files of one log, oldest first; one that exists both plain and compressed twice."""
    found = []
    for name in os.listdir(directory):
        match = _ROTATED.fullmatch(name)
        if match and match["log"] == log:
            with suppress(FileNotFoundError):
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
                found.append(Rotated(match["stamp"], uid, name, info.st_size))
    return sorted(found)


def compress(name: str, directory: int, uid: int) -> None:
    """Replace a rotated file by its compressed form; at every moment one of them is there, whole."""
    source = open_file(name, directory, os.O_RDONLY, uid)
    with open(source, "rb") as plain, Replacement(f"{name}.gz", directory, uid) as fd:
        with (
            open(fd, "wb", closefd=False) as packed,
            gzip.GzipFile("", "wb", compresslevel=_COMPRESSION, fileobj=packed, mtime=0) as stream,
        ):
            shutil.copyfileobj(plain, stream, BLOCK)
        os.fsync(fd)
    remove(name, directory)


def finish(directory: int, uid: int, log: str) -> list[OSError]:
    """Bring a directory in order; what stands in the way is left alone and returned.

    Half-made files go, files a full disk left uncompressed are compressed, all logs get their access.
    """
    logs = {file.name for file in rotated(directory, uid, log)}
    problems = []
    for name in sorted(os.listdir(directory)):
        try:
            if name.endswith(".tmp"):
                os.unlink(name, dir_fd=directory)
            elif name in logs and f"{name}.gz" in logs:
                remove(name, directory)
            elif name in logs and not name.endswith(".gz"):
                compress(name, directory, uid)
            elif name.endswith(".log") or _ROTATED.fullmatch(name):
                os.close(open_file(name, directory, os.O_RDONLY, uid))
        except OSError as error:
            error.filename = name
            problems.append(error)
    return problems


def _mark_of_rotated(name: str, directory: int, uid: int) -> csvrows.Mark | None:
    """The last row of a rotated file, of a damaged one the last that can be read."""
    found, rest = None, b""
    try:
        with open(open_file(name, directory, os.O_RDONLY, uid), "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            while block := stream.read(BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                found = csvrows.last_mark(whole + newline) or found
    except (OSError, EOFError, zlib.error):
        pass
    return found


def _read_totals(directory: int, uid: int) -> tuple[int, int]:
    try:
        with open(open_file(_TOTALS, directory, os.O_RDONLY, uid), "rb") as file:
            match = re.fullmatch(rb"(\d+) (\d+)\n", file.read(64))
    except OSError:
        return 0, 0
    return (int(match[1]), int(match[2])) if match else (0, 0)


def usage(users: int, uid: int) -> tuple[int, list[Rotated]]:
    """Bytes in one user's directory, and every rotated file in it, of whatever log, oldest first."""
    used, found = 0, []
    directory = open_directory(str(uid), users, reader=uid)
    try:
        for name in os.listdir(directory):
            with suppress(FileNotFoundError):
                size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
                used += size
                if match := _ROTATED.fullmatch(name):
                    found.append(Rotated(match["stamp"], uid, name, size))
    finally:
        os.close(directory)
    return used, sorted(found)
