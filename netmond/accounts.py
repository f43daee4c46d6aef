"""Running totals over numpy columns: the arithmetic that all accounting shares. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.model import COUNTERS, RATES

Key = TypeVar("Key", bound=Hashable)

#: The words of a kernel record, both directions: (bytes, surplus, packets) in, then out. See bpf/types.h.
WORDS = 6
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_NANO = 1e-9


class Hash(Protocol):
    """A BPF hash: kernel.tables.HashTable, or arrays in a test."""

    capacity: int

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]: ...

    def take(self, key: NDArray[Any]) -> NDArray[Any] | None: ...


class PerCpu(Protocol):
    """Per-CPU counters: kernel.tables.CpuArray, or arrays in a test. They only ever grow."""

    capacity: int

    def sums(self, length: int) -> NDArray[np.uint64]: ...


@dataclass(frozen=True, slots=True)
class Earlier(Generic[Key]):
    """Totals of an earlier run: keys, and a row of counters (n, 8) for each."""

    keys: Sequence[Key]
    counters: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """One moment on two clocks, and the seconds since the moment before."""

    monotonic_ns: int
    wall: float
    interval: float

    def wall_of(self, monotonic_ns: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Unix seconds of CLOCK_MONOTONIC times; 0 stays 0 (never)."""
        ago = np.float64(self.monotonic_ns) - monotonic_ns.astype(np.float64)
        return np.where(monotonic_ns > 0, self.wall - ago * _NANO, 0.0)


def as_words(records: NDArray[Any]) -> NDArray[np.uint64]:
    """Contiguous records seen as rows of u8 words, no copy."""
    return records.view(np.uint64).reshape(len(records), records.dtype.itemsize // 8)


def unfold(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Differences of kernel words (n, 6) as counters (n, 8), columns as in model.COUNTERS.

    A difference of the packed packet word is exact although its halves wrap, as long as fewer than 2**32
    packets passed in between.
    """
    counters = np.empty((len(words), len(COUNTERS)), np.uint64)
    for first, plain, stack in ((0, 0, 4), (3, 2, 6)):
        counters[:, plain] = words[:, first + 2] >> _HALF
        counters[:, plain + 1] = words[:, first] + words[:, first + 1]
        counters[:, stack] = words[:, first + 2] & _LOW
        counters[:, stack + 1] = words[:, first]
    return counters


def rates_of(deltas: NDArray[np.uint64], interval: float) -> NDArray[np.float64]:
    """Counter differences (n, 8) per second, columns as in model.RATES; zero for no time at all."""
    if interval <= 0:
        return np.zeros((len(deltas), len(RATES)))
    return deltas[:, : len(RATES)] / interval


def sum_by(rows: NDArray[np.int32], deltas: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    """Sums of deltas (n, 8) by row number, shape (length, 8).

    In float64, which is exact: a tick's sum stays far below 2**53.
    """
    sums = np.empty((length, deltas.shape[1]), np.uint64)
    for column in range(deltas.shape[1]):
        sums[:, column] = np.bincount(rows, deltas[:, column], length)
    return sums


class Accounts(Generic[Key]):
    """Running counters under a growing set of keys; each key has a row number that stays."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self._rows: dict[Key, int] = {}
        self._counters = np.zeros((16, len(COUNTERS)), np.uint64)
        self._latest = np.zeros((16, len(COUNTERS)), np.uint64)

    def __len__(self) -> int:
        return len(self.keys)

    def row(self, key: Key) -> int:
        """The row of a key, a new one if it has none."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = len(self.keys)
            self.keys.append(key)
            if row == len(self._counters):
                self._counters = np.concatenate([self._counters, np.zeros_like(self._counters)])
                self._latest = np.concatenate([self._latest, np.zeros_like(self._latest)])
        return row

    def restore(self, earlier: Earlier[Key]) -> NDArray[np.int32]:
        """Lets totals go on from earlier ones; returns their rows. What is restored is in no rate."""
        rows = np.array([self.row(key) for key in earlier.keys], np.int32)
        np.add.at(self._counters, rows, earlier.counters)
        return rows

    def begin_tick(self) -> None:
        self._latest[:] = 0

    def add(self, rows: NDArray[np.int32], deltas: NDArray[np.uint64]) -> None:
        """Adds differences (n, 8) to the rows they belong to."""
        if len(rows):
            sums = sum_by(rows, deltas, len(self.keys))
            self._counters[: len(sums)] += sums
            self._latest[: len(sums)] += sums

    @property
    def latest(self) -> NDArray[np.uint64]:
        """What was added in this tick, shape (keys, 8); live."""
        return self._latest[: len(self.keys)]

    @property
    def counters(self) -> NDArray[np.uint64]:
        """A copy of all totals, shape (keys, 8)."""
        return self._counters[: len(self.keys)].copy()

    def rates(self, interval: float) -> NDArray[np.float64]:
        return rates_of(self.latest, interval)

    def fold(self, into: Sequence[Key]) -> NDArray[np.int32]:
        """Renames keys, `into[row]` being the new name of a row, and merges those that become the same.

        Returns the new row of each old one, for whoever stored row numbers.
        """
        old = self.counters, self.latest.copy()
        self.keys, self._rows = [], {}
        rows = np.array([self.row(key) for key in into], np.int32)
        self._counters = np.zeros_like(self._counters)
        self._latest = np.zeros_like(self._latest)
        np.add.at(self._counters, rows, old[0])
        np.add.at(self._latest, rows, old[1])
        return rows


class Tallies:
    """Rows of a BPF hash (struct tally) with their running totals, found by key.

    Rows are dense and move when others are dropped: use the arrays within one tick only.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self.keys: NDArray[Any] = np.zeros(0, "V1")
        self.values: NDArray[Any] = np.zeros(0, "V1")
        self._begun = np.zeros(0, np.uint64)
        self._last = np.zeros((0, WORDS), np.uint64)
        self.totals = np.zeros((0, len(COUNTERS)), np.uint64)
        self.deltas = np.zeros((0, len(COUNTERS)), np.uint64)
        self._finished: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def update(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Takes in what the hash holds now, in any order; rows no longer there are forgotten."""
        if not len(keys) and not len(self.keys):
            return  # as on most machines all the time
        names = self._names(keys)
        known = np.fromiter((self._rows.get(name, -1) for name in names), np.int64, len(names))
        old = known >= 0
        # One that was taken out, by a daemon that was killed before it could say so, begins anew.
        old[old] = values["first_seen"][old] == self._begun[known[old]]
        last = np.zeros((len(names), WORDS), np.uint64)
        totals = np.zeros((len(names), len(COUNTERS)), np.uint64)
        last[old] = self._last[known[old]]
        totals[old] = self.totals[known[old]]
        words = as_words(values)[:, wire.TALLY_COUNTED]
        self.deltas = unfold(words - last)
        self.totals = totals + self.deltas
        self._last = words.copy()
        self.keys, self.values, self._begun = keys, values, values["first_seen"]
        self._rows = {name: row for row, name in enumerate(names)}
        self._finished.clear()

    def checkpoint(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The rows with what is known of each, to `resume` from; names begin with `prefix`."""
        arrays = {"keys": self.keys, "values": self.values, "last": self._last, "totals": self.totals}
        if self._finished:
            arrays = {name: np.delete(array, self._finished, 0) for name, array in arrays.items()}
        return {prefix + name: array for name, array in arrays.items()}

    def resume(
        self, arrays: Mapping[str, NDArray[Any]], prefix: str, key: np.dtype[Any], value: np.dtype[Any]
    ) -> None:
        """Goes on from a checkpoint of the same hash, if it is there. key, value: layouts of its rows."""
        if f"{prefix}keys" not in arrays:
            return
        self.keys = arrays[f"{prefix}keys"].view(key)
        self.values = arrays[f"{prefix}values"].view(value)
        self._begun = self.values["first_seen"]
        self._last = arrays[f"{prefix}last"]
        self.totals = arrays[f"{prefix}totals"]
        self.deltas = np.zeros_like(self.totals)
        self._rows = {name: row for row, name in enumerate(self._names(self.keys))}

    @staticmethod
    def _names(keys: NDArray[Any]) -> list[bytes]:
        names: list[bytes] = keys.view(f"V{keys.dtype.itemsize}").tolist()
        return names

    def finish(self, row: int, value: NDArray[Any]) -> None:
        """Brings a row to its final value, shape (1,): it was taken out of the hash.

        If the key comes back it begins anew.
        """
        self._rows.pop(self.keys[row].tobytes(), None)
        self._finished.append(row)
        words = as_words(value)[:, wire.TALLY_COUNTED]
        rest = unfold(words - self._last[row : row + 1])[0]
        self._last[row] = words[0]
        self.deltas[row] += rest
        self.totals[row] += rest


def row_ids(keys: NDArray[Any]) -> NDArray[np.uint64]:
    """Ids for rows of a hash: a mix of the key's words, the high bit set so that none is a slot's."""
    words = as_words(keys)
    mixed = np.zeros(len(keys), np.uint64)
    for column in range(words.shape[1]):
        mixed = (mixed ^ words[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed | np.uint64(1 << 63)


def distinct(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each distinct key stands for the first time, and for every key the number of its like there.

    keys: records of whole u8 words. As np.unique() of records, which takes ten times as long.
    """
    _, first, inverse = np.unique(row_ids(keys), return_index=True, return_inverse=True)
    words = as_words(keys)
    if (words != words[first][inverse]).any():  # two that mix to the same: somebody's doing
        _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return first, inverse


def find(wanted: NDArray[Any], among: NDArray[Any], values: NDArray[np.intp]) -> NDArray[np.intp]:
    """For each wanted key the value beside its equal in `among`, -1: there is none."""
    if not len(among):
        return np.full(len(wanted), -1, np.intp)
    order = np.argsort(among, kind="stable")
    place = np.minimum(np.searchsorted(among, wanted, sorter=order), len(among) - 1)
    found = order[place]
    return np.where(among[found] == wanted, values[found], -1)
