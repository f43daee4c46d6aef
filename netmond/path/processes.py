"""The processes behind sockets of which an event tells no process: from the meter's table of flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Searches of the table in a second, at most: one takes a millisecond.
_SEARCHES, _SECOND = 10, 10**9

#: ns for which an answer is believed, and sockets after which all are forgotten.
_BELIEVED, _REMEMBERED = 2_000_000_000, 8192

_Process = tuple[int, bytes]
NOBODY: _Process = (0, b"")


class Processes:
    """Process id and command by the socket's cookie."""

    def __init__(self, flows: Callable[[], NDArray[Any]]) -> None:
        """flows: the table as it is now, wire.FLOW (n,)."""
        self._flows = flows
        self._known: dict[int, _Process] = {}
        self._began = self._second = self._searches = 0

    def learn(self, cookies: NDArray[np.uint64], time: int) -> None:
        """Looks up new ones among these, if it does not do so all the time. time: ns, CLOCK_MONOTONIC."""
        if time - self._began > _BELIEVED or len(self._known) > _REMEMBERED:
            self._known.clear()
            self._began = time
        if time - self._second > _SECOND:
            self._second, self._searches = time, 0
        if self._searches >= _SEARCHES:
            return
        wanted = set(cookies.tolist()) - self._known.keys() - {0}
        if wanted:
            self._searches += 1
            self._known.update(dict.fromkeys(wanted, NOBODY))
            self._known.update(self._search(wanted))

    def get(self, cookie: int) -> _Process:
        """NOBODY: not known, or not yet."""
        return self._known.get(cookie, NOBODY)

    def _search(self, cookies: Iterable[int]) -> dict[int, _Process]:
        table = self._flows()
        rows = table[np.isin(table["cookie"], np.fromiter(cookies, np.uint64))]
        return {
            cookie: (pid, comm)
            for cookie, pid, comm in zip(
                rows["cookie"].tolist(), rows["pid"].tolist(), rows["comm"].tolist(), strict=True
            )
            if pid
        }
