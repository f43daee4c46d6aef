"""The peers of unconnected sockets: what a socket's slot holds in all, seen by peer. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now, Tallies, find, rates_of, row_ids
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import COUNTERS, FlowKind

_CROWDED = 7 / 8  # share of rows in use from which silent ones are given up sooner
_IDLE_IF_CROWDED = 30.0  # seconds
_NANO = 1e-9

_PREFIX, _TO_PEERS = "peers.", "slots.to_peers"


class Peers:
    """Rows of the kernel's hash, and what of each slot they hold: a socket's own row is the rest."""

    def __init__(self, table: Hash, slots: int) -> None:
        self._table = table
        self._rows = Tallies()
        self._slots = np.zeros(0, np.intp)  # of each row, -1: its socket is gone
        self._ended = np.zeros(0, np.bool_)  # rows that appear for the last time
        self._of_slots = np.zeros((slots, len(COUNTERS)), np.uint64)
        self._had_any = False  # leaves the pages of `_of_slots` untouched on machines without any

    def checkpoint(self, top: int) -> dict[str, NDArray[Any]]:
        """What has been accounted for; top: as many slots are looked at."""
        arrays = self._rows.checkpoint(_PREFIX)
        if self._had_any:
            arrays[_TO_PEERS] = self._of_slots[:top]
        return arrays

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same table. Then `place` the rows."""
        self._rows.resume(arrays, _PREFIX, wire.PEER_KEY, wire.TALLY)
        if _TO_PEERS in arrays:
            self._of_slots[: len(arrays[_TO_PEERS])] = arrays[_TO_PEERS]
            self._had_any = True

    @property
    def crowded(self) -> bool:
        """Whether there are so many rows that the hash should be read often."""
        return len(self._rows.keys) > self._table.capacity / 4

    def read(self) -> None:
        """Takes in what the kernel has now."""
        self._rows.update(*self._table.read())

    def place(self, slots: NDArray[np.intp], cookies: NDArray[np.uint64]) -> None:
        """Finds each row's slot among those of unconnected sockets, given with their cookies."""
        keys = self._rows.keys
        self._slots = find(keys["cookie"], cookies, slots) if len(keys) else np.zeros(0, np.intp)
        self._ended = np.zeros(len(self._slots), np.bool_)

    def begin(self, slots: NDArray[np.intp]) -> None:
        """Other sockets have these slots now."""
        self._of_slots[slots[self._of_slots[slots].any(axis=1)]] = 0  # leaves untouched pages untouched

    def account(self, now: Now, idle: float, ended: NDArray[np.intp]) -> None:
        """Takes rows that are done out of the hash, and adds up what the rows have grown.

        idle: seconds of silence after which a row is; ended: slots of sockets that are.
        """
        if not len(self._slots):
            return
        keys = self._rows.keys
        silent = (now.monotonic_ns - self._rows.values["last_seen"].astype(np.int64)) * _NANO
        if len(keys) > self._table.capacity * _CROWDED:
            idle = min(idle, _IDLE_IF_CROWDED)
        self._ended = (self._slots < 0) | (silent > idle) | np.isin(self._slots, ended)
        for row in np.flatnonzero(self._ended):
            final = self._table.take(keys[row : row + 1])
            if final is not None:
                self._rows.finish(int(row), final)
        known = self._slots >= 0
        np.add.at(self._of_slots, self._slots[known], self._rows.deltas[known])
        self._had_any = True

    def settle_twins(
        self, slots: NDArray[np.intp], cookies: NDArray[np.uint64], totals: NDArray[np.uint64]
    ) -> None:
        """A socket that lost its slot and claimed another has two for a tick, and its peers came to the one
        found first: what that one never counted is the other's. totals: of all slots."""
        if not len(self._slots):
            return
        order = np.argsort(cookies, kind="stable")
        for at in np.flatnonzero(cookies[order[1:]] == cookies[order[:-1]]).tolist():
            one, other = slots[order[at]], slots[order[at + 1]]
            excess = self._of_slots[one] - np.minimum(self._of_slots[one], totals[one])
            self._of_slots[one] -= excess
            self._of_slots[other] += excess

    def take_from(self, counters: NDArray[np.uint64], slots: NDArray[np.intp]) -> None:
        """Leaves in the counters of slots what no peer's row has."""
        if self._had_any:
            counters[:] -= np.minimum(self._of_slots[slots], counters)

    def add_to(
        self, flows: FlowRows, now: Now, identity: Callable[[NDArray[np.intp]], dict[str, NDArray[Any]]]
    ) -> None:
        """A flow for each row. identity: what slots lend to the rows of their peers."""
        known = np.flatnonzero(self._slots >= 0)
        if not len(known):
            return
        keys, values = self._rows.keys[known], self._rows.values[known]
        columns = identity(self._slots[known])
        columns["remote"], columns["remote_port"] = keys["remote"], keys["remote_port"]
        flows.add(
            FlowKind.PEER,
            self._rows.totals[known],
            rates_of(self._rows.deltas[known], now.interval),
            **columns,
            id=row_ids(keys),
            first_seen=now.wall_of(values["first_seen"]),
            last_seen=now.wall_of(values["last_seen"]),
            ended=self._ended[known],
        )
