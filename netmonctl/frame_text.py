"""A frame as a line of text, in tcpdump's words, and as a hexdump. Pure.

Frames come from anywhere. Whatever is in them, a decoder ends, raises nothing, and shows only numbers,
addresses and words of ours: no byte of a frame reaches a terminal as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from netmonctl import frame_rdma as rdma
from netmonctl import frame_transport as transport
from netmonctl.frame_line import Line, ipv4, ipv6, mac

ETHERNET, RAW, ERF, INFINIBAND = 1, 101, 197, 247  # pcap-linktype(7)

#: The extensible record format has a header of its own: ibdump(1) writes it, type 21 is InfiniBand.
_ERF_HEADER, _ERF_INFINIBAND = 16, 21

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_TAGS = {0x8100, 0x88A8, 0x9100}  # IEEE Std 802.1Q, 802.1ad, and what came before it
_ETHERTYPES = {
    0x8847: "MPLS", 0x8863: "PPPoE D", 0x8864: "PPPoE S", 0x888E: "EAPOL", 0x88B5: "experimental",
    0x88CC: "LLDP", 0x8906: "FCoE",
}  # fmt: skip

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _OPTIONS = 0, 43, 44, 51, 60
_EXTENSIONS = {_HOP_BY_HOP: "HBH", _ROUTING: "srcrt", _AUTHENTICATION: "AH", _OPTIONS: "DSTOPT"}
_IN_IP = {4: _IPV4, 41: _IPV6}

#: As many of each follow one another in frames that mean well, and more than that.
_MOST_TAGS, _MOST_EXTENSIONS, _MOST_DEPTH = 4, 16, 4


def summary(linktype: int, data: bytes, length: int) -> tuple[str, dict[str, Any]]:
    """A frame of `length` bytes, of which `data` is known, in a line; and the values in it."""
    line = Line()
    try:
        if linktype == ETHERNET:
            _ethernet(line, data, length)
        elif linktype == RAW:
            line.layer = "ip"
            _packet(line, _IPV6 if data[0] >> 4 == 6 else _IPV4, data, length)
        elif linktype == INFINIBAND:
            rdma.infiniband(line, data, length)
        elif linktype == ERF and data[8] == _ERF_INFINIBAND:
            rdma.infiniband(line, data[_ERF_HEADER:], length - _ERF_HEADER)
        else:
            line.add(f"link type {linktype}, length {length}")
    except (struct.error, IndexError, ValueError):
        line.cut()
    return line.text, line.values


def hexdump(data: bytes, *, characters: bool) -> Iterator[str]:
    """Lines of 16 bytes, with the printable ones of ASCII beside them if wanted, as tcpdump has it."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        digits = " ".join(row[n : n + 2].hex() for n in range(0, len(row), 2))
        shown = "".join(chr(byte) if 0x20 < byte < 0x7F else "." for byte in row)
        yield f"\t0x{start:04x}:  {digits:<39}  {shown}" if characters else f"\t0x{start:04x}:  {digits}"


def _ethernet(line: Line, data: bytes, length: int) -> None:
    line.layer = "ether"
    (kind,) = struct.unpack_from("!H", data, 12)
    line.know(source_mac=mac(data[6:12]), destination_mac=mac(data[:6]))
    start = 14
    vlans: list[int] = []
    while kind in _TAGS and len(vlans) < _MOST_TAGS:
        tag, kind = struct.unpack_from("!HH", data, start)
        start += 4
        vlans.append(tag & 0xFFF)
        line.add(f"vlan {tag & 0xFFF}, p {tag >> 13}, ")
        line.know(vlans=vlans)
    if kind in (_ARP, _IPV4, _IPV6):
        _packet(line, kind, data[start:], length - start)
        return
    if kind == rdma.ROCE_ETHERTYPE:
        rdma.roce_v1(line, data[start:], length - start)
        return
    name = "802.3" if kind < 0x600 else f"ethertype {_ETHERTYPES.get(kind, 'Unknown')} ({kind:#06x})"
    line.know(ethertype=kind)
    line.add(f"{mac(data[6:12])} > {mac(data[:6])}, {name}, length {length}")


def _packet(line: Line, kind: int, data: bytes, length: int) -> None:
    {_ARP: _arp, _IPV4: _ipv4, _IPV6: _ipv6}[kind](line, data, length)


def _arp(line: Line, data: bytes, length: int) -> None:
    """RFC 826, of IPv4 over Ethernet."""
    line.layer = "arp"
    line.know(protocol="arp")
    line.add("ARP, ")
    hardware, protocol, hardware_size, protocol_size, operation = struct.unpack_from("!HHBBH", data)
    if (protocol, hardware_size, protocol_size) != (_IPV4, 6, 4):
        line.add(f"hardware {hardware}, protocol {protocol:#06x}, operation {operation}, length {length}")
        return
    source, destination = ipv4(data[14:18]), ipv4(data[24:28])
    line.know(source=source, destination=destination)
    if operation == 1:
        line.add(f"Request who-has {destination} tell {source}")
    elif operation == 2:
        line.add(f"Reply {source} is-at {mac(data[8:14])}")
    else:
        line.add(f"operation {operation}")
    line.add(f", length {length}")


def _ipv4(line: Line, data: bytes, length: int) -> None:
    """RFC 791."""
    line.layer = "ip"
    line.add("IP ")
    first, _, total, identity, fragment, ttl, protocol = struct.unpack_from("!BBHHHBB", data)
    header = (first & 15) * 4
    if first >> 4 != 4 or header < 20:
        line.add(f"bad header, version {first >> 4}, header length {header}, length {length}")
        return
    source, destination = ipv4(data[12:16]), ipv4(data[16:20])
    line.know(source=source, destination=destination, ttl=ttl)
    # Of a packet that the network card is to cut in segments the length may not be known yet.
    rest = (total or length) - header
    offset = (fragment & 0x1FFF) * 8
    if fragment & 0x3FFF:
        more = "+" if fragment & 0x2000 else ""
        line.know(fragment={"id": identity, "offset": offset, "more": bool(more)})
        line.add(f"frag (id {identity}, offset {offset}{more}, length {rest}) ")
    _payload(line, protocol, (source, destination), data[header : header + max(0, rest)], rest, offset)


def _ipv6(line: Line, data: bytes, length: int) -> None:
    """RFC 8200, the extension headers included."""
    line.layer = "ip6"
    line.add("IP6 ")
    first, size, protocol, ttl = struct.unpack_from("!IHBB", data)
    if first >> 28 != 6:
        line.add(f"bad header, version {first >> 28}, length {length}")
        return
    source, destination = ipv6(data[8:24]), ipv6(data[24:40])
    line.know(source=source, destination=destination, ttl=ttl)
    rest, start, offset = size or length - 40, 40, 0
    for _ in range(_MOST_EXTENSIONS):
        if protocol == _FRAGMENT:
            protocol, place, identity = struct.unpack_from("!BxHI", data, start)
            header, offset = 8, place & 0xFFF8
            more = "+" if place & 1 else ""
            line.know(fragment={"id": identity, "offset": offset, "more": bool(more)})
            line.add(f"frag (id {identity:#x}, offset {offset}{more}, length {rest - header}) ")
        elif protocol in _EXTENSIONS:
            line.add(f"{_EXTENSIONS[protocol]} ")
            # The length is in units of 8 bytes beyond the first, but of 4, beyond two, with AH (RFC 4302).
            unit, beyond = (4, 2) if protocol == _AUTHENTICATION else (8, 1)
            protocol, units = struct.unpack_from("!BB", data, start)
            header = (units + beyond) * unit
        else:
            break
        start, rest = start + header, rest - header
        if offset:
            break
    _payload(line, protocol, (source, destination), data[start : start + max(0, rest)], rest, offset)


def _payload(
    line: Line, protocol: int, ends: tuple[str, str], data: bytes, length: int, offset: int
) -> None:
    """What an IP packet carries: `length` bytes, of which `data` is known, from `offset` on."""
    source, destination = ends
    name = transport.name(protocol)
    line.know(protocol=name or protocol)
    if offset:
        line.add(f"{source} > {destination}: {name or f'ip-proto-{protocol}'}")
    elif protocol in transport.WITH_PORTS:
        transport.WITH_PORTS[protocol](line, ends, data, length)
    else:
        line.add(f"{source} > {destination}: ")
        if protocol in _IN_IP and line.depth < _MOST_DEPTH:
            line.depth += 1
            _packet(line, _IN_IP[protocol], data, length)
        elif protocol in transport.WITHOUT_PORTS:
            transport.WITHOUT_PORTS[protocol](line, data, length)
        else:
            line.add(f"{name}, length {length}" if name else f"ip-proto-{protocol} {length}")
