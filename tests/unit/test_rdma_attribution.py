"""Every packet of RDMA is somebody's or nobody's, once."""

from __future__ import annotations

from collections import Counter
from operator import itemgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from numpy.typing import NDArray

from netmond.kernel.rdma_netlink import BoundCounter, QueuePair
from netmond.model import IN_BYTES, NOBODY_UID, Gid, RdmaPort, Table
from netmond.rdma.attribution import Attribution
from netmond.rdma.owners import Packets
from netmond.rdma.register import Census, Register
from tests.unit.fakes import moment, rows
from tests.unit.rdma_packets import (
    ALICE,
    BOB,
    UNIT,
    between_the_same,
    deltas,
    packets,
    paths,
    queue_pair,
    tasks,
)

IN, OUT = False, True
ETH = 2
UNIT_ROW = 7
_FIGURES = ("port_rcv_packets", "port_rcv_data", "port_xmit_packets", "port_xmit_data")


def port(*totals: int, **more: Any) -> RdmaPort:
    """rxe0's, as if it counted packets and bytes in, packets and bytes out."""
    return RdmaPort(
        device="rxe0", port=1, link_layer="Ethernet", state="active", ifindex=ETH,
        names=tuple(("counters", name) for name in _FIGURES),
        totals=np.array(totals or (0, 0, 0, 0), np.uint64), **more,
    )  # fmt: skip


_NOTHING = packets()


class Bench:
    """An attribution, a register, and a clock that the test turns."""

    def __init__(self) -> None:
        self.register = Register(tasks, paths)
        self.census = Census()
        self.attribution = Attribution(lambda cgroups: np.full(len(cgroups), UNIT_ROW, np.int32))
        self.now = 100.0

    def take_census(self, *queue_pairs: QueuePair) -> None:
        self.now += 0.25
        self.census = self.register.update(queue_pairs, begun=round(self.now * 1e9))

    def tick(
        self, there: Packets = _NOTHING, grown: NDArray[np.uint64] | None = None, *, asked: bool = True
    ) -> Any:
        """Owners of the rows."""
        self.now += 0.75
        now = moment(self.now, 0.75)
        self.attribution.begin_tick(now, self.census, asked=asked)
        return self.attribution.account(there, deltas(*[0] * len(there)) if grown is None else grown)

    def users(self) -> dict[int, int]:
        """Bytes in, by user."""
        table = self.attribution.usage.users(1.0)
        return dict(zip(table.columns["uid"].tolist(), table.counters[:, IN_BYTES].tolist(), strict=True))

    def queue_pairs(self) -> Table:
        return self.attribution.usage.queue_pairs(0.75)


def test_users_and_queue_pairs() -> None:
    """A difference is its user's and its queue pair's; flows have process and unit."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE, remote_qpn=9), queue_pair(18, BOB))
    owners = bench.tick(packets((ETH, IN, 17), (ETH, IN, 18), (ETH, OUT, 9)), deltas(100, 20, 3))

    assert bench.users() == {ALICE: 103, BOB: 20}
    assert owners.uid.tolist() == [ALICE, BOB, ALICE]
    assert owners.unit_index.tolist() == [UNIT_ROW] * 3
    assert rows(bench.queue_pairs(), "qpn", "uid", "unit", "source", "in_bytes", "in_packet_rate") == [
        (17, ALICE, UNIT, "wire", 103, 2 / 0.75),
        (18, BOB, UNIT, "wire", 20, 1 / 0.75),
    ]
    assert rows(bench.attribution.usage.users(1.0), "uid", "queue_pairs") == [(ALICE, 1), (BOB, 1)]


def test_an_idle_queue_pair_is_counted() -> None:
    """A user who has one and does nothing is there, with zeroes."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE))
    bench.tick()

    assert rows(bench.attribution.usage.users(1.0), "uid", "queue_pairs", "in_bytes") == [(ALICE, 1, 0)]
    assert rows(bench.queue_pairs(), "qpn", "source") == [(17, "")]


def test_what_is_not_known_yet_waits() -> None:
    """Until queue pairs have been looked at again: then it is somebody's, or nobody's for good."""
    bench = Bench()
    bench.tick(packets((ETH, IN, 17), (ETH, IN, 18)), deltas(100, 20))
    assert bench.users() == {}
    bench.take_census(queue_pair(17, ALICE))
    bench.tick()
    assert bench.users() == {ALICE: 100, NOBODY_UID: 20}
    bench.take_census(queue_pair(17, ALICE), queue_pair(18, BOB))
    bench.tick()

    assert bench.users() == {ALICE: 100, NOBODY_UID: 20, BOB: 0}


@pytest.mark.parametrize("asked", [True, False])
def test_nobody_looks(asked: bool) -> None:
    """It does not wait for a device that hangs, and not at all where there is none."""
    bench = Bench()
    bench.tick(packets((ETH, IN, 17)), deltas(100), asked=asked)
    assert bench.users() == ({} if asked else {NOBODY_UID: 100})
    bench.now += 30
    bench.tick(asked=asked)

    assert bench.users() == {NOBODY_UID: 100}


def test_a_number_that_changes_hands() -> None:
    """What was before stays whose it was; a flow is shown as his who has the queue pair now."""
    bench = Bench()
    rows_ = packets((ETH, IN, 17))
    bench.take_census(queue_pair(17, ALICE))
    bench.tick(rows_, deltas(100))
    bench.take_census()
    assert bench.tick(rows_).uid.tolist() == [ALICE], "nobody has it now"
    bench.take_census(queue_pair(17, BOB))
    bench.tick(rows_)
    owners = bench.tick(rows_, deltas(20))

    assert bench.users() == {ALICE: 100, BOB: 20}
    assert owners.uid.tolist() == [BOB]


def test_a_packet_with_a_socket() -> None:
    """It is the user's at once, whoever is connected with that number, and though nobody is."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE, remote_qpn=9), queue_pair(18, BOB, remote_qpn=9))
    bench.tick(packets((ETH, OUT, 9), uid=BOB), deltas(100))
    bench.tick(packets((ETH, OUT, 8), uid=ALICE), deltas(20), asked=False)

    assert bench.users() == {BOB: 100, ALICE: 20}
    assert rows(bench.queue_pairs(), "qpn", "in_bytes") == [(17, 0), (18, 100)]


def test_interfaces_of_a_device() -> None:
    """The port's own, and those of its GIDs, a VLAN's say."""
    bench = Bench()
    gids = (Gid(index=0, address="", netdev="v23"), Gid(index=1, address="", netdev="gone"))
    bench.tick()
    bench.attribution.add_counters([port(gids=gids), RdmaPort(**_OTHER)], (), {"v23": 5})
    bench.take_census(queue_pair(17, ALICE), queue_pair(17, BOB, device="rxe1"))
    bench.tick(packets((ETH, IN, 17), (5, IN, 17), (3, IN, 17)), deltas(100, 20, 3))

    assert bench.users() == {ALICE: 120, BOB: 3}


_OTHER: Any = {"device": "rxe1", "port": 1, "link_layer": "Ethernet", "state": "active", "ifindex": 3}


def test_what_a_port_counts_beyond() -> None:
    """Hardware passes all interfaces by: what its port counts is nobody's, but for what the wire saw."""
    bench = Bench()
    bench.tick()
    bench.attribution.add_counters([port()], (), {})
    bench.take_census(queue_pair(17, ALICE))
    bench.tick(packets((ETH, IN, 17)), deltas(100))
    bench.attribution.add_counters([port(3, 350, 0, 0)], (), {})

    assert bench.users() == {ALICE: 100, NOBODY_UID: 250}


def test_counters_of_queue_pairs() -> None:
    """They are the user's whose queue pairs are bound, and the queue pair's if it is the only one."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE), queue_pair(18, ALICE), queue_pair(19, BOB), queue_pair(20, BOB))

    def bound(number: int, qpns: tuple[int, ...], size: int) -> BoundCounter:
        return BoundCounter("rxe0", 1, number, qpns, 0, {"rdma_rx_bytes": size})

    bench.tick()
    bench.attribution.add_counters([port()], (), {})
    bench.tick()
    bench.attribution.add_counters(
        [port(0, 1111, 0, 0)],
        (bound(1, (17, 18), 100), bound(2, (19,), 20), bound(3, (17, 19), 3), bound(4, (99,), 7)),
        {},
    )

    assert bench.users() == {ALICE: 100, BOB: 20, NOBODY_UID: 1111 - 120}
    assert rows(bench.queue_pairs(), "qpn", "source", "in_bytes") == [
        (17, "", 0), (18, "", 0), (19, "device", 20), (20, "", 0),
    ]  # fmt: skip


def test_counters_of_queue_pairs_that_were_not_asked_for() -> None:
    """Until they are, what a port has counted is not nobody's: later it would be theirs as well."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE))
    told = (BoundCounter("rxe0", 1, 1, (17,), 0, {"rdma_rx_bytes": 0}),)
    bench.tick()
    bench.attribution.add_counters([port()], told, {})
    bench.tick()
    bench.attribution.add_counters([port(0, 90, 0, 0)], told, {})
    assert bench.users() == {ALICE: 0}
    bench.tick()
    now = (told[0]._replace(values={"rdma_rx_bytes": 100}),)
    bench.attribution.add_counters([port(0, 120, 0, 0)], now, {})

    assert bench.users() == {ALICE: 100, NOBODY_UID: 20}


def test_a_port_on_top_of_another_interface() -> None:
    """Packets are seen at the lowest: with a VLAN's port alone there they are not counted again by it."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE))
    bench.tick()
    bench.attribution.add_counters([port()], (), {})
    bench.tick(packets((9, IN, 17)), deltas(100))
    bench.attribution.add_counters([port(1, 100, 0, 0)], (), {})

    assert bench.users() == {ALICE: 100}


def test_over_a_restart() -> None:
    """Totals go on; what still waits is the socket's user's, or nobody's."""
    bench = Bench()
    bench.take_census(queue_pair(17, ALICE))
    bench.tick(packets((ETH, IN, 17)), deltas(100))
    bench.tick(packets((ETH, IN, 18)), deltas(20))
    bench.tick(packets((ETH, OUT, 18), uid=BOB), deltas(3))
    before = bench.users()
    later = Bench()
    later.attribution.usage.resume(bench.attribution.checkpoint())
    later.tick(packets((ETH, IN, 17)), deltas(7), asked=False)

    assert before == bench.users() == {ALICE: 100}
    assert later.users() == {ALICE: 100, NOBODY_UID: 27, BOB: 3}


_NUMBER = st.integers(1, 3)
_ROW = st.tuples(
    st.sampled_from([ETH, 3]),
    st.booleans(),
    _NUMBER,
    st.sampled_from([ALICE, BOB, NOBODY_UID]),
    st.integers(0, 9),
)


class Sums(RuleBasedStateMachine):
    """Whatever happens: users' figures, nobody's among them, are the sum of all rows and of what ports have
    counted beyond them."""

    @initialize()
    def start(self) -> None:
        self.bench = Bench()
        self.seen: Counter[str] = Counter()  # bytes, by where they were counted
        self.hardware = 0
        self.bench.tick()
        self.bench.attribution.add_counters([port()], (), {})

    @rule(
        pairs=st.lists(st.tuples(_NUMBER, _NUMBER, st.sampled_from([ALICE, BOB])), unique_by=itemgetter(0))
    )
    def look_at_queue_pairs(self, pairs: list[tuple[int, int, int]]) -> None:
        self.bench.take_census(*(queue_pair(own, uid, remote_qpn=remote) for own, remote, uid in pairs))

    @rule(there=st.lists(_ROW), asked=st.booleans())
    def pass_packets(self, there: list[tuple[int, bool, int, int, int]], asked: bool) -> None:
        passed = packets(*(row[:3] for row in there), uid=[row[3] for row in there])
        grown = deltas(*(row[4] for row in there))
        self.bench.tick(between_the_same(passed), grown, asked=asked)
        self.seen["wire"] += sum(row[4] for row in there)

    @rule(size=st.integers(0, 9))
    def pass_by_the_interfaces(self, size: int) -> None:
        """As hardware does; the port is read, then the interfaces."""
        self.hardware += size
        self.bench.tick()
        before = self.total()
        self.bench.attribution.add_counters([port(0, self.hardware, 0, 0)], (), {})
        self.seen["device"] += self.total() - before
        assert self.seen["device"] <= self.hardware

    @rule()
    def restart(self) -> None:
        """Ports count from 0 again for the next daemon."""
        later = Bench()
        later.attribution.usage.resume(self.bench.attribution.checkpoint())
        later.now = self.bench.now
        self.seen["before"] += self.seen.pop("device", 0)
        self.bench, self.hardware = later, 0
        later.tick()
        later.attribution.add_counters([port()], (), {})

    def total(self) -> int:
        arrays = self.bench.attribution.checkpoint()
        return int(arrays["rdma.counters"][:, IN_BYTES].sum())

    @invariant()
    def all_is_somebodys(self) -> None:
        assert self.total() == sum(self.seen.values())


TestSums = Sums.TestCase
