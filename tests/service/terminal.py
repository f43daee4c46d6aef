"""A person at a terminal: a program on a pseudo-terminal that one can read, type to and interrupt."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import subprocess
import termios
import time
from types import TracebackType

from tests.service.client import PATIENCE
from tests.service.people import Person


class Terminal:
    """Runs `command` as `person`, with a terminal of 80x24 as its input, output and controlling terminal."""

    def __init__(self, person: Person, *command: str) -> None:
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        os.fchown(theirs, person.uid, -1)
        #: Everything the program has shown.
        self.shown = ""
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            **person.identity,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def expect(self, text: str) -> None:
        """Wait until the program has shown `text`."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown:
            assert self._read(end), f"ended without showing {text!r}: {self.shown!r}"

    def type(self, text: str) -> None:
        """Press these keys; "\\x03" is Ctrl-C."""
        os.write(self._ours, text.encode())

    def end(self) -> int:
        """Wait until the program has ended; its exit code, negative for a signal."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return self._process.wait(PATIENCE)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed, as it should when nobody asks for a password."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def _read(self, end: float) -> bool:
        """Take what the program shows next; False if it and all its children have let go of the terminal."""
        readable, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
        assert readable, f"waited too long; shown so far: {self.shown!r}"
        try:
            data = os.read(self._ours, 4096)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)
