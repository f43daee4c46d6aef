"""Where netmond's parser and scapy differ on purpose, why, and what exactly the parser has to find."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot3

from tests.kernel.packet_facts import IPV6, TCP, Facts
from tests.kernel.scapy_decoder import (
    MALFORMED,
    TAG_TYPES,
    SealedTCP,
    behind_tags,
    decode,
    dissect,
    extension_headers,
    is_later_fragment,
)

_MOST_TAGS, _MOST_EXTENSIONS = 2, 8  # bpf/parse.h
_TCP_UP_TO_LENGTH, _WHOLE_TCP = 14, 20  # bytes


class Difference(StrEnum):
    """The whole list; anything else is a mistake of one of the two."""

    #: scapy reads any number of VLAN tags. The programs look below two (IEEE 802.1ad), so that the verifier
    #: sees an end; what is deeper counts as other.
    THIRD_TAG = "a third VLAN tag"
    #: scapy reads any number of extension headers, the programs eight, for the same reason. RFC 8200 (4.1)
    #: has each at most once but one; what has more counts as malformed.
    NINTH_EXTENSION = "a ninth extension header"
    #: To scapy a payload length of 0 without a jumbo option means no payload. To the programs it means that
    #: the header does not say: so large packets on their way to segmentation have it (BIG TCP).
    NO_LENGTH = "an IPv6 payload length of 0"
    #: scapy takes a TCP header of less than 20 bytes for none. The programs take its ports and data offset,
    #: which are there: they need no more, and a first fragment may be as short.
    SHORT_TCP = "a TCP header cut behind its data offset"


def explained(frame: bytes, packet: Any, theirs: Facts) -> tuple[Facts, frozenset[Difference]]:
    """What the parser has to say of a frame of which scapy says `theirs`, and the differences in that."""
    if packet is None or isinstance(packet, Dot3):
        return theirs, frozenset()
    if _has_third_tag(packet):
        return Facts("other", 14 + 4 * _MOST_TAGS), frozenset({Difference.THIRD_TAG})
    found = set()
    at, link = behind_tags(packet)
    ip = link.payload
    if link.type == IPV6 and len(frame) >= at + 40 and frame[at + 4 : at + 6] == b"\0\0":
        found.add(Difference.NO_LENGTH)
        ip, theirs = _with_length(frame, at)
    if isinstance(ip, IPv6) and len(extension_headers(ip)) > _MOST_EXTENSIONS:
        found.add(Difference.NINTH_EXTENSION)
        theirs = MALFORMED
    if theirs.protocol == TCP and _TCP_UP_TO_LENGTH <= len(tcp := _transport_bytes(ip)) < _WHOLE_TCP:
        found.add(Difference.SHORT_TCP)
        whole = SealedTCP(tcp + bytes(_WHOLE_TCP))
        theirs = theirs._replace(
            source_port=whole.sport, destination_port=whole.dport, transport_header=whole.dataofs * 4
        )
    return theirs, frozenset(found)


def _with_length(frame: bytes, at: int) -> tuple[Any, Facts]:
    """What scapy says of a packet, from `at` on, once its header gives the length that it has."""
    repaired = frame[: at + 4] + (len(frame) - at - 40).to_bytes(2, "big") + frame[at + 6 :]
    packet = dissect(repaired)
    theirs = decode(packet, len(repaired))
    return behind_tags(packet)[1].payload, theirs if theirs == MALFORMED else theirs._replace(length=0)


def _transport_bytes(ip: Any) -> bytes:
    """What scapy has found behind the last IP header, nothing in a fragment after the first."""
    last = [ip, *extension_headers(ip)][-1] if isinstance(ip, IPv6) else ip
    later = is_later_fragment(last) if isinstance(ip, IPv6) else last.frag != 0
    return b"" if later else bytes(last.payload.original)


def _has_third_tag(packet: Any) -> bool:
    at, link = behind_tags(packet)
    tags = (at - 14) // 4
    return tags > _MOST_TAGS or (tags == _MOST_TAGS and link.type in TAG_TYPES)
