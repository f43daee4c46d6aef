"""Frames with which the far end asks the near end's kernel for something: ARP, ICMP, ICMPv6."""

from __future__ import annotations

import socket
import struct

_BROADCAST = b"\xff" * 6


def _raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_request(mac: str, source: str, wanted: str) -> bytes:
    """Who has an address? RFC 826."""
    sender = _raw(mac)
    return (
        _BROADCAST + sender + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
        + sender + socket.inet_aton(source) + bytes(6) + socket.inet_aton(wanted)
    )  # fmt: skip


def echo_request(macs: tuple[str, str], ends: tuple[str, str], size: int) -> bytes:
    """A ping between two addresses, source first; RFC 792, RFC 4443."""
    six = ":" in ends[0]
    family = socket.AF_INET6 if six else socket.AF_INET
    source, destination = (socket.inet_pton(family, end) for end in ends)
    message = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 7, 1) + bytes(size)
    pseudo = source + destination + struct.pack("!II", len(message), socket.IPPROTO_ICMPV6) if six else b""
    message = message[:2] + struct.pack("!H", _checksum(pseudo + message)) + message[4:]
    if six:
        header = (
            struct.pack("!IHBB", 6 << 28, len(message), socket.IPPROTO_ICMPV6, 64) + source + destination
        )
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 64, socket.IPPROTO_ICMP, 0)
        header += source + destination
        header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    ethernet = _raw(macs[1]) + _raw(macs[0]) + struct.pack("!H", 0x86DD if six else 0x0800)
    return ethernet + header + message
