"""A worker of captures that plays packets; its filter says how it behaves::

    python3 -m tests.bus.capture_worker DESCRIPTOR

not a filter  is refused
many N        N packets, as fast as they are read
die           kills itself once the first packet is out
fail          its ring fails then
anything else one packet, and no end
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any

from netmond.errors import InvalidArgs, KernelError
from netmond.sessions import runner
from netmond.sessions.kinds import Kind
from netmond.sessions.stream import Finished, Stream
from tests.unit.pcapng_maker import Maker

KINDS: Mapping[str, Kind] = {"capture": Kind(module="tests.bus.capture_worker", dropped="not read")}

MAKE = Maker()
#: Of the first packet; each later one comes a second after the one before.
TIME = 1_700_000_000_123_456_789
COMMENT = "user=alice uid=1000 process=curl pid=4211 unit=session-3.scope"
DROPPED, FILTERED = 2, 3

#: Packets written at once.
BATCH = 1000


def payload(number: int) -> bytes:
    """A UDP packet over IPv4 over Ethernet, from a port that tells its number."""
    data = struct.pack("!I", number)
    udp = struct.pack("!HHHH", 1024 + number % 60_000, 7654, 8 + len(data), 0) + data
    ends = bytes((192, 0, 2, 1, 192, 0, 2, 2))
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    return bytes.fromhex("020000000002020000000001") + b"\x08\x00" + header + udp


def packet(number: int) -> bytes:
    time = TIME + number * 1_000_000_000
    return MAKE.packet(payload(number), time=time, direction=1, comment=COMMENT)


class Job:
    """Its ring is a pipe that is always readable."""

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self._does, self._count = options["filter"], options["count"]
        if self._does == "not a filter":
            raise InvalidArgs("option filter: syntax error")
        self._total = int(self._does.split()[1]) if self._does.startswith("many ") else 1
        self._stream = stream
        self._packets = 0
        self._ring, self._writing = os.pipe()
        os.write(self._writing, b".")
        names = options["interfaces"] or ["eth0"]
        stream.write(MAKE.section() + b"".join(MAKE.interface(name) for name in names))
        return {"interfaces": names}

    def fileno(self) -> int:
        return self._ring

    def take(self) -> bool:
        if self._packets:
            self._fail()
        number = min(BATCH, self._total - self._packets)
        if not number:
            return False
        self._stream.write(b"".join(packet(self._packets + each) for each in range(number)))
        self._packets += number
        if self._packets == self._total:
            os.read(self._ring, 1)
            if self._does.startswith("many ") or self._count:
                raise Finished("count")
        return True

    def _fail(self) -> None:
        if self._does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._does == "fail":
            raise KernelError("the ring is gone")

    def figures(self) -> dict[str, int]:
        size = self._packets * len(payload(0))
        return {"packets": self._packets, "bytes": size, "dropped": DROPPED, "filtered": FILTERED}

    def finish(self, reason: str) -> None:
        self._stream.write(MAKE.statistics(self._packets + DROPPED + FILTERED, DROPPED, self._packets))


if __name__ == "__main__":
    sys.exit(runner.main(Job))
