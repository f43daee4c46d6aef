"""Series of the largest flows: whatever comes and goes, every byte counts once, and no counter goes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from netmond.export.cardinality import ROUND, FlowLabels, FlowView, TopFlows
from netmond.model import COUNTERS, NOBODY_UID, FlowKind, Snapshot, Table
from tests.bus import snapshots
from tests.bus.rdma import with_rdma

NO_FIGURES = np.zeros(4, np.uint64)


def snapshot(
    time: float, flows: dict[int, int], ended: Sequence[int] = (), *, started: float = 1.0, kind: int = 0
) -> Snapshot:
    """Flows by id; the counters of a flow are its number times 1 to 8."""
    count = len(flows)
    template = snapshots.small().flows
    columns = {name: np.resize(column[:1], count) for name, column in template.columns.items()}
    columns["id"] = np.array(list(flows), np.uint64)
    columns["kind"] = np.full(count, kind, np.uint8)
    columns["ended"] = np.array([id_ in ended for id_ in flows], bool)
    steps = np.arange(1, len(COUNTERS) + 1, dtype=np.uint64)
    table = Table(
        columns=columns,
        counters=np.array(list(flows.values()), np.uint64).reshape(-1, 1) * steps,
        rates=np.zeros((count, 4)),
    )
    return replace(snapshots.small(), time=time, started=started, flows=table)


def top(places: int) -> TopFlows:
    return TopFlows(places, "user{}".format)


def shown(view: FlowView) -> dict[str, int]:
    """Packets in by id, the rest included: the number a test counts with."""
    return {each.labels.id: int(each.figures[0]) for each in view.series} | {"other": int(view.other[0])}


def test_life_of_a_series() -> None:
    """Announced at 0, counting, final, gone; what it does not count is in other."""
    flows = top(1)
    views = []
    for time, packets in ((0, 5), (10, 8), (ROUND, 9), (ROUND + 10, 16)):
        flows.take(snapshot(time, {7: packets}))
        views.append(shown(flows.view()))
    flows.take(snapshot(2 * ROUND, {7: 20}, ended=[7]))
    views.append(shown(flows.view()))
    for turn in (3, 4):
        flows.take(snapshot(turn * ROUND, {}))
        views.append(shown(flows.view()))

    assert views == [
        {"7": 0, "other": 0},  # what was before the first snapshot is not counted
        {"7": 0, "other": 3},
        {"7": 0, "other": 4},
        {"7": 7, "other": 4},
        {"7": 11, "other": 4},  # its last packets count, too
        {"other": 4},
        {"other": 4},
    ]
    assert flows.view().total[0] == 15


def test_the_largest_of_the_last_round() -> None:
    """Bytes of the last round decide, and a flow with a series is put out only by one twice as large."""
    flows = top(1)
    flows.take(snapshot(0, {1: 100, 2: 50}))
    assert "1" in shown(flows.view())

    flows.take(snapshot(ROUND, {1: 110, 2: 65}))
    assert "2" not in shown(flows.view())
    flows.take(snapshot(2 * ROUND, {1: 120, 2: 95}))
    assert {"1", "2"} < shown(flows.view()).keys()


def test_an_idle_flow_keeps_its_place() -> None:
    """As long as it is open and nobody else needs the place."""
    flows = top(2)
    for turn in range(5):
        flows.take(snapshot(turn * ROUND, {1: 100}))
        assert "1" in shown(flows.view())


def test_rows_without_a_flow() -> None:
    """What found no slot counts, but has no series: it is the traffic of many."""
    flows = top(9)
    for turn in range(3):
        flows.take(snapshot(turn * ROUND, {1: 23 * turn}, kind=FlowKind.OVERFLOW))

    assert shown(flows.view()) == {"other": 46}


def test_another_daemon() -> None:
    """Its ids mean other flows: series end, figures stay, and what its flows had before is not counted."""
    flows = top(1)
    for turn in range(3):
        flows.take(snapshot(turn * ROUND, {1: 100 * turn + 1}))
    assert shown(flows.view()) == {"1": 100, "other": 100}
    flows.take(snapshot(2 * ROUND + 1, {1: 5000}, started=2.0))
    assert shown(flows.view()) == {"1": 100, "other": 100}
    flows.take(snapshot(2 * ROUND + 2, {1: 5023}, started=2.0))

    assert shown(flows.view()) == {"1": 100, "other": 123}


def test_labels() -> None:
    """A flow as people know it; of what there is not, nothing."""
    flows = top(9)
    flows.take(snapshots.small())
    labels = {each.labels.id: each.labels for each in flows.view().series}

    assert labels["1"] == FlowLabels(
        id="1", protocol="6", local="10.0.0.1", local_port="40001", remote="192.0.2.7", remote_port="443",
        uid="5", user="user5", unit="app.service", process="curl", traffic_type="ip", opcode="",
        queue_pair="",
    )  # fmt: skip
    assert labels["2"].local == "2001:db8::1"
    assert (labels["5"].uid, labels["5"].user, labels["5"].unit) == ("", "", "")
    assert snapshots.small().flows.columns["uid"][4] == NOBODY_UID
    assert "6" not in labels


def test_labels_of_roce() -> None:
    """What its packets say: the version, what they do, and with which queue pair."""
    flows = top(20)
    flows.take(with_rdma(snapshots.small()))
    labels = {each.labels.id: each.labels for each in flows.view().series}
    told = {id_: (each.traffic_type, each.opcode, each.queue_pair) for id_, each in labels.items()}

    assert told["1"] == ("ip", "", "")
    assert told["7"] == ("roce_v2", "RC_RDMA_WRITE_ONLY", "33")
    assert told["8"] == ("roce_v2", "RC_ACKNOWLEDGE", "17")
    assert told["9"] == ("roce_v1", "UC_SEND_ONLY", "49")
    assert told["10"][1] == "31"  # no opcode
    assert (labels["10"].user, labels["7"].user) == ("", "user5")


@dataclass
class Observer:
    """A time series database that looks every so many seconds, and adds up as increase() does."""

    every: float
    looked: float = float("-inf")
    last: dict[FlowLabels, np.ndarray] = field(default_factory=dict)  # type: ignore[type-arg]
    increase: np.ndarray = field(default_factory=NO_FIGURES.copy)  # type: ignore[type-arg]

    def look(self, time: float, view: FlowView) -> None:
        if time < self.looked + self.every:
            return
        self.looked = time
        now = {each.labels: each.figures for each in view.series} | {FlowLabels.other(): view.other}
        assert len(now) == len(view.series) + 1
        for labels, figures in now.items():
            before = self.last.get(labels)
            if before is None:
                assert not figures.any() or labels.id == "other"
                before = NO_FIGURES
            assert (figures >= before).all()
            self.increase = self.increase + (figures - before)
        self.last = now


#: Each step: seconds, then for each flow what it grew by, None if it ends or is not there.
STEP = st.tuples(
    st.integers(1, 40),
    st.lists(st.one_of(st.none(), st.integers(0, 1000), st.just(0)), min_size=6, max_size=6),
)


@settings(max_examples=100, deadline=None)
@given(places=st.integers(1, 4), steps=st.lists(STEP, max_size=40))
def test_every_byte_once(places: int, steps: list[tuple[int, list[int | None]]]) -> None:
    """The sum over all series there ever were is the total, for whoever looks once a round or more often."""
    flows = top(places)
    observers = [Observer(every=0), Observer(every=ROUND - 40)]
    totals: dict[int, int] = {}  # of open flows
    ids = list(range(6))
    time, expected = 0.0, 0
    flows.take(snapshot(0, {}))
    for seconds, growths in steps:
        time += seconds
        ended = []
        for place, growth in enumerate(growths):
            if growth is not None:
                totals[ids[place]] = totals.get(ids[place], 0) + growth
                expected += growth
            elif ids[place] in totals:
                ended.append(ids[place])
                ids[place] += len(ids)
        flows.take(snapshot(time, totals, ended))
        for id_ in ended:
            del totals[id_]
        view = flows.view()
        for observer in observers:
            observer.look(time, view)

        assert view.total.tolist() == [expected * step for step in (1, 2, 3, 4)]
        assert len(view.series) <= 2 * places

    observer = observers[0]
    assert observer.increase.tolist() == flows.view().total.tolist()
    if steps:
        time += ROUND
        flows.take(snapshot(time, totals))
        observers[1].look(time, flows.view())
        assert observers[1].increase.tolist() == flows.view().total.tolist()


def test_many_flows() -> None:
    """100,000 flows: as many series as there are places, the largest, and the total to the byte."""
    before, flows = snapshots.large(), top(100)
    before = replace(before, flows=replace(before.flows, counters=np.zeros_like(before.flows.counters)))
    flows.take(before)
    grown = before.flows.counters + np.arange(len(before.flows), dtype=np.uint64).reshape(-1, 1)
    after = replace(before, time=before.time + ROUND, flows=replace(before.flows, counters=grown))
    flows.take(after)
    flows.take(replace(after, time=after.time + ROUND))
    view = flows.view()

    assert view.total.tolist() == [sum(range(100_000))] * 4
    assert {each.labels.id for each in view.series} >= {str(id_) for id_ in range(99_900, 100_000)}
