"""Reads IPFIX messages by what RFC 7011 says, and shares nothing with what writes them."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

#: Elements by number, as the IANA registry names them.
NAMES = {
    1: "octetDeltaCount",
    2: "packetDeltaCount",
    4: "protocolIdentifier",
    7: "sourceTransportPort",
    8: "sourceIPv4Address",
    10: "ingressInterface",
    11: "destinationTransportPort",
    12: "destinationIPv4Address",
    14: "egressInterface",
    27: "sourceIPv6Address",
    28: "destinationIPv6Address",
    61: "flowDirection",
    96: "applicationName",
    136: "flowEndReason",
    149: "observationDomainId",
    152: "flowStartMilliseconds",
    153: "flowEndMilliseconds",
    256: "ethernetType",
    371: "userName",
}
_ADDRESSES, _TEXTS = (8, 12, 27, 28), (96, 371)

Record = dict[str, Any]


@dataclass
class Reader:
    """A collector's state: templates, and the records of each domain."""

    templates: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    records: dict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    times: list[int] = field(default_factory=list)
    expected: dict[int, int] = field(default_factory=dict)  #: next sequence number of a domain
    gaps: list[int] = field(default_factory=list)  #: records that are missing, or came again (negative)
    lengths: list[int] = field(default_factory=list)

    def read(self, data: bytes) -> None:
        """Messages one behind the other."""
        while data:
            version, length, time, sequence, domain = struct.unpack_from("!HHIII", data)
            assert version == 10
            assert 16 <= length <= len(data)
            self.times.append(time)
            self.lengths.append(length)
            gap = sequence - self.expected.setdefault(domain, sequence)
            if gap:
                self.gaps.append(gap)
            count = self._sets(data[16:length], domain)
            self.expected[domain] = (sequence + count) % (1 << 32)
            data = data[length:]

    def _sets(self, data: bytes, domain: int) -> int:
        """How many data records there were."""
        count = 0
        while data:
            number, length = struct.unpack_from("!HH", data)
            assert 4 < length <= len(data)
            body, data = data[4:length], data[length:]
            if number == 2:
                self._templates(body, domain)
            else:
                assert number >= 256
                count += self._records(body, domain, self.templates[domain, number])
        return count

    def _templates(self, data: bytes, domain: int) -> None:
        while data:
            number, count = struct.unpack_from("!HH", data)
            numbers = struct.unpack_from(f"!{2 * count}H", data, 4)
            self.templates[domain, number] = list(zip(numbers[::2], numbers[1::2], strict=True))
            data = data[4 + 4 * count :]

    def _records(self, data: bytes, domain: int, fields: list[tuple[int, int]]) -> int:
        count = 0
        while data:
            record: Record = {}
            for element, length in fields:
                octets, data = data[:length], data[length:]
                assert len(octets) == length
                record[NAMES[element]] = _value(element, octets)
            self.records[domain].append(record)
            count += 1
        return count


def _value(element: int, octets: bytes) -> Any:
    if element in _ADDRESSES:
        return str(ip_address(octets))
    if element in _TEXTS:
        return octets.rstrip(b"\0").decode()  # strictly: RFC 7011, section 6.1.6
    return int.from_bytes(octets, "big")


def read(parcels: Iterable[bytes]) -> Reader:
    reader = Reader()
    for parcel in parcels:
        reader.read(parcel)
    return reader
