"""Users' logs: whose packets are logged one by one, and the files for those who may read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from netmond import answers, query
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.descriptors import Passed
from netmond.bus.marshal import plain_options
from netmond.bus.monitor import Monitor
from netmond.bus.typed import Options
from netmond.columns import Row
from netmond.errors import InvalidArgs, LimitExceeded
from netmond.model import NOBODY_UID, PacketLog
from netmond.users import Names

#: Users in one call.
MAX_USERS = 10_000

_LIST_OPTIONS = {"sort": "s", "reverse": "b", "limit": "u", "scope": "s"}
_KEYS = ("uid", "user", "mode", "every", "since", "rows", "lost_packets", "lost_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLogs:
    """What callers ask about logs. That the caller of `enable` and `disable` may is checked already."""

    monitor: Monitor
    names: Names
    authority: Authority

    async def enable(self, users: Sequence[int], options: Options) -> None:
        """Log packets of these users from now on, none given means all."""
        every = query.check_options({"every": "u"}, plain_options(options)).get("every", 1)
        if every < 1:
            raise InvalidArgs("option every cannot be 0; 1 logs each packet, N one of N")
        await self.monitor.enable_packet_log(_uids(users), every)

    async def disable(self, users: Sequence[int], options: Options) -> None:
        """No longer log packets of these users, none given means anybody's."""
        query.check_options({}, plain_options(options))
        await self.monitor.disable_packet_log(_uids(users))

    async def rows(self, caller: Caller, options: Options) -> tuple[Iterable[Row], Row]:
        """Rows and meta of ListPacketLogs."""
        asked = query.check_options(_LIST_OPTIONS, plain_options(options))
        sort = query.one_of("sort", asked.get("sort", "user"), _KEYS)
        scope = await self.authority.scope(caller, asked.get("scope"))
        logs = self.monitor.list_packet_logs()
        if scope == "own":
            found = [self._row(log) for log in logs if log.uid == caller.uid] or [
                {**_mode(log), "uid": caller.uid} for log in logs if log.uid == NOBODY_UID
            ]
        else:
            found = [self._row(log) for log in logs]
        await self.names.prefetch([row["uid"] for row in found if "uid" in row])
        rows = [row | {"user": self.names.lookup(row["uid"])} if "uid" in row else row for row in found]
        number = sort not in ("user", "mode")
        missing = -1 if number else ""
        rows.sort(key=lambda row: row.get(sort, missing), reverse=number != asked.get("reverse", False))
        limit = asked.get("limit", 100) or len(rows)
        if min(limit, len(rows)) > answers.MAX_ROWS:
            most = f"at most {answers.MAX_ROWS} are given at once"
            raise LimitExceeded(f"{len(rows)} rows match; {most}: set a limit")
        return rows[:limit], answers.meta(self.monitor.snapshot, scope, len(rows))

    async def file(self, caller: Caller, uid: int, options: Options) -> Passed:
        """A user's CSV log, to be opened for the caller."""
        query.check_options({}, plain_options(options))
        if uid != caller.uid:
            await self.authority.require(caller, Action.READ_ALL)
        return Passed(partial(self.monitor.open_log, uid))

    @staticmethod
    def _row(log: PacketLog) -> Row:
        """A row without the name; one that stands for all users has no number either."""
        who = {} if log.uid == NOBODY_UID else {"uid": log.uid}
        figures = {"rows": log.rows, "lost_packets": log.lost_packets, "lost_bytes": log.lost_bytes}
        return {**who, **_mode(log), **figures}


def _mode(log: PacketLog) -> Row:
    return {"mode": "packets" if log.every == 1 else "sample", "every": log.every, "since": log.since}


def _uids(users: Sequence[int]) -> list[int] | None:
    """The users a call names; None: all."""
    if len(users) > MAX_USERS:
        raise LimitExceeded(f"{len(users)} users in one call; at most {MAX_USERS} are taken")
    if NOBODY_UID in users:
        raise InvalidArgs(f"{NOBODY_UID} is no user id; an empty list of users means everyone")
    if len(set(users)) < len(users):
        twice = next(uid for place, uid in enumerate(users) if uid in users[:place])
        raise InvalidArgs(f"user {twice} is given twice")
    return list(users) or None
