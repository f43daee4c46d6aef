"""Rows of a kernel hash that user space ages: flows that the interface programs see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now, Tallies, rates_of, row_ids

_CROWDED = 7 / 8  # share of rows in use from which silent ones are given up sooner
_IDLE, _IDLE_IF_CROWDED = 120.0, 10.0  # seconds
_NANO = 1e-9


class AgingRows:
    """The hash, and what is known of each of its rows. One that is silent for long is taken out, for good.

    name: of its arrays in a checkpoint. key, value: layouts of its rows, as a tally at least.
    """

    def __init__(self, table: Hash, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        self._table = table
        self._prefix = f"{name}."
        self._key, self._value = key, value
        self._rows = Tallies()
        self._ended = np.zeros(0, np.bool_)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """What has been accounted for."""
        return self._rows.checkpoint(self._prefix)

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same table, if it is there."""
        self._rows.resume(arrays, self._prefix, self._key, self._value)

    @property
    def crowded(self) -> bool:
        """Whether there are so many rows that the hash should be read often."""
        return len(self._rows.keys) > self._table.capacity / 4

    @property
    def keys(self) -> NDArray[Any]:
        return self._rows.keys

    @property
    def values(self) -> NDArray[Any]:
        """As they were read."""
        return self._rows.values

    @property
    def totals(self) -> NDArray[np.uint64]:
        """Counters of each row, shape (n, 8)."""
        return self._rows.totals

    @property
    def deltas(self) -> NDArray[np.uint64]:
        """What each row grew by since the tick before, shape (n, 8)."""
        return self._rows.deltas

    def rates(self, now: Now) -> NDArray[np.float64]:
        return rates_of(self._rows.deltas, now.interval)

    def read(self, now: Now) -> None:
        """Takes in what the kernel has at a tick, and takes out what was silent for long."""
        self._rows.update(*self._table.read())
        keys, values = self._rows.keys, self._rows.values
        if not len(keys):
            return
        crowded = len(keys) > self._table.capacity * _CROWDED
        idle = (now.monotonic_ns - values["last_seen"].astype(np.int64)) * _NANO
        self._ended = idle > (_IDLE_IF_CROWDED if crowded else _IDLE)
        for row in np.flatnonzero(self._ended).tolist():
            final = self._table.take(keys[row : row + 1])
            if final is not None:
                self._rows.finish(row, final)

    def columns(self, now: Now) -> dict[str, NDArray[Any]]:
        """What all such flows have in the flow table, after read()."""
        return {
            "id": row_ids(self.keys),
            "ifindex": self.keys["ifindex"],
            "first_seen": now.wall_of(self.values["first_seen"]),
            "last_seen": now.wall_of(self.values["last_seen"]),
            "ended": self._ended,
        }
