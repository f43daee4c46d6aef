"""Whose call is worked on next: one at a time, users in turn, while the bus takes the answers.

A large answer costs a tenth of a second of work and 10 MB. Without turns, whoever makes many calls at once
delays the next tick and everybody else by all of them, and fills the memory with answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable


class Turns:
    """`room` returns when answers can be sent; it is awaited before every turn."""

    def __init__(self, room: Callable[[], Awaitable[None]]) -> None:
        self._room = room
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        self._giver: asyncio.Task[None] | None = None

    async def take(self, user: int) -> None:
        """Wait for a turn of this user (uid). It lasts until the caller waits for anything else."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        if self._giver is None or self._giver.done():
            self._giver = asyncio.create_task(self._give())
        await turn

    async def _give(self) -> None:
        """Gives turns as long as anybody waits, one in each pass of the event loop."""
        while self._waiting:
            await self._room()
            user = next(iter(self._waiting))
            queue = self._waiting.pop(user)
            turn = queue.popleft()
            if queue:
                self._waiting[user] = queue  # at the end
            if not turn.done():  # its call was cancelled
                turn.set_result(None)
                await asyncio.sleep(0)
