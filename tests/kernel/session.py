"""The worker of a session, started over its control socket as the daemon does it."""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Namespace
from tests.kernel.running import ROOT


class Refused(Exception):
    """The worker says why not, in a line."""


class Session:
    """One that runs; what it streams is read in the background unless `reading` is False.

    Leaving the block kills it, if it has not ended.
    """

    def __init__(
        self,
        space: Namespace,
        options: Mapping[str, Any],
        *,
        given: Mapping[str, int] | None = None,
        slots: int = 0,
        module: str = "netmond.frames",
        reading: bool = True,
    ) -> None:
        """given: descriptors of the meter's maps by name, slots: of the flow table. Refused."""
        self._ours, theirs = socket.socketpair()
        self._stream, stream = os.pipe()
        self._progress, progress = os.pipe()
        maps = dict(given or {})
        passed = {"stream": stream, "progress": progress, **maps}
        descriptors = theirs.fileno(), *passed.values()
        argv = [sys.executable, "-m", module, str(theirs.fileno())]
        with theirs:
            self.process = space.machine.start(
                space.command(argv), pass_fds=descriptors, stdout=None, stderr=None, cwd=ROOT
            )
        os.close(stream)
        os.close(progress)
        self._lines = self._ours.makefile("r")
        self.data = bytearray()  #: of the stream, so far
        self._reader = threading.Thread(target=self._read, daemon=True)
        if maps:
            passed["slots"] = slots
        self._send({"do": "start", "options": dict(options), "given": passed})
        self.description = self._answer()["description"]
        if reading:
            self._reader.start()

    def _send(self, order: dict[str, Any]) -> None:
        self._ours.sendall(json.dumps(order).encode() + b"\n")

    def _answer(self) -> dict[str, Any]:
        self._ours.settimeout(2 * DEADLINE)
        while line := self._lines.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                self.close()
                raise Refused(answer["error"])
            if "done" in answer:
                return answer
        raise AssertionError(f"the worker has ended with {self.process.popen.wait(DEADLINE)}")

    def _read(self) -> None:
        while piece := os.read(self._stream, 1 << 20):
            self.data += piece

    def read(self) -> None:
        """Starts reading what is streamed."""
        self._reader.start()

    def stop(self) -> bytes:
        """Has it end, and returns all that it has streamed."""
        self._send({"do": "stop"})
        return self.end()

    def end(self) -> bytes:
        """Waits for its own end, and returns all that it has streamed."""
        if not self._reader.is_alive():
            with suppress(RuntimeError):  # it was started, and is done
                self._reader.start()
        self._reader.join(2 * DEADLINE)
        assert not self._reader.is_alive(), "the stream does not end"
        assert self.process.popen.wait(DEADLINE) == 0
        return bytes(self.data)

    def progress(self) -> list[dict[str, Any]]:
        """The lines of the progress pipe, up to now."""
        lines = b""
        while select.select([self._progress], [], [], 0)[0] and (piece := os.read(self._progress, 1 << 16)):
            lines += piece
        return [json.loads(line) for line in lines.splitlines()]

    def wait_for_packets(self, count: int) -> None:
        """Until so many frames were streamed."""
        told: list[dict[str, Any]] = []

        def there() -> bool:
            told.extend(self.progress())
            return bool(told) and told[-1]["packets"] >= count

        eventually(there, f"{count} frames were captured")

    def close(self) -> None:
        self.process.close()
        self._lines.close()
        self._ours.close()
        if self._reader.is_alive():
            self._reader.join(DEADLINE)
        for descriptor in (self._stream, self._progress):
            os.close(descriptor)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
