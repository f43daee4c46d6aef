"""What outputs tell in lines or messages: rows with the keys of the D-Bus interface, and what has grown.

Before the row's own keys are ``type``, ``period`` (seconds since the batch before) and, of figures, the
four ``delta_*``, of users' RDMA four more. Everything that is taken here counts as told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond import answers, columns, query, views
from netmond.columns import Row, View
from netmond.export.progress import Progress
from netmond.model import COUNTERS, Snapshot, Table
from netmond.outputs.deltas import WRITTEN
from netmond.rdma import views as rdma
from netmond.users import Names

#: In the order of COUNTERS.
DELTAS = tuple(f"delta_{name}" for name in COUNTERS[:WRITTEN])
#: The same of what users exchanged by RDMA, and its totals.
RDMA = tuple(f"rdma_{name}" for name in COUNTERS[:WRITTEN])
RDMA_DELTAS = tuple(f"delta_{name}" for name in RDMA)


def figures(snapshot: Snapshot, progress: Progress, names: Names) -> Iterator[Row]:
    """Users, units, targets and monitored interfaces that exchanged anything since the last batch."""
    yield from _users(snapshot, progress, names)
    for kind, table, view, key in (
        ("unit", snapshot.units, views.units(snapshot.units), ("unit", "cgroup")),
        ("target", snapshot.targets, views.targets(snapshot.targets), ("address", "since")),
    ):
        rows, delta = progress.take(kind, _keys(table, *key), table)
        yield from _told(kind, snapshot, progress, columns.rows(view, rows), delta)
    table = snapshot.interfaces
    rows, delta = progress.take("interface", _keys(table, "ifindex"), table)
    monitored = query.Query(list="interfaces", sort="name", monitored=True, limit=0)
    known = {row["index"]: row for row in answers.select(snapshot, monitored, names).rows}
    indexes = table.columns["ifindex"][rows].tolist()
    there = [place for place, index in enumerate(indexes) if index in known]
    yield from _told(
        "interface", snapshot, progress, (known[indexes[place]] for place in there), delta[there]
    )


def _users(snapshot: Snapshot, progress: Progress, names: Names) -> Iterator[Row]:
    """Whoever exchanged anything by IP or by RDMA, and how much by each."""
    users = rdma.users(snapshot.users, snapshot.rdma.users)
    of_rdma = replace(users, counters=np.stack([users.columns[name] for name in RDMA], axis=1))
    keys = _keys(users, "uid")
    delta = np.zeros((len(users), 2 * WRITTEN), np.uint64)
    for kind, table, first in (("user", users, 0), ("rdma", of_rdma, WRITTEN)):
        rows, grown = progress.take(kind, keys, table)
        delta[rows, first : first + WRITTEN] = grown
    active = np.flatnonzero(delta.any(axis=1))
    told = columns.rows(views.users(users, names), active)
    yield from _told("user", snapshot, progress, told, delta[active], (*DELTAS, *RDMA_DELTAS))


def ended_flows(snapshot: Snapshot, progress: Progress, names: Names) -> Iterator[Row]:
    """Flows that appear for the last time. Those of each snapshot are to be taken."""
    return _flows(snapshot, progress, names, *progress.flows.take_ended(snapshot.flows))


def open_flows(snapshot: Snapshot, progress: Progress, names: Names) -> Iterator[Row]:
    """All others that exchanged anything since the last batch."""
    return _flows(snapshot, progress, names, *progress.flows.take_open(snapshot.flows))


def losses(snapshot: Snapshot, progress: Progress) -> Iterator[Row]:
    """Lines of the loss ledger that grew since the last batch, and by how much."""
    grown = progress.count("loss", {loss.name: loss.count for loss in snapshot.losses})
    for loss in snapshot.losses:
        if loss.name in grown:
            yield {
                "type": "loss",
                "period": _period(snapshot, progress),
                "delta_count": grown[loss.name],
                **asdict(loss),
            }


def features(snapshot: Snapshot, progress: Progress) -> Iterator[Row]:
    """Features that are not as they were told last."""
    told, progress.features = progress.features, {feature.name: feature for feature in snapshot.features}
    for feature in snapshot.features:
        if told.get(feature.name) != feature:
            yield {"type": "feature", **asdict(feature)}


def _flows(
    snapshot: Snapshot, progress: Progress, names: Names, rows: NDArray[np.intp], delta: NDArray[np.uint64]
) -> Iterator[Row]:
    view: View = views.flows(snapshot, names)
    return _told("flow", snapshot, progress, columns.rows(view, rows), delta)


def _told(
    kind: str,
    snapshot: Snapshot,
    progress: Progress,
    rows: Iterator[Row],
    delta: NDArray[np.uint64],
    keys: Sequence[str] = DELTAS,
) -> Iterator[Row]:
    """The rows (n) with what they grew by (n, keys)."""
    head = {"type": kind, "period": _period(snapshot, progress)}
    for row, more in zip(rows, delta.tolist(), strict=True):
        yield {**head, **dict(zip(keys, more, strict=True)), **row}


def _period(snapshot: Snapshot, progress: Progress) -> float:
    return max(0.0, snapshot.time - progress.time)


def _keys(table: Table, *columns: str) -> Sequence[str]:
    """A text for each row that no other one has."""
    values: list[list[Any]] = [table.columns[name].tolist() for name in columns]
    return [" ".join(map(str, key)) for key in zip(*values, strict=True)]
