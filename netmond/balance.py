"""Closed books: everything the kernel counted on an interface, and whose it was. Pure.

A frame is counted by the driver (the kernel's own counters), by our programs at the interface (tc, XDP),
and what is a socket's by the meter, each for itself. `balance` accounts for the driver's figures with the
others', in the driver's own terms; what is left over is unattributed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from netmond.kernel import wire
from netmond.model import COUNTERS, Evidence, Growth

#: The kernel's counters that Growth.kernel has, in order.
KERNEL = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "tx_dropped")

_TAG = 4  # bytes of a VLAN tag
_LARGEST = 1 << 16  # bytes of a packet, about


class Amount(NamedTuple):
    """Packets and bytes; negative in a Line that the driver did not count."""

    packets: int
    bytes: int

    def plus(self, other: Amount) -> Amount:
        return Amount(self.packets + other.packets, self.bytes + other.bytes)

    def minus(self, other: Amount) -> Amount:
        return Amount(self.packets - other.packets, self.bytes - other.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a balance. `layer`: where it was counted: driver, queue, tc, xdp or sockets."""

    name: str
    layer: str
    amount: Amount
    note: str = ""


#: The names of lines, in order: the first is the sum of all others but the last.
LINES = (
    "kernel", "users", "unmetered", "forwarded", "rdma", "system", "upper", "fragments", "link", "segments",
    "headers", "dropped", "queued", "unattributed", "wire",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Side:
    """What our programs counted in one direction."""

    stack: Amount
    wire: Amount
    tagged: int
    parts: Mapping[str, Amount]
    native: bool  #: by native XDP, which sees the pieces of datagrams: what sockets count on the wire

    @staticmethod
    def of(growth: Growth, direction: str, *, native: bool) -> _Side:
        side = growth.port.astype(np.uint64).view(wire.PORT_COUNTERS)[0][direction]
        classes = side["class"][: wire.EXCLUSIVE_CLASSES]
        return _Side(
            Amount(int(side["stack_packets"]), int(side["stack_bytes"])),
            Amount(int(classes["packets"].sum()), int(classes["bytes"].sum())),
            int(side["tagged"]),
            {name: Amount(*map(int, side["part"][place])) for place, name in enumerate(wire.PARTS)},
            native,
        )

    @property
    def sockets(self) -> Amount:
        """What sockets must have counted, datagrams in pieces being one, unless native."""
        whole = self.parts["sockets"].minus(self.parts["routed"])
        return whole.minus(self.fragments)

    @property
    def fragments(self) -> Amount:
        """What pieces are more than the datagrams that sockets count."""
        if self.native:
            return Amount(0, 0)
        return self.parts["fragments"].minus(self.parts["routed_fragments"])

    @property
    def forwarded(self) -> Amount:
        return self.parts["forwarded"].plus(self.parts["routed"]).plus(self.parts["routed_kernel"])

    @property
    def system(self) -> Amount:
        return self.parts["kernel"].minus(self.parts["routed_kernel"])

    @property
    def link(self) -> Amount:
        """Link-layer headers and padding."""
        return Amount(0, self.stack.bytes - sum(self.parts[name].bytes for name in wire.EXCLUSIVE_PARTS))


@dataclass(frozen=True, slots=True)
class _Driver:
    """What lies between our programs and the driver."""

    segments: Amount
    headers: int  #: bytes, negative: what the driver counts without
    dropped: Amount
    queued: Amount
    rest: Amount  #: unattributed


def balance(evidence: Evidence, direction: str) -> tuple[Line, ...]:
    """The books of one direction, ``in`` or ``out``: lines in the order of LINES, empty ones left out.

    Amounts are in the terms of the kernel's counters; ``wire`` tells what they are on the wire.
    """
    native = direction == "in" and evidence.hook == "xdp"
    low, high = (_Side.of(growth, direction, native=native) for growth in (evidence.low, evidence.high))
    hook = "xdp" if direction == "in" and evidence.hook.startswith("xdp") else "tc"
    sockets, rest = _sockets(evidence, direction, low, high)
    unmetered = Amount(0, 0)
    if not evidence.whole:
        unmetered = Amount(max(rest.packets, 0), max(rest.bytes, 0))
    driver = _driver(evidence, direction, low, high)
    unattributed = driver.rest.plus(rest.minus(unmetered))
    parts = [
        Line(name="users", layer="sockets" if evidence.sockets is not None else hook, amount=sockets),
        Line(name="unmetered", layer=hook, amount=unmetered),
        Line(name="forwarded", layer=hook, amount=high.forwarded),
        Line(name="rdma", layer=hook, amount=high.parts["rdma"]),
        Line(name="system", layer=hook, amount=high.system),
        Line(name="upper", layer=hook, amount=high.parts["upper"], note=", ".join(evidence.upper)),
        Line(name="fragments", layer=hook, amount=high.fragments),
        Line(name="link", layer=hook, amount=high.link),
        Line(name="segments", layer="driver", amount=driver.segments),
        Line(name="headers", layer="driver", amount=Amount(0, driver.headers)),
        Line(name="dropped", layer="queue", amount=driver.dropped),
        Line(name="queued", layer="queue", amount=driver.queued),
        Line(name="unattributed", layer="", amount=unattributed),
    ]
    total = Amount(0, 0)
    for part in parts:
        total = total.plus(part.amount)
    always = ("users", "unattributed")
    return (
        Line(name="kernel", layer="driver", amount=total),
        *(part for part in parts if any(part.amount) or part.name in always),
        Line(name="wire", layer=hook, amount=high.wire),
    )


def _sockets(evidence: Evidence, direction: str, low: _Side, high: _Side) -> tuple[Amount, Amount]:
    """What the meter counted, and what the interface counted for sockets beyond that."""
    if evidence.sockets is None:
        return high.sockets, Amount(0, 0)
    offset = 0 if direction == "in" else 2
    if not high.native:
        offset += len(COUNTERS) // 2
    counted = Amount(*map(int, evidence.sockets.astype(np.int64)[offset : offset + 2]))
    least, most = low.sockets, high.sockets
    return counted, Amount(
        _outside(least.packets - counted.packets, most.packets - counted.packets),
        _outside(least.bytes - counted.bytes, most.bytes - counted.bytes),
    )


def _driver(evidence: Evidence, direction: str, low: _Side, high: _Side) -> _Driver:
    """Explains the driver's figures by ours.

    Unknown are only how many segments it counted one by one, whether it counts link headers and tags, and
    the size of packets that a queue dropped.
    """
    out = direction == "out"
    place = KERNEL.index("tx_packets" if out else "rx_packets")
    least, most = (
        Amount(*map(int, growth.kernel[place : place + 2])) for growth in (evidence.low, evidence.high)
    )
    dropped = queued = Amount(0, 0)
    drops = 0
    if out:
        queued = Amount(*map(int, evidence.high.queue[1:]))
        drops = int(evidence.high.queue[0] + evidence.high.kernel[KERNEL.index("tx_dropped")])
    missing = high.stack.packets - queued.packets - most.packets
    dropped = Amount(_within(missing, 0, drops), 0)
    may_be_segments = high.wire.packets - high.stack.packets
    segments = _within(-missing, 0, may_be_segments)
    rest = _outside(
        least.packets - high.stack.packets + queued.packets - may_be_segments,
        most.packets - low.stack.packets + queued.packets + drops,
    )
    repeated = high.wire.bytes - high.stack.bytes - (_TAG * high.tagged if out else 0)
    segment_bytes = round(repeated * segments / may_be_segments) if may_be_segments else 0
    smallest, largest = dropped.packets * evidence.link_header, dropped.packets * _LARGEST

    def gap(convention: int) -> tuple[int, int, int]:
        """Bytes unexplained, the same without allowing for motion, and those dropped."""
        change = segment_bytes - queued.bytes + convention
        there = most.bytes - high.stack.bytes - change
        lost = _within(-there, smallest, largest)
        rest = _outside(
            least.bytes - high.stack.bytes - change + smallest,
            most.bytes - low.stack.bytes - change + largest,
        )
        return rest, there + lost, lost

    if out:
        tags = _TAG * high.tagged
    else:  # of tagged frames that were merged after the driver it may have counted each
        merged = round(segments * high.tagged / high.stack.packets) if high.stack.packets else 0
        tags = -_TAG * (high.tagged + merged)
    without = -evidence.link_header * most.packets
    convention = min(
        (0, without, tags, without + tags), key=lambda one: [abs(left) for left in gap(one)[:2]]
    )
    rest_bytes, _, lost = gap(convention)
    return _Driver(
        segments=Amount(segments, segment_bytes),
        headers=convention,
        dropped=Amount(-dropped.packets, -lost),
        queued=Amount(-queued.packets, -queued.bytes),
        rest=Amount(rest, rest_bytes),
    )


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _outside(low: int, high: int) -> int:
    """How far zero lies outside of low … high; positive if all of it is above."""
    return max(low, 0) + min(high, 0)
