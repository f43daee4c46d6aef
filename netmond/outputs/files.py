"""Files of one user below ``users/<uid>/``, opened so that nobody can plant a path.

Everything is opened by name below a directory descriptor, without following links, and refused unless it
is a plain file or directory of ours. Functions raise OSError; nothing here decides what a loss means.

In a user's directory: the log itself, ``<log>-<UTC time>`` when rotated and ``<log>-<UTC time>.gz`` when
compressed, ``*.tmp`` while something is made, and ``totals``, the running totals at the last rotation.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from netmond.outputs import csvrows

DIRECTORY_MODE = 0o750
FILE_MODE = 0o640
BLOCK = 1 << 16

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_TOTALS = "totals"
_STAMP = "%Y%m%dT%H%M%SZ"
_UID = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_ROTATED = re.compile(r"(?P<log>.+)-(?P<stamp>[0-9]{8}T[0-9]{6}Z)(?P<gz>\.gz)?", re.ASCII)


def open_directory(path: str, parent: int | None = None, *, trusted: bool = False) -> int:
    """Open a directory, making it if it is not there. Only a `trusted` path may be a link or another's."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if trusted else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(path, DIRECTORY_MODE, dir_fd=parent)
        fd = os.open(path, flags, dir_fd=parent)
        os.fchmod(fd, DIRECTORY_MODE)  # whatever the umask
    info = os.fstat(fd)
    if not trusted and (not _ours(info) or info.st_mode & stat.S_IWOTH):
        os.close(fd)
        raise PermissionError(
            errno.EPERM, "directory belongs to somebody else or everybody may write it", path
        )
    return fd


def open_file(name: str, directory: int, flags: int) -> int:
    """Open one of our files; with O_CREAT make it if it is not there."""
    try:
        fd = os.open(name, (flags & ~os.O_CREAT) | _FLAGS, dir_fd=directory)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
        fd = os.open(name, flags | os.O_EXCL | _FLAGS, FILE_MODE, dir_fd=directory)
        os.fchmod(fd, FILE_MODE)  # whatever the umask
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1 or not _ours(info):
        os.close(fd)
        raise PermissionError(errno.EPERM, "not a plain file of netmond's own, remove it", name)
    return fd


def _ours(info: os.stat_result) -> bool:
    return info.st_uid in (0, os.geteuid())


def uids(users: int) -> list[int]:
    """The users that have a directory."""
    return sorted(int(name) for name in os.listdir(users) if _UID.fullmatch(name))


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
        self.directory = open_directory(str(uid), users)
        try:
            self._open()
        except BaseException:
            os.close(self.directory)
            raise

    def _open(self) -> None:
        self._fd = open_file(self.name, self.directory, os.O_RDWR | os.O_APPEND | os.O_CREAT)
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
            mark = _mark_of_rotated(self.directory, files.pop().name)
        total_in, total_out = _read_totals(self.directory)
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
        with _Replacement(self.directory, _TOTALS) as fd:
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
            compress(self.directory, aside)

    def close(self) -> None:
        for fd in (self._fd, self.directory):
            with suppress(OSError):
                os.close(fd)


class _Replacement:
    """A new file that takes the name of an old one when it is complete, and else disappears."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._making = f"{name}.tmp"

    def __enter__(self) -> int:
        with suppress(FileNotFoundError):
            os.unlink(self._making, dir_fd=self._directory)
        self._fd = open_file(self._making, self._directory, os.O_WRONLY | os.O_CREAT)
        return self._fd

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._fd)
        if kind is None:
            os.rename(self._making, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        else:
            with suppress(OSError):
                os.unlink(self._making, dir_fd=self._directory)


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


def compress(directory: int, name: str) -> None:
    """Replace a rotated file by its compressed form; at every moment one of them is there, whole."""
    source = open_file(name, directory, os.O_RDONLY)
    with open(source, "rb") as plain, _Replacement(directory, f"{name}.gz") as fd:
        with (
            open(fd, "wb", closefd=False) as packed,
            gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as stream,
        ):
            shutil.copyfileobj(plain, stream, BLOCK)
        os.fsync(fd)
    os.unlink(name, dir_fd=directory)


def finish(directory: int, uid: int, log: str) -> None:
    """Finish what a crash or a full disk interrupted: half-made files, files not yet compressed."""
    for name in os.listdir(directory):
        if name.endswith(".tmp"):
            os.unlink(name, dir_fd=directory)
    names = {file.name for file in rotated(directory, uid, log)}
    for name in sorted(names):
        if f"{name}.gz" in names:
            os.unlink(name, dir_fd=directory)
        elif not name.endswith(".gz"):
            compress(directory, name)


def _mark_of_rotated(directory: int, name: str) -> csvrows.Mark | None:
    """The last row of a rotated file, of a damaged one the last that can be read."""
    found, rest = None, b""
    try:
        with open(open_file(name, directory, os.O_RDONLY), "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
            while block := stream.read(BLOCK):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                found = csvrows.last_mark(whole + newline) or found
    except (OSError, EOFError, zlib.error):
        pass
    return found


def _read_totals(directory: int) -> tuple[int, int]:
    try:
        with open(open_file(_TOTALS, directory, os.O_RDONLY), "rb") as file:
            match = re.fullmatch(rb"(\d+) (\d+)\n", file.read(64))
    except OSError:
        return 0, 0
    return (int(match[1]), int(match[2])) if match else (0, 0)


def usage(users: int, uid: int) -> tuple[int, list[Rotated]]:
    """Bytes in one user's directory, and every rotated file in it, of whatever log, oldest first."""
    used, found = 0, []
    directory = open_directory(str(uid), users)
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
