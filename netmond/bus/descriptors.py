"""Files passed to callers: opened with the answer, ours until the bus has them, closed in any case."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from netmond.errors import NetmondError, Unavailable


class Descriptor:
    """An open file that is closed when nobody holds this any more.

    An answer may be dropped at many places: refused, cancelled, too late for its caller, or for a bus that
    is gone. Whoever drops it need not know that it carries a file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Its number, as long as this exists."""
        return self._fd

    def __del__(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Passed:
    """A file to pass on, in the place of a result of type ``h``.

    open: opens it, when it is this answer's turn: those that wait for theirs hold none. Raises NetmondError.
    """

    open: Callable[[], int]


def opened(values: Sequence[object]) -> tuple[list[object], tuple[Descriptor, ...]]:
    """Results as they go into a message, ``h`` as its place among the descriptors, and these.

    A file is a Passed, or a Descriptor if it is open already.
    """
    plain: list[object] = []
    files: list[Descriptor] = []
    for value in values:
        if isinstance(value, Passed):
            plain.append(len(files))
            files.append(_open(value))
        elif isinstance(value, Descriptor):
            plain.append(len(files))
            files.append(value)
        else:
            plain.append(value)
    return plain, tuple(files)


def send(to: socket.socket, data: memoryview, files: Sequence[Descriptor]) -> int:
    """Send bytes, and files with the first (SCM_RIGHTS, unix(7)); how many bytes were taken. OSError."""
    if not files:
        return to.send(data)
    numbers = array.array("i", [file.fileno() for file in files])
    return to.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])


def _open(file: Passed) -> Descriptor:
    try:
        return Descriptor(file.open())
    except NetmondError:
        raise
    except OSError as error:
        raise Unavailable(f"the file cannot be opened: {error.strerror}") from None
