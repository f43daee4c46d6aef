"""Where captured packets are written: a file of one's own, or a ring of them."""

from __future__ import annotations

import errno
import math
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netmonctl.errors import CtlError
from netmonctl.pcapng import INTERFACE, PACKET, SECTION, Block, Blocks
from netmonctl.session import write_all

#: What tcpdump's -C counts.
MILLION = 1_000_000
NANOSECONDS = 1_000_000_000


class File:
    """A file to write packets to, opened at once and emptied with `begin`.

    If nothing comes of it before that, a file that was not there is taken away again. Its mode is what
    umask(2) leaves, as of any file that a person writes, and as tcpdump's.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._new = not os.path.lexists(path)
        self.descriptor = _opened(path)

    def begin(self) -> None:
        """What was in it is gone."""
        self._new = False
        if stat.S_ISREG(os.fstat(self.descriptor).st_mode):
            os.ftruncate(self.descriptor, 0)

    def close(self) -> None:
        """CtlError if the disk only now says that it is full."""
        try:
            os.close(self.descriptor)
        except OSError as error:
            raise failed(self.path, error) from None
        if self._new:
            with suppress(OSError):
                os.unlink(self.path)


def failed(path: str, error: OSError) -> CtlError:
    """In one line, with the file."""
    return CtlError(f"{path}: {error.strerror}")


def _opened(path: str) -> int:
    """A descriptor for writing.

    In a directory where anybody may put files, /tmp for one, somebody may have put a link or a file of this
    name, and wait for what is written: there it must be a file of one's own.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    try:
        shared = os.stat(Path(path).parent).st_mode & stat.S_ISVTX
        descriptor = os.open(path, flags | (os.O_NOFOLLOW if shared else 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CtlError(f"{path}: a link is not followed in a directory that is everybody's") from None
        raise failed(path, error) from None
    reason = ""
    if shared and os.fstat(descriptor).st_uid != os.geteuid():
        reason = "it belongs to another user, in a directory that is everybody's"
    elif os.isatty(descriptor):
        reason = "packets are not for a terminal"
    if reason:
        os.close(descriptor)
        raise CtlError(f"{path}: {reason}")
    return descriptor


class Ring:
    """Files one after another, each complete in itself: a new one when the last is larger than `size` bytes,
    or its first packet passed `seconds` before the one that is to be written.

    They are called as tcpdump calls its own: FILE, FILE1, FILE2…; if there are to be `count` at most,
    FILE0, FILE1…, with zeros before, and then the first again.
    """

    def __init__(self, path: str, size: float, seconds: float, count: int | None) -> None:
        self._path, self._size, self._count = path, size, count
        self._period = seconds * NANOSECONDS
        self._number = 0
        self._since = math.inf  # the first packet of the file
        self._blocks = Blocks()
        self._head = b""  # section and interfaces, with which each file begins
        self._written = 0
        self._file = File(self._name())

    def begin(self) -> None:
        """What was in the first is gone."""
        self._file.begin()

    def write(self, data: bytes) -> None:
        """A piece of the stream."""
        ready: list[bytes] = []
        for block in self._blocks.feed(data):
            if block.kind == PACKET and self._is_full(_time(block)):
                self._put(ready)
                ready = self._next()
            self._remember(block)
            ready.append(block.raw)
            self._written += len(block.raw)
        self._put(ready)

    def close(self) -> None:
        self._file.close()

    def _is_full(self, time: int) -> bool:
        """Whether the packet of this time belongs into the next file."""
        full = self._written > self._size or time - self._since >= self._period
        if full or self._since == math.inf:
            self._since = time
        return full

    def _remember(self, block: Block) -> None:
        if block.kind == SECTION:
            self._head = block.raw
        elif block.kind == INTERFACE:
            self._head += block.raw

    def _next(self) -> list[bytes]:
        """Go on in the next file; what it begins with."""
        self._number += 1
        if self._count is not None:
            self._number %= self._count
        file = File(self._name())
        self._file.close()
        self._file = file
        self._file.begin()
        self._written = len(self._head)
        return [self._head]

    def _put(self, blocks: list[bytes]) -> None:
        with writing(self._file.path):
            write_all(self._file.descriptor, b"".join(blocks))

    def _name(self) -> str:
        if self._count is not None:
            return f"{self._path}{self._number:0{len(str(self._count - 1))}}"
        return f"{self._path}{self._number or ''}"


def _time(block: Block) -> int:
    """When a packet passed, in nanoseconds, which is how netmond counts in all blocks."""
    high, low = struct.unpack_from(f"{block.order}II", block.raw, 12)
    return int(high << 32 | low)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """CtlError with the file if that cannot be written, unless it is a pipe that nobody reads any more."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise failed(path, error) from None
