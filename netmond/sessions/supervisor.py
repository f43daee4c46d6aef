"""The daemon's side of sessions: admits them, starts their workers, and sees to it that all of them end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from netmond import model
from netmond.config import Config
from netmond.errors import KernelError, LimitExceeded, NoSuchSession, Unavailable
from netmond.model import Feature, FeatureState, Loss
from netmond.sessions.kinds import KINDS, Kind
from netmond.sessions.options import Values, check
from netmond.worker.child import Child

log = logging.getLogger(__name__)

#: Seconds in which a worker has to compile and attach, which takes it one; in which it has to obey; in which
#: its client may read the rest after that; and in which it has to end with the daemon.
_START, _OBEY, _REST, _LAST = 240.0, 3.0, 45.0, 5.0

#: Seconds that the end of a session is waited for by whoever stops it: later it comes only if nobody reads.
_PROMPT = 1.0

#: Seconds without a report, of which there are two in each, after which a worker is ended, a moment later.
_SILENCE, _MERCY = 15.0, 1.0

_SWITCHED_OFF = "switched off by [sessions] limit = 0"

#: Errors that say what does not work on this machine; others are about what was asked for.
_OF_MACHINE = (KernelError, Unavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Maps of the meter for workers: descriptors by name, and how many slots it has."""

    maps: Mapping[str, int] = field(default_factory=dict)
    slots: int = 0


class Started(NamedTuple):
    """stream, progress: reading ends of pipes, the caller's to close."""

    number: int
    stream: int
    progress: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Session:
    number: int
    kind: str
    uid: int
    options: Values  #: as given
    duration: float
    since: float = field(default_factory=time.time)
    child: Child | None = None
    description: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    running: bool = False  #: its start was answered
    end: str = ""  #: why, as its worker says
    watch: asyncio.TimerHandle | None = None  #: ends a worker that does not report


class Sessions:
    """Belongs to the daemon's event loop. While there is none, nothing runs and no memory is used."""

    def __init__(
        self, config: Callable[[], Config], shared: Shared, kinds: Mapping[str, Kind] = KINDS
    ) -> None:
        self._config = config
        self._shared = shared
        self._kinds = kinds
        self._sessions: dict[int, _Session] = {}
        self._last = 0
        self._trouble = dict.fromkeys(kinds, "")  # why the last start failed, by kind
        self._dropped: Counter[str] = Counter()  # of sessions that have ended, by kind
        self._failed = 0
        self._ending: set[asyncio.Task[object]] = set()

    # -- what is asked of it -------------------------------------------------------------------------

    async def start(self, kind: str, uid: int, options: Values) -> Started:
        """Starts a session of a user; returns when its programs are attached.

        InvalidArgs, LimitExceeded, Unavailable and whatever the worker says: nothing of it is left.
        """
        settings = self._config().sessions
        checked = check(kind, options, settings)
        self._admit(uid)
        self._last += 1
        session = _Session(
            number=self._last, kind=kind, uid=uid, options=options, duration=checked["duration"]
        )
        self._sessions[session.number] = session
        try:
            return await self._launch(session, checked)
        except BaseException as error:  # also if nobody waits for it any more
            if session.child:
                session.child.kill()
            else:
                del self._sessions[session.number]
            if isinstance(error, _OF_MACHINE):
                self._trouble[kind] = str(error)
            raise

    async def stop(self, number: int) -> None:
        """Ends a session. NoSuchSession.

        Nothing is left of it then, unless its client has to read first: for that it has some time.
        """
        session = self._sessions.get(number)
        if session is None or session.child is None:
            raise NoSuchSession(f"there is no session {number}; it may have ended")
        await self._order_end(session.child, "stopped")
        await asyncio.wait([self._later(session.child.close(_REST))], timeout=_PROMPT)

    async def close(self) -> None:
        """Ends them all, within seconds."""
        await asyncio.gather(*map(self._end, list(self._sessions.values())))
        await asyncio.gather(*self._ending)

    def infos(self) -> tuple[model.Session, ...]:
        """Those whose start was answered."""
        return tuple(self._info(session) for session in self._sessions.values() if session.running)

    def features(self) -> tuple[Feature, ...]:
        """Whether there can be sessions of each kind."""
        return tuple(self._feature(kind) for kind in self._kinds)

    def losses(self) -> tuple[Loss, ...]:
        """What those who asked did not get."""
        dropped = Counter(self._dropped)
        for session in self._sessions.values():
            dropped[session.kind] += session.figures.get("dropped", 0)
        return (
            *(
                Loss(name=f"{name}.dropped", count=dropped[name], meaning=kind.dropped)
                for name, kind in self._kinds.items()
                if kind.dropped
            ),
            Loss(
                name="sessions.failed",
                count=self._failed,
                meaning="captures and paths whose process ended unexpectedly",
            ),
        )

    # -- start ---------------------------------------------------------------------------------------

    def _admit(self, uid: int) -> None:
        settings = self._config().sessions
        if not settings.limit:
            raise Unavailable(_SWITCHED_OFF)
        if len(self._sessions) >= settings.limit:
            raise LimitExceeded(
                f"there are {len(self._sessions)} sessions, as many as [sessions] limit allows:"
                " one has to end first"
            )
        own = sum(session.uid == uid for session in self._sessions.values())
        if own >= settings.user_limit:
            raise LimitExceeded(
                f"you have {own} sessions, as many as [sessions] user_limit allows: end one first"
            )

    async def _launch(self, session: _Session, options: dict[str, Any]) -> Started:
        with ExitStack() as theirs, ExitStack() as ours:
            stream, stream_end = _pipe(ours, theirs)
            progress, progress_end = _pipe(ours, theirs)
            given = {"stream": stream_end, "progress": progress_end, **self._shared.maps}
            name = f"the process of this {session.kind}"
            try:
                session.child = await Child.start(
                    self._kinds[session.kind].module,
                    name,
                    list(given.values()),
                    lambda report: self._reported(session, report),
                    lambda: self._ended(session),
                )
            except OSError as error:
                raise Unavailable(f"{name} cannot be started: {error.strerror}") from None
            theirs.close()  # or the reader would not see the worker's end
            answer = await session.child.ask(
                "start", patience=_START, options=options, given={**given, "slots": self._shared.slots}
            )
            session.description = answer["description"]
            session.running, session.since = True, time.time()
            self._trouble[session.kind] = ""
            self._watch(session)
            ours.pop_all()
        log.info("%s has begun: %s", _about(session), json.dumps(session.description))
        return Started(session.number, stream, progress)

    # -- while it runs -------------------------------------------------------------------------------

    def _reported(self, session: _Session, report: dict[str, Any]) -> None:
        session.figures = report["figures"]
        session.end = report.get("end", "")
        if session.running:
            self._watch(session)

    def _watch(self, session: _Session) -> None:
        """From now on, it has so long to report again."""
        assert session.child is not None
        loop, kill = asyncio.get_running_loop(), session.child.kill

        def warn() -> None:  # was it us who slept? Then there are reports to read first
            session.watch = loop.call_later(_MERCY, kill)

        if session.watch:
            session.watch.cancel()
        session.watch = loop.call_later(_SILENCE, warn)

    def _info(self, session: _Session) -> model.Session:
        figures = session.figures
        return model.Session(
            number=session.number,
            kind=session.kind,
            uid=session.uid,
            since=session.since,
            until=session.since + session.duration if session.duration else None,
            options=json.dumps(dict(session.options)),
            description=json.dumps(session.description),
            packets=figures.get("packets", 0),
            bytes=figures.get("bytes", 0),
            dropped=figures.get("dropped", 0),
        )

    def _feature(self, kind: str) -> Feature:
        reason = self._trouble[kind] if self._config().sessions.limit else _SWITCHED_OFF
        return Feature(name=kind, state=FeatureState.OFF if reason else FeatureState.ON, reason=reason)

    # -- end -----------------------------------------------------------------------------------------

    async def _order_end(self, child: Child, reason: str) -> None:
        with suppress(Unavailable):  # it has ended, or has been killed because it does not answer
            await child.ask("stop", patience=_OBEY, reason=reason)

    async def _end(self, session: _Session) -> None:
        """With the daemon."""
        if session.child:
            if session.running:
                await self._order_end(session.child, "daemon")
            else:
                session.child.kill()
            await session.child.close(_LAST)

    def _ended(self, session: _Session) -> None:
        """Its worker is gone."""
        del self._sessions[session.number]
        if session.watch:
            session.watch.cancel()
        self._dropped[session.kind] += session.figures.get("dropped", 0)
        if session.child and not session.end:
            # Its links have gone with it, but not what hangs on none.
            self._later(asyncio.to_thread(self._kinds[session.kind].clean_up, session.child.pid))
        if not session.running:
            return
        about = _about(session)
        counts = ", ".join(f"{value} {name}" for name, value in session.figures.items()) or "no figures"
        if session.end and not session.end.startswith("error"):
            log.info("%s has ended: %s; %s", about, session.end, counts)
            return
        self._failed += 1
        status = session.child.status if session.child else 0
        log.error("%s ended unexpectedly: %s; %s", about, session.end or f"status {status}", counts)

    def _later(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


def _about(session: _Session) -> str:
    return f"Session {session.number}, a {session.kind} of user {session.uid},"


def _pipe(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """The reading and the writing end."""
    reading, writing = os.pipe()
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    return reading, writing
