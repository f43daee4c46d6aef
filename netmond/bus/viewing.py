"""Lists and details as one caller may see them: authority decides between all rows and the caller's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from netmond import query
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.marshal import plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.names import target_path
from netmond.bus.typed import Options
from netmond.query import Query
from netmond.users import Names
from netmond.views import Row

_USER_LIMIT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """Answers questions about a recent Snapshot."""

    monitor: Monitor
    names: Names
    authority: Authority

    async def rows(self, caller: Caller, list_: str, options: Options) -> tuple[object, Row]:
        """Rows and meta of a list that belongs to users."""
        asked, scope = await self._allowed(caller, query.parse(list_, plain_options(options)))
        viewer = caller.uid if scope == "own" else None
        snapshot = self.monitor.look()
        await self.names.prefetch(snapshot.users.columns["uid"].tolist())
        answer = query.select(snapshot, asked, self.names, viewer=viewer)
        return answer.rows, query.meta(snapshot, scope, answer.total)

    def interfaces(self, options: Options) -> tuple[object, Row]:
        """Rows and meta of ListInterfaces, for everybody."""
        snapshot = self.monitor.look()
        answer = query.select(snapshot, query.parse("interfaces", plain_options(options)), self.names)
        return answer.rows, query.meta(snapshot, "all", answer.total)

    def books(self, options: Options) -> tuple[object, Row]:
        """Rows and meta of ListBooks; the caller is authorised."""
        snapshot = self.monitor.look()
        answer = query.books(snapshot, plain_options(options))
        return answer.rows, query.meta(snapshot, "all", answer.total)

    def targets(self, options: Options) -> tuple[object, Row]:
        """Rows and meta of ListTargets; the caller is authorised."""
        snapshot = self.monitor.look()
        answer = query.select(snapshot, query.parse("targets", plain_options(options)), self.names)
        rows = (row | {"path": target_path(row["address"])} for row in answer.rows)
        return rows, query.meta(snapshot, "all", answer.total)

    async def user(self, caller: Caller, uid: int, options: Options) -> Row:
        """The detail of one user."""
        values = query.check_options({"limit": "u"}, plain_options(options))
        if uid != caller.uid:
            await self.authority.require(caller, Action.READ_ALL)
        await self.names.prefetch([uid])
        return query.user_detail(self.monitor.look(), uid, values.get("limit", _USER_LIMIT), self.names)

    async def _allowed(self, caller: Caller, asked: Query) -> tuple[Query, str]:
        """The query with its user resolved, and the scope it is answered in."""
        if asked.user is not None:
            asked = replace(asked, uid=await self.names.uid(asked.user))
        if asked.scope == "all" or asked.uid not in (None, caller.uid):
            await self.authority.require(caller, Action.READ_ALL)
        may_all = asked.scope is None and await self.authority.may(caller, Action.READ_ALL)
        return asked, asked.scope or ("all" if may_all else "own")
