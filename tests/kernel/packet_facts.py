"""What a decoder says of a packet: the facts that netmond's parser and scapy are compared in."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Facts(NamedTuple):
    """A classified packet. Without an IP header (`kind` arp, other, malformed) the rest is left out.

    `malformed` is a frame or an IP header that is not whole, or wrong; the programs count it as other.
    """

    kind: str  # ipv4, ipv6, arp, other, malformed
    link_header: int = 0  # bytes of Ethernet and VLAN tags; 0 if malformed
    source: bytes = b""  # 16 bytes, IPv4 mapped
    destination: bytes = b""
    source_port: int = 0  # 0 where there is none, as in a fragment after the first
    destination_port: int = 0
    protocol: int = 0
    fragment: bool = False
    length: int = 0  # of the packet as its header says; 0: it does not say
    ip_header: int = 0  # bytes, extension headers included
    transport_header: int = 0  # bytes, 0: unknown


#: struct verdict of parser_probe.c: first its own members, then those of struct packet.
VERDICT = struct.Struct("=IHBx 16s16s HH B? 2x I HH")
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
TCP = 6


def told(verdict: bytes | memoryview) -> Facts:
    """What the probe has found."""
    link_header, type_, whole, *packet = VERDICT.unpack(verdict)
    if not link_header or (type_ in (IPV4, IPV6) and not whole):
        return Facts("malformed")
    if not whole:
        return Facts("arp" if type_ == ARP else "other", link_header)
    return Facts("ipv4" if type_ == IPV4 else "ipv6", link_header, *packet)
