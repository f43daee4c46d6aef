"""Who calls, and what they may do. Only here is it decided; that may take time, so it is awaited."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from netmond.errors import AccessDenied

#: Connections whose credentials are remembered.
MAX_CALLERS = 512

#: Seconds for which the number of the group is believed.
_GROUP_TTL = 60.0


class Action(Enum):
    """What somebody may be allowed to do; the value says it in an error."""

    READ_ALL = "see other users' figures, flows and targets"
    MANAGE = "change targets, interfaces and settings"
    CAPTURE = "see packets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who made a call, as the message bus knows it. `groups` are numbers."""

    name: str  #: unique bus name
    uid: int
    groups: frozenset[int] = frozenset()


class Callers:
    """The callers that are connected, each asked about once.

    `credentials` is GetConnectionCredentials of the bus with plain values; it raises if the caller is gone.
    """

    def __init__(self, credentials: Callable[[str], Awaitable[Mapping[str, Any]]]) -> None:
        self._credentials = credentials
        self._known: dict[str, asyncio.Task[Caller]] = {}

    async def find(self, name: str) -> Caller:
        """The caller with this unique bus name."""
        task = self._known.get(name)
        if task is None:
            while len(self._known) >= MAX_CALLERS:
                self.forget(next(iter(self._known)))
            task = self._known[name] = asyncio.create_task(self._ask(name))
            task.add_done_callback(lambda done: self._drop_failed(name, done))
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """The connection is gone; its name will not be used again."""
        self._known.pop(name, None)

    def clear(self) -> None:
        """The bus is gone; a new one gives the same names to others."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)

    async def _ask(self, name: str) -> Caller:
        credentials = await self._credentials(name)
        if "UnixUserID" not in credentials:
            raise AccessDenied("the message bus does not tell your user id")
        uid = int(credentials["UnixUserID"])
        if "UnixGroupIDs" in credentials:
            groups = credentials["UnixGroupIDs"]
        else:  # a bus or kernel older than SO_PEERGROUPS
            groups = await asyncio.to_thread(_groups_of, uid)
        return Caller(name=name, uid=uid, groups=frozenset(groups))

    def _drop_failed(self, name: str, done: asyncio.Task[Caller]) -> None:
        if (done.cancelled() or done.exception() is not None) and self._known.get(name) is done:
            self.forget(name)


class Authority:
    """Decides by uid and group: root and members of `group` may do everything, others see their own."""

    def __init__(self, *, group: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.group = group
        self._clock = clock
        self._gid: tuple[str, int | None, float] = ("", None, 0.0)

    async def may(self, caller: Caller, action: Action) -> bool:
        """Whether the caller is allowed `action`."""
        return caller.uid == 0 or await self._group_id() in caller.groups

    async def require(self, caller: Caller, action: Action) -> None:
        """Raise AccessDenied unless the caller is allowed `action`."""
        if not await self.may(caller, action):
            raise AccessDenied(f"only root and members of group {self.group} may {action.value}")

    async def _group_id(self) -> int | None:
        group, gid, expires = self._gid
        if group != self.group or self._clock() >= expires:
            group = self.group
            gid = await asyncio.to_thread(_gid_of, group)
            self._gid = (group, gid, self._clock() + _GROUP_TTL)
        return gid


def _gid_of(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _groups_of(uid: int) -> list[int]:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return []
    return os.getgrouplist(entry.pw_name, entry.pw_gid)
