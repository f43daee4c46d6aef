"""The daemon's side of packet mode: tells the kernel, hands files over, keeps the worker alive.

Hand-over of a user's file. To packet mode: the worker lets the user's packets wait in the ring, the kernel
begins to log them, a tick is taken, the CSV output writes its rows up to that tick and closes the file,
the worker goes on with what came after. Back: the kernel ends, the worker writes all that is in the ring,
a tick is taken, and the CSV output adds what the file's totals lack of the meter's (`outputs.modes`), says
so in a comment, and goes on from that tick.

So nothing counts twice, and when the user is back the totals are the meter's to the byte. Meanwhile they
may lack what passed in the milliseconds in which the tick read the sockets' figures: those have a part of
it, and the worker begins when all are read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from netmond.config import Config, read_options
from netmond.errors import KernelError, NetmondError, NotFound, Unavailable
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.ring import Ring
from netmond.model import NOBODY_UID, Feature, FeatureState, Loss, PacketLog
from netmond.outputs import csv, logs
from netmond.outputs.custody import Custody
from netmond.packetlog.given import Kernel, configured
from netmond.worker.child import Child

log = logging.getLogger(__name__)

#: Seconds until a worker that ended is started again: the first pause and, doubling, the longest; and how
#: long one has to run to be started at once.
_BACK_OFF, _HEALTHY = (0.1, 30.0), 60.0

#: Seconds that the CSV output may take to give a file away.
_PATIENCE = 15.0

FEATURE = "packetlog"

_PROCESS = "the packet log's process"


@dataclass(slots=True, kw_only=True)
class _User:
    """One who was asked for, NOBODY_UID: everyone."""

    every: int
    since: float = field(default_factory=time.time)


class PacketLogs:
    """Belongs to the daemon's event loop. While nobody is logged, nothing runs and no memory is used."""

    def __init__(
        self, kernel: Kernel, custody: Custody, config: Callable[[], Config], tick: Callable[[], None]
    ) -> None:
        """tick: takes a tick and publishes its snapshot, now."""
        self._kernel = kernel
        self._custody = custody
        self._config = config
        self._tick = tick
        self._lock = asyncio.Lock()
        self._users: dict[int, _User] = {}
        self._configured: dict[int, int] = {}  # how many packets of each user a row stands for
        self._patterns: dict[int, dict[str, Any]] = {}  # accounts as the worker got them first
        self._accounts: dict[int, dict[str, Any]] = {}  # as the worker reported them last
        self._missing: dict[int, list[int]] = {}  # what the kernel counted when everyone's log began
        self._position = 0
        self._ring = -1
        self._child: Child | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._problem = ""
        self._worker: dict[str, Any] = {}  # what the worker says of itself
        self._lost_before = self._rows_before = self._restarts = 0

    # -- what is asked of it -------------------------------------------------------------------------

    async def enable(self, uids: Sequence[int] | None, every: int = 1) -> None:
        """Log each packet, or one of `every`, of these users or (None) of everyone. Unavailable: why not."""
        tables = self._require()
        wanted = [NOBODY_UID] if uids is None else list(dict.fromkeys(uids))
        async with self._lock:
            child = await self._running()
            new = [uid for uid in wanted if uid not in self._users]
            try:
                await child.ask("expect", users=new)
                for uid in wanted:
                    tables.set(uid, every)
                since = await self._hand_over({*self._users, *new}) if new else 0
                missing = self._kernel.unlogged()
                await child.ask(
                    "log",
                    users={
                        uid: self._account(uid, every, since if uid in new else 0, missing) for uid in wanted
                    },
                    missing=missing if NOBODY_UID in new else self._missing,
                )
            except NetmondError:
                await self._take_back(tables, new)
                raise
            for uid in wanted:
                self._users[uid] = _User(every=every)
            if NOBODY_UID in new:
                self._missing = missing

    async def disable(self, uids: Sequence[int] | None) -> None:
        """Log no packets of these users or (None) of anybody any more. NotFound: theirs are not logged."""
        async with self._lock:
            gone = list(self._users) if uids is None else list(dict.fromkeys(uids))
            for uid in gone:
                if uid not in self._users:
                    why = ", everyone's are" if NOBODY_UID in self._users else ""
                    raise NotFound(f"packets of user {uid} are not logged one by one{why}")
            if gone:
                await self._end(gone)
                settled = self._custody.ask(self._users.keys(), time.monotonic_ns())
                self._tick()
                if not self._users:
                    await self._stop()
                with suppress(asyncio.TimeoutError):  # it does so when it can
                    await asyncio.wait_for(settled, _PATIENCE)

    async def close(self) -> None:
        """Everything that was logged is in the files when this returns, and they are given back."""
        async with self._lock:
            if self._users:
                await self._end(list(self._users))
                self._custody.ask(frozenset(), time.monotonic_ns())
                self._tick()
                await self._stop()

    async def configure(self) -> None:
        """Does what the configuration says, and undoes what it does not say any more."""
        if self._child:
            async with self._lock:
                await self._child.ask("configure", **self._files())
        options = self._options()
        before, self._configured = self._configured, await configured(options)
        gone = [uid for uid in before if uid not in self._configured and uid in self._users]
        if self._why_not() and self._users:
            gone = list(self._users)
        if gone:
            await self.disable(gone)
        new = [uid for uid, every in self._configured.items() if before.get(uid) != every]
        if new:
            await self.enable(None if new == [NOBODY_UID] else new, options["sample"])

    def infos(self) -> tuple[PacketLog, ...]:
        """Whose packets are logged."""
        return tuple(self._info(uid, user) for uid, user in sorted(self._users.items()))

    def feature(self) -> Feature:
        """Whether packets can be logged, and are."""
        reason = self._why_not()
        state = FeatureState.OFF if reason else FeatureState.ON
        if not reason and self._users and (self._problem or self._worker.get("limitation")):
            reason, state = self._problem or self._worker["limitation"], FeatureState.DEGRADED
        return Feature(name=FEATURE, state=state, reason=reason)

    def losses(self) -> tuple[Loss, ...]:
        """What is missing in the files."""
        lost = self._lost_before + sum(each["lost_packets"] for each in self._accounts.values())
        rows = self._rows_before + self._worker.get("lost_rows", 0)
        return (
            Loss(
                name="packetlog.lost",
                count=lost,
                meaning="logged users' packets without a row; totals are right; raise [output.csv] ring",
            ),
            Loss(
                name="packetlog.rows",
                count=rows,
                meaning="of those, rows not written: disk full, or file or directory not usable",
            ),
            Loss(
                name="packetlog.restarts",
                count=self._restarts,
                meaning="times the packet log's process ended and was started again",
            ),
        )

    # -- users -----------------------------------------------------------------------------------------

    def _why_not(self) -> str:
        if self._kernel.tables is None:
            return self._kernel.reason
        if not self._config().output("csv").enabled:
            return "the CSV output is disabled by configuration"
        return ""

    def _require(self) -> PacketLogTables:
        if (reason := self._why_not()) or self._kernel.tables is None:
            raise Unavailable(f"packets cannot be logged: {reason}")
        return self._kernel.tables

    def _info(self, uid: int, user: _User) -> PacketLog:
        mine = [
            account
            for other, account in self._accounts.items()
            if (uid == other if uid != NOBODY_UID else not account["named"])
        ]
        return PacketLog(
            uid=uid,
            every=user.every,
            since=user.since,
            rows=sum(account["rows"] for account in mine),
            lost_packets=sum(account["lost_packets"] for account in mine),
            lost_bytes=sum(account["lost_bytes"] for account in mine),
        )

    def _account(
        self, uid: int, every: int, since: int, missing: Mapping[int, list[int]], *, named: bool = True
    ) -> dict[str, Any]:
        account: dict[str, Any] = {"every": every, "since": since, "named": named}
        if uid in missing:
            account["told"] = missing[uid]
        self._patterns[uid] = account
        return account

    async def _hand_over(self, users: set[int]) -> int:
        """The CSV output leaves these users' files alone; returns up to when it has written them."""
        settled = self._custody.ask(users, time.monotonic_ns())
        self._tick()
        try:
            return await asyncio.wait_for(settled, _PATIENCE)
        except TimeoutError:
            raise Unavailable(
                "the CSV output is too busy to hand over its files, see netmonctl status"
            ) from None

    async def _take_back(self, tables: PacketLogTables, users: Sequence[int]) -> None:
        """Undoes what a failed `enable` has begun."""
        for uid in users:
            with suppress(KernelError):
                tables.remove(uid)
        self._custody.ask(self._users.keys(), time.monotonic_ns())
        if self._child:
            with suppress(Unavailable):
                await self._child.ask("forget", users=list(users))
        if not self._users:
            await self._stop()

    async def _end(self, gone: Sequence[int]) -> None:
        """In the kernel and the worker."""
        tables = self._require_tables()
        for uid in gone:
            del self._users[uid]
            tables.remove(uid)
        if self._child:
            with suppress(Unavailable):  # then it is started again without them
                if everyone := self._users.get(NOBODY_UID):
                    accounts = {uid: self._account(uid, everyone.every, 0, {}, named=False) for uid in gone}
                    await self._child.ask("log", users=accounts)
                else:
                    await self._child.ask("finish", users=list(gone))
        self._forget(gone)

    def _forget(self, gone: Sequence[int]) -> None:
        for uid in gone:
            self._patterns.pop(uid, None)
        kept = NOBODY_UID in self._users
        for uid in [uid for uid in self._accounts if uid not in self._users and not kept]:
            self._lost_before += self._accounts.pop(uid)["lost_packets"]

    def _require_tables(self) -> PacketLogTables:
        assert self._kernel.tables is not None  # somebody is logged
        return self._kernel.tables

    # -- the worker ------------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        return read_options(csv.OPTIONS, self._config().output("csv"))[0]

    def _files(self) -> dict[str, Any]:
        options = self._options()
        return {
            "log_dir": str(self._config().output("csv").log_dir),
            "options": {setting.key: options[setting.key] for setting in logs.OPTIONS},
        }

    async def _running(self) -> Child:
        """The worker, started if nobody was logged until now."""
        if self._child is None:
            if self._users:
                raise Unavailable(f"{_PROCESS} is being started again: {self._problem}")
            self._require_tables().clear()
            self._ring = Ring.create(_power_of_two(self._options()["ring"]))
            try:
                self._require_tables().start(self._ring)
                self._child = await self._start()
            except NetmondError:
                await self._stop()
                raise
        return self._child

    async def _start(self) -> Child:
        descriptors = [self._ring, *self._kernel.maps.values()]
        try:
            child = await Child.start(
                "netmond.packetlog", _PROCESS, descriptors, self._reported, self._ended
            )
        except OSError as error:
            raise Unavailable(f"{_PROCESS} cannot be started: {error}") from None
        self._began = time.monotonic()
        maps = dict(self._kernel.maps)
        try:
            await child.ask("open", ring=self._ring, maps=maps, slots=self._kernel.slots, **self._files())
        except NetmondError:
            await _given_up(child)
            raise
        return child

    async def _stop(self) -> None:
        """Everything is written, and nothing is left in the kernel."""
        with suppress(KernelError):
            self._require_tables().stop()
        if self._restarting:
            self._restarting.cancel()
            self._restarting = None
        child, self._child = self._child, None
        if child:
            with suppress(Unavailable):
                await child.ask("stop")
            await child.close()
        if self._ring >= 0:
            os.close(self._ring)
        self._ring, self._position, self._problem = -1, 0, ""
        self._rows_before += self._worker.pop("lost_rows", 0)
        self._worker = {}

    def _reported(self, report: dict[str, Any]) -> None:
        self._position = report["position"]
        self._worker = {name: report[name] for name in ("lost_rows", "limitation")}
        for uid, account in report["accounts"].items():
            self._accounts[int(uid)] = account

    def _ended(self) -> None:
        """The worker is gone. If that was not ordered, another one goes on where it was."""
        if self._child is not None:
            self._child = None
            self._rows_before += self._worker.pop("lost_rows", 0)
            self._problem = "its process ended unexpectedly and is being started again"
            log.error("The packet log's process ended unexpectedly and will be started again")
            self._restarting = asyncio.get_running_loop().create_task(self._restart())

    async def _restart(self) -> None:
        pause = 0.0 if time.monotonic() - self._began > _HEALTHY else _BACK_OFF[0]
        while True:
            await asyncio.sleep(pause)
            pause = min(max(2 * pause, _BACK_OFF[0]), _BACK_OFF[1])
            async with self._lock:
                self._restarts += 1
                child: Child | None = None
                try:
                    child = await self._start()
                    users = {**self._patterns, **self._accounts}
                    await child.ask("log", users=users, missing=self._missing, position=self._position)
                except NetmondError as error:
                    self._problem = str(error)
                    if child:
                        await _given_up(child)
                    continue
                self._child, self._problem, self._restarting = child, "", None
                log.info("The packet log's process runs again")
                return


async def _given_up(child: Child) -> None:
    """It has ended when this returns, so that its end is not taken for that of the next one."""
    child.kill()
    await child.close()


def _power_of_two(size: int) -> int:
    """The next one, as a ring must be."""
    return 1 << (size - 1).bit_length()
