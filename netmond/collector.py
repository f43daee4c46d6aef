"""One tick: read, account, make one immutable Snapshot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from netmond.accounts import Now
from netmond.books import Books
from netmond.flowrows import FlowRows
from netmond.interfaces import Interfaces
from netmond.kernel.devices import devices
from netmond.ledger import Ledger
from netmond.meter import Meter, Usage
from netmond.model import Cost, Feature, InterfaceInfo, Loss, Rdma, Snapshot, Table
from netmond.ports import CLASS_COLUMNS, Ports
from netmond.rdma.monitor import RdmaMonitor
from netmond.roce import Roce
from netmond.targets import Targets

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time, injected so that tests own it."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    wall: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sockets:
    """The meter and its loss ledger."""

    meter: Meter
    ledger: Ledger
    whole: bool = True  #: it counts every socket of the machine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """What is known of interfaces, and their loss ledger."""

    interfaces: Interfaces
    ports: Ports
    roce: Roce
    targets: Targets
    ledger: Ledger


class Collector:
    """Turns whichever parts work on this machine into Snapshots; absent parts are empty tables."""

    def __init__(
        self,
        *,
        sockets: Sockets | None,
        traffic: Traffic | None,
        rdma: RdmaMonitor | None = None,
        features: Callable[[], tuple[Feature, ...]] = tuple,
        losses: Callable[[], tuple[Loss, ...]] = tuple,
        started: float | None = None,
        since: float | None = None,
        last_tick: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        """features and losses: those of other parts of the daemon, asked at every tick.
        started, since: wall clock at which the daemon started and counting began, if that is not now.
        last_tick: when an earlier daemon took its last one (ns, monotonic), if this one goes on from it."""
        self._sockets = sockets
        self._traffic = traffic
        self._rdma = rdma
        self._features = features
        self._losses = losses
        self._clock = clock or Clock()
        self._started = self._clock.wall() if started is None else started
        self._since = self._started if since is None else since
        self._last_ns = self._clock.monotonic_ns() if last_tick is None else last_tick
        self._duration = 0.0
        self._books = Books(whole=sockets is not None and sockets.whole)
        # How things stood at the last tick of an earlier daemon: outputs can tell what came after.
        now = Now(monotonic_ns=self._clock.monotonic_ns(), wall=self._clock.wall(), interval=0.0)
        usage = sockets.meter.standing(now) if sockets else None
        self.snapshot = self._snapshot(
            now,
            0,
            usage,
            usage.flows if usage else FlowRows(),
            traffic.ports.current() if traffic else _EMPTY_INTERFACES,
            traffic.targets.current() if traffic else _EMPTY_TARGETS,
            rdma.current() if rdma else Rdma(),
        )

    def tick(self) -> Snapshot:
        """Takes the figures of this moment. The result is also `snapshot` until the next tick."""
        now = self._now()
        if self._rdma:
            self._rdma.look()
        before = self._traffic.interfaces.look(kernel_first=True) if self._traffic else None
        usage = self._sockets.meter.tick(now) if self._sockets else None
        read = self._clock.monotonic_ns()
        flows = usage.flows if usage else FlowRows()
        interfaces, targets = _EMPTY_INTERFACES, _EMPTY_TARGETS
        if self._traffic and before:
            after = self._traffic.interfaces.look(kernel_first=False)
            passages = self._sockets.meter.passages.totals if self._sockets else None
            self._books.update(before, after, passages, now.wall)
            self._traffic.interfaces.refresh(after.devices)
            self._traffic.ports.add_forwarded(flows, now)
            if not self._rdma:
                self._traffic.roce.add(flows, now)
            interfaces, targets = self._traffic.ports.table(now), self._traffic.targets.table(now)
        rdma = self._rdma.tick(flows, now, self._links) if self._rdma else Rdma()
        snapshot = self._snapshot(now, self.snapshot.tick + 1, usage, flows, interfaces, targets, rdma)
        self.snapshot = replace(snapshot, read=read)
        self._duration = (self._clock.monotonic_ns() - now.monotonic_ns) / 1e9
        return self.snapshot

    def may_fill(self, seconds: float) -> bool:
        """Whether a table of the kernel may run full if the next tick is in so many seconds."""
        return bool(
            (self._sockets and self._sockets.meter.may_fill(seconds))
            or (self._traffic and (self._traffic.ports.crowded or self._traffic.roce.crowded))
        )

    def refresh(self) -> None:
        """Shows what just changed (targets, interfaces, features) without a tick: nothing is accounted."""
        snapshot = replace(self.snapshot, links=self._links(), features=self._features())
        if self._traffic:
            interfaces, targets = self._traffic.ports.current(), self._traffic.targets.current()
            snapshot = replace(snapshot, interfaces=interfaces, targets=targets)
        self.snapshot = snapshot

    def _now(self) -> Now:
        now = self._clock.monotonic_ns()
        interval, self._last_ns = (now - self._last_ns) / 1e9, now
        return Now(monotonic_ns=now, wall=self._clock.wall(), interval=interval)

    def _snapshot(
        self,
        now: Now,
        tick: int,
        usage: Usage | None,
        flows: FlowRows,
        interfaces: Table,
        targets: Table,
        rdma: Rdma,
    ) -> Snapshot:
        return Snapshot(
            tick=tick,
            time=now.wall,
            interval=now.interval,
            since=self._since,
            started=self._started,
            users=usage.users if usage else _EMPTY_USERS,
            units=usage.units if usage else _EMPTY_UNITS,
            processes=usage.processes if usage else _EMPTY_PROCESSES,
            flows=flows.table(),
            interfaces=interfaces,
            targets=targets,
            host=self._traffic.ports.host(now) if self._traffic else Table.one_row(),
            books=self._books.evidence,
            unit_names=self._sockets.meter.owners.unit_names if self._sockets else (),
            links=self._links(),
            features=self._features(),
            losses=(*self._ledger(), *self._losses()),
            cost=self._cost(),
            rdma=rdma,
        )

    def _links(self) -> Mapping[int, InterfaceInfo]:
        if self._traffic:
            return self._traffic.interfaces.infos
        return {index: device.info for index, device in devices().items()}

    def _ledger(self) -> list[Loss]:
        ledgers = (part.ledger for part in (self._sockets, self._traffic) if part)
        return [loss for ledger in ledgers for loss in ledger.losses()]

    def _cost(self) -> Cost:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            resident = int(file.read().split()[1]) * _PAGE
        return Cost(cpu_seconds=time.process_time(), resident_bytes=resident, tick_seconds=self._duration)


_NUMBERS = np.zeros(0, np.uint32)
_TEXTS = np.zeros(0, object)
_EMPTY_USERS = Table.empty(uid=_NUMBERS, flows=_NUMBERS)
_EMPTY_UNITS = Table.empty(unit=_TEXTS, slice=_TEXTS, cgroup=_TEXTS, flows=_NUMBERS)
_EMPTY_PROCESSES = Table.empty(
    pid=_NUMBERS,
    comm=np.zeros(0, "S16"),
    uid=_NUMBERS,
    unit=_TEXTS,
    unit_index=np.zeros(0, np.int32),
    flows=_NUMBERS,
)
_EMPTY_TARGETS = Table.empty(address=_TEXTS, since=np.zeros(0))
_EMPTY_INTERFACES = Table.empty(ifindex=_NUMBERS, **{name: np.zeros(0, np.uint64) for name in CLASS_COLUMNS})
