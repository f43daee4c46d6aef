"""What a port's counters have grown by, over wraps, resets, and counters that come and go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netmond.rdma.catalogue import Name, factors

_WIDE = np.uint64(1 << 32)
_HALF = np.uint64(1 << 31)
_HALF_WIDE = np.uint64(1 << 63)


def grown(before: NDArray[np.uint64], after: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What each counter grew by between two readings, uint64 (k,), in the counter's own unit.

    How wide a counter is nobody tells: Q counters of mlx5 have 32 bits, those of extended port counters 64.
    One that is less than before has wrapped if it went less than half way round (as serial numbers do,
    RFC 1982): at 32 bits if it had no more of them, else at 64. If it has not, it began again at 0
    (``perfquery -R``), and what it shows came since. But one that shows more than half of what it had did
    neither: a sum over CPUs, read while it moves, may step back. That is no growth.
    """
    narrow = before < _WIDE
    forward = np.where(narrow, (after - before) % _WIDE, after - before)
    wrapped = forward < np.where(narrow, _HALF, _HALF_WIDE)
    again = np.where(after > before // 2, np.uint64(0), after)
    result: NDArray[np.uint64] = np.where(after >= before, after - before, np.where(wrapped, forward, again))
    return result


class Growth:
    """The counters of one port, and what they have grown by since they were first read."""

    def __init__(self) -> None:
        self._row_of: dict[Name, int] = {}
        self._names: tuple[Name, ...] = ()
        self._factors = np.zeros(0, np.uint64)
        self._rows = np.zeros(0, np.intp)
        self._values = np.zeros(0, np.uint64)
        self._totals = np.zeros(0, np.uint64)
        self._read = np.zeros(0)
        self._lives = np.zeros(0, np.uint64)

    def update(
        self, names: tuple[Name, ...], values: NDArray[np.uint64], now: float, *, life: int
    ) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """Takes a reading; returns totals (k,) and rates per second (k,) of its counters, in their units.

        names: those that could be read now; one that is missing goes on from its last value when it is back
        values: (k,) as read; now: monotonic seconds
        life: another number for another device of the same name. Its counters began at 0, if they show less
              than before; those of some hardware outlast its driver
        """
        if names != self._names:
            self._name(names, values, now, life)
        rows = self._rows
        before = self._values[rows]
        before[(self._lives[rows] != life) & (values < before)] = 0
        growth = grown(before, values) * self._factors
        seconds = now - self._read[rows]
        self._values[rows], self._read[rows], self._lives[rows] = values, now, life
        self._totals[rows] += growth
        rates = np.divide(growth, seconds, out=np.zeros(len(rows)), where=seconds > 0)
        return self._totals[rows], rates

    def _name(self, names: tuple[Name, ...], values: NDArray[np.uint64], now: float, life: int) -> None:
        """Finds a row for each name. A new counter starts with what it shows: that came before."""
        for name, value in zip(names, values, strict=True):
            if name not in self._row_of:
                self._row_of[name] = len(self._row_of)
                self._values = np.append(self._values, value)
                self._totals = np.append(self._totals, np.uint64(0))
                self._read = np.append(self._read, now)
                self._lives = np.append(self._lives, np.uint64(life))
        self._names = names
        self._factors = factors(names)
        self._rows = np.array([self._row_of[name] for name in names], np.intp)
