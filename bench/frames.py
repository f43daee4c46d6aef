"""Ethernet frames for test runs: TCP and UDP over IPv4 or IPv6, with an IP packet of a given size."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_network

from netmond.model import Network

#: Bytes of the IP packets: a full-sized segment of TCP, a small datagram.
SIZES = {"TCP": 1500, "UDP": 92}

_ETHERNET = bytes.fromhex("02000000000102000000000f")
_PORTS = 40001, 443
_NUMBERS = {"TCP": 6, "UDP": 17}

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


def frame(family: int, destination: Address, protocol: str = "TCP") -> bytes:
    """From LOCAL to the destination, of the size that SIZES says."""
    source, size, kind = LOCAL[family], SIZES[protocol], _NUMBERS[protocol]
    if family == 4:
        fields = (0x45, 0, size, 1, 0x4000, 64, kind, 0, source.packed, destination.packed)
        header = struct.pack("!BBHHHBBH4s4s", *fields)
    else:
        header = struct.pack("!IHBB16s16s", 6 << 28, size - 40, kind, 64, source.packed, destination.packed)
    ethertype = struct.pack("!H", 0x0800 if family == 4 else 0x86DD)
    transport = (
        struct.pack("!HHIIBBHHH", *_PORTS, 1, 1, 5 << 4, 0x10, 501, 0, 0)
        if protocol == "TCP"
        else struct.pack("!HHHH", *_PORTS, size - len(header), 0)
    )
    return (_ETHERNET + ethertype + header + transport).ljust(14 + size, b"x")
