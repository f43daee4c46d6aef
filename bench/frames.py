"""Ethernet frames for test runs: TCP over IPv4 or IPv6, an IP packet of 1,500 bytes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_network

from netmond.model import Network

PACKET = 1500
_ETHERNET = bytes.fromhex("02000000000102000000000f")
_TCP = struct.pack("!HHIIBBHHH", 40001, 443, 1, 1, 5 << 4, 0x10, 501, 0, 0)

Address = IPv4Address | IPv6Address
LOCAL: dict[int, Address] = {4: IPv4Address("192.0.2.7"), 6: IPv6Address("2001:db8:ffff::7")}


def address(family: int, number: int) -> Address:
    """The number-th of 2**24 addresses, scattered as vary.c scatters them."""
    scattered = number * 2654435761 % (1 << 24)
    if family == 4:
        return IPv4Address(10 << 24 | scattered)
    return IPv6Address(0x20010DB8 << 96 | scattered << 64 | scattered)


def target(family: int, number: int) -> Network:
    """address() as a target."""
    return ip_network(address(family, number))


def frame(family: int, destination: Address) -> bytes:
    """From LOCAL to the destination."""
    source = LOCAL[family]
    if family == 4:
        fields = (0x45, 0, PACKET, 1, 0x4000, 64, 6, 0, source.packed, destination.packed)
        header = struct.pack("!BBHHHBBH4s4s", *fields)
    else:
        header = struct.pack("!IHBB16s16s", 6 << 28, PACKET - 40, 6, 64, source.packed, destination.packed)
    kind = struct.pack("!H", 0x0800 if family == 4 else 0x86DD)
    return (_ETHERNET + kind + header + _TCP).ljust(14 + PACKET, b"x")
