"""A worker of sessions that captures nothing; its filter says how it behaves::

    python3 -m tests.bus.worker DESCRIPTOR

refuse, invalid   its start fails: the kernel does not let it, or an option is wrong
hang, exit        while it starts
wait FILE         it has started when there is something in FILE, a FIFO
flood             there is always more than anybody reads
fail              once it runs
anything else     it finds one packet of 7 bytes; with `count`, that was all
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netmond.errors import InvalidArgs, KernelError
from netmond.sessions import runner
from netmond.sessions.kinds import Kind
from netmond.sessions.stream import Finished, Stream

KINDS: Mapping[str, Kind] = {
    "capture": Kind(module="tests.bus.worker", dropped="not read"),
    "path": Kind(module="tests.bus.worker"),
}

HEAD, PACKET, TAIL = b"head\n", b"packet\n", b"tail\n"


class Job:
    """Its ring is a pipe, which the packet lies in from the start."""

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self._does, self._count = options.get("filter", ""), options["count"]
        self._stream = stream
        self._packets = 0
        if self._does == "refuse":
            raise KernelError("the kernel refuses it")
        if self._does == "invalid":
            raise InvalidArgs("option filter: invalid")
        if self._does == "exit":
            sys.exit(3)
        if self._does == "hang":
            signal.pause()
        if self._does.startswith("wait "):
            Path(self._does[5:]).read_text()
        self._ring, writing = os.pipe()
        os.write(writing, PACKET)
        self._writing = writing
        stream.write(HEAD)
        return {"given": sorted(given)}

    def fileno(self) -> int:
        return self._ring

    def take(self) -> bool:
        if self._does == "fail":
            raise KernelError("the ring is gone")
        if self._does == "flood":
            self._packets += 1  # it is delivered, also if the session ends meanwhile
            self._stream.write(PACKET)
            return True
        self._empty()
        if self._count:
            raise Finished("count")
        return False

    def _empty(self) -> None:
        if not self._packets:
            self._stream.write(os.read(self._ring, 100))
            self._packets = 1

    def figures(self) -> dict[str, int]:
        return {
            "packets": self._packets,
            "bytes": self._packets * len(PACKET),
            "dropped": 2 * self._packets,
            "filtered": 3,
        }

    def finish(self, reason: str) -> None:
        if self._does != "fail":
            self._empty()  # it may end before there was time to take anything
        self._stream.write(TAIL)


if __name__ == "__main__":
    sys.exit(runner.main(Job))
