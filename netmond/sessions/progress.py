"""The pipe on which a client is told how far its session is: a JSON object in each line, twice a second."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import termios
from contextlib import suppress
from typing import Any

#: Bytes that may lie in the pipe unread: there is always room for the last line.
_UNREAD = 1 << 15


class Progress:
    """The writing end. A client that does not read misses lines, and nobody waits for it."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def tell(self, figures: dict[str, Any]) -> None:
        """How far it is now."""
        if self._unread() < _UNREAD:
            self._write(figures)

    def end(self, figures: dict[str, Any]) -> None:
        """The last line."""
        self._write(figures)
        os.close(self._descriptor)

    def _unread(self) -> int:
        (unread,) = struct.unpack("i", fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4)))
        return int(unread)

    def _write(self, line: dict[str, Any]) -> None:
        with suppress(
            BlockingIOError, BrokenPipeError
        ):  # whole or not at all: shorter than PIPE_BUF, pipe(7)
            os.write(self._descriptor, json.dumps(line).encode() + b"\n")
