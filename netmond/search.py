"""The search for processes behind sockets that are older than the meter or changed hands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

from netmond.kernel.owners import Process
from netmond.meter import Meter

log = logging.getLogger(__name__)

#: Seconds between two searches.
_INTERVAL = 5.0
#: Sockets whose owner was looked for, remembered so that they are not looked for again.
_SEARCHED_AT_MOST = 1 << 16


class OwnerSearch:
    """Tells the meter whose its sockets are. Belongs to one event loop; searching is done in a thread."""

    def __init__(self, meter: Meter, find: Callable[[Iterable[int]], Mapping[int, Process]]) -> None:
        """find: cookies -> the processes that could be found; may take long."""
        self._meter = meter
        self._find = find
        self._searched: dict[int, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0

    def ticked(self) -> None:
        """Searches for what the last tick left unknown, every few seconds at most, once for each socket."""
        if (self._task and not self._task.done()) or monotonic() < self._next:
            return
        cookies = [cookie for cookie in self._meter.unknown().tolist() if cookie not in self._searched]
        if not cookies:
            return
        self._next = monotonic() + _INTERVAL
        if len(self._searched) + len(cookies) > _SEARCHED_AT_MOST:
            self._searched.clear()
        self._searched.update(dict.fromkeys(cookies))
        self._task = asyncio.get_running_loop().create_task(self._search(cookies))

    def close(self) -> None:
        """Abandons a search."""
        if self._task:
            self._task.cancel()

    async def _search(self, cookies: list[int]) -> None:
        try:
            owners = await asyncio.to_thread(self._find, cookies)
        except Exception:  # whatever the kernel came up with: the flows stay without a process
            log.warning("The search for the processes behind sockets failed", exc_info=True)
            return
        self._meter.learn({cookie: (who.pid, who.comm) for cookie, who in owners.items()})
