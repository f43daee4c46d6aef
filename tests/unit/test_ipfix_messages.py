"""IPFIX messages: the bytes of RFC 7011, and all of the flow table in them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from netmond.export import ipfix_messages
from netmond.export.ipfix_messages import IPV4, MESSAGE, Origin
from netmond.model import NOBODY_UID, FlowKind, Table, TrafficType
from tests.bus import snapshots
from tests.bus.rdma import roce_flows
from tests.export.ipfix_reader import Reader, Record, read

ORIGIN = Origin(domain=7, time=2005.25, before=0.0)


def encode(
    flows: Table, delta: NDArray[np.uint64] | None = None, origin: Origin = ORIGIN, sequence: int = 0
) -> list[bytes]:
    """All rows of a table as parcels."""
    rows = np.arange(len(flows))
    found = []
    delta = flows.counters[:, :4] if delta is None else delta
    for template, records in ipfix_messages.records(flows, rows, delta, origin, lambda uid: f"user{uid}"):
        found += list(ipfix_messages.parcels(template, records, origin, sequence))
        sequence += len(records)
    return found


def records(flows: Table, **options: Any) -> list[Record]:
    reader = read(encode(flows, **options))
    return reader.records[options.get("origin", ORIGIN).domain]


def only(table: Table, row: int) -> Table:
    return Table(
        columns={name: column[row : row + 1] for name, column in table.columns.items()},
        counters=table.counters[row : row + 1],
        rates=table.rates[row : row + 1],
    )


def test_the_bytes_of_a_parcel() -> None:
    """A message with both templates, then one with a record; nothing else."""
    flows = only(snapshots.flows(), 0)
    delta = np.array([[0, 0, 3, 0x1_0000_0005]], np.uint64)
    common = (
        "0098 0008" "0099 0008" "0001 0008" "0002 0008"  # start, end, bytes, packets
        "000a 0004" "000e 0004" "0095 0004"  # interfaces, domain
        "0007 0002" "000b 0002" "0100 0002"  # ports, EtherType
        "0004 0001" "003d 0001" "0088 0001"  # protocol, direction, why it ends
        "0173 0020" "0060 0010"  # user, process
    )  # fmt: skip
    expected = bytes.fromhex(
        "000a 00a4 000007d5 00000011 00000007"  # version 10, length, export time, sequence, domain
        "0002 0094"  # templates
        "0102 0011" "0008 0004" "000c 0004" + common
        + "0103 0011" "001b 0010" "001c 0010" + common
        + "000a 0081 000007d5 00000011 00000007"
        "0102 0071"
        "0a000001" "c0000207"  # 10.0.0.1 to 192.0.2.7
        "00000000000f4434" "00000000001e8674"  # 1000.5 s, 2000.5 s
        "0000000100000005" "0000000000000003"
        "00000000" "00000002" "00000007"
        "9c41" "01bb" "0800"
        "06" "01" "02"  # TCP, egress, active timeout
    ) + b"user5".ljust(32, b"\0") + b"curl".ljust(16, b"\0")  # fmt: skip

    assert encode(flows, delta, sequence=17) == [expected]


def test_every_flow_and_direction() -> None:
    """Source and destination as on the wire; where it came in and where it left; forwarded flows, too."""
    found = records(snapshots.flows())

    def of(direction: int, address: str) -> list[tuple[Any, ...]]:
        keys = ("sourceTransportPort", "destinationTransportPort", "packetDeltaCount", "octetDeltaCount")
        return [
            (record[f"source{address}"], record[f"destination{address}"], *(record[key] for key in keys))
            for record in found
            if record["flowDirection"] == direction and f"source{address}" in record
        ]

    assert of(0, "IPv4Address") == [
        ("192.0.2.7", "10.0.0.1", 443, 40001, 23, 2323),
        ("192.0.2.9", "0.0.0.0", 3333, 53, 3, 303),
        ("192.0.2.7", "10.0.0.1", 443, 40007, 31, 3131),
        ("203.0.113.5", "198.51.100.1", 4501, 4500, 41, 4141),
        ("0.0.0.0", "0.0.0.0", 0, 0, 5, 505),
    ]
    assert of(1, "IPv4Address")[:2] == [
        ("10.0.0.1", "192.0.2.7", 40001, 443, 24, 253),
        ("0.0.0.0", "192.0.2.9", 53, 3333, 4, 33),
    ]
    assert of(0, "IPv6Address") == [("2001:db8::7", "2001:db8::1", 22, 40003, 7, 707)]
    assert of(1, "IPv6Address") == [("2001:db8::1", "2001:db8::7", 40003, 22, 8, 77)]
    for record in found:
        inward, outward = record["ingressInterface"], record["egressInterface"]
        assert (outward if record["flowDirection"] == 0 else inward) == 0
    assert [record["ingressInterface"] for record in found if record["flowDirection"] == 0] == [
        2,
        2,
        2,
        3,
        0,
        2,
    ]
    assert {record["observationDomainId"] for record in found} == {7}


def test_who_and_why() -> None:
    """Login name and process as UTF-8; nobody's flow has no user; how a flow ended, by what it is."""
    table = snapshots.flows()
    table.columns["ended"][:] = [True, False, True, False, True, False]
    found = {
        (record["userName"], record["applicationName"], record["protocolIdentifier"]): record[
            "flowEndReason"
        ]
        for record in records(table)
    }

    assert found == {
        ("user5", "curl", 6): 3,  # its socket was closed
        ("user5", "ssh�", 6): 2,  # goes on
        ("user5", "curl", 17): 1,  # a silent peer
        ("user9", "wget", 6): 2,
        ("", "", 17): 1,  # a silent forwarded one
        ("user9", "", 0): 2,
    }


def test_roce() -> None:
    """Version 1 by its EtherType, whatever its addresses are; version 2 by the port that packets go to."""
    flows = roce_flows()
    delta = np.zeros((len(flows), 4), np.uint64)
    delta[flows.columns["local_port"] == 0, 2:] = 1  # what goes out
    delta[flows.columns["local_port"] == 4791, :2] = 1

    found = {
        (record["ethernetType"], record["protocolIdentifier"], record["destinationTransportPort"])
        for record in records(flows, delta=delta)
    }

    assert found == {(0x0800, 17, 4791), (0x8915, 0, 0)}


def test_ethertypes() -> None:
    """Those of the records' addresses."""
    assert {
        (record["ethernetType"], "sourceIPv4Address" in record) for record in records(snapshots.flows())
    } == {(0x0800, True), (0x86DD, False)}


def test_a_direction_without_anything_has_no_record() -> None:
    delta = np.zeros((6, 4), np.uint64)
    delta[0, 2:] = 1, 40

    (record,) = records(snapshots.flows(), delta=delta)

    assert (record["flowDirection"], record["packetDeltaCount"]) == (1, 1)


@pytest.mark.parametrize(
    ("first", "last", "before", "expected"),
    [
        (1000.5, 2000.25, 0.0, (1000500, 2000250)),  # the first records of a flow
        (1000.5, 2000.25, 1990.0, (1990000, 2000250)),  # what came after earlier records
        (0.0, 0.0, 1990.0, (2005250, 2005250)),  # not known: now
        (1000.5, 1980.0, 1990.0, (1980000, 1980000)),  # never the wrong way round
    ],
)
def test_times(first: float, last: float, before: float, expected: tuple[int, int]) -> None:
    flows = only(snapshots.flows(), 0)
    flows.columns["first_seen"][:], flows.columns["last_seen"][:] = first, last

    found = records(flows, origin=ORIGIN._replace(before=before))

    assert {(record["flowStartMilliseconds"], record["flowEndMilliseconds"]) for record in found} == {
        expected
    }


def test_long_names() -> None:
    """A login name that does not fit becomes the user id, which is not another's; a process' is cut."""
    flows = only(snapshots.flows(), 0)
    flows.columns["comm"][:] = "abcdefghijklmn€".encode()[:16]
    rows, delta = np.arange(1), flows.counters[:, :4]

    (_, found), _ = ipfix_messages.records(flows, rows, delta, ORIGIN, lambda uid: "é" * 17)
    (parcel,) = ipfix_messages.parcels(IPV4, found, ORIGIN, 0)

    assert {
        (record["userName"], record["applicationName"]) for record in read([parcel]).records[7]
    } == {("5", "abcdefghijklmn")}  # fmt: skip


@pytest.mark.parametrize("count", [1, 5, 6, 7, 383, 384, 385, 389, 1000])
def test_messages_and_parcels(count: int) -> None:
    """Every parcel begins with the templates, no message is longer than the limit, none counts wrong."""
    flows = snapshots.large(count).flows
    begin = (1 << 32) - 100

    parcels = encode(flows, sequence=begin)
    reader = read(parcels)

    assert len(reader.records[7]) == 2 * count
    assert reader.gaps == []
    assert reader.expected[7] == (begin + 2 * count) % (1 << 32)
    assert max(reader.lengths) <= MESSAGE
    for parcel in parcels:
        assert len(ipfix_messages.split(parcel)) <= 1 + ipfix_messages.PARCEL + 1
        Reader().read(parcel)  # each can be read by itself
    assert sum(record["packetDeltaCount"] for record in reader.records[7]) == flows.counters[:, [0, 2]].sum()
    assert sum(record["octetDeltaCount"] for record in reader.records[7]) == flows.counters[:, [1, 3]].sum()


def test_split_leaves_out_what_is_cut() -> None:
    """What a spool could not keep whole is not sent in part."""
    (parcel,) = encode(only(snapshots.flows(), 0))

    assert b"".join(ipfix_messages.split(parcel)) == parcel
    assert len(ipfix_messages.split(parcel)) == 2
    assert len(ipfix_messages.split(parcel[:-1])) == 1
    assert ipfix_messages.split(parcel[:15]) == []


_U64 = st.integers(0, (1 << 64) - 1)
_MAPPED = st.integers(0, (1 << 32) - 1).map(lambda number: (0xFFFF << 32 | number).to_bytes(16, "big"))
_ADDRESS = st.one_of(_MAPPED, st.binary(min_size=16, max_size=16), st.just(bytes(16)))
_FLOW = st.fixed_dictionaries(
    {
        "local": _ADDRESS,
        "remote": _ADDRESS,
        "local_port": st.integers(0, 65535),
        "remote_port": st.integers(0, 65535),
        "protocol": st.integers(0, 255),
        "ifindex": st.integers(0, (1 << 32) - 1),
        "uid": st.integers(0, NOBODY_UID),
        "comm": st.binary(max_size=16),
        "kind": st.sampled_from([kind.value for kind in FlowKind]),
        "traffic": st.sampled_from([kind.value for kind in TrafficType]),
        "first_seen": st.floats(0, 4e9),
        "last_seen": st.floats(0, 4e9),
        "ended": st.booleans(),
        "counters": st.tuples(*[_U64] * 4),
    }
)
_FORMS = {"local": "V16", "remote": "V16", "local_port": "u2", "remote_port": "u2", "protocol": "u1",
          "ifindex": "u4", "uid": "u4", "comm": "S16", "kind": "u1", "traffic": "u1", "first_seen": "f8",
          "last_seen": "f8", "ended": "?"}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> Table:
    counters = np.zeros((len(rows), 8), np.uint64)
    for place, row in enumerate(rows):
        counters[place, :4] = row["counters"]
    columns = {name: np.array([row[name] for row in rows], form) for name, form in _FORMS.items()}
    return Table(columns=columns, counters=counters, rates=np.zeros((len(rows), 4)))


def is_ipv4(ends: tuple[bytes, bytes]) -> bool:
    """Both are mapped, or any address."""
    return all(not any(end) or end.startswith(bytes(10) + b"\xff\xff") for end in ends)


def on_the_wire(row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """What a row of the flow table shall become."""
    in_packets, in_bytes, out_packets, out_bytes = row["counters"]
    ends, ports = (row["local"], row["remote"]), (row["local_port"], row["remote_port"])
    width = 4 if is_ipv4(ends) else 16
    texts = tuple(str(ip_address(end[-width:])) for end in ends)
    if in_packets or in_bytes:
        yield 0, *texts[::-1], *ports[::-1], row["protocol"], row["ifindex"], in_packets, in_bytes
    if out_packets or out_bytes:
        yield 1, *texts, *ports, row["protocol"], row["ifindex"], out_packets, out_bytes


def read_back(record: Record) -> tuple[Any, ...]:
    family = "IPv4Address" if "sourceIPv4Address" in record else "IPv6Address"
    return (
        record["flowDirection"],
        record[f"source{family}"],
        record[f"destination{family}"],
        record["sourceTransportPort"],
        record["destinationTransportPort"],
        record["protocolIdentifier"],
        record["ingressInterface"] or record["egressInterface"],
        record["packetDeltaCount"],
        record["octetDeltaCount"],
    )


@given(st.lists(_FLOW, max_size=40))
def test_any_flow(rows: list[dict[str, Any]]) -> None:
    """Whatever is in a flow table can be read back, in both families, to the last packet."""
    found = records(table(rows))

    assert sorted(map(read_back, found)) == sorted(chain.from_iterable(map(on_the_wire, rows)))
    assert all(record["flowStartMilliseconds"] <= record["flowEndMilliseconds"] for record in found)
