"""IPFIX messages (RFC 7011) of flow records: numpy columns in, bytes out. Pure.

A flow has a record for each direction in which it exchanged anything, source and destination as on the wire.
Elements are those of the IANA registry (RFC 7012), so that no collector needs to be told anything:
``userName`` and ``applicationName`` hold the login name and the process. ``observationDomainId`` is also in
each record, for collectors that do not keep it from the message's header. RoCE v1 is known by its
``ethernetType``, version 2 by UDP and port 4791: there is no element for what is behind these headers.

Messages come in parcels that begin with the templates. Whoever gets a parcel can read it, whether it came
after a restart of the collector, over UDP, where templates have to be repeated (RFC 7011, section 8.4), or
from a spool that an earlier version has left.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.model import (
    IN_BYTES,
    IN_PACKETS,
    NOBODY_UID,
    OUT_BYTES,
    OUT_PACKETS,
    FlowKind,
    Table,
    TrafficType,
)

#: Bytes of a message at most: with its headers it passes any Ethernet unfragmented, tunnels included.
MESSAGE = 1400

#: Messages of a parcel at most, behind the templates.
PARCEL = 64

VERSION = 10
_TEMPLATE_SET = 2
_HEADER = struct.Struct("!HHIII")  # version, length, export time, sequence number, observation domain
_SET = struct.Struct("!HH")  # id, length
_BOTH_HEADERS = (  # as columns
    *(("version", ">u2"), ("length", ">u2"), ("time", ">u4"), ("sequence", ">u4"), ("domain", ">u4")),
    *(("set", ">u2"), ("set_length", ">u2")),
)

#: Values of flowDirection.
INGRESS, EGRESS = 0, 1

#: Values of flowEndReason: nothing heard for long; still active, more will follow; its end was seen.
IDLE_TIMEOUT, ACTIVE_TIMEOUT, END_OF_FLOW = 1, 2, 3

#: Name, number and form of information elements.
_Element = tuple[str, int, str]
_ADDRESSES: dict[int, tuple[_Element, ...]] = {
    4: (("source", 8, ">u4"), ("destination", 12, ">u4")),  # sourceIPv4Address, destinationIPv4Address
    6: (("source", 27, "V16"), ("destination", 28, "V16")),  # sourceIPv6Address, destinationIPv6Address
}
_ELEMENTS: tuple[_Element, ...] = (
    ("flowStartMilliseconds", 152, ">u8"),
    ("flowEndMilliseconds", 153, ">u8"),
    ("octetDeltaCount", 1, ">u8"),
    ("packetDeltaCount", 2, ">u8"),
    ("ingressInterface", 10, ">u4"),
    ("egressInterface", 14, ">u4"),
    ("observationDomainId", 149, ">u4"),
    ("sourceTransportPort", 7, ">u2"),
    ("destinationTransportPort", 11, ">u2"),
    ("ethernetType", 256, ">u2"),
    ("protocolIdentifier", 4, "u1"),
    ("flowDirection", 61, "u1"),
    ("flowEndReason", 136, "u1"),
    ("userName", 371, "S32"),  # empty: nobody's, it was forwarded
    ("applicationName", 96, "S16"),
)


#: EtherTypes by address family (IEEE 802), and that of RoCE v1, which has the addresses of either.
_ETHERTYPES = {4: 0x0800, 6: 0x86DD}
_ETHERTYPE_ROCE_V1 = 0x8915


@dataclass(frozen=True, slots=True)
class Template:
    """The layout of the records of one address family. Another layout needs another number."""

    number: int
    family: int  #: 4 or 6
    record: np.dtype[np.void]
    definition: bytes  #: the template record

    @staticmethod
    def of(number: int, family: int) -> Template:
        elements = _ADDRESSES[family] + _ELEMENTS
        record = np.dtype([(name, form) for name, _, form in elements])
        fields = b"".join(_SET.pack(element, record[name].itemsize) for name, element, _ in elements)
        return Template(number, family, record, _SET.pack(number, len(elements)) + fields)

    @property
    def fit(self) -> int:
        """How many records a message has room for."""
        return (MESSAGE - _HEADER.size - _SET.size) // self.record.itemsize


#: 256 and 257 had no ethernetType.
IPV4 = Template.of(258, 4)
IPV6 = Template.of(259, 6)


class Origin(NamedTuple):
    """Where records come from and when."""

    domain: int  #: the observation domain
    time: float  #: of export, Unix seconds
    before: float  #: when open flows were exported the last time, 0: never


def records(
    flows: Table,
    rows: NDArray[np.intp],
    delta: NDArray[np.uint64],
    origin: Origin,
    name_of: Callable[[int], str],
) -> tuple[tuple[Template, NDArray[np.void]], ...]:
    """The records of some rows (n) of a flow table, each of which exchanged `delta` (n, 4).

    name_of: the login name of a user id.
    """
    columns = {name: column[rows] for name, column in flows.columns.items() if name != "id"}
    moved = (delta.reshape(-1, 2, 2) != 0).any(axis=2)  # in, out
    flow = np.concatenate([np.flatnonzero(moved[:, way]) for way in (INGRESS, EGRESS)])
    out = np.arange(len(flow)) >= np.count_nonzero(moved[:, INGRESS])
    is_v4, local_v4, remote_v4 = _ipv4(columns["local"], columns["remote"])

    def fill(
        template: Template, chosen: NDArray[np.bool_], local: NDArray[Any], remote: NDArray[Any]
    ) -> NDArray[np.void]:
        of, going = flow[chosen], out[chosen]
        found = np.zeros(len(of), template.record)
        local, remote = local[of], remote[of]
        found["source"] = np.where(going, local, remote)
        found["destination"] = np.where(going, remote, local)
        local, remote = columns["local_port"][of], columns["remote_port"][of]
        found["sourceTransportPort"] = np.where(going, local, remote)
        found["destinationTransportPort"] = np.where(going, remote, local)
        roce = columns["traffic"][of] == TrafficType.ROCE_V1.value
        found["ethernetType"] = np.where(roce, _ETHERTYPE_ROCE_V1, _ETHERTYPES[template.family])
        found["octetDeltaCount"] = np.where(going, delta[of, OUT_BYTES], delta[of, IN_BYTES])
        found["packetDeltaCount"] = np.where(going, delta[of, OUT_PACKETS], delta[of, IN_PACKETS])
        found["egressInterface"] = np.where(going, columns["ifindex"][of], 0)
        found["ingressInterface"] = np.where(going, 0, columns["ifindex"][of])
        found["flowDirection"] = np.where(going, EGRESS, INGRESS)
        found["observationDomainId"] = origin.domain
        for name, column in shared.items():
            found[name] = column[of]
        return found

    shared = {
        **_times(columns["first_seen"], columns["last_seen"], origin),
        "protocolIdentifier": columns["protocol"],
        "flowEndReason": _end_reasons(columns["ended"], columns["kind"]),
        "userName": _user_names(columns["uid"], name_of),
        "applicationName": _texts(columns["comm"]),
    }
    return (
        (IPV4, fill(IPV4, is_v4[flow], local_v4, remote_v4)),
        (IPV6, fill(IPV6, ~is_v4[flow], columns["local"], columns["remote"])),
    )


def parcels(template: Template, found: NDArray[np.void], origin: Origin, sequence: int) -> Iterator[bytes]:
    """Records as messages, PARCEL at a time. sequence: how many records of the domain came before."""
    fit = template.fit
    whole = len(found) // fit * fit
    messages = _messages(template, found[:whole].reshape(-1, fit), origin, sequence)
    last = _messages(template, found[whole:].reshape(1, -1), origin, sequence + whole)
    for begin in range(0, max(1, len(messages)), PARCEL):
        part = messages[begin : begin + PARCEL]
        end = last.tobytes() if begin + PARCEL >= len(messages) and len(found) > whole else b""
        if len(part) or end:
            yield _templates(origin, sequence + begin * fit) + part.tobytes() + end


def split(parcel: bytes) -> list[memoryview]:
    """The messages of a parcel; what is cut off at its end is left out."""
    view, place, found = memoryview(parcel), 0, []
    while place + _HEADER.size <= len(view):
        length = _HEADER.unpack_from(view, place)[1]
        if length < _HEADER.size or place + length > len(view):
            break
        found.append(view[place : place + length])
        place += length
    return found


def _messages(
    template: Template, found: NDArray[np.void], origin: Origin, sequence: int
) -> NDArray[np.void]:
    """A message (m,) of each row of records (m, n)."""
    rows, fit = found.shape
    layout = np.dtype([*_BOTH_HEADERS, ("records", template.record, (fit,))])
    messages = np.empty(rows, layout)
    messages["version"], messages["length"] = VERSION, layout.itemsize
    messages["time"], messages["domain"] = int(origin.time) & 0xFFFFFFFF, origin.domain
    messages["sequence"] = (sequence + np.arange(rows) * fit) & 0xFFFFFFFF
    messages["set"], messages["set_length"] = template.number, layout.itemsize - _HEADER.size
    messages["records"] = found
    return messages


def _templates(origin: Origin, sequence: int) -> bytes:
    """A message with both templates. It does not count in the sequence."""
    definitions = IPV4.definition + IPV6.definition
    length = _HEADER.size + _SET.size + len(definitions)
    time = int(origin.time) & 0xFFFFFFFF
    header = _HEADER.pack(VERSION, length, time, sequence & 0xFFFFFFFF, origin.domain)
    return header + _SET.pack(_TEMPLATE_SET, length - _HEADER.size) + definitions


def _ipv4(local: NDArray[Any], remote: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[Any], NDArray[Any]]:
    """Which flows are IPv4, and their addresses as numbers. Without any address it is one, of 0.0.0.0."""
    is_v4 = np.ones(len(local), np.bool_)
    numbers = []
    for addresses in (local, remote):
        words = np.ascontiguousarray(addresses).view(">u8").reshape(-1, 2)
        prefix = words[:, 1] >> np.uint64(32)
        is_v4 &= (words[:, 0] == 0) & ((prefix == 0xFFFF) | (words[:, 1] == 0))
        numbers.append(words[:, 1] & np.uint64(0xFFFFFFFF))
    return is_v4, numbers[0], numbers[1]


def _times(first: NDArray[np.float64], last: NDArray[np.float64], origin: Origin) -> dict[str, NDArray[Any]]:
    """When the packets of these records passed: since the flow began, or since the records before these."""
    end = np.where(last > 0, last, origin.time)
    start = np.minimum(np.maximum(np.where(first > 0, first, end), origin.before), end)
    return {
        "flowStartMilliseconds": (start * 1000).astype(np.uint64),
        "flowEndMilliseconds": (end * 1000).astype(np.uint64),
    }


def _end_reasons(ended: NDArray[np.bool_], kind: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # Others than sockets' have no end to be seen.
    over = np.where(kind == FlowKind.SOCKET.value, END_OF_FLOW, IDLE_TIMEOUT)
    return np.where(ended, over, ACTIVE_TIMEOUT).astype(np.uint8)


def _user_names(uids: NDArray[np.uint32], name_of: Callable[[int], str]) -> NDArray[np.bytes_]:
    """Login names; the number where a name is longer than the element, rather than a part of the name."""
    known, place = np.unique(uids, return_inverse=True)
    width = IPV4.record["userName"].itemsize
    names = [b"" if uid == NOBODY_UID else name_of(uid).encode() for uid in known.tolist()]
    fitting = [
        name if len(name) <= width else str(uid).encode()
        for uid, name in zip(known.tolist(), names, strict=True)
    ]
    found: NDArray[np.bytes_] = np.array(fitting, f"S{width}")[place]
    return found


def _texts(values: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """The values as UTF-8, on which RFC 7011 insists (section 6.1.6): a process may call itself anything."""
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), values.dtype.itemsize)
    odd = np.flatnonzero((octets > 0x7F).any(axis=1))
    if not len(odd):
        return values
    texts = values.copy()
    texts[odd] = [_utf8(value, values.dtype.itemsize) for value in values[odd].tolist()]
    return texts


@lru_cache(maxsize=1024)
def _utf8(value: bytes, width: int) -> bytes:
    """Text of at most so many bytes: what is not UTF-8 is replaced, and no character is cut."""
    valid = value.decode(errors="replace").encode()
    return valid[:width].decode(errors="ignore").encode()
