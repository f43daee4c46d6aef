"""Answers that nobody fetches: the bus keeps them, and counts them against whoever sent them.

A dbus-daemon that keeps 127 MiB of netmond's messages, or 64 descriptors in them, for anybody, reads nothing
more from netmond. So a user with many unread answers gets no more of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable

#: Bytes of answers a user may leave unread before there are no more, but for short errors.
MAX_UNREAD = 8 << 20

#: Bytes that a descriptor counts for: of either a bus takes so many, then no more.
DESCRIPTOR = (127 << 20) // 64

#: Seconds for which a user is believed to read nothing.
_PAUSE = 1.0


class Unread:
    """Bytes sent to each connection that may still be unread. `ask` tells what the bus keeps for one."""

    def __init__(
        self, ask: Callable[[str], Awaitable[int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._bytes: dict[int, Counter[str]] = {}
        self._looked: dict[int, float] = {}

    def sent(self, uid: int, name: str, size: int) -> None:
        """An answer was sent to connection `name` of user `uid`."""
        self._bytes.setdefault(uid, Counter())[name] += size

    def forget(self, name: str) -> None:
        """The connection is gone, with all the bus kept for it."""
        for uid, connections in list(self._bytes.items()):
            if connections.pop(name, 0) and not connections:
                del self._bytes[uid]
                self._looked.pop(uid, None)

    def clear(self) -> None:
        """The bus is gone, or we are to it: nothing is counted against us any more."""
        self._bytes.clear()
        self._looked.clear()

    def above(self, uid: int, limit: int = MAX_UNREAD) -> bool:
        """Whether the user may have left more unread. Never for root."""
        return uid != 0 and uid in self._bytes and self._bytes[uid].total() > limit

    def hopeless(self, uid: int) -> bool:
        """Whether the bus said it is too much, and as much again was sent since."""
        return uid in self._looked and self.above(uid, 2 * MAX_UNREAD)

    async def look(self, uid: int) -> bool:
        """Ask the bus what is really unread; whether that is too much."""
        if self._looked.get(uid, 0.0) <= self._clock():
            for name in list(self._bytes.get(uid, ())):
                kept = await self._ask(name)
                if name in self._bytes.get(uid, ()):
                    self._bytes[uid][name] = kept
            if self.above(uid):
                self._looked[uid] = self._clock() + _PAUSE
            else:
                self._looked.pop(uid, None)
        return self.above(uid)
