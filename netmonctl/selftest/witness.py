"""What passed the far end of the cable, as a packet socket there saw it: the witness.

With all offloads off at that end, each frame is one that a real wire would carry.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from netmonctl.selftest.figures import Figures

ETHERNET = 14
TYPES = {0x0800: "ipv4", 0x86DD: "ipv6", 0x0806: "arp"}
FRAGMENT = 44
_SYN_ACK = 0x12  # flags of a TCP header, RFC 9293


class Kind(NamedTuple):
    """What frames that are counted together have in common. `inward`: they went to the near end.

    Addresses, protocol, port (of the near end) and headers (from the IP header on) are those of whole IP
    packets that have them; `carries`: TCP segments with data; `answers`: those that answer a new connection.
    """

    inward: bool
    type: str
    multicast: bool
    source: str = ""
    destination: str = ""
    protocol: int = 0
    near_port: int = 0
    headers: int = 0
    carries: bool = False
    answers: bool = False


class Count(NamedTuple):
    packets: int
    frame_bytes: int
    ip_bytes: int

    def __add__(self, other: tuple[object, ...]) -> Count:
        return Count(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[operator]


Seen = dict[Kind, Count]


def classify(frame: bytes, inward: bool) -> tuple[Kind, Count]:
    """One Ethernet frame."""
    (number,) = struct.unpack_from("!H", frame, 12)
    type_, multicast = TYPES.get(number, "other"), bool(frame[0] & 1)
    ip = frame[ETHERNET:]
    if type_ == "ipv4":
        (size,) = struct.unpack_from("!H", ip, 2)
        header, protocol = (ip[0] & 15) * 4, ip[9]
        whole = not int.from_bytes(ip[6:8], "big") & 0x3FFF
        ends = [socket.inet_ntop(socket.AF_INET, ip[at : at + 4]) for at in (12, 16)]
    elif type_ == "ipv6":
        size = 40 + int.from_bytes(ip[4:6], "big")
        header, protocol = 40, ip[6]
        whole = protocol != FRAGMENT
        ends = [socket.inet_ntop(socket.AF_INET6, ip[at : at + 16]) for at in (8, 24)]
    else:
        return Kind(inward, type_, multicast), Count(1, len(frame), 0)
    near_port = headers = 0
    carries = answers = False
    if whole and protocol == socket.IPPROTO_TCP:
        ports = struct.unpack_from("!HH", ip, header)
        near_port, headers = ports[inward], header + (ip[header + 12] >> 4) * 4
        carries = size > headers
        answers = ip[header + 13] & _SYN_ACK == _SYN_ACK
    kind = Kind(inward, type_, multicast, ends[0], ends[1], protocol, near_port, headers, carries, answers)
    return kind, Count(1, len(frame), size)


def tally(frames: Iterable[tuple[bytes, bool]], seen: Seen) -> None:
    """Adds frames, with whether they went to the near end."""
    for frame, inward in frames:
        kind, count = classify(frame, inward)
        seen[kind] = seen.get(kind, Count(0, 0, 0)) + count


def packed(seen: Seen) -> list[list[object]]:
    """As JSON can carry it."""
    return [[*kind, *count] for kind, count in seen.items()]


def unpacked(rows: Sequence[Sequence[object]]) -> Seen:
    fields = len(Kind._fields)
    return {Kind(*row[:fields]): Count(*row[fields:]) for row in rows}  # type: ignore[arg-type]


def since(later: Seen, before: Seen) -> Seen:
    """What was seen in between."""
    grown = {
        kind: Count(*(a - b for a, b in zip(count, before.get(kind, Count(0, 0, 0)), strict=True)))
        for kind, count in later.items()
    }
    return {kind: count for kind, count in grown.items() if count.packets}


@dataclass(frozen=True, slots=True)
class Witness:
    """Questions to what was seen."""

    seen: Seen

    def frames(self, chosen: Callable[[Kind], bool] = lambda _: True) -> Figures:
        """With their link-layer headers."""
        return self._figures(chosen, lambda count: count.frame_bytes)

    def packets(self, chosen: Callable[[Kind], bool]) -> Figures:
        """IP packets, from the IP header on."""
        return self._figures(chosen, lambda count: count.ip_bytes)

    def connection(self, near_port: int) -> Figures:
        """A TCP connection of the near end."""
        return self.packets(lambda kind: kind.near_port == near_port)

    def headers(self, near_port: int, *, inward: bool) -> set[int]:
        """The header lengths of a connection's segments with data."""
        return {
            kind.headers
            for kind in self.seen
            if kind.near_port == near_port and kind.inward == inward and kind.carries
        }

    def address(self, address: str) -> Figures:
        """in is what was sent to an address, out what came from it."""
        to = self.packets(lambda kind: kind.destination == address)
        by = self.packets(lambda kind: kind.source == address)
        return Figures(
            to.in_packets + to.out_packets,
            to.in_bytes + to.out_bytes,
            by.in_packets + by.out_packets,
            by.in_bytes + by.out_bytes,
        )

    def _figures(self, chosen: Callable[[Kind], bool], size: Callable[[Count], int]) -> Figures:
        figures = [0, 0, 0, 0]
        for kind, count in self.seen.items():
            if chosen(kind):
                place = 0 if kind.inward else 2
                figures[place] += count.packets
                figures[place + 1] += size(count)
        return Figures(*figures)
