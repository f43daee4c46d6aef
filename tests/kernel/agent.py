"""A process in a namespace that makes traffic on request."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.kernel.machine import Cgroup, Namespace

_SOURCE = Path(__file__).with_name("traffic.py")


class Agent:
    """traffic.py at work: `do("exchange", name="a", count=23)` calls the function of that name there.

    Leaving the block, or closing the machine, ends it.
    """

    def __init__(
        self,
        space: Namespace,
        *,
        uid: int = 0,
        cgroup: Cgroup | None = None,
        ambient: Sequence[str] = (),
        inside: Sequence[str] = (),
    ) -> None:
        """inside: a command that runs the rest of its command line, in other namespaces say."""
        argv = [*inside, sys.executable, "-c", _SOURCE.read_text()]
        self._process = space.machine.start(
            space.command(argv, uid=uid, cgroup=cgroup, ambient=ambient),
            stdin=subprocess.PIPE,
            stderr=None,
        )
        self.pid: int = self._read()

    def do(self, what: str, **arguments: Any) -> Any:
        """What the function returned; AssertionError if it raised."""
        self.begin(what, **arguments)
        return self.end()

    def begin(self, what: str, **arguments: Any) -> None:
        """The first half of do(): the agent works on it by itself."""
        assert self._process.popen.stdin is not None
        self._process.popen.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.popen.stdin.flush()

    def end(self) -> Any:
        """The other half: waits for what begin() asked for."""
        answer = self._read()
        assert "error" not in answer, answer["error"]
        return answer["done"]

    def close(self) -> None:
        """Ends the process, and with it its sockets."""
        self._process.close()

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Any:
        assert self._process.popen.stdout is not None
        return json.loads(self._process.popen.stdout.readline())
