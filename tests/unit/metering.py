"""A meter over a kernel made of arrays, and how its tests look at what it finds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from netmond.meter import Meter, Usage
from netmond.model import FlowKind, Table
from tests.unit.fakes import moment
from tests.unit.sockets import HOME, Kernel

IDLE = 120.0
PATHS = {1: "/system.slice/web.service", 2: "/user.slice/user-1000.slice/session-3.scope", 3: "/"}
ALICE, BOB = 1234, 1237


def paths(ids: Iterable[int]) -> Mapping[int, str]:
    return {id_: PATHS[id_] for id_ in ids if id_ in PATHS}


class Bench:
    """A meter over a kernel; tick() lets a second pass first."""

    def __init__(self, **sizes: int) -> None:
        self.kernel = Kernel(**sizes)
        self.meter = Meter(self.kernel, paths=paths, netns=HOME, idle=IDLE)

    def tick(self, seconds: float = 1.0) -> Usage:
        self.kernel.now += seconds
        usage = self.meter.tick(moment(self.kernel.now, seconds))
        self.meter.release()
        return usage

    def flows(self, seconds: float = 1.0) -> Table:
        return self.tick(seconds).flows.table()

    def users(self, seconds: float = 1.0) -> dict[int, int]:
        """uid -> bytes in and out, after a tick."""
        return by_user(self.tick(seconds).users)


def by_user(table: Table) -> dict[int, int]:
    totals = (table.counters[:, 1] + table.counters[:, 3]).tolist()
    sums: dict[int, int] = dict.fromkeys(table.columns["uid"].tolist(), 0)
    for uid, total in zip(table.columns["uid"].tolist(), totals, strict=True):
        sums[uid] += total
    return sums


def of_kind(table: Table, kind: FlowKind) -> Table:
    return _chosen(table, table.columns["kind"] == kind)


def rows_that(table: Table, *, ended: bool) -> Table:
    return _chosen(table, table.columns["ended"] == ended)


def _chosen(table: Table, chosen: NDArray[np.bool_]) -> Table:
    return Table(
        columns={name: column[chosen] for name, column in table.columns.items()},
        counters=table.counters[chosen],
        rates=table.rates[chosen],
    )
