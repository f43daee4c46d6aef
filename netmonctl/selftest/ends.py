"""The two processes at the ends of the cable, as their parent has them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from netmonctl.errors import CtlError, ExitCode

_PROGRAM = "netmonctl.selftest.child"
_TIMEOUT = 30.0  #: seconds; what a process waits for itself is shorter


class End:
    """A process that does what child.Child can."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_TIMEOUT)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _PROGRAM, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parents[2],
                start_new_session=True,  # Ctrl-C is for the parent alone
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, what: str, **arguments: Any) -> Any:
        """What it returned. CtlError: what went wrong there."""
        self.begin(what, **arguments)
        return self.end()

    def begin(self, what: str, **arguments: Any) -> None:
        """The first half of do(): it works by itself."""
        self._ours.send(json.dumps({"do": what, **arguments}).encode())

    def end(self) -> Any:
        """The other half: waits for what begin() asked for."""
        try:
            data = self._ours.recv(1 << 20)
        except TimeoutError:
            data = b""
        if not data:
            raise CtlError("a process of the test has ended too early; run it again")
        answer = json.loads(data)
        if "error" in answer:
            code = ExitCode.NOT_ALLOWED if answer["refused"] else ExitCode.FAILURE
            raise CtlError(answer["error"], code)
        return answer["done"]

    def close(self) -> None:
        """Ends it, and with it its sockets and its namespace."""
        self._process.kill()
        self._process.wait()
        self._ours.close()
