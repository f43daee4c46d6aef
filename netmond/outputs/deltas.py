"""What each flow exchanged since it was last written, by flow id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netmond.model import NOBODY_UID, FlowKind, Table

#: in_packets, in_bytes, out_packets, out_bytes
WRITTEN = 4


class Deltas:
    """The figures last taken of every open flow; without `forwarded`, of those that belong to a user."""

    def __init__(self, *, forwarded: bool = False) -> None:
        self._forwarded = forwarded
        self._ids = np.zeros(0, np.uint64)
        self._taken = np.zeros((0, WRITTEN), np.uint64)
        self._order: NDArray[np.intp] | None = None  # of the ids, once they were searched

    def take_ended(self, flows: Table) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """Rows that appear for the last time and exchanged anything, and what (rows, 4)."""
        return self._take(flows, self._wanted(flows, np.flatnonzero(flows.columns["ended"])))

    def take_open(self, flows: Table) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """The same for all other rows; from now on they count from these figures."""
        rows = self._wanted(flows, np.flatnonzero(~flows.columns["ended"].astype(bool)))
        active = self._take(flows, rows)
        self._ids, self._taken, self._order = flows.columns["id"][rows], flows.counters[rows, :WRITTEN], None
        return active

    def taken(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Ids (n,) and figures (n, 4), to `resume` from. The arrays are live."""
        return self._ids, self._taken

    def resume(self, ids: NDArray[np.uint64], taken: NDArray[np.uint64]) -> None:
        """Go on from there, or anew without rows."""
        self._ids, self._taken, self._order = ids, taken, None

    def _wanted(self, flows: Table, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        if self._forwarded:
            return rows
        here: NDArray[np.intp] = rows[flows.columns["kind"][rows] != FlowKind.FORWARDED.value]
        return here

    def _take(self, flows: Table, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        now = flows.counters[rows, :WRITTEN]
        if not len(rows):
            return rows, now
        before = self._before(flows.columns["id"][rows])
        delta = now - before
        anew = _any(now < before)
        delta[anew] = now[anew]  # counts anew: better all of it than a huge number
        active = _any(delta != 0)
        if not self._forwarded:  # what RoCE was nobody's before its user is known is in nobody's rows
            active = active[flows.columns["uid"][rows[active]] != NOBODY_UID]
        return rows[active], delta[active]

    def _before(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The figures last taken of some flows, 0 for new ones."""
        if np.array_equal(ids, self._ids):
            return self._taken
        before = np.zeros((len(ids), WRITTEN), np.uint64)
        if len(self._ids):
            if self._order is None:
                self._order = np.argsort(self._ids, kind="stable")
            place = np.minimum(np.searchsorted(self._ids, ids, sorter=self._order), len(self._ids) - 1)
            place = self._order[place]
            known = self._ids[place] == ids
            before[known] = self._taken[place[known]]
        return before


def _any(figures: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Which rows (n, 4) have any: each row as one number, for any(axis=1) is slow with so few columns."""
    return np.flatnonzero(figures.view(np.uint32))
