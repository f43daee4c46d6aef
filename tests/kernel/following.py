"""A path session's worker as the daemon starts it, without the daemon."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.deadline import DEADLINE
from tests.kernel.machine import Namespace

ROOT = Path(__file__).parents[2]

Line = dict[str, Any]


class Following:
    """What the worker says: lines of its stream, up to now."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, stream: int) -> None:
        self.pid = process.pid
        self.lines: list[Line] = []
        self._process = process
        self._control = control.makefile("rwb")
        self._stream = stream
        self._rest = b""
        self._ended = False

    @property
    def stages(self) -> dict[str, Line]:
        """What became of each stage."""
        (first,) = self.until(lambda: self.of("stages"), "the stages")
        return {stage["stage"]: stage for stage in first["stages"]}

    @property
    def events(self) -> list[Line]:
        return self.of("event")

    def of(self, kind: str) -> list[Line]:
        return [line for line in self.lines if line["type"] == kind]

    def matching(self, **members: Any) -> list[Line]:
        """Events that have these members."""
        return [event for event in self.events if members.items() <= event.items()]

    def journey(self, number: int) -> list[Line]:
        return [event for event in self.events if event["journey"] == number]

    def until(self, condition: Callable[[], list[Line]], what: str) -> list[Line]:
        """Reads on until the condition holds; returns what it said."""
        end = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert not self._ended, f"{what} did not come: {self.end()}"
            assert time.monotonic() < end, f"not in time: {what}; {self.lines}"
            self._read()
        return found

    def stop(self) -> Line:
        """Ends the session; returns what it came to."""
        self.order("stop")
        figures = self.end()["figures"]
        assert isinstance(figures, dict)
        return figures

    def order(self, do: str, **rest: Any) -> Line:
        """The answer to an order."""
        self._control.write(json.dumps({"do": do, **rest}).encode() + b"\n")
        self._control.flush()
        while "figures" in (answer := json.loads(self._control.readline())):
            pass
        assert isinstance(answer, dict)
        return answer

    def end(self) -> Line:
        """The worker's last report: reads both its stream and its control socket to the end."""
        while not self._ended:
            self._read()
        while "end" not in (report := json.loads(self._control.readline())):
            pass
        assert isinstance(report, dict)
        return report

    def close(self) -> None:
        self._control.close()
        os.close(self._stream)

    def _read(self) -> None:
        if not select.select([self._stream], [], [], DEADLINE)[0]:
            return
        piece = os.read(self._stream, 1 << 20)
        self._ended = not piece
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self.lines += map(json.loads, lines)


@contextmanager
def dropping(space: Namespace, condition: str) -> Iterator[None]:
    """What comes in and meets a condition of nftables is dropped until the block ends."""
    rules = f"table inet t {{\nchain c {{\ntype filter hook input priority 0\n{condition} drop\n}}\n}}\n"
    space.run("nft", "-f", "-", text=rules)
    try:
        yield
    finally:
        space.run("nft", "delete", "table", "inet", "t")


@contextmanager
def following(
    space: Namespace, given: Mapping[str, int] | None = None, **options: Any
) -> Iterator[Following]:
    """A worker in a namespace, attached, until the block ends."""
    control, theirs = socket.socketpair()
    stream, end = os.pipe()
    told, progress = os.pipe()  # for the client's line of progress, which nobody reads here
    descriptors = {"stream": end, "progress": progress, **(given or {})}
    inherited = {name: number for name, number in descriptors.items() if name != "slots"}
    process = subprocess.Popen(
        space.command([sys.executable, "-m", "netmond.path", str(theirs.fileno())]),
        pass_fds=(theirs.fileno(), *inherited.values()),
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )
    worker = Following(process, control, stream)
    try:
        for descriptor in (theirs.detach(), end, progress):
            os.close(descriptor)
        control.settimeout(DEADLINE * 2)
        answer = worker.order("start", options=options, given=descriptors)
        assert "error" not in answer, answer
        yield worker
    finally:
        worker.close()
        os.close(told)
        control.close()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise
