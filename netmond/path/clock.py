"""Wall-clock times of what the kernel stamps with CLOCK_MONOTONIC."""

from __future__ import annotations

import time
from collections.abc import Callable


class WallClock:
    """How far the wall clock is ahead of CLOCK_MONOTONIC, in ns.

    Adjustments of the rate (NTP) are made to both, so the difference changes only when the wall clock is set
    (clock_gettime(2), adjtimex(2)). A measurement takes a moment and is that inexact: one that does not
    contradict the last changes nothing, or times would jump back and forth by microseconds.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = 0

    def offset(self) -> int:
        """To be added to a time that is not long ago."""
        before = self._monotonic()
        wall = self._wall()
        low, high = wall - self._monotonic(), wall - before
        if not low <= self._offset <= high:
            self._offset = (low + high) // 2
        return self._offset
