"""What each flow exchanged since it was last written, by flow id."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netmond.model import NOBODY_UID, FlowKind, Table

#: in_packets, in_bytes, out_packets, out_bytes
WRITTEN = 4


class Deltas:
    """The figures last taken of every open flow. Forwarded flows belong to no user and are left out."""

    def __init__(self) -> None:
        self._ids = np.zeros(0, np.uint64)
        self._taken = np.zeros((0, WRITTEN), np.uint64)

    def take_ended(self, flows: Table) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """Rows that appear for the last time and exchanged anything, and what (rows, 4)."""
        return self._take(flows, self._of_users(flows) & flows.columns["ended"].astype(bool))

    def take_open(self, flows: Table) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """The same for all other rows; from now on they count from these figures."""
        wanted = self._of_users(flows) & ~flows.columns["ended"].astype(bool)
        active = self._take(flows, wanted)
        ids = flows.columns["id"][wanted]
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order].astype(np.uint64)
        self._taken = flows.counters[wanted, :WRITTEN][order]
        return active

    @staticmethod
    def _of_users(flows: Table) -> NDArray[np.bool_]:
        forwarded = flows.columns["kind"] == FlowKind.FORWARDED.value
        of_users: NDArray[np.bool_] = ~forwarded & (flows.columns["uid"] != NOBODY_UID)
        return of_users

    def _take(self, flows: Table, wanted: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        rows = np.flatnonzero(wanted)
        now = flows.counters[rows, :WRITTEN]
        before = np.zeros_like(now)
        if len(self._ids):
            ids = flows.columns["id"][rows]
            place = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
            known = self._ids[place] == ids
            before[known] = self._taken[place[known]]
        before[(now < before).any(axis=1)] = 0  # counts anew: better all of it than a huge number
        delta = now - before
        active = delta.any(axis=1)
        return rows[active], delta[active]
