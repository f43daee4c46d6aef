"""A machine whose figures grow as a test says, told in snapshots as the daemon's, and a clock."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from netmond.model import Feature, Loss, Rdma, Snapshot, Table
from netmond.users import Names
from tests.bus.rdma import CAROL
from tests.bus.snapshots import ALICE, BOB, small

NAMES = Names(name_of=lambda uid: {ALICE: "alice", BOB: "bob", CAROL: "carol"}[uid])

START = 1_795_000_000.0


def crowded(snapshot: Snapshot, count: int) -> Snapshot:
    """The same with so many flows, like those it has, and none in its last snapshot."""
    many = np.arange(count) % len(snapshot.flows)
    columns = {name: column[many] for name, column in snapshot.flows.columns.items()}
    columns |= {"id": np.arange(count, dtype="u8"), "ended": np.zeros(count, bool)}
    flows = Table(columns=columns, counters=snapshot.flows.counters[many], rates=snapshot.flows.rates[many])
    return replace(snapshot, flows=flows)


class Clock:
    """Pauses pass as a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class History:
    """Everything grows by one and the same number, so that sums are easy to tell.

    Its flows are those of `tests.bus.snapshots`; the third of them is in its last snapshot in each one.
    """

    now: float = START
    tick: int = 0
    since: float = START - 3600
    started: float = START
    grown: int = 1  #: what every counter is
    ids: int = 0  #: what is added to flow ids
    features: tuple[Feature, ...] = ()
    losses: tuple[Loss, ...] = ()
    rdma: Rdma = field(default_factory=Rdma)
    latest: Snapshot = field(default_factory=small)

    def snapshot(self, *, grow: int = 0, seconds: float = 10.0) -> Snapshot:
        """The next snapshot."""
        self.now += seconds
        self.tick += 1
        self.grown += grow
        base = small()
        flows = self._grown(base.flows)
        # Who is in its last snapshot is another flow each time.
        ended = flows.columns["ended"]
        ids = flows.columns["id"] + np.where(ended, np.uint64(100 * self.tick), np.uint64(self.ids))
        self.latest = replace(
            base, tick=self.tick, time=self.now, since=self.since, started=self.started,
            flows=replace(flows, columns={**flows.columns, "id": ids}),
            users=self._grown(base.users), units=self._grown(base.units), targets=self._grown(base.targets),
            interfaces=self._grown(base.interfaces), features=self.features, losses=self.losses,
            rdma=replace(self.rdma, users=self._grown(self.rdma.users)),
        )  # fmt: skip
        return self.latest

    def _grown(self, table: Table) -> Table:
        return replace(table, counters=np.full_like(table.counters, self.grown))
