"""Who calls, and what they may do. Only here is it decided; that may take time, so it is awaited.

Root and the members of one group may do everything, whether or not there is a polkit, which decides about
everybody else. Nobody needs authority for their own figures.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from netmond.bus import names
from netmond.bus.polkit import ABSENT, Polkit, Verdict
from netmond.errors import AccessDenied, NetmondError, Unavailable
from netmond.model import Feature, FeatureState
from netmond.query import one_of

#: Seconds for which the number of the group is believed.
_GROUP_TTL = 60.0


class Action(Enum):
    """What somebody may be allowed to do; the value says it in an error."""

    READ_ALL = "see other users' figures, flows and targets"
    MANAGE = "change targets, interfaces and settings"
    CAPTURE = "see packets"

    @property
    def id(self) -> str:
        """Its name in polkit, as packaging/polkit defines it."""
        return f"{names.BUS_NAME}.{self.name.lower().replace('_', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who made a call, as the message bus knows it. `groups` are numbers."""

    name: str  #: unique bus name
    uid: int
    groups: frozenset[int] = frozenset()
    interactive: bool = False  #: the call may wait until somebody has typed a password
    #: What was allowed during this call: nobody is asked twice.
    granted: set[Action] = field(default_factory=set, compare=False)

    def calling(self, *, interactive: bool) -> Caller:
        """The same caller for one more call."""
        return replace(self, interactive=interactive, granted=set())


class Callers:
    """The callers that are connected, each asked about once; the bus limits how many there can be.

    `credentials` is GetConnectionCredentials of the bus with plain values; it raises if the caller is gone.
    """

    def __init__(self, credentials: Callable[[str], Awaitable[Mapping[str, Any]]]) -> None:
        self._credentials = credentials
        self._known: dict[str, asyncio.Task[Caller]] = {}

    def known(self, name: str) -> Caller | None:
        """The caller with this unique bus name, if the bus need not be asked any more."""
        task = self._known.get(name)
        return task.result() if task is not None and task.done() and not _failed(task) else None

    async def find(self, name: str) -> Caller:
        """The caller with this unique bus name."""
        task = self._known.get(name)
        if task is None:
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
        if _failed(done) and self._known.get(name) is done:
            self.forget(name)


class Authority:
    """Root and members of `group` (empty: nobody) may do everything, others what polkit allows them.

    `polkit` None is a polkit that is not there.
    """

    def __init__(self, *, group: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.group = group
        self.polkit: Polkit | None = None
        self._clock = clock
        self._gid: tuple[str, int | None, float] = ("", None, 0.0)

    async def may(self, caller: Caller, action: Action) -> bool:
        """Whether the caller is allowed `action` as things are: nobody is asked for a password."""
        if action in caller.granted or await self._trusts(caller):
            return True
        try:
            return await self._ask(caller, action, False) is Verdict.YES
        except NetmondError:  # polkit cannot be asked
            return False

    async def require(self, caller: Caller, action: Action) -> None:
        """Raise AccessDenied unless the caller is allowed `action`; LimitExceeded if too many ask for it.

        May take minutes if the caller is interactive.
        """
        if action in caller.granted or await self._trusts(caller):
            return
        try:
            verdict = await self._ask(caller, action, caller.interactive)
        except Unavailable as error:
            raise AccessDenied(f"only {self._trusted()} may {action.value} ({action.id}): {error}") from None
        if verdict is Verdict.YES:
            caller.granted.add(action)
            return
        denied = f"you may not {action.value}"
        if verdict is Verdict.NO:
            raise AccessDenied(f"{denied}: polkit refuses {action.id}; {self._remedy()}")
        if caller.interactive:
            raise AccessDenied(
                f"{denied}: {action.id} takes authentication, and no polkit agent is there to ask;"
                f" {self._remedy()}"
            )
        raise AccessDenied(
            f"{denied} without authentication ({action.id}), which this call does not allow for:"
            f" use netmonctl on a terminal, or {self._remedy()}"
        )

    async def scope(self, caller: Caller, asked: str | None) -> str:
        """Whose rows a list has, "own" or "all", as the option of that name asks, else as the caller may.

        InvalidArgs, AccessDenied.
        """
        if asked is None:
            return "all" if await self.may(caller, Action.READ_ALL) else "own"
        if one_of("scope", asked, ("own", "all")) == "all":
            await self.require(caller, Action.READ_ALL)
        return asked

    def feature(self) -> Feature:
        """Whether others than root and the group can be authorised. A machine may do without polkit."""
        trouble = ABSENT if self.polkit is None else self.polkit.trouble
        if not trouble:
            return Feature(name="polkit", state=FeatureState.ON)
        reason = f"{trouble}: only {self._trusted()} may see and change everything; install or start polkit"
        state = FeatureState.OFF if trouble == ABSENT else FeatureState.DEGRADED
        return Feature(name="polkit", state=state, reason=reason)

    async def _trusts(self, caller: Caller) -> bool:
        return caller.uid == 0 or await self._group_id() in caller.groups

    async def _ask(self, caller: Caller, action: Action, interactive: bool) -> Verdict:
        if self.polkit is None:
            raise Unavailable(ABSENT)
        return await self.polkit.check(caller.name, caller.uid, action.id, interactive=interactive)

    def _trusted(self) -> str:
        return f"root and members of group {self.group}" if self.group else "root"

    def _remedy(self) -> str:
        return f"become root or join group {self.group}" if self.group else "become root"

    async def _group_id(self) -> int | None:
        group, gid, expires = self._gid
        if group != self.group or self._clock() >= expires:
            group = self.group
            gid = await asyncio.to_thread(_gid_of, group)
            self._gid = (group, gid, self._clock() + _GROUP_TTL)
        return gid


def _failed(task: asyncio.Task[Caller]) -> bool:
    return task.cancelled() or task.exception() is not None


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
