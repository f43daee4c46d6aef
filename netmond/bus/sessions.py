"""Captures and paths: who may start, see and end them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netmond import answers, query
from netmond.bus import names
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.descriptors import Descriptor
from netmond.bus.marshal import plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.typed import Options
from netmond.columns import Row
from netmond.errors import NoSuchSession
from netmond.model import Session
from netmond.outputs import audit
from netmond.sessions.options import OPTIONS
from netmond.users import Names

_LIST_OPTIONS = {"sort": "s", "reverse": "b", "limit": "u", "scope": "s"}
_TEXTS = ("kind", "user", "options", "description")
_NUMBERS = ("session", "uid", "since", "until", "packets", "bytes", "dropped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """What callers ask about sessions. That the caller of `start` may is checked already."""

    monitor: Monitor
    names: Names
    authority: Authority

    async def start(self, caller: Caller, kind: str, options: Options) -> tuple[int, Descriptor, Descriptor]:
        """Number, stream and progress of a new session."""
        allowed = {name: option.signature for name, option in OPTIONS[kind].items()}
        values = query.check_options(allowed, plain_options(options))
        number, stream, progress = await self.monitor.start_session(kind, caller.uid, values)
        return number, Descriptor(stream), Descriptor(progress)

    async def stop(self, caller: Caller, number: int, options: Options) -> None:
        """End a session: the caller's own, or with authority any; of others nothing is told without."""
        query.check_options({}, plain_options(options))
        sessions = {session.number: session for session in self.monitor.list_sessions()}
        session = sessions.get(number)
        if session is None or session.uid != caller.uid:
            await self.authority.require(caller, Action.MANAGE)
        if session is None:
            raise NoSuchSession(f"there is no session {number}; it may have ended")
        await self.monitor.stop_session(number)
        audit.changed(caller.uid, names.ROOT_PATH, names.MANAGER, "StopSession", [number])

    async def rows(self, caller: Caller, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of ListSessions."""
        asked = query.check_options(_LIST_OPTIONS, plain_options(options))
        sort = query.one_of("sort", asked.get("sort", "session"), (*_TEXTS, *_NUMBERS))
        scope = await self.authority.scope(caller, asked.get("scope"))
        found = [
            session
            for session in self.monitor.list_sessions()
            if scope == "all" or session.uid == caller.uid
        ]
        await self.names.prefetch([session.uid for session in found])
        rows = [self._row(session) for session in found]
        # Numbers from the largest, as in other lists; those of sessions from the first.
        falling = sort in _NUMBERS and sort != "session"
        missing = "" if sort in _TEXTS else 0
        rows.sort(key=lambda row: row.get(sort, missing), reverse=falling != asked.get("reverse", False))
        return rows[: asked.get("limit", 0) or None], answers.meta(self.monitor.snapshot, scope, len(rows))

    def _row(self, session: Session) -> Row:
        row: Row = {
            "session": session.number,
            "kind": session.kind,
            "uid": session.uid,
            "user": self.names.lookup(session.uid),
            "since": session.since,
            "options": session.options,
            "description": session.description,
            "packets": session.packets,
            "bytes": session.bytes,
            "dropped": session.dropped,
        }
        return row if session.until is None else row | {"until": session.until}
