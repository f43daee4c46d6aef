"""The running daemon: ticks, answers the bus, feeds the outputs, reloads, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, time
from typing import Any

from netmond import __version__
from netmond.assembly import Parts
from netmond.bus.authority import Authority
from netmond.bus.service import Service
from netmond.byhand import ByHand
from netmond.collector import Collector, Traffic
from netmond.config import Config, needs_restart
from netmond.errors import LimitExceeded, NetmondError, NoSuchTarget, Unavailable
from netmond.footprint import settle
from netmond.kernel import netlink
from netmond.model import Feature, FeatureState, Loss, Network, PacketLog, Session, Snapshot
from netmond.notify import be_patient, notify
from netmond.outputs import protocol, reader
from netmond.outputs.csv import CsvOutput
from netmond.outputs.custody import Custody
from netmond.outputs.log import LogControl, reloaded
from netmond.outputs.runner import Outputs
from netmond.packetlog.supervisor import PacketLogs
from netmond.query import network_text
from netmond.search import OwnerSearch
from netmond.sessions.supervisor import Sessions
from netmond.totals import Totals
from netmond.users import Names

log = logging.getLogger("netmond")


@dataclass(slots=True)
class Daemon:
    """Implements bus.monitor.Monitor. `read_config` reads the configuration anew for a reload."""

    config: Config
    parts: Parts
    log_control: LogControl
    read_config: Callable[[], tuple[Config, list[str]]]
    totals: Totals
    started: float  #: Unix time
    version: str = __version__
    _collector: Collector = field(init=False)
    _search: OwnerSearch | None = field(init=False, default=None)
    _by_hand: ByHand = field(init=False)
    _outputs: Outputs = field(init=False)
    _packet_logs: PacketLogs = field(init=False)
    _sessions: Sessions = field(init=False)
    _configuring: asyncio.Task[None] | None = None
    _service: Service = field(init=False)
    _authority: Authority = field(init=False)
    _names: Names = field(default_factory=Names)
    _bus: Feature = field(default=Feature(name="bus", state=FeatureState.OFF, reason="not started yet"))
    _failed_ticks: int = 0
    _last_tick: float = math.inf  #: monotonic; infinite before the first one
    _reloading: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        custody = Custody()
        self._outputs = Outputs(self.config, find=partial(_find_output, custody))
        self._packet_logs = PacketLogs(self.parts.packet_log, custody, lambda: self.config, self._tick)
        self._sessions = Sessions(lambda: self.config, self.parts.shared)
        self._authority = Authority(group=self.config.access.group)
        last = self.parts.meter_succession
        if last and last.since is not None:
            self.totals.since = last.since
        self.totals.begin(
            owners=self.parts.sockets is not None,
            targets=self.parts.traffic is not None,
            rdma=self.parts.rdma is not None,
            current=lambda: (self._collector.snapshot, self.config.targets.addresses),
        )
        self._collector = Collector(
            sockets=self.parts.sockets,
            traffic=self.parts.traffic,
            rdma=self.parts.rdma,
            features=self._features,
            losses=self._losses,
            started=self.started,
            since=self.totals.since,
            last_tick=last.last_tick if last else None,
        )
        if self.parts.sockets and self.parts.find_owners:
            self._search = OwnerSearch(self.parts.sockets.meter, self.parts.find_owners)
        self._by_hand = ByHand(self._packet_logs, self.config.daemon.state_dir)
        self._service = Service(self, self._names, self._authority)

    # -- running -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Unavailable: there is no bus; AlreadyExists: another netmond runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        await self._service.start()
        self._bus = Feature(name="bus", state=FeatureState.ON)
        self._outputs.start()
        # What was taken up, so that they can tell it from what came after.
        self._outputs.publish(self._collector.snapshot)
        be_patient(self._longest_pause())
        changes = netlink.subscribe(netlink.RTMGRP_LINK)
        loop.add_reader(changes, self._interfaces_changed, changes)
        try:
            self._tick()
            notify(f"READY=1\nSTATUS={self._summary()}")
            self._configuring = asyncio.create_task(self._begin_packet_logs())
            await self._tick_until_stopped()
        finally:
            notify("STOPPING=1")
            loop.remove_reader(changes)
            changes.close()
            await self._close()

    async def _tick_until_stopped(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        while not stopping.done():
            left = self._last_tick + self._pause() - monotonic()
            if left <= 0:
                self._tick()
            await asyncio.wait((stopping,), timeout=max(0.0, left))

    def _pause(self) -> float:
        """Seconds between the last tick and the next, unless somebody asks before."""
        interval = self.config.daemon.interval
        pause = max(interval, min(self.config.daemon.idle_interval, self._outputs.period()))
        return interval if self._collector.may_fill(pause) else pause

    def _longest_pause(self) -> float:
        return max(self.config.daemon.interval, self.config.daemon.idle_interval)

    def _tick(self) -> None:
        """One tick and what depends on it. That the kernel does not answer is not fatal."""
        self._last_tick = monotonic()
        if not self._collect():
            return
        self.totals.ticked()
        if self._search:
            self._search.ticked()
        notify(f"WATCHDOG=1\nSTATUS={self._summary()}")
        self._publish()  # last: from then on the outputs' threads want the interpreter, too

    async def _begin_packet_logs(self) -> None:
        await self._configure_packet_logs()
        await self._by_hand.resume()

    async def _configure_packet_logs(self) -> None:
        try:
            await self._packet_logs.configure()
        except NetmondError as error:
            log.warning("%s", error)

    def _collect(self) -> bool:
        try:
            self._collector.tick()
        except NetmondError as error:
            self._failed_ticks += 1
            if self._failed_ticks == 1:
                log.error("A tick failed: %s", error)
            return False
        self._keep()
        return True

    def _keep(self) -> None:
        self.parts.keep(self.totals.since, self.config.targets.addresses)

    def _losses(self) -> tuple[Loss, ...]:
        meaning = "ticks at which the kernel's tables could not be read: the next one makes up for it"
        return (
            Loss(name="collector.failed-ticks", count=self._failed_ticks, meaning=meaning),
            *self.totals.losses(),
            *self.parts.losses(),
            *self._outputs.losses(),
            *self._packet_logs.losses(),
            *self._sessions.losses(),
        )

    def _publish(self) -> None:
        settle(len(self._collector.snapshot.flows))
        self._outputs.publish(self._collector.snapshot)
        self._service.ticked()

    async def _close(self) -> None:
        if self._search:
            self._search.close()
        await self._service.close()
        await self._sessions.close()
        if self._configuring:
            self._configuring.cancel()
        await self._packet_logs.close()
        if self._collect():  # what came in since the last tick belongs into the files
            self._publish()
        await self.totals.save()
        await self._outputs.close()

    def _summary(self) -> str:
        snapshot = self._collector.snapshot
        return f"{len(snapshot.users)} users, {len(snapshot.flows)} flows, {len(snapshot.targets)} targets"

    def _interfaces_changed(self, changes: object) -> None:
        """Drains the notice and looks at once: an interface counts from the moment it appears."""
        try:
            while os.read(changes.fileno(), 1 << 16):  # type: ignore[attr-defined]
                pass
        except OSError:
            pass
        if self.parts.traffic:
            self.parts.traffic.interfaces.refresh()
        self._collector.refresh()

    def _features(self) -> tuple[Feature, ...]:
        interfaces = (self.parts.traffic.interfaces.feature(),) if self.parts.traffic else ()
        rdma = (self.parts.rdma.feature(),) if self.parts.rdma else ()
        others = self.parts.restart_feature(), self._bus, self._authority.feature()
        outputs = *self._outputs.features(), self._packet_logs.feature()
        return (*self.parts.features, *interfaces, *rdma, *others, *outputs, *self._sessions.features())

    # -- targets ---------------------------------------------------------------------------------------

    def _require_traffic(self, targets: Sequence[Network] = ()) -> Traffic:
        """What counts interfaces and targets; Unavailable, or NoSuchTarget if it is about some of these."""
        if self.parts.traffic is None:
            if targets:
                text = network_text(targets[0])
                raise NoSuchTarget(f"{text} is no target: targets are off, see netmonctl status")
            reason = next((f.reason for f in self.parts.features if f.name == "interfaces"), "")
            raise Unavailable(f"interfaces and targets are off: {reason}")
        return self.parts.traffic

    # -- bus.monitor.Monitor -----------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        return self._collector.snapshot

    def look(self) -> Snapshot:
        if monotonic() - self._last_tick >= self.config.daemon.interval:
            self._tick()
        return self._collector.snapshot

    @property
    def log_level(self) -> str:
        return self.log_control.level

    @log_level.setter
    def log_level(self, level: str) -> None:
        self.log_control.level = level

    @property
    def log_target(self) -> str:
        return self.log_control.target

    @log_target.setter
    def log_target(self, target: str) -> None:
        self.log_control.target = target

    def targets(self) -> Mapping[Network, float]:
        return self.parts.traffic.targets.since if self.parts.traffic else {}

    async def add_targets(self, networks: Sequence[Network]) -> None:
        self._require_traffic().targets.add(networks, time())
        await self._targets_changed(networks, ())

    async def remove_targets(self, networks: Sequence[Network]) -> None:
        self._require_traffic(networks).targets.remove(networks)
        await self._targets_changed((), networks)

    async def reset_targets(self, networks: Sequence[Network]) -> None:
        self._require_traffic(networks).targets.reset(networks, time())
        await self._targets_changed((), ())

    async def _targets_changed(self, added: Sequence[Network], removed: Sequence[Network]) -> None:
        self._collector.refresh()
        self._keep()
        self._service.targets_changed(added, removed)
        await self.totals.save()  # who added targets may rely on them from the answer on

    async def monitor_interface(self, name: str, attach: str) -> None:
        self._require_traffic().interfaces.add(name, attach)
        self._collector.refresh()
        self._keep()

    async def unmonitor_interface(self, name: str) -> None:
        self._require_traffic().interfaces.remove(name)
        self._collector.refresh()
        self._keep()

    def list_packet_logs(self) -> Sequence[PacketLog]:
        return self._packet_logs.infos()

    async def enable_packet_log(self, uids: Sequence[int] | None, every: int) -> None:
        await self._by_hand.enable(uids, every)

    async def disable_packet_log(self, uids: Sequence[int] | None) -> None:
        await self._by_hand.disable(uids)

    def open_log(self, uid: int) -> int:
        return reader.open_log(self.config.output("csv"), uid)

    def list_sessions(self) -> Sequence[Session]:
        return self._sessions.infos()

    async def start_session(self, kind: str, uid: int, options: Mapping[str, Any]) -> tuple[int, int, int]:
        return await self._sessions.start(kind, uid, options)

    async def stop_session(self, number: int) -> None:
        await self._sessions.stop(number)

    async def reload(self) -> list[str]:
        notify("RELOADING=1")
        try:
            warnings = self._apply(*await asyncio.to_thread(self.read_config))
            await self.totals.save()
            return warnings
        finally:
            notify("READY=1")

    def _apply(self, config: Config, warnings: list[str]) -> list[str]:
        """Takes a new configuration as far as that is possible without a restart; all or nothing."""
        configured = set(self.config.targets.addresses)
        by_hand = [network for network in self.targets() if network not in configured]
        room = self.config.targets.limit
        if len({*by_hand, *config.targets.addresses}) > room:
            raise LimitExceeded(
                f"{len(config.targets.addresses)} targets configured and {len(by_hand)} added by hand exceed"
                f" [targets] limit = {room}: remove some"
            )
        warnings = [*warnings, *protocol.check(config)]
        warnings += [
            f"{key} has changed: it takes effect at the next restart"
            for key in needs_restart(self.config, config)
        ]
        old, self.config = self.config, config
        if config.daemon.log_level != old.daemon.log_level:
            self.log_control.level = config.daemon.log_level
        be_patient(self._longest_pause())
        self._authority.group = config.access.group
        self._outputs.apply(config)
        self._configuring = asyncio.get_running_loop().create_task(self._configure_packet_logs())
        if self.parts.sockets:
            self.parts.sockets.meter.set_idle(config.meter.idle)
        if self.parts.traffic:
            self.parts.traffic.interfaces.configure(config.interfaces)
            self._apply_targets(self.parts.traffic, old, config)
        self._service.reloaded(warnings)
        reloaded(warnings)
        return warnings

    def _apply_targets(self, traffic: Traffic, old: Config, new: Config) -> None:
        gone = set(old.targets.addresses) - set(new.targets.addresses)
        removed = [network for network in gone if network in traffic.targets]
        added = [network for network in new.targets.addresses if network not in traffic.targets]
        traffic.targets.remove(removed)
        traffic.targets.add(added, time())
        self._collector.refresh()
        self._keep()
        self._service.targets_changed(added, removed)

    def _hang_up(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload_on_signal())

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload()
        except NetmondError as error:
            log.error("The old configuration stays in force: %s", error)


def _find_output(custody: Custody, name: str) -> protocol.Factory:
    """The CSV output shares its files with the packet log."""
    factory = protocol.find(name)
    if factory is CsvOutput:
        return lambda: CsvOutput(custody)
    return factory
