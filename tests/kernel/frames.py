"""Frames of every kind, made by scapy, and the class each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

_ETHER = {"src": "02:00:00:00:ff:01", "dst": "02:00:00:00:ff:02"}
_FOUR = {"src": "192.0.2.1", "dst": "192.0.2.2"}
_SIX = {"src": "2001:db8::1", "dst": "2001:db8::2"}
_DATA = Raw(bytes(range(101)))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame; `kind` is its class: ipv4, ipv6, arp or other."""

    name: str
    kind: str
    data: bytes
    multicast: bool = False
    malformed: bool = False


def _six(*headers: object, count: int = 1) -> object:
    packet = Ether(**_ETHER) / IPv6(**_SIX)
    for header in headers * count:
        packet = packet / header
    return packet / UDP(sport=7, dport=9) / _DATA


def _spoiled(packet: object, at: int, *values: int) -> bytes:
    """The packet with other bytes behind the Ethernet header."""
    data = bytearray(bytes(packet))  # type: ignore[call-overload]
    data[14 + at : 14 + at + len(values)] = values
    return bytes(data)


_udp4 = Ether(**_ETHER) / IP(**_FOUR) / UDP(sport=7, dport=9) / _DATA
_udp6 = _six()
_group = {"src": _ETHER["src"], "dst": "01:00:5e:00:00:07"}
_everyone = {"src": _ETHER["src"], "dst": "ff:ff:ff:ff:ff:ff"}


def _frame(name: str, kind: str, packet: object, **more: bool | int) -> Frame:
    return Frame(name, kind, bytes(packet), **more)  # type: ignore[call-overload, arg-type]


FRAMES = (
    _frame("udp4", "ipv4", _udp4),
    _frame("tcp4", "ipv4", Ether(**_ETHER) / IP(**_FOUR) / TCP(sport=7, dport=9, flags="R") / _DATA),
    _frame("gre4", "ipv4", Ether(**_ETHER) / IP(**_FOUR, proto=47) / _DATA),
    _frame(
        "options4",
        "ipv4",
        Ether(**_ETHER) / IP(**_FOUR, options=[IPOption_Router_Alert()]) / UDP(sport=7, dport=9) / _DATA,
    ),
    _frame("first fragment4", "ipv4", Ether(**_ETHER) / IP(**_FOUR, flags="MF") / UDP(sport=7) / _DATA),
    _frame("later fragment4", "ipv4", Ether(**_ETHER) / IP(**_FOUR, frag=13, proto=17) / _DATA),
    _frame("padded4", "ipv4", Ether(**_ETHER) / IP(**_FOUR, proto=17, len=20) / Raw(bytes(26))),
    _frame("multicast4", "ipv4", Ether(**_group) / IP(src="192.0.2.1", dst="224.0.0.7"), multicast=True),
    _frame("udp6", "ipv6", _udp6),
    _frame("hop-by-hop6", "ipv6", _six(IPv6ExtHdrHopByHop())),
    _frame("routing6", "ipv6", _six(IPv6ExtHdrRouting(addresses=["2001:db8::7"], segleft=0))),
    _frame("several headers6", "ipv6", _six(IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting())),
    _frame("first fragment6", "ipv6", _six(IPv6ExtHdrFragment(m=1, id=7))),
    _frame("later fragment6", "ipv6", Ether(**_ETHER) / IPv6(**_SIX) / IPv6ExtHdrFragment(offset=13, nh=17)),
    _frame("seven headers6", "ipv6", _six(IPv6ExtHdrDestOpt(), count=7)),
    _frame("eight headers6", "ipv6", _six(IPv6ExtHdrDestOpt(), count=8)),
    _frame("arp", "arp", Ether(**_everyone) / ARP(psrc="192.0.2.1", pdst="192.0.2.2"), multicast=True),
    _frame("other", "other", Ether(**_ETHER, type=0x88B5) / _DATA),
    _frame("length instead of type", "other", Ether(**_ETHER, type=101) / _DATA),
    _frame("nothing behind the header", "other", Ether(**_ETHER, type=0x88B5)),
    _frame("vlan", "ipv4", Ether(**_ETHER) / Dot1Q(vlan=23) / IP(**_FOUR) / UDP() / _DATA),
    _frame("vlan arp", "arp", Ether(**_ETHER) / Dot1Q(vlan=23) / ARP(psrc="192.0.2.1")),
    _frame(
        "qinq",
        "ipv6",
        Ether(**_ETHER) / Dot1AD(vlan=7) / Dot1Q(vlan=23) / IPv6(**_SIX) / UDP() / _DATA,
    ),
    _frame(
        "three tags",
        "other",
        Ether(**_ETHER) / Dot1AD(vlan=7) / Dot1Q(vlan=11) / Dot1Q(vlan=23) / IP(**_FOUR) / UDP() / _DATA,
    ),
    Frame("version 5", "other", _spoiled(_udp4, 0, 0x55), malformed=True),
    Frame("short header length", "other", _spoiled(_udp4, 0, 0x44), malformed=True),
    Frame("cut off4", "other", bytes(_udp4)[: 14 + 19], malformed=True),
    Frame("options cut off4", "other", _spoiled(_udp4, 0, 0x4F)[: 14 + 59], malformed=True),
    Frame("shorter than its header4", "other", _spoiled(_udp4, 2, 0, 19), malformed=True),
    Frame("version 7", "other", _spoiled(_udp6, 0, 0x70), malformed=True),
    Frame("cut off6", "other", bytes(_udp6)[: 14 + 39], malformed=True),  # type: ignore[call-overload]
    _frame("too many headers6", "other", _six(IPv6ExtHdrDestOpt(), count=9), malformed=True),
    Frame(
        "header cut off6",
        "other",
        bytes(_six(IPv6ExtHdrHopByHop()))[: 14 + 42],  # type: ignore[call-overload]
        malformed=True,
    ),
)
