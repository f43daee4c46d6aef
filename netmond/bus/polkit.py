"""Asking polkit whether a caller may do something.

See polkit(8) and its D-Bus interface org.freedesktop.PolicyKit1.Authority. The subject is the caller's
unique bus name, never a process id, which may be somebody else's by the time polkit looks. To whoever is not
root, polkit tells about other users only if the action names him as its owner: packaging/polkit does.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from enum import Enum
from itertools import count
from typing import Any, Protocol

from netmond.bus.connection import Refused
from netmond.bus.messages import BUS, Remote
from netmond.errors import AccessDenied, LimitExceeded, Unavailable

NAME = "org.freedesktop.PolicyKit1"
AUTHORITY = Remote(NAME, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority")

#: Seconds polkit has for an answer: by itself, and if it asks a person for a password.
SILENT_LIMIT = 10.0
INTERACTIVE_LIMIT = 300.0

#: Questions polkit may have open of one user and in all; each for silent and interactive ones. A message bus
#: lets one connection wait for 128 answers: these are fewer.
MAX_QUESTIONS_USER = 4
MAX_QUESTIONS = 48

_ALLOW_USER_INTERACTION = 1  # CheckAuthorizationFlags

ABSENT = "polkit is not there"
_SILENT = "polkit does not answer"
#: D-Bus errors, by their last part, that say so: of the message bus, and of systemd for polkit.service.
_ABSENT = frozenset(
    {"ServiceUnknown", "NameHasNoOwner", "NoSuchUnit", "UnitMasked", "LoadFailed", "TimedOut"}
)
_SPAWN_FAILED = "org.freedesktop.DBus.Error.Spawn."
_DIED = "org.freedesktop.DBus.Error.NoReply"


class Verdict(Enum):
    """What polkit says."""

    YES = "yes"
    NO = "no"
    CHALLENGE = "yes, once somebody has authenticated"


class Bus(Protocol):
    """What is needed of a Connection."""

    async def ask(self, remote: Remote, member: str, signature: str, *values: Any) -> list[Any]: ...

    def tell(self, remote: Remote, member: str, signature: str, *values: Any) -> None: ...


class Polkit:
    """polkit as a client sees it. `trouble` says why it cannot be asked; empty if it can."""

    def __init__(self, bus: Bus) -> None:
        self.trouble = ""
        self._bus = bus
        self._ids = count(1)
        self._open: Counter[tuple[int, bool]] = Counter()
        self._questions: dict[str, set[asyncio.Task[list[Any]]]] = {}

    async def look(self) -> None:
        """Find out whether there is a polkit, without starting it."""
        with suppress(OSError, LookupError):
            (running,) = await self._bus.ask(BUS, "NameHasOwner", "s", NAME)
            (startable,) = await self._bus.ask(BUS, "ListActivatableNames", "")
            self.trouble = "" if running or NAME in startable else ABSENT

    async def check(self, name: str, uid: int, action: str, *, interactive: bool) -> Verdict:
        """Whether connection `name` of user `uid` may do `action`; a person may be asked if `interactive`.

        Unavailable if polkit cannot be asked, LimitExceeded if too many questions wait for it already.
        """
        kind = (uid, interactive)
        if self._open[kind] >= MAX_QUESTIONS_USER:
            raise LimitExceeded("too many of your calls wait for polkit; wait for their answers")
        if sum(number for (_, asks), number in self._open.items() if asks == interactive) >= MAX_QUESTIONS:
            raise LimitExceeded("too many calls wait for polkit; try again")
        self._open[kind] += 1
        try:
            return await self._check(name, action, interactive)
        finally:
            self._open[kind] -= 1
            self._open += Counter()  # drops what is zero

    def forget(self, name: str) -> None:
        """The connection is gone: nobody waits for its answers, and nobody shall type a password for it."""
        for question in self._questions.get(name, ()):
            question.cancel()

    async def _check(self, name: str, action: str, interactive: bool) -> Verdict:
        try:
            try:
                verdict = await self._question(name, action, interactive)
            except Refused as error:
                # A restart: the new one knows. But nobody is asked for a password a second time.
                if error.name != _DIED or interactive:
                    raise
                verdict = await self._question(name, action, interactive)
        except Refused as error:
            raise self._unavailable(error) from None
        except OSError as error:
            raise Unavailable(str(error)) from None
        self.trouble = ""
        return verdict

    async def _question(self, name: str, action: str, interactive: bool) -> Verdict:
        """One CheckAuthorization, taken back if it is not answered in time or nobody waits for it."""
        cancellation = str(next(self._ids))
        subject = ("system-bus-name", {"name": name})
        flags = _ALLOW_USER_INTERACTION if interactive else 0
        values: tuple[Any, ...] = (subject, action, {}, flags, cancellation)
        question = asyncio.ensure_future(
            self._bus.ask(AUTHORITY, "CheckAuthorization", "(sa{sv})sa{ss}us", *values)
        )
        self._questions.setdefault(name, set()).add(question)
        try:
            await asyncio.wait({question}, timeout=INTERACTIVE_LIMIT if interactive else SILENT_LIMIT)
            if question.cancelled():
                raise AccessDenied("the caller is gone")
            if not question.done():
                if not interactive:
                    self.trouble = _SILENT
                raise Unavailable("nobody has authenticated in time" if interactive else _SILENT)
            ((authorised, challenge, _details),) = question.result()
        finally:
            self._questions[name].discard(question)
            if not self._questions[name]:
                del self._questions[name]
            if question.cancel() or question.cancelled():
                self._bus.tell(AUTHORITY, "CancelCheckAuthorization", "s", cancellation)
        if authorised:
            return Verdict.YES
        return Verdict.CHALLENGE if challenge else Verdict.NO

    def _unavailable(self, error: Refused) -> Unavailable:
        """What is told for an error of polkit or of the bus."""
        if error.name == _DIED:
            return Unavailable("polkit ended before it answered, try again")
        absent = error.name.rpartition(".")[2] in _ABSENT or error.name.startswith(_SPAWN_FAILED)
        self.trouble = ABSENT if absent else f"polkit cannot tell ({error})"
        return Unavailable(self.trouble)
