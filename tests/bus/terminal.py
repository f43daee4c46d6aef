"""An interactive shell on a terminal of its own, for tests that type."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping
from types import TracebackType

DEADLINE = 30.0
START_OF_LINE = "\x01"
END_OF_LINE = "\x05"

#: What the shell must prompt with: only then it takes keys as keys.
PROMPT = "ready> "


class Terminal:
    """Runs a command on a new terminal of 80 columns; ends it when left."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        self._own, other = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=other, stdout=other, stderr=other, env=dict(environment)
        )
        os.close(other)
        self._count = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._own)  # the shell hangs up
        self._process.kill()
        self._process.wait(DEADLINE)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._own, text.encode())

    def read_until(self, pattern: str) -> str:
        """Everything written up to and with the first match of `pattern`."""
        shown = ""
        end = time.monotonic() + DEADLINE
        while not re.search(pattern, shown):
            ready = select.select([self._own], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"waited for {pattern!r}, got {shown!r}"
            shown += os.read(self._own, 65536).decode(errors="replace")
        return shown

    def run(self, command: str) -> None:
        """Run a command and wait for its end, and until the shell listens again."""
        self._count += 1
        # The echo of what is typed shows the two halves apart.
        self.type(f"{command}; printf 'done-%s;' {self._count}\r")
        self.read_until(f"(?s)done-{self._count};.*{PROMPT}")

    def words(self, typed: str) -> list[str]:
        """The words of the command line that `typed` has become, as the shell takes it apart."""
        self.type(f"{typed}{START_OF_LINE}printf '<%s>\\n' {END_OF_LINE} end\r")
        shown = self.read_until(r"<end>\r?\n")
        return re.findall(r"<([^%<>\n]*)>\r?\n", shown)[:-1]
