"""What users and queue pairs have transferred by RDMA. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Accounts, Earlier, rates_of
from netmond.model import COUNTERS, Table
from netmond.rdma.register import Census


class Usage:
    """Users' totals stay; a queue pair's go with it. In a user's are also those of queue pairs long gone."""

    def __init__(self) -> None:
        self._users: Accounts[int] = Accounts()
        self._census = Census()
        self._counters = np.zeros((0, len(COUNTERS)), np.uint64)  # a row for each holder of the census
        self._latest = np.zeros((0, len(COUNTERS)), np.uint64)
        self._sources = np.zeros(0, object)

    @property
    def known(self) -> bool:
        """Whether there is, or was, anything at all."""
        return len(self._users) > 0 or len(self._census.holders) > 0

    def begin_tick(self, census: Census) -> None:
        """From now on it is the queue pairs of this census."""
        self._users.begin_tick()
        if census.holders is self._census.holders:
            self._census = census
            self._latest[:] = 0
            return
        before, ids = self._census.holders["id"], census.holders["id"]
        _, new, old = np.intersect1d(ids, before, assume_unique=True, return_indices=True)
        counters, sources = np.zeros((len(ids), len(COUNTERS)), np.uint64), np.full(len(ids), "", object)
        counters[new], sources[new] = self._counters[old], self._sources[old]
        self._counters, self._sources, self._latest = counters, sources, np.zeros_like(counters)
        self._census = census

    def add(self, who: NDArray[Any], deltas: NDArray[np.uint64], source: str) -> None:
        """Adds differences (n, 8) to those they are of: HOLDERs, of nobody where that is unknown.

        source: as in model.Rdma.
        """
        if not len(who):
            return
        uids, inverse = np.unique(who["uid"], return_inverse=True)
        rows = np.array([self._users.row(uid) for uid in uids.tolist()], np.int32)
        self._users.add(rows[inverse], deltas)
        ids = self._census.holders["id"]
        places = np.searchsorted(ids, who["id"])
        ours = np.flatnonzero(np.isin(who["id"], ids))
        np.add.at(self._latest, places[ours], deltas[ours])
        np.add.at(self._counters, places[ours], deltas[ours])
        self._sources[places[ours]] = source

    def users(self, interval: float) -> Table:
        """As model.Rdma.users; interval: seconds of this tick."""
        uids = self._census.holders["uid"][self._open()]
        for uid in np.unique(uids).tolist():
            self._users.row(uid)
        columns = np.array(self._users.keys, np.uint32)
        order = np.argsort(columns)
        places = np.searchsorted(columns, uids, sorter=order)
        return Table(
            columns={
                "uid": columns,
                "queue_pairs": np.bincount(order[places], minlength=len(columns)).astype(np.uint32),
            },
            counters=self._users.counters,
            rates=self._users.rates(interval),
        )

    def queue_pairs(self, interval: float) -> Table:
        """As model.Rdma.queue_pairs: those that are open."""
        census, rows = self._census, self._open()
        holders = census.holders[rows]
        names = np.array([*census.devices, ""], object)
        return Table(
            columns={
                "device": names[holders["device"]],
                **{name: holders[name] for name in ("port", "qpn", "remote_qpn")},
                "type": census.type[rows],
                "state": census.state[rows],
                **{name: holders[name] for name in ("pid", "comm", "uid")},
                "unit": census.unit[rows],
                "source": self._sources[rows],
            },
            counters=self._counters[rows],
            rates=rates_of(self._latest[rows], interval),
        )

    def _open(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isinf(self._census.holders["gone"]))

    # -- over restarts -------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """All users' totals."""
        return {"rdma.uid": np.array(self._users.keys, np.uint32), "rdma.counters": self._users.counters}

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint, if users' totals are in it."""
        if "rdma.uid" in arrays:
            self.restore(Earlier(arrays["rdma.uid"].tolist(), arrays["rdma.counters"]))

    def restore(self, users: Earlier[int]) -> None:
        """Lets totals go on from those of an earlier run."""
        self._users.restore(users)
