"""Who writes a user's file: the CSV output or the packet log's process, each with the other's leave."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Set as AbstractSet

Users = frozenset[int]


class Custody:
    """The daemon's loop asks for files, the CSV output's thread gives them away with the next snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: Users = frozenset()
        self._asked = 0
        self._given: Users | None = None
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Future[int]] | None = None

    def ask(self, users: AbstractSet[int], now: int) -> asyncio.Future[int]:
        """The CSV output shall leave alone the files of these users, no others; NOBODY_UID: everyone's.

        The result: up to when it has written what they did (ns, monotonic). now: this moment, likewise.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        with self._lock:
            self._wanted, self._asked = frozenset(users), now
            self._waiting = loop, future
        return future

    def wanted(self, read: int) -> Users:
        """Whose files are to be left alone from a snapshot on whose figures were read at this moment."""
        with self._lock:
            return self._wanted if self._given is None or read >= self._asked else self._given

    def settle(self, users: Users, read: int) -> None:
        """Those files are closed; rows up to this moment are in them."""
        with self._lock:
            self._given = users
            if self._waiting and users == self._wanted and read >= self._asked:
                loop, future = self._waiting
                self._waiting = None
                loop.call_soon_threadsafe(_resolve, future, read)


def _resolve(future: asyncio.Future[int], read: int) -> None:
    if not future.done():
        future.set_result(read)


def lock(log_dir: str, *, wait: bool = True) -> int:
    """The descriptor of the lock that the packet log's process holds as long as it may write.

    wait: for another one to let go; else BlockingIOError. Closing it lets go.
    """
    fd = os.open(log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(fd)
        raise
    return fd
