"""How many calls may be in progress, and how large: of one connection, of one user, and in all.

One user may have hundreds of connections, so limits on those alone protect nobody. Root is never refused on
account of others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from netmond.errors import LimitExceeded

#: Calls in progress, of one connection, of one user, and of all users but root; and those of one connection
#: that want no answer.
MAX_CALLS_EACH = 32
MAX_CALLS_USER = 64
MAX_CALLS = 1024
MAX_CALLS_EACH_SILENT = 4

#: Bytes of their messages, of one user and of all. Read into Python, they take about three times that.
MAX_BYTES_USER = 4 << 20
MAX_BYTES = 32 << 20

#: Stands for everybody whose user the bus has not told yet, which takes it a moment. Their calls, of one
#: connection and of all, are more than the 256 connections that a bus lets one user have can make.
STRANGER = -1
MAX_CALLS_EACH_STRANGER = 8
MAX_CALLS_STRANGERS = 2304
MAX_BYTES_STRANGERS = 16 << 20

#: Calls up to this size are always taken as far as their number goes.
_SMALL = 4096

_ROOT = 0


@dataclass(eq=False, slots=True)
class Running:
    """A call in progress: its connection, its user's uid or STRANGER, and the bytes of its message."""

    sender: str
    user: int
    size: int


@dataclass(slots=True)
class Limits:
    """The calls in progress."""

    _calls: Counter[str] = field(default_factory=Counter)
    _users: Counter[int] = field(default_factory=Counter)
    _bytes: Counter[int] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        """How many there are."""
        return self._calls.total()

    def refuses(self, sender: str, user: int, size: int, *, silent: bool) -> str:
        """Why this call is one too many; empty if it is not. `silent`: it wants no answer.

        For those a bus has no limit of its own, so that there is a lower one here.
        """
        most = MAX_CALLS_EACH_STRANGER if user == STRANGER else MAX_CALLS_EACH
        most = MAX_CALLS_EACH_SILENT if silent and user != _ROOT else most
        if self._calls[sender] >= most:
            return f"too many calls at once; wait for answers, {most} may be in progress"
        return self._refuses(user, size)

    def begin(self, sender: str, user: int, size: int) -> Running:
        """A call that was checked is carried out, until `end`."""
        self._calls[sender] += 1
        self._add(user, size)
        return Running(sender, user, size)

    def identify(self, running: Running, uid: int) -> None:
        """It turned out whose call it is; LimitExceeded if that user has one too many."""
        if running.user != uid:
            if reason := self._refuses(uid, running.size):
                raise LimitExceeded(reason)
            self._add(uid, running.size)
            self._release(running)
            running.user = uid

    def end(self, running: Running) -> None:
        """It was answered."""
        self._release(running)
        _subtract(self._calls, running.sender, 1)

    def _refuses(self, user: int, size: int) -> str:
        if user == _ROOT:
            return ""
        calls, sizes = MAX_CALLS_USER, MAX_BYTES_USER
        if user == STRANGER:
            calls, sizes = MAX_CALLS_STRANGERS, MAX_BYTES_STRANGERS
        if self._users[user] >= calls or (size > _SMALL and self._bytes[user] + size > sizes):
            return "too many calls of one user at once; wait for answers to the others"
        if user != STRANGER and (
            self._users.total() - self._users[STRANGER] >= MAX_CALLS
            or (size > _SMALL and self._bytes.total() - self._bytes[STRANGER] + size > MAX_BYTES)
        ):
            return "netmond has too many calls to answer at once; try again"
        return ""

    def _add(self, user: int, size: int) -> None:
        if user != _ROOT:
            self._users[user] += 1
            self._bytes[user] += size

    def _release(self, running: Running) -> None:
        if running.user != _ROOT:
            _subtract(self._users, running.user, 1)
            _subtract(self._bytes, running.user, running.size)


def _subtract(counter: Counter[Any], key: Any, amount: int) -> None:
    """Nothing is kept of whoever has nothing."""
    counter[key] -= amount
    if not counter[key]:
        del counter[key]
