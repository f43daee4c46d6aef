"""Compares what the interface programs count as RoCE with scapy's layers GRH and BTH.

``python3 -m tests.kernel.roce_run SEED COUNT`` prints a Result as JSON. In a process of its own, because the
decoder tells scapy to dissect otherwise than it does by itself, and in a network namespace of its own, where
nothing is routed and nobody receives.
"""

from __future__ import annotations

import errno
import json
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain, islice
from typing import Any, ClassVar, NamedTuple

from scapy.contrib.roce import BTH, GRH

from bench.testrun import Run, one_cpu
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import interface_unit
from netmond.kernel.role import Role
from netmond.kernel.tables import InterfaceTables
from netmond.rdma.opcodes import NAMES
from tests.kernel.decoder_differences import explained
from tests.kernel.frame_maker import FrameMaker
from tests.kernel.packet_facts import Facts
from tests.kernel.roce_frames import PORT, WRITE_ONLY, Ends, Kind
from tests.kernel.scapy_decoder import behind_tags, decode, dissect

_LOOPBACK = 1  # interface index: where test runs happen
_UDP, _ROCE = 17, 0x8915
_GRH, _UDP_HEADER, _BTH, _CRC = 40, 8, 12, 4  # bytes
_SHOWN = 5  # disagreements told in full


class Said(NamedTuple):
    """What of a packet is counted."""

    version: int
    source: bytes
    destination: bytes
    queue_pair: int
    partition_key: int
    opcode: int
    sequence: int
    packets: int
    bytes: int  # from the IP header or the global route header on


class Difference(StrEnum):
    """Why there is no RoCE where scapy has a BTH: it looks at nothing but EtherType and port."""

    VERSION = "another version of the transport header"
    OPCODE = "an opcode that nobody has defined"
    ROOM = "no room for header and CRC in the length that the IP or global route header gives"
    CUT = "a frame that ends within the header"
    FRAGMENT = "a piece of a datagram"
    ROUTE = "a global route header of another version, or with another header behind it"


def _samples(opcode: int = WRITE_ONLY) -> list[bytes]:
    """Well-formed frames of each kind."""
    kind = Kind(opcode=opcode, queue_pair=0x123456, sequence=0x654321)
    made = []
    for version, network in ((1, "fe80::"), (2, "192.0.2."), (2, "2001:db8::")):
        for vlan in (0, 23):
            ends = Ends(
                source=f"{network}1",
                destination=f"{network}2",
                source_mac="02:00:00:00:00:01",
                destination_mac="02:00:00:00:00:02",
                vlan=vlan,
            )
            made.append(ends.frame(version, kind))
    return made


class Maker(FrameMaker):
    """Mostly RoCE, and what is near to it."""

    types: ClassVar[Sequence[int]] = (0x0800, 0x0800, 0x86DD, 0x86DD, _ROCE, _ROCE)
    protocols: ClassVar[Sequence[int]] = (_UDP,) * 7 + (6,)
    samples: ClassVar[Sequence[bytes]] = _samples()

    def _transport(self, protocol: int) -> bytes:
        port = PORT if self._chance(0.9) else self._random.choice((PORT - 1, PORT + 1, PORT >> 8, 0))
        behind = self._header() + self._bytes(40)
        return struct.pack("!HHHH", self._random.getrandbits(16), port, 8 + len(behind), 0) + behind

    def _other(self, type_: int) -> bytes:
        behind = self._header() + self._bytes(40)
        version = 6 if self._chance(0.9) else self._random.randrange(16)
        following = 0x1B if self._chance(0.9) else self._random.getrandbits(8)
        route = struct.pack("!IHBB", version << 28, self._length(len(behind)), following, 64)
        return route + self._random.randbytes(32) + behind

    def _header(self) -> bytes:
        opcode = self._random.choice(list(NAMES)) if self._chance(0.7) else self._random.getrandbits(8)
        flags = self._random.getrandbits(8) & (0xF0 if self._chance(0.8) else 0xFF)
        return bytes((opcode, flags)) + self._random.randbytes(10)


class Programs:
    """The interface programs, and their table of RoCE."""

    def __init__(self) -> None:
        self._loaded = Compilation(interface_unit(targets=1, forwarded=16)).result()
        self._tables = InterfaceTables.open(self._loaded.maps, targets=1, forwarded=16)
        self._tables.set_port(_LOOPBACK, 0, Role(link_header=14))

    def count(self, hook: str, frame: bytes) -> list[Said]:
        """What is counted for a frame. OSError: the kernel makes no socket buffer of so short a packet."""
        Run(program=self._loaded.programs[f"interface_{hook}"], frame=frame).time(1)
        keys, rows = self._tables.roce.read()
        for number in range(len(keys)):
            self._tables.roce.take(keys[number : number + 1])
        return [
            Said(
                version=key["version"].item(),
                source=key["source"].tobytes(),
                destination=key["destination"].tobytes(),
                queue_pair=key["queue_pair"].item(),
                partition_key=key["partition_key"].item(),
                opcode=key["opcode"].item(),
                sequence=row["sequence"].item(),
                packets=row["tally"]["in_packets"].item() >> 32,
                bytes=(row["tally"]["in_bytes"] + row["tally"]["in_surplus"]).item(),
            )
            for key, row in zip(keys, rows, strict=True)
        ]


def expected(frame: bytes) -> tuple[Said | None, Difference | None]:
    """What scapy finds, and why nothing of it is to be counted."""
    packet = dissect(frame)
    facts, _ = explained(frame, packet, decode(packet, len(frame)))
    if facts.kind in ("ipv4", "ipv6") and (facts.protocol, facts.destination_port) == (_UDP, PORT):
        return _second(frame, facts)
    if facts.kind == "other" and packet is not None:
        at, layer = behind_tags(packet)
        if getattr(layer, "type", 0) == _ROCE and at == facts.link_header and len(frame) >= at + _GRH:
            return _first(frame, at)
    return None, None


def _second(frame: bytes, facts: Facts) -> tuple[Said | None, Difference | None]:
    """RoCE v2."""
    at = facts.link_header + facts.ip_header + _UDP_HEADER
    if facts.fragment:
        return None, Difference.FRAGMENT
    if facts.length < facts.ip_header + _UDP_HEADER + _BTH + _CRC:
        return None, Difference.ROOM
    ends = facts.source, facts.destination
    return _header(frame, at, 2, ends, min(facts.length, len(frame) - facts.link_header))


def _first(frame: bytes, at: int) -> tuple[Said | None, Difference | None]:
    """RoCE v1."""
    route = GRH(frame[at : at + _GRH])
    if route.ipver != 6 or route.nexthdr != 0x1B:
        return None, Difference.ROUTE
    if route.paylen < _BTH + _CRC:
        return None, Difference.ROOM
    ends = route.sgid.to_bytes(16, "big"), route.dgid.to_bytes(16, "big")
    return _header(frame, at + _GRH, 1, ends, min(_GRH + route.paylen, len(frame) - at))


def _header(
    frame: bytes, at: int, version: int, ends: tuple[bytes, bytes], size: int
) -> tuple[Said | None, Difference | None]:
    if len(frame) < at + _BTH:
        return None, Difference.CUT
    bth: Any = BTH(frame[at : at + _BTH] + bytes(_CRC))
    if bth.version:
        return None, Difference.VERSION
    if bth.opcode not in NAMES:
        return None, Difference.OPCODE
    return Said(version, *ends, bth.dqpn, bth.pkey, bth.opcode, bth.psn, 1, size), None


@dataclass(frozen=True, slots=True)
class Result:
    """Frames by the version that was found in them, and how often there was which difference."""

    versions: dict[str, int]
    opcodes: int
    differences: dict[str, int]
    disagreements: int
    shown: list[str]


def compare(frames: Iterable[bytes]) -> Result:
    programs = Programs()
    versions: Counter[str] = Counter()
    differences = Counter({name.value: 0 for name in Difference})
    opcodes: set[int] = set()
    shown: list[str] = []
    disagreements = 0
    for frame in frames:
        theirs, difference = expected(frame)
        differences.update([difference.value] if difference else ())
        versions[str(theirs.version if theirs else 0)] += 1
        opcodes.update([theirs.opcode] if theirs else ())
        for hook in ("ingress", "xdp"):
            try:
                ours = programs.count(hook, frame)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue
            if ours != ([theirs] if theirs else []):
                disagreements += 1
                shown.append(f"{hook} {frame.hex()}\n  netmond {ours}\n  scapy   {theirs} {difference}")
                del shown[_SHOWN:]
    return Result(dict(versions), len(opcodes), dict(differences), disagreements, shown)


if __name__ == "__main__":
    with one_cpu():
        made = islice(Maker(int(sys.argv[1])), int(sys.argv[2]))
        print(json.dumps(asdict(compare(chain(made, *map(_samples, NAMES))))))
