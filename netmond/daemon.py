"""The running daemon: ticks, answers the bus, feeds the outputs, reloads, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time

from netmond import __version__
from netmond.assembly import Parts
from netmond.bus.authority import Authority
from netmond.bus.service import Service
from netmond.collector import Collector, Traffic
from netmond.config import Config, needs_restart
from netmond.errors import LimitExceeded, NetmondError, NoSuchTarget, Unavailable
from netmond.footprint import make_room
from netmond.kernel import netlink
from netmond.kernel.owners import find_owners
from netmond.model import Feature, FeatureState, Loss, Network, Snapshot
from netmond.notify import notify
from netmond.outputs import protocol
from netmond.outputs.log import LogControl, reloaded
from netmond.outputs.runner import Runner
from netmond.query import network_text
from netmond.state import load_targets, save_targets
from netmond.users import Names

log = logging.getLogger("netmond")

#: Seconds between two searches through /proc for the processes behind sockets.
_SEARCH_INTERVAL = 5.0
#: Sockets whose owner was looked for in vain, remembered so that they are not looked for again.
_SEARCHED_AT_MOST = 1 << 16


@dataclass(slots=True)
class Daemon:
    """Implements bus.monitor.Monitor. `read_config` reads the configuration anew for a reload."""

    config: Config
    parts: Parts
    log_control: LogControl
    read_config: Callable[[], tuple[Config, list[str]]]
    version: str = __version__
    _collector: Collector = field(init=False)
    _outputs: Runner = field(init=False)
    _service: Service = field(init=False)
    _authority: Authority = field(init=False)
    _names: Names = field(default_factory=Names)
    _bus: Feature = field(default=Feature(name="bus", state=FeatureState.OFF, reason="not started yet"))
    _configured: set[Network] = field(default_factory=set)
    _searched: dict[int, None] = field(default_factory=dict)
    _search: asyncio.Task[None] | None = None
    _next_search: float = 0.0
    _failed_ticks: int = 0
    _reloading: asyncio.Task[None] | None = None
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._outputs = Runner(self.config)
        self._collector = Collector(
            sockets=self.parts.sockets,
            traffic=self.parts.traffic,
            features=self._features,
            losses=self._losses,
        )
        self._authority = Authority(group=self.config.access.group)
        self._service = Service(self, self._names, self._authority)

    # -- running -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. Unavailable: there is no bus; AlreadyExists: another netmond runs."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self._restore_targets()
        await self._service.start()
        self._bus = Feature(name="bus", state=FeatureState.ON)
        self._outputs.start()
        changes = netlink.subscribe(netlink.RTMGRP_LINK)
        loop.add_reader(changes, self._interfaces_changed, changes)
        try:
            self._collector.tick()
            self._publish()
            notify(f"READY=1\nSTATUS={self._summary()}")
            await self._tick_until_stopped()
        finally:
            notify("STOPPING=1")
            loop.remove_reader(changes)
            changes.close()
            await self._close()

    async def _tick_until_stopped(self) -> None:
        interval = self.config.daemon.interval
        due = monotonic() + interval
        while not self._stopping.is_set():
            try:
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due - monotonic()))
                return
            except TimeoutError:
                pass
            if self._tick():
                notify(f"WATCHDOG=1\nSTATUS={self._summary()}")
            interval = self.config.daemon.interval
            due = max(due + interval, monotonic())

    def _tick(self) -> bool:
        """One tick and what depends on it; False: the kernel did not answer, which is not fatal."""
        try:
            self._collector.tick()
        except NetmondError as error:
            self._failed_ticks += 1
            if self._failed_ticks == 1:
                log.error("A tick failed: %s", error)
            return False
        self._publish()
        self._look_for_owners()
        return True

    def _losses(self) -> tuple[Loss, ...]:
        meaning = "ticks at which the kernel's tables could not be read: the next one makes up for it"
        return (
            Loss(name="collector.failed-ticks", count=self._failed_ticks, meaning=meaning),
            *self._outputs.losses(),
        )

    def _publish(self) -> None:
        make_room(len(self._collector.snapshot.flows))
        self._outputs.publish(self._collector.snapshot)
        self._service.ticked()

    async def _close(self) -> None:
        if self._search:
            self._search.cancel()
        await self._service.close()
        self._collector.tick()  # what came in since the last one belongs into the files
        self._outputs.publish(self._collector.snapshot)
        await self._outputs.close()
        self.parts.closing.close()

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

    def _features(self) -> tuple[Feature, ...]:
        interfaces = (self.parts.traffic.interfaces.feature(),) if self.parts.traffic else ()
        return (*self.parts.features, *interfaces, self._bus, *self._outputs.features())

    # -- processes behind older sockets ----------------------------------------------------------------

    def _look_for_owners(self) -> None:
        """Searches, at most every few seconds and each socket once, in a thread."""
        if (
            not self.parts.sockets
            or (self._search and not self._search.done())
            or monotonic() < self._next_search
        ):
            return
        cookies = [
            cookie for cookie in self.parts.sockets.meter.unknown().tolist() if cookie not in self._searched
        ]
        if not cookies:
            return
        self._next_search = monotonic() + _SEARCH_INTERVAL
        if len(self._searched) + len(cookies) > _SEARCHED_AT_MOST:
            self._searched.clear()
        self._searched.update(dict.fromkeys(cookies))
        self._search = asyncio.get_running_loop().create_task(self._find_owners(cookies))

    async def _find_owners(self, cookies: list[int]) -> None:
        try:
            owners = await asyncio.to_thread(find_owners, cookies)
        except Exception:  # whatever /proc or netlink came up with: the flows stay without a process
            log.warning("The search for the processes behind sockets failed", exc_info=True)
            return
        if self.parts.sockets:
            self.parts.sockets.meter.learn({cookie: (who.pid, who.comm) for cookie, who in owners.items()})

    # -- targets ---------------------------------------------------------------------------------------

    def _restore_targets(self) -> None:
        """Those of the configuration, and those added by hand before the last stop."""
        self._configured = set(self.config.targets.addresses)
        if not self.parts.traffic:
            return
        saved: list[Network] = []
        try:
            saved = load_targets(self.config.daemon.state_dir)
        except NetmondError as error:
            log.warning("%s", error)
        wanted = list(dict.fromkeys([*self.config.targets.addresses, *saved]))
        self.parts.traffic.targets.add(wanted[: self.config.targets.limit], time())

    def _save_targets(self) -> None:
        by_hand = [network for network in self.targets() if network not in self._configured]
        try:
            save_targets(self.config.daemon.state_dir, by_hand)
        except NetmondError as error:
            log.warning("%s; they will be forgotten at the next stop", error)

    def _require_traffic(self) -> Traffic:
        if self.parts.traffic is None:
            reason = next((f.reason for f in self.parts.features if f.name == "interfaces"), "")
            raise Unavailable(f"interfaces and targets are off: {reason}")
        return self.parts.traffic

    # -- bus.monitor.Monitor -----------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
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
        self._targets_changed(networks, ())

    async def remove_targets(self, networks: Sequence[Network]) -> None:
        self._targets_or_none_such(networks).targets.remove(networks)
        self._targets_changed((), networks)

    async def reset_targets(self, networks: Sequence[Network]) -> None:
        self._targets_or_none_such(networks).targets.reset(networks, time())
        self._collector.refresh()

    def _targets_or_none_such(self, networks: Sequence[Network]) -> Traffic:
        if self.parts.traffic is None and networks:
            raise NoSuchTarget(
                f"{network_text(networks[0])} is no target: targets are off, see netmonctl status"
            )
        return self._require_traffic()

    def _targets_changed(self, added: Sequence[Network], removed: Sequence[Network]) -> None:
        self._save_targets()
        self._collector.refresh()
        self._service.targets_changed(added, removed)

    async def monitor_interface(self, name: str, attach: str) -> None:
        self._require_traffic().interfaces.add(name, attach)
        self._collector.refresh()

    async def unmonitor_interface(self, name: str) -> None:
        self._require_traffic().interfaces.remove(name)
        self._collector.refresh()

    async def reload(self) -> list[str]:
        notify("RELOADING=1")
        try:
            return self._apply(*await asyncio.to_thread(self.read_config))
        finally:
            notify("READY=1")

    def _apply(self, config: Config, warnings: list[str]) -> list[str]:
        """Takes a new configuration as far as that is possible without a restart; all or nothing."""
        by_hand = [network for network in self.targets() if network not in self._configured]
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
        self._authority.group = config.access.group
        self._outputs.apply(config)
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
        self._configured = set(new.targets.addresses)
        self._targets_changed(added, removed)

    def _hang_up(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload_on_signal())

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload()
        except NetmondError as error:
            log.error("The old configuration stays in force: %s", error)
