"""One user's log in ``users/<uid>``: appended to and put aside; and the running totals it tells.

In a user's directory: the log itself, ``<log>-<UTC time>`` when rotated and ``<log>-<UTC time>.gz`` when
compressed, ``*.tmp`` while something is made, and ``totals``, the running totals at the last rotation.
The user may read all but the unfinished (`files`). Functions raise OSError.

After SIGKILL all that was appended is there; at most one line is torn, and cut when the log is opened. After
a loss of power the same is true of what the kernel had written to the disk, which it does after half a
minute (vm.dirty_expire_centisecs). Nothing waits for the disk, but that a rotated file is there compressed
before the plain one is deleted.
"""

from __future__ import annotations

import os
import re
import zlib
from contextlib import suppress

from netmond.outputs import csvrows, rotated
from netmond.outputs.access import is_open_to
from netmond.outputs.files import Replacement, open_directory, open_file

BLOCK = 1 << 16

#: zlib's window bits for the format of gzip.
GZIP = 31

_TOTALS = "totals"


def log_name(nic: str, uid: int) -> str:
    """The name of the log in the user's directory."""
    return f"traffic_user_{nic}_{uid}.log"


class UserLog:
    """One user's log, open for appending. Opening cuts off a torn last line."""

    def __init__(self, users: int, uid: int, name: str) -> None:
        self.uid = uid
        self.name = name
        self._newest: str | None = None  # the stamp of the newest rotated file, once that was looked for
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
            return os.path.samestat(there, os.fstat(self._fd))
        except OSError:
            return False

    def append(self, lines: bytes | memoryview) -> OSError | None:
        """Write whole lines. On failure the file ends with a whole line, `size` tells with which."""
        before = self.size
        done = 0
        try:
            while done < len(lines):
                done += os.write(self._fd, memoryview(lines)[done:])
        except OSError as error:
            with suppress(OSError):  # then the line is cut when the file is opened again
                os.ftruncate(self._fd, before + bytes(lines[:done]).rfind(b"\n") + 1)
            return error
        return None

    def totals(self) -> tuple[int, int]:
        """The running totals (in, out) as the files tell them: they only grow, so the greatest counts."""
        mark = self._mark_of_log()
        files = [] if mark else rotated.of_log(self.directory, self.uid, self.name)
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
        """Put the file aside under a name with the time, and begin a new one."""
        self.save_totals(*totals)
        if self._newest is None:
            files = rotated.of_log(self.directory, self.uid, self.name)
            self._newest = files[-1].stamp if files else ""
        self._newest = rotated.stamp_after(self._newest, now)
        aside = f"{self.name}-{self._newest}"
        os.rename(self.name, aside, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        os.close(self._fd)
        self._fd = -1
        self._open()

    def close(self) -> None:
        for fd in (self._fd, self.directory):
            with suppress(OSError):
                os.close(fd)


def _mark_of_rotated(name: str, directory: int, uid: int) -> csvrows.Mark | None:
    """The last row of a rotated file, of a damaged one the last that can be read."""
    found, rest = None, b""
    stream = zlib.decompressobj(wbits=GZIP) if name.endswith(".gz") else None
    with suppress(OSError, zlib.error), open(open_file(name, directory, os.O_RDONLY, uid), "rb") as file:
        while block := file.read(BLOCK):
            text = stream.decompress(block) if stream else block
            whole, newline, rest = (rest + text).rpartition(b"\n")
            found = csvrows.last_mark(whole + newline) or found
    return found


def _read_totals(directory: int, uid: int) -> tuple[int, int]:
    try:
        with open(open_file(_TOTALS, directory, os.O_RDONLY, uid), "rb") as file:
            match = re.fullmatch(rb"(\d+) (\d+)\n", file.read(64))
    except OSError:
        return 0, 0
    return (int(match[1]), int(match[2])) if match else (0, 0)
