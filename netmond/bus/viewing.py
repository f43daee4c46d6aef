"""Lists and details as one caller may see them: authority decides between all rows and the caller's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netmond import answers, query
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.marshal import Variant, plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.names import target_path
from netmond.bus.typed import Options
from netmond.columns import Row
from netmond.model import Snapshot
from netmond.query import Query
from netmond.users import Names

_USER_LIMIT = 10

#: What accompanies lists, if it is more than answers.meta.
_META = dict.fromkeys(("rdma_ports", "rdma_counters", "queue_pairs"), answers.rdma_meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewing:
    """Answers questions about a recent Snapshot."""

    monitor: Monitor
    names: Names
    authority: Authority

    async def rows(self, caller: Caller, list_: str, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of a list whose rows belong to users."""
        asked, scope = await self._allowed(caller, query.parse(list_, plain_options(options)))
        viewer = caller.uid if scope == "own" else None
        snapshot = self.monitor.look()
        await self.names.prefetch(_uids(snapshot))
        answer = answers.select(snapshot, asked, self.names, viewer=viewer)
        return answer.rows, _META.get(list_, answers.meta)(snapshot, scope, answer.total)

    def of_machine(self, list_: str, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of a list that tells of no user."""
        snapshot = self.monitor.look()
        answer = answers.select(snapshot, query.parse(list_, plain_options(options)), self.names)
        return answer.rows, _META.get(list_, answers.meta)(snapshot, "all", answer.total)

    def rdma_counters(self, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of ListRdmaCounters. A row's total has 64 bits, unlike that of meta."""
        rows, meta = self.of_machine("rdma_counters", options)
        return (row | {"total": Variant("t", row["total"])} for row in rows), meta

    def books(self, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of ListBooks; the caller is authorised."""
        snapshot = self.monitor.look()
        answer = answers.books(snapshot, plain_options(options))
        return answer.rows, answers.meta(snapshot, "all", answer.total)

    def targets(self, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of ListTargets; the caller is authorised."""
        rows, meta = self.of_machine("targets", options)
        return (row | {"path": target_path(row["address"])} for row in rows), meta

    async def user(self, caller: Caller, uid: int, options: Options) -> Row:
        """The detail of one user."""
        values = query.check_options({"limit": "u"}, plain_options(options))
        if uid != caller.uid:
            await self.authority.require(caller, Action.READ_ALL)
        await self.names.prefetch([uid])
        return answers.user_detail(self.monitor.look(), uid, values.get("limit", _USER_LIMIT), self.names)

    async def _allowed(self, caller: Caller, asked: Query) -> tuple[Query, str]:
        """The query with its user resolved, and the scope it is answered in."""
        if asked.user is not None:
            asked = replace(asked, uid=await self.names.uid(asked.user))
        if asked.scope == "all" or asked.uid not in (None, caller.uid):
            await self.authority.require(caller, Action.READ_ALL)
        may_all = asked.scope is None and await self.authority.may(caller, Action.READ_ALL)
        return asked, asked.scope or ("all" if may_all else "own")


def _uids(snapshot: Snapshot) -> set[int]:
    """Everybody who has rows."""
    tables = (snapshot.users, snapshot.rdma.users, snapshot.rdma.queue_pairs)
    return {uid for table in tables for uid in table.columns["uid"].tolist()}
