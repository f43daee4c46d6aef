"""A user's log while it is written: whole lines as they come, over the renaming and the cutting of files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from netmonctl.errors import CtlError, ExitCode, NotAllowed

#: Bytes read at a time.
BLOCK = 1 << 20

#: Bytes that may wait to be shown; of more, all but the last BLOCK are left out.
MAX_BEHIND = 8 << 20

#: Seconds between two questions for the next file, at first and at last, and from when on it is told why
#: there is none: netmond may be gone for a while.
FIRST_RETRY, LAST_RETRY, TOLD = 0.1, 5.0, 1.0


_CUT = "the log was cut; it is read from its begin"
_PACKED = "the log was put aside and packed before all of it was read: rows are missing"


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines, without their ends. `fresh`: the first of another file than before."""

    lines: list[str]
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something to say about the rows that come next, or do not come."""

    text: str


class File:
    """One file of a log. Belongs to whoever made it, who closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._link = self._name()
        self._position = 0
        self._torn = b""

    def close(self) -> None:
        os.close(self._fd)

    @property
    def size(self) -> int:
        """Bytes it has now."""
        return os.fstat(self._fd).st_size

    @property
    def behind(self) -> int:
        """Bytes it has that were not read; less than none if it was cut."""
        return self.size - self._position

    @property
    def renamed(self) -> bool:
        """Whether it got another name, or none: nothing will be appended to it.

        The link tells without asking anybody, also about a file in a directory that may not be read.
        """
        return self._name() != self._link

    def goes_on(self, before: File) -> bool:
        """Whether this is the same file; then it is read from where that one was."""
        same = os.path.sameopenfile(self._fd, before._fd)
        if same:
            self._position, self._torn = before._position, before._torn
        return same

    def last(self, enough: Callable[[list[str]], bool]) -> list[str]:
        """The last lines, ever more until there are enough or no more; reading goes on after them."""
        end, span = self.size, BLOCK
        while True:
            begin = max(0, end - span)
            data = self._pread(begin, end)
            first = data.find(b"\n") + 1 if begin else 0
            last = data.rfind(b"\n") + 1
            lines = _lines(data[first:last])
            if not begin or enough(lines):
                self._position, self._torn = begin + len(data), data[last:]
                return lines
            span *= 4

    def more(self) -> list[str]:
        """Whole lines that came since; a line that has no end yet waits for it."""
        data = os.pread(self._fd, BLOCK, self._position)
        self._position += len(data)
        whole, newline, self._torn = (self._torn + data).rpartition(b"\n")
        return _lines(whole + newline)

    def skip(self) -> int:
        """Leave out all but about the last BLOCK; how many lines that were."""
        until, count = self.size - BLOCK, 0
        while self._position < until and (data := os.pread(self._fd, BLOCK, self._position)):
            self._position += len(data)
            count += data.count(b"\n")
        data = self._pread(max(0, self._position - BLOCK), self._position)
        self._torn = data.rpartition(b"\n")[2]
        return count

    def rewind(self) -> None:
        """Begin anew."""
        self._position, self._torn = 0, b""

    def _pread(self, begin: int, end: int) -> bytes:
        parts = []
        while begin < end and (part := os.pread(self._fd, end - begin, begin)):
            parts.append(part)
            begin += len(part)
        return b"".join(parts)

    def _name(self) -> str:
        return os.readlink(f"/proc/self/fd/{self._fd}")


def _lines(data: bytes) -> list[str]:
    """The lines in it, all of which have an end. What is no UTF-8 does not get any further."""
    return data.decode(errors="replace").split("\n")[:-1]


class Follower:
    """What comes in a log. `open_log` gives a descriptor of the present file, or raises CtlError."""

    def __init__(self, open_log: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._open_log = open_log
        self._clock = clock
        self._pause, self._due = FIRST_RETRY, 0.0
        self._trouble = ""
        self.file = File(open_log())

    def close(self) -> None:
        self.file.close()

    def events(self) -> Iterator[Lines | Note | None]:
        """For ever; None: there is nothing at present. CtlError: not allowed to read the next file."""
        fresh = False
        while True:
            # Asked before reading: what is written after the renaming is in the next file.
            renamed = self.file.renamed
            if self.file.behind < 0:
                yield Note(_PACKED if renamed else _CUT)
                self.file.rewind()
            elif self.file.behind > MAX_BEHIND:
                yield Note(f"{self.file.skip()} rows left out: they come faster than they can be shown")
            lines = self.file.more()
            if lines:
                yield Lines(lines, fresh)
                fresh = False
            elif self.file.behind > 0:
                continue  # a long line, of which there is more
            elif renamed and self._turn():
                fresh = True
            else:
                if self._trouble:
                    yield Note(self._trouble)
                    self._trouble = ""
                yield None

    def _turn(self) -> bool:
        """Go on with the next file, if there is one; with the same if its directory has another name."""
        if self._clock() < self._due:
            return False
        try:
            new = File(self._open_log())
        except NotAllowed:
            raise
        except CtlError as error:
            self._due = self._clock() + self._pause
            if error.code != ExitCode.UNKNOWN_OBJECT and self._pause < TOLD <= 2 * self._pause:
                self._trouble = f"waiting: {error}"
            self._pause = min(2 * self._pause, LAST_RETRY)
            return False
        self._pause, self._due = FIRST_RETRY, 0.0
        same = new.goes_on(self.file)
        self.file.close()
        self.file = new
        return not same
