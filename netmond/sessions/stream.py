"""The pipe to the client of a session: the job waits for its reader, never longer than the session lasts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Bytes of the pipe: as many as everybody may have (/proc/sys/fs/pipe-max-size, pipe(7)).
SIZE = 1 << 20


class Finished(Exception):
    """The session is to end; the reason in a word, as the client is told it.

    Of the runner: stopped (on demand), duration, closed (by the client), daemon (is gone). Of jobs: count,
    interface (is gone), or whatever they say.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Stream:
    """The writing end."""

    def __init__(self, descriptor: int, wait: Callable[[], None]) -> None:
        """wait: returns when there may be room in the pipe; raises Finished."""
        with suppress(OSError):  # a user may have only so much in pipes: then it is what it was
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, SIZE)
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._wait = wait
        self._rest = b""  # of what was being written when the session ended

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: bytes | memoryview | NDArray[np.uint8]) -> None:
        """Writes it all, as fast as the client reads.

        Finished: the session is over before that. What is left of `data` comes before what is written next.
        """
        self.flush()
        left = memoryview(data)  # type: ignore[arg-type] # an array is a buffer, before Python 3.12 untold
        self._write(left.cast("B") if left.nbytes else memoryview(b""))

    def flush(self) -> None:
        """Writes what is left over. Finished."""
        rest, self._rest = self._rest, b""
        self._write(memoryview(rest))

    def _write(self, left: memoryview) -> None:
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    self._wait()
                except BrokenPipeError:
                    raise Finished("closed") from None
        except Finished:
            self._rest = bytes(left)
            raise

    def close(self) -> None:
        """The client reads to the end of what was written."""
        os.close(self._descriptor)
