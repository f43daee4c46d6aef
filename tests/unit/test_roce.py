"""Flows of RDMA over Ethernet: rows of the kernel's table as rows of the flow table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import NOBODY_UID, FlowKind, Table, TrafficType
from netmond.rdma.owners import Owners, Packets
from netmond.roce import PORT, Roce
from tests.unit.fakes import SECOND, Hash, address, moment, rows

ETH = 2
US, THEM = address("192.0.2.1"), address("192.0.2.2")
ALICE = 1001


class Bench:
    """RoCE over an array; packets are of 1,000 bytes."""

    def __init__(self, capacity: int = 8) -> None:
        self.table = Hash(wire.ROCE_KEY, wire.ROCE_TALLY, capacity)
        self.roce = Roce(self.table)
        self.asked: list[tuple[list[int], list[bool], list[int], list[list[int]]]] = []

    def packet(
        self, way: int, *, qpn: int = 0x11, version: int = 2, sequence: int = 0, at: float = 100.0
    ) -> None:
        inward = way == wire.ROCE_IN
        row = self.table.at(
            source=THEM if inward else US,
            destination=US if inward else THEM,
            queue_pair=qpn,
            ifindex=ETH,
            uid=ALICE if way == wire.ROCE_OUT else NOBODY_UID,
            partition_key=0x8001,
            opcode=0x0A,
            version=version,
            way=way,
        )
        assert row is not None
        side = "in" if inward else "out"
        row["tally"][f"{side}_bytes"] += np.uint64(1000)
        row["tally"][f"{side}_packets"] += np.uint64(1 | 1 << 32)
        row["tally"]["last_seen"] = round(at * SECOND)
        if not row["tally"]["first_seen"]:
            row["tally"]["first_seen"] = round(at * SECOND)
        row["sequence"] = sequence

    def flows(self, at: float = 101.0) -> Table:
        flows = FlowRows()
        self.roce.add(flows, moment(at), self._owners)
        return flows.table()

    def _owners(self, packets: Packets, deltas: NDArray[np.uint64]) -> Owners:
        """All is Alice's."""
        self.asked.append(
            (packets.ifindex.tolist(), packets.outgoing.tolist(), packets.qpn.tolist(), deltas.tolist())
        )
        count = len(packets)
        return Owners(
            uid=np.full(count, ALICE, np.uint32),
            pid=np.full(count, 42, np.uint32),
            comm=np.full(count, b"ib_write_bw", "S16"),
            unit_index=np.full(count, 7, np.int32),
        )


def test_what_came_and_what_left() -> None:
    """Local and remote, and the counters of the direction; what is written in the packets; whose it is."""
    bench = Bench()
    for sequence in (5, 6):
        bench.packet(wire.ROCE_IN, sequence=sequence)
    bench.packet(wire.ROCE_OUT, qpn=0x12, sequence=7)

    table = bench.flows()

    assert rows(table, "kind", "traffic", "opcode", "qpn", "pkey", "psn", "ifindex") == [
        (FlowKind.ROCE, TrafficType.ROCE_V2, 0x0A, 0x11, 0x8001, 6, ETH),
        (FlowKind.ROCE, TrafficType.ROCE_V2, 0x0A, 0x12, 0x8001, 7, ETH),
    ]
    assert rows(table, "protocol", "local_port", "remote_port") == [(17, PORT, 0), (17, 0, PORT)]
    assert [column.tobytes() for column in table.columns["local"]] == [US.tobytes()] * 2
    assert [column.tobytes() for column in table.columns["remote"]] == [THEM.tobytes()] * 2
    assert rows(table, "in_packets", "in_bytes", "out_packets", "out_bytes") == [
        (2, 2000, 0, 0),
        (0, 0, 1, 1000),
    ]
    assert rows(table, "uid", "pid", "comm", "unit_index") == [(ALICE, 42, b"ib_write_bw", 7)] * 2


def test_version_1_has_no_ports() -> None:
    """It is no IP: no protocol either."""
    bench = Bench()
    bench.packet(wire.ROCE_IN, version=1)

    assert rows(bench.flows(), "traffic", "protocol", "local_port", "remote_port") == [
        (TrafficType.ROCE_V1, 0, 0, 0)
    ]


def test_what_passed_through() -> None:
    """Is forwarded: from its source to its destination, nobody's, and nobody is asked."""
    bench = Bench()
    bench.packet(wire.ROCE_FORWARDED)

    table = bench.flows()

    assert rows(table, "kind", "traffic", "uid", "out_packets", "out_bytes") == [
        (FlowKind.FORWARDED, TrafficType.ROCE_V2, NOBODY_UID, 1, 1000)
    ]
    assert table.columns["local"][0].tobytes() == US.tobytes()
    assert bench.asked == []


def test_owners_learn_what_grew() -> None:
    """At each tick, beside the queue pairs."""
    bench = Bench()
    bench.packet(wire.ROCE_IN)
    bench.flows()
    bench.packet(wire.ROCE_IN)
    bench.flows(102.0)

    ((_, _, _, first), (ifindex, outgoing, qpn, second)) = bench.asked
    assert (ifindex, outgoing, qpn) == ([ETH], [False], [0x11])
    assert first == second == [[1, 1000, 0, 0, 1, 1000, 0, 0]]


def test_the_last_packet_of_a_flow() -> None:
    """What comes while a silent row is taken out is in its last appearance."""
    bench = Bench()
    bench.packet(wire.ROCE_IN)
    bench.flows()
    bench.table.before_take = lambda: bench.packet(wire.ROCE_IN)

    assert rows(bench.flows(300.0), "in_packets", "in_byte_rate", "ended") == [(2, 1000.0, True)]
    assert len(bench.flows(301.0)) == 0


def test_a_crowded_table() -> None:
    """Is to be read often, and silent rows leave it sooner."""
    bench = Bench()
    for qpn in range(3):
        bench.packet(wire.ROCE_IN, qpn=qpn)
    bench.flows()
    assert bench.roce.crowded
    for qpn in range(8):
        bench.packet(wire.ROCE_IN, qpn=qpn, at=100.0 if qpn < 4 else 110.0)

    assert sum(bench.flows(111.5).columns["ended"].tolist()) == 4


def test_it_goes_on() -> None:
    """From a checkpoint: ids and figures stay, only what came later is in a rate, nothing is asked twice."""
    bench = Bench()
    bench.packet(wire.ROCE_IN)
    before = bench.flows()
    kept = {name: array.copy() for name, array in bench.roce.checkpoint().items()}
    bench.packet(wire.ROCE_IN, sequence=9)

    bench.roce = Roce(bench.table)
    bench.roce.resume(kept)
    after = bench.flows(102.0)

    assert after.columns["id"].tolist() == before.columns["id"].tolist()
    assert rows(after, "psn", "in_packets", "in_byte_rate") == [(9, 2, 1000.0)]
    assert [deltas for *_, deltas in bench.asked] == [[[1, 1000, 0, 0, 1, 1000, 0, 0]]] * 2
    assert set(kept) == {f"roce.{name}" for name in ("keys", "values", "last", "totals")}
