"""Rows of flows that ended inside a snapshot which could not be delivered, carried to the next one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netmond.model import Snapshot, Table


def take(table: Table, rows: NDArray[np.intp]) -> Table:
    """Some rows of a table, as copies: the table itself can go."""
    return Table(
        columns={name: column[rows] for name, column in table.columns.items()},
        counters=table.counters[rows],
        rates=table.rates[rows],
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """Last rows of some flows; `unit_index` points into these `unit_names`."""

    flows: Table
    unit_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.flows)


def ended(snapshot: Snapshot, room: int) -> tuple[Ended, int]:
    """The ended rows of a snapshot, at most `room`, and how many more there were."""
    rows = np.flatnonzero(snapshot.flows.columns["ended"])
    table = take(snapshot.flows, rows[:room])
    index = table.columns["unit_index"]
    used, place = np.unique(index[index >= 0], return_inverse=True)
    renumbered = np.full(len(index), -1, np.int32)
    renumbered[index >= 0] = place
    table = replace(table, columns={**table.columns, "unit_index": renumbered})
    names = tuple(snapshot.unit_names[unit] for unit in used.tolist())
    return Ended(table, names), max(0, len(rows) - room)


def add(snapshot: Snapshot, carried: list[Ended]) -> Snapshot:
    """The snapshot with carried rows before its own."""
    if not carried:
        return snapshot
    names = snapshot.unit_names
    tables = []
    for rows in carried:
        index = rows.flows.columns["unit_index"]
        moved = np.where(index >= 0, index + len(names), index).astype(np.int32)
        tables.append(replace(rows.flows, columns={**rows.flows.columns, "unit_index": moved}))
        names += rows.unit_names
    tables.append(snapshot.flows)
    flows = Table(
        columns={
            name: np.concatenate([table.columns[name] for table in tables])
            for name in snapshot.flows.columns
        },
        counters=np.concatenate([table.counters for table in tables]),
        rates=np.concatenate([table.rates for table in tables]),
    )
    return replace(snapshot, flows=flows, unit_names=names)
