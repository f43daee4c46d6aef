"""User ids and login names, with name service lookups (which may block for seconds) off the event loop."""

from __future__ import annotations

import asyncio
import pwd
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from netmond.errors import LimitExceeded, NoSuchUser
from netmond.model import NOBODY_UID

#: How long a name is believed, and how many are remembered.
TTL = 300.0
SIZE = 4096

#: Lookups that may wait for the one thread; more are refused or put off until they are asked for again.
PENDING = 256


class Names:
    """Login names of user ids, remembered for a while. Belongs to one event loop."""

    def __init__(
        self,
        *,
        ttl: float = TTL,
        size: int = SIZE,
        clock: Callable[[], float] = time.monotonic,
        name_of: Callable[[int], str] | None = None,
        uid_of: Callable[[str], int] | None = None,
    ) -> None:
        self._ttl = ttl
        self._size = size
        self._clock = clock
        self._name_of = name_of or (lambda uid: pwd.getpwuid(uid).pw_name)
        self._uid_of = uid_of or (lambda name: pwd.getpwnam(name).pw_uid)
        self._known: dict[int, tuple[str, float]] = {}
        self._pending: dict[int, asyncio.Future[str]] = {}
        self._parsing = 0
        self._thread: ThreadPoolExecutor | None = None

    def lookup(self, uid: int) -> str:
        """The name of uid, or its number as text while the name is not known. Never blocks in a loop.

        An unknown or outdated name is looked up in the background; outside an event loop at once.
        """
        name, expires = self._known.get(uid, (str(uid), float("-inf")))
        if self._clock() < expires:
            return name
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            name = self._resolve(uid)
            self._remember(uid, name)
            return name
        self._schedule(uid)
        return name

    async def prefetch(self, uids: Iterable[int], deadline: float = 0.2) -> None:
        """Look up the names of uids that were never known; give up waiting after `deadline` seconds."""
        for uid in uids:
            if uid not in self._known and uid != NOBODY_UID:
                self._schedule(uid)
        if self._pending:
            await asyncio.wait(list(self._pending.values()), timeout=deadline)

    async def uid(self, text: str) -> int:
        """The uid that a person means by `text`, a number or a login name. Raises NoSuchUser."""
        if text.isascii() and text.isdigit():
            if int(text) >= NOBODY_UID:
                raise NoSuchUser(f"{text} is not a user id: they go up to {NOBODY_UID - 1}")
            return int(text)
        if self._parsing >= PENDING:
            raise LimitExceeded("too many user names are being looked up; try again, or give the user id")
        self._parsing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor(), self._uid_of, text)
        except (KeyError, ValueError):
            raise NoSuchUser(
                f"there is no user {text!r} on this machine; give a login name or a number"
            ) from None
        finally:
            self._parsing -= 1

    def close(self) -> None:
        """Abandon lookups that did not start."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None

    def _executor(self) -> ThreadPoolExecutor:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="names")
        return self._thread

    def _resolve(self, uid: int) -> str:
        try:
            name = self._name_of(uid)
        except (KeyError, OverflowError):
            return str(uid)
        # pwd hands out undecodable bytes as surrogates, which no UTF-8 encoder takes back
        return name.encode(errors="surrogateescape").decode(errors="replace")

    def _schedule(self, uid: int) -> None:
        if uid in self._pending or len(self._pending) >= PENDING:
            return
        future = asyncio.get_running_loop().run_in_executor(self._executor(), self._resolve, uid)
        self._pending[uid] = future
        future.add_done_callback(lambda done: self._finish(uid, done))

    def _finish(self, uid: int, done: asyncio.Future[str]) -> None:
        self._pending.pop(uid, None)
        if not done.cancelled() and done.exception() is None:
            self._remember(uid, done.result())

    def _remember(self, uid: int, name: str) -> None:
        self._known.pop(uid, None)
        while len(self._known) >= self._size:
            del self._known[next(iter(self._known))]
        self._known[uid] = (name, self._clock() + self._ttl)
