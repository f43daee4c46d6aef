"""The independent decoder: what scapy's dissection of a frame says, in the terms of Facts.

Nothing here looks at a byte of the packet; all comes from the fields of scapy's layers. What scapy does not
judge, whether headers fit into the frame and into the length that the IP header gives, is worked out from
those fields, by RFC 791 (3.1), RFC 8200 (4), RFC 6564 (4) and RFC 4302 (2.2).

The contents of options and extension headers are left undissected (`_sealed`): scapy gives up on whole
headers for what is in there, and they are most of its time.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

logging.getLogger("scapy").setLevel(logging.CRITICAL)  # about packets that are wrong on purpose

from scapy.config import conf  # noqa: E402
from scapy.fields import StrLenField  # noqa: E402
from scapy.layers.inet import IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import (  # noqa: E402
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    _IPv6GuessPayload,
    ipv6nhcls,
)
from scapy.layers.ipsec import AH  # noqa: E402
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Dot3, Ether  # noqa: E402
from scapy.layers.sctp import SCTP  # noqa: E402
from scapy.packet import bind_layers, split_layers  # noqa: E402

from tests.kernel.packet_facts import Facts  # noqa: E402

MALFORMED = Facts("malformed")
TAG_TYPES = (0x8100, 0x88A8)
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AH, _DESTINATION = 0, 43, 44, 51, 60
_TCP, _UDP, _SCTP, _UDPLITE = 6, 17, 132, 136


def _sealed(class_: Any, kept: int, length: Callable[[Any], int]) -> Any:
    """A kind of layer with its first `kept` fields, and one of `length` bytes for all others."""
    rest = StrLenField("rest", b"", length_from=length)
    return type(f"Sealed{class_.__name__}", (class_,), {"fields_desc": [*class_.fields_desc[:kept], rest]})


def _sealed_extension(class_: Any) -> Any:
    return _sealed(class_, 2, lambda header: int(header.len) * 8 + 6)


SealedTCP = _sealed(TCP, 10, lambda tcp: max(0, int(tcp.dataofs) * 4 - 20))
_IP = _sealed(IP, 12, lambda ip: max(0, int(ip.ihl) * 4 - 20))
_TRANSPORTS = {
    _TCP: SealedTCP,
    _UDP: UDP,
    _SCTP: SCTP,
    _UDPLITE: UDP,  # RFC 3828: the same ports
}
_EXTENSIONS = {
    _HOP_BY_HOP: _sealed_extension(IPv6ExtHdrHopByHop),
    _ROUTING: _sealed_extension(IPv6ExtHdrRouting),
    _FRAGMENT: IPv6ExtHdrFragment,
    _AH: AH,
    _DESTINATION: _sealed_extension(IPv6ExtHdrDestOpt),
}
#: The last field that every header of a kind has. Of one that ends between two fields scapy makes a layer
#: all the same, which has no value for the rest.
_LAST = {
    Ether: "type", IPv6: "dst", _IP: "dst", SealedTCP: "urgptr", UDP: "chksum", SCTP: "chksum",
    IPv6ExtHdrFragment: "id", AH: "seq", Dot1Q: "type", Dot1AD: "type",
}  # fmt: skip


def _prepare() -> None:
    """Tells scapy of the classes above, and to stop at the transport header."""
    split_layers(Ether, IP, type=0x0800)
    bind_layers(Ether, _IP, type=0x0800)
    _IP.aliastypes = [_IP]
    _IP.payload_guess = [({"proto": number, "frag": 0}, class_) for number, class_ in _TRANSPORTS.items()]
    classes = {**_TRANSPORTS, **_EXTENSIONS}
    ipv6nhcls.clear()
    ipv6nhcls.update(classes)
    _IPv6GuessPayload.default_payload_class = lambda self, _: classes.get(self.nh, conf.raw_layer)
    AH.guess_payload_class = _IPv6GuessPayload.default_payload_class
    for class_ in (IPv6, *_EXTENSIONS.values()):  # no other binding than the table above
        class_.payload_guess, class_.aliastypes = [], [class_]
    for class_ in (*_TRANSPORTS.values(), ARP):
        class_.guess_payload_class = lambda self, _: conf.raw_layer


_prepare()


def dissect(frame: bytes) -> Any:
    """scapy's packet; None: not even a whole Ethernet header."""
    try:
        packet = Ether(frame)
    except struct.error:
        return None
    return packet if isinstance(packet, Dot3) or is_whole(packet) else None


def decode(packet: Any, size: int) -> Facts:
    """What scapy's packet, of a frame of so many bytes, says."""
    if packet is None:
        return MALFORMED
    at, layer = behind_tags(packet)
    if isinstance(layer, Dot3):  # a length (IEEE 802.3) where others have a type
        return Facts("other", at)
    if layer.type in TAG_TYPES:  # and no whole tag
        return MALFORMED
    if layer.type == 0x0806:
        return Facts("arp", at)
    if layer.type == 0x0800:
        return _ipv4(layer.payload, at, size - at)
    if layer.type == 0x86DD:
        return _ipv6(layer.payload, at, size - at)
    return Facts("other", at)


def behind_tags(packet: Any) -> tuple[int, Any]:
    """Bytes of Ethernet header and tags, and the layer that holds the last of them."""
    at, layer = 14, packet
    while isinstance(layer.payload, Dot1Q) and is_whole(layer.payload):
        at, layer = at + 4, layer.payload
    return at, layer


def _ipv4(ip: Any, at: int, room: int) -> Facts:
    if not isinstance(ip, IP) or not is_whole(ip) or ip.version != 4:
        return MALFORMED
    header = ip.ihl * 4
    if not 20 <= header <= room or 0 < ip.len < header:
        return MALFORMED
    mapped = bytes(10) + b"\xff\xff"
    source_port, destination_port, transport_header = transport(ip.payload, ip.proto)
    return Facts(
        kind="ipv4",
        link_header=at,
        source=mapped + socket.inet_aton(ip.src),
        destination=mapped + socket.inet_aton(ip.dst),
        source_port=source_port,
        destination_port=destination_port,
        protocol=ip.proto,
        fragment=ip.frag != 0 or bool(ip.flags.MF),
        length=ip.len,
        ip_header=header,
        transport_header=transport_header,
    )


def _ipv6(ip: Any, at: int, room: int) -> Facts:
    if not isinstance(ip, IPv6) or not is_whole(ip) or ip.version != 6:
        return MALFORMED
    extensions = extension_headers(ip)
    layer = extensions[-1] if extensions else ip
    header = 40 + sum(map(_extension_size, extensions))
    if layer.nh in _EXTENSIONS and not is_later_fragment(layer):  # the next is cut short
        return MALFORMED
    if any(isinstance(each, AH) and not each.payloadlen for each in extensions):  # less than its fixed part
        return MALFORMED
    if header > room or 0 < ip.plen < header - 40:
        return MALFORMED
    source_port, destination_port, transport_header = transport(layer.payload, layer.nh)
    return Facts(
        kind="ipv6",
        link_header=at,
        source=socket.inet_pton(socket.AF_INET6, ip.src),
        destination=socket.inet_pton(socket.AF_INET6, ip.dst),
        source_port=source_port,
        destination_port=destination_port,
        protocol=layer.nh,
        fragment=any(isinstance(each, IPv6ExtHdrFragment) for each in extensions),
        length=ip.plen and ip.plen + 40,
        ip_header=header,
        transport_header=transport_header,
    )


def extension_headers(ip: Any) -> list[Any]:
    """The extension headers behind an IPv6 header, as far as they are whole."""
    found: list[Any] = []
    layer = ip
    while not is_later_fragment(layer) and isinstance(layer.payload, _EXTENSIONS.get(layer.nh, ())):
        if not is_whole(layer.payload):
            break
        layer = layer.payload
        found.append(layer)
    return found


def _extension_size(layer: Any) -> int:
    if isinstance(layer, IPv6ExtHdrFragment):
        return 8
    if isinstance(layer, AH):
        return int(layer.payloadlen + 2) * 4
    return int(layer.len + 1) * 8


def is_later_fragment(layer: Any) -> bool:
    """Whether what follows is a piece of payload."""
    return isinstance(layer, IPv6ExtHdrFragment) and layer.offset != 0


def is_whole(layer: Any) -> bool:
    """Whether the layer's fixed part was there to the end."""
    return _LAST.get(type(layer), "len") in layer.fields


def transport(layer: Any, protocol: int) -> tuple[int, int, int]:
    """Ports and header length, zeroes if the layer is not a transport header of that protocol."""
    if protocol not in _TRANSPORTS or not isinstance(layer, _TRANSPORTS[protocol]) or not is_whole(layer):
        return 0, 0, 0
    sizes = {_UDP: 8, _UDPLITE: 8, _SCTP: 12}
    return layer.sport, layer.dport, layer.dataofs * 4 if protocol == _TCP else sizes[protocol]
