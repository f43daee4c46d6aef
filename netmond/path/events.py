"""Columns of events (wire.PATH_EVENT) as Python values: what journeys are told by, and texts. Pure."""

from __future__ import annotations

import json
import socket
from ipaddress import IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.path.journeys import SEGMENT

_FIN, _SYN, _PUSH = 0x01, 0x02, 0x08

#: What an IP packet without data may be long at most, in bytes: a TCP segment with all options, behind IPv6.
_BARE = 40 + 60

#: Bits of marks that keep kinds of them apart.
_ALONE, _NUMBERED = np.uint64(1 << 62), np.uint64(1 << 61)

#: As tcpdump writes them, in its order.
_FLAG_LETTERS = tuple(zip((0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80), "FSRP.UEW", strict=True))

FLAGS = tuple("".join(letter for bit, letter in _FLAG_LETTERS if flags & bit) for flags in range(256))

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6"}

#: Fields of wire.PATH_EVENT, one behind the other, that all packets of a flow have in common.
_FLOW = np.dtype(
    [
        ("source", wire.ADDRESS),
        ("destination", wire.ADDRESS),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("protocol", "u1"),
    ]
)
_PORTS = {"sport": "source_port", "dport": "destination_port"}
_WITH_PORTS = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
_FLOW_AT = 8 * wire.word_of(wire.PATH_EVENT, "source")


def flows(records: NDArray[Any]) -> list[bytes]:
    """Addresses, ports and protocol of each event, as one key."""
    found: list[bytes] = records.getfield(np.dtype(f"V{_FLOW.itemsize}"), _FLOW_AT).tolist()
    return found


def flow_text(flow: bytes) -> str:
    """The members of a JSON object that a key of flows() stands for, without what is not known.

    Ports only where the protocol has some. A socket that listens knows no peer.
    """
    key = np.frombuffer(flow, _FLOW)[0]
    protocol = int(key["protocol"])
    members: dict[str, Any] = {
        "src": _address(key["source"].tobytes()),
        "dst": _address(key["destination"].tobytes()),
        **({name: int(key[field]) for name, field in _PORTS.items()} if protocol in _WITH_PORTS else {}),
        "protocol": _PROTOCOLS.get(protocol, str(protocol)),
    }
    return "".join(f'"{name}":{json.dumps(value)},' for name, value in members.items() if value)


def _address(packed: bytes) -> str:
    address = IPv6Address(packed)
    found = address.ipv4_mapped or address
    return "" if found.is_unspecified else str(found)


def marks(records: NDArray[Any], of_packets: NDArray[np.bool_], of_calls: NDArray[np.bool_]) -> list[int]:
    """What tells an event's packet from others of its flow (journeys.SEGMENT), 0: nothing does.

    of_packets: the event was seen at the packet itself, not at a socket. of_calls: in a call to send, where
    TCP tells the sequence number of the first byte. A TCP segment is known by its
    sequence number, a mere acknowledgement by both numbers; an echo by its own two; another packet by the
    identification of IPv4 and its length. Data is known by PSH, which Linux sets on the last segment of all
    it sends, and by length; what is sent again has some.
    """
    segment = (
        (records["flags"] & (_FIN | _SYN | _PUSH) != 0)
        | (records["length"] > _BARE)
        | (records["event"] == wire.PATH_RETRANSMIT)
    )
    sequence = records["sequence"].astype(np.uint64)
    acknowledged = records["acknowledgement"].astype(np.uint64) << np.uint64(30)
    tcp = np.where(segment, sequence | np.uint64(SEGMENT), sequence ^ acknowledged | _ALONE)
    other = (records["id"].astype(np.uint64) << np.uint64(32)) + records["length"] | _NUMBERED
    other = np.where(sequence != 0, sequence, np.where(records["id"] != 0, other, np.uint64(0)))
    of_tcp = records["protocol"] == socket.IPPROTO_TCP
    called = of_calls & of_tcp & (sequence != 0)
    found: list[int] = np.select(
        (called, of_packets & of_tcp, of_packets), (sequence | np.uint64(SEGMENT), tcp, other), np.uint64(0)
    ).tolist()
    return found


def text(name: str | bytes) -> str:
    """A name as JSON has it; what is no UTF-8 is replaced."""
    return json.dumps(name if isinstance(name, str) else name.decode(errors="replace"))
