"""Whose a frame is to the interface programs, by the role of the interface: one frame at a time, also for
kinds of interfaces that this kernel may not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether

from bench.testrun import Run, one_cpu, skb_context
from netmond.kernel import wire
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import interface_unit, possible_cpus
from netmond.kernel.role import Role
from netmond.kernel.tables import InterfaceTables

_HERE = 1  # index of lo: where test runs happen
_OTHER, _MASTER = 7001, 7002  # indexes that nobody has
_SHARING = _HERE + 4096  # likewise; remembered at the same place as lo
_MAC = "02:00:00:00:00:07"
_WORDS = wire.PORT_COUNTERS.itemsize // 8

_UDP = Ether(dst="02:00:00:00:00:09") / IP() / UDP() / bytes(100)
_TAGGED = Ether(dst="02:00:00:00:00:09") / Dot1Q(vlan=7) / IP() / UDP() / bytes(100)
_ARP = Ether(dst="ff:ff:ff:ff:ff:ff") / ARP()
_TO_BRIDGE = Ether(dst=_MAC) / IP() / TCP() / bytes(100)
_PING = Ether(dst="02:00:00:00:00:09") / IP() / ICMP() / bytes(100)
_FRAGMENT = Ether(dst="02:00:00:00:00:09") / IP(frag=100, proto=17) / bytes(100)

SLAVE, BRIDGED, TRUNK = wire.PORT_SLAVE, wire.PORT_BRIDGED, wire.PORT_TRUNK
UPPER, SHARED, ECHO = wire.PORT_UPPER, wire.PORT_SHARED, wire.PORT_ECHO


class Programs:
    """Both tc programs, and what they count in lo's place."""

    def __init__(self) -> None:
        self.loaded = Compilation(interface_unit(targets=1, forwarded=16)).result()
        self.tables = InterfaceTables.open(self.loaded.maps, targets=1, forwarded=16)
        assert self.tables.port_counters.capacity % possible_cpus() == 0

    def here(self, flags: int) -> None:
        mac = bytes.fromhex(_MAC.replace(":", ""))
        self.tables.set_port(_HERE, 0, Role(link_header=14, flags=flags, master=_MASTER, address=mac))

    def count(self, direction: str, frame: Any, *, origin: int = 0) -> dict[str, int]:
        """Packets by part that a frame adds, and `once` if it counts for the host."""
        before = self._row()
        self.run(direction, frame, origin)
        grown = (self._row() - before).view(wire.PORT_COUNTERS)[0][direction]
        assert grown["stack_packets"] == 1
        found = {name: int(grown["part"]["packets"][place]) for place, name in enumerate(wire.PARTS)}
        assert sum(found[name] for name in wire.EXCLUSIVE_PARTS) == 1
        found["once"] = int(grown["once"]["packets"])
        return {name: packets for name, packets in found.items() if packets}

    def run(self, direction: str, frame: Any, origin: int = 0) -> None:
        name = "interface_ingress" if direction == "in" else "interface_egress"
        context = skb_context(ingress_ifindex=origin)
        Run(program=self.loaded.programs[name], frame=bytes(frame), context=context).time(1)

    def _row(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        row: np.ndarray[Any, np.dtype[np.uint64]] = self.tables.port_counters.sums(1)[0]
        return row


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    made = Programs()
    with one_cpu():
        yield made
    made.loaded.close()


@pytest.mark.parametrize(
    ("flags", "frame", "part", "once"),
    [
        (0, _UDP, "sockets", 1),
        (0, _PING, "kernel", 1),
        (0, _ARP, "kernel", 1),
        (0, _TAGGED, "sockets", 1),
        (TRUNK, _TAGGED, "upper", 1),
        (TRUNK, _UDP, "sockets", 1),
        (SLAVE, _UDP, "upper", 1),
        (SLAVE | SHARED, _UDP, "upper", 0),
        (SLAVE, _ARP, "upper", 1),
        (BRIDGED, _UDP, "forwarded", 1),
        (BRIDGED, _TO_BRIDGE, "upper", 1),
        (BRIDGED | SHARED, _TO_BRIDGE, "upper", 0),
        (BRIDGED | SHARED, _UDP, "forwarded", 1),
        (BRIDGED, _ARP, "upper", 1),
        (UPPER, _UDP, "sockets", 0),
        (ECHO, _UDP, "sockets", 0),
    ],
)
def test_incoming(programs: Programs, flags: int, frame: Any, part: str, once: int) -> None:
    """TCP and UDP are for sockets, or for the interface above; the rest is the kernel's."""
    programs.here(flags)

    assert programs.count("in", frame) == {part: 1} | ({"once": 1} if once else {})


@pytest.mark.parametrize(
    ("flags", "frame", "part", "once"),
    [
        (0, _UDP, "sockets", 1),  # the kernel makes one for a test run
        (TRUNK, _TAGGED, "upper", 1),
        (SLAVE, _UDP, "upper", 1),
        (SLAVE | SHARED, _UDP, "upper", 0),
        (BRIDGED, _UDP, "upper", 1),
        (UPPER, _UDP, "sockets", 0),
        (ECHO, _UDP, "sockets", 1),
    ],
)
def test_outgoing(programs: Programs, flags: int, frame: Any, part: str, once: int) -> None:
    """What was made here, or by the interface above."""
    programs.here(flags)

    assert programs.count("out", frame) == {part: 1} | ({"once": 1} if once else {})


def test_from_elsewhere(programs: Programs) -> None:
    """Where it came in decides whether it is counted again, and what it is to a bridge."""
    tables = programs.tables
    programs.here(0)
    assert programs.count("out", _UDP, origin=_OTHER) == {"forwarded": 1, "once": 1}

    tables.set_port(_OTHER, 1, Role(link_header=14))
    assert programs.count("out", _UDP, origin=_OTHER) == {"forwarded": 1}
    assert programs.count("out", _PING, origin=_OTHER) == {"forwarded": 1}
    assert programs.count("out", _FRAGMENT, origin=_OTHER) == {"forwarded": 1}
    routed = tables.port_counters.sums(2)[1].view(wire.PORT_COUNTERS)[0]["in"]["part"]
    amounts = {name: tuple(routed[place].tolist()) for place, name in enumerate(wire.PARTS)}
    assert {name: amount for name, amount in amounts.items() if any(amount)} == {
        "routed": (2, 128 + 120),
        "routed_kernel": (1, 128),
        "routed_fragments": (1, 20),
    }

    tables.set_port(_OTHER, wire.NO_PLACE, Role(link_header=14, flags=UPPER))
    assert programs.count("out", _UDP, origin=_OTHER) == {"forwarded": 1}
    programs.here(BRIDGED)
    assert programs.count("out", _UDP, origin=_OTHER) == {"upper": 1}
    tables.set_port(_OTHER, wire.NO_PLACE, Role(link_header=14, flags=BRIDGED, master=_MASTER))
    assert programs.count("out", _UDP, origin=_OTHER) == {"forwarded": 1, "once": 1}
    tables.unset_port(_OTHER)


def test_remembered(programs: Programs) -> None:
    """The programs' memory of interfaces takes none for another, and forgets what changes."""
    tables = programs.tables
    for change in range(2):  # whatever the memory holds: each forgets everything
        programs.here(0)
        tables.set_port(_SHARING, 2, Role(link_header=14, flags=BRIDGED * change))
        before = tables.port_counters.sums(3)[2].view(wire.PORT_COUNTERS)[0]["in"]["part"]["packets"]
        for _ in range(3):
            assert programs.count("out", _UDP, origin=_SHARING) == {"forwarded": 1}
            assert programs.count("in", _UDP) == {"sockets": 1, "once": 1}
        after = tables.port_counters.sums(3)[2].view(wire.PORT_COUNTERS)[0]["in"]["part"]["packets"]
        assert (after - before).sum() == (0 if change else 3)  # what a bridge passes on is not routed

    tables.unset_port(_SHARING)
    assert programs.count("out", _UDP, origin=_SHARING) == {"forwarded": 1, "once": 1}
    tables.unset_port(_HERE)
    lost = tables.losses.copy()
    programs.run("in", _UDP)
    assert dict(zip(dict(wire.INTERFACE_LOSSES), (tables.losses - lost).tolist(), strict=True)) == {
        "interfaces.forwarded-full": 0,
        "interfaces.malformed": 0,
        "interfaces.no-port": 1,
        "interfaces.roce-full": 0,
    }


def test_fragments(programs: Programs) -> None:
    """What a later piece repeats of its datagram's headers; a first one repeats nothing."""
    programs.here(0)

    first = Ether(dst="02:00:00:00:00:09") / IP(flags="MF") / UDP() / bytes(100)
    assert programs.count("in", first) == {"sockets": 1, "once": 1}
    assert programs.count("in", _FRAGMENT) == {"sockets": 1, "fragments": 1, "once": 1}
