"""Snapshots of a machine whose figures grow, for outputs to deliver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from netmond.model import RdmaPort, Snapshot, Table
from tests.bus import snapshots
from tests.bus.rdma import with_rdma


def _grown(table: Table, step: int) -> Table:
    """Each counter a number of its own more with every step."""
    increments = np.arange(1, table.counters.size + 1, dtype=np.uint64).reshape(table.counters.shape)
    return replace(table, counters=table.counters + increments * np.uint64(step * step))


def _grown_port(port: RdmaPort, step: int) -> RdmaPort:
    increments = np.arange(1, len(port.totals) + 1, dtype=np.uint64)
    return replace(port, totals=port.totals + increments * np.uint64(step * step))


def at(time: float, step: int) -> Snapshot:
    """How the machine of `snapshots.small`, with RDMA, stands after so many steps."""
    base = with_rdma(snapshots.small())
    return replace(
        base,
        time=time,
        tick=step,
        users=_grown(base.users, step),
        units=_grown(base.units, step),
        interfaces=_grown(base.interfaces, step),
        targets=_grown(base.targets, step),
        host=_grown(base.host, step),
        flows=_grown(base.flows, step),
        rdma=replace(
            base.rdma,
            ports=tuple(_grown_port(port, step) for port in base.rdma.ports),
            users=_grown(base.rdma.users, step),
        ),
    )


def every(seconds: float, start: float) -> Iterator[Snapshot]:
    """One after the other, forever."""
    step = 0
    while True:
        yield at(start + step * seconds, step)
        step += 1
