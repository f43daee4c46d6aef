"""The worker's end of the socket to the daemon: a JSON object in each line, both ways."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_PIECE = 1 << 16

#: Seconds that a daemon may take for the last answer.
_PATIENCE = 5.0


class Control:
    """Reads orders; sends reports without ever waiting for a daemon that is busy."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = b""
        self._unsent = b""
        self.is_open = True  #: the daemon has not closed its end

    def fileno(self) -> int:
        return self._socket.fileno()

    def orders(self) -> Iterator[dict[str, Any]]:
        """Those that have come in the meantime."""
        while self.is_open:
            try:
                piece = self._socket.recv(_PIECE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            self.is_open = bool(piece)
            self._received += piece
        *lines, self._received = self._received.split(b"\n")
        yield from map(json.loads, lines)

    def send(self, message: dict[str, Any]) -> None:
        """Sends a line, or as much of it as the socket takes now."""
        self._unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Sends what is left; False: something still is."""
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        return not self._unsent

    def close(self) -> None:
        """Sends what is left, if the daemon takes it within a while."""
        with suppress(OSError):
            self._socket.settimeout(_PATIENCE)
            self._socket.sendall(self._unsent)
        self._socket.close()
