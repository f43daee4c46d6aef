"""A program of the bus tests that runs in the background, with a directory of its own."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kernel.deadline import DEADLINE


class Background:
    """Can be started again after it was stopped; its directory stays until it is removed."""

    def __init__(self, prefix: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=prefix))
        self.directory.chmod(0o755)
        self._process: subprocess.Popen[str] | None = None

    def launch(
        self, command: Sequence[str], ready: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it and wait until it prints a line with `ready` in it."""
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if ready in line:
                return
        raise AssertionError(f"{command} ended")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.wait(DEADLINE)
            self._process.stdout.close()
        self._process = None

    def remove(self) -> None:
        """Kill it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory)
