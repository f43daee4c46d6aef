"""Takes over what an earlier daemon's programs counted, and keeps for the next what was accounted for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, TypeVar

from numpy.typing import NDArray

from netmond.accounts import Now
from netmond.errors import KernelError
from netmond.flowrows import FlowRows
from netmond.handover import Handover, wait_for_programs
from netmond.interfaces import Interfaces
from netmond.kernel.compile import Loaded
from netmond.kernel.former import (
    INTERFACE_LAYOUTS,
    SOCKET_LAYOUTS,
    Former,
    FormerInterfaces,
    FormerSockets,
)
from netmond.ledger import Ledger
from netmond.meter import Meter
from netmond.model import Network
from netmond.ports import Ports
from netmond.query import network_text
from netmond.rdma.attribution import Attribution
from netmond.rdma.register import Census
from netmond.roce import Roce
from netmond.targets import Targets

_Tables = TypeVar("_Tables")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSuccession:
    """The meter's."""

    handover: Handover
    meter: Meter
    ledger: Ledger

    @property
    def since(self) -> float | None:
        """Unix time at which counting began; None: it begins now, as far as the handover knows."""
        since: float | None = self.handover.left.get("since")
        return since

    @property
    def last_tick(self) -> int | None:
        """When the last tick was taken, CLOCK_MONOTONIC in ns."""
        moment: int | None = self.handover.left.get("monotonic_ns")
        return moment

    def resume(self) -> bool:
        """Goes on from the checkpoint; False: there is none."""
        if self.handover.totals is None:
            return False
        self.meter.owners.resume(self.handover.totals)
        if self.handover.arrays is not None:
            self.meter.resume(self.handover.arrays, wait_for_programs)
        return True

    def begin(self, loaded: Loaded) -> None:
        """Call when the totals are what they are to go on from; then programs may be attached."""
        self.handover.begin(loaded, SOCKET_LAYOUTS, self.meter.owners.checkpoint(), self._arrays())

    def settle(self, meter_of: Callable[[FormerSockets], Meter]) -> None:
        """Adds what former builds have counted since the checkpoint; our programs run in their place.

        meter_of: makes a meter like ours of other tables.
        """
        for tables in _replaced(self.handover, FormerSockets):
            with closing(tables):
                meter = meter_of(tables)
                meter.owners.resume(self.handover.totals or {}, counters=False)
                meter.resume(tables.arrays)
                meter.tick(Now(monotonic_ns=0, wall=0.0, interval=0.0))
                self.meter.owners.include(meter.owners)
                self.ledger.include(tables.arrays, tables.losses)

    def keep(self, *, since: float) -> None:
        """After a tick: what it accounted for stays so, and slots nobody needs any more become free."""
        moment = {"since": since, "monotonic_ns": time.monotonic_ns()}
        if not self.handover.busy or self.handover.commit(
            moment, self.meter.owners.checkpoint(), self._arrays()
        ):
            self.meter.release()

    def _arrays(self) -> Mapping[str, NDArray[Any]]:
        return {**self.meter.checkpoint(), **self.ledger.checkpoint()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficSuccession:
    """That of interfaces and targets."""

    handover: Handover
    ports: Ports
    roce: Roce
    rdma: Attribution
    targets: Targets
    interfaces: Interfaces
    ledger: Ledger

    def resume(self, configured: Sequence[Network]) -> bool:
        """Goes on from the checkpoint with what is in the configuration now; False: there is none."""
        if self.handover.totals is None:
            return False
        self.rdma.usage.resume(self.handover.totals)
        self.interfaces.choose(*self.handover.left.get("by_hand", ({}, [])))
        if self.handover.arrays is not None:
            self.ports.resume(self.handover.arrays)
            self.roce.resume(self.handover.arrays)
            self.targets.resume(self.handover.arrays)
            self.ledger.resume(self.handover.arrays)
        for former in self.handover.former:
            self._add(map(_network, former.arrays["targets.network"].tolist()))
        gone = set(map(ip_network, self.handover.left.get("configured", ()))).difference(configured)
        self.targets.remove([network for network in gone if network in self.targets])
        self._add(configured)
        return True

    def _add(self, networks: Iterable[Network]) -> None:
        """Adds those that are no targets yet, as far as there is room."""
        new = [network for network in networks if network not in self.targets]
        room = self.targets.limit - len(self.targets)
        if len(new) > room:
            log.warning("%d targets exceed [targets] limit: the last are left out", len(new) - room)
        self.targets.add(new[:room], time.time())

    def begin(self, loaded: Loaded) -> None:
        """Call when all targets are there; then programs may be attached.

        Interfaces have their counters before: what is counted from the first moment on is theirs.
        """
        self.interfaces.prepare()
        self.handover.begin(loaded, INTERFACE_LAYOUTS, self.rdma.checkpoint(), self._arrays())

    def settle(self) -> None:
        """Lets figures go on from those of former builds; our programs run in their place."""
        now = Now(monotonic_ns=time.monotonic_ns(), wall=time.time(), interval=0.0)
        self.rdma.begin_tick(now, Census(), asked=True)
        for tables in _replaced(self.handover, FormerInterfaces):
            roce = Roce(tables.roce)
            roce.resume(tables.arrays)
            roce.add(FlowRows(), now, self.rdma.account)
            ports = Ports(tables)
            ports.resume(tables.arrays)
            self.ports.include(ports)
            self.ledger.include(tables.arrays, tables.losses)
            targets = Targets(tables, tables.target_counters.capacity)
            targets.resume(tables.arrays)
            counters = targets.current().counters
            for row, (network, since) in enumerate(targets.since.items()):
                if network in self.targets:
                    self.targets.restore(network, since, counters[row])

    def keep(self, configured: Sequence[Network]) -> None:
        """After a tick, or when something was changed by hand: the next daemon begins there."""
        if self.handover.busy:
            moment = {
                "by_hand": self.interfaces.by_hand,
                "configured": _texts(tuple(configured)),
            }
            self.handover.commit(moment, self.rdma.checkpoint(), self._arrays())

    def _arrays(self) -> Mapping[str, NDArray[Any]]:
        return {
            **self.ports.checkpoint(),
            **self.roce.checkpoint(),
            **self.targets.checkpoint(),
            **self.ledger.checkpoint(),
        }


def _replaced(handover: Handover, tables_of: Callable[[Former], _Tables]) -> Iterator[_Tables]:
    """The tables of the builds to settle with, when none of their programs runs any more."""
    if handover.former:
        wait_for_programs()
    for former in handover.former:
        try:
            yield tables_of(former)
        except KernelError as error:
            log.warning("What an earlier netmond counted in the end is lost: %s", error)


@lru_cache(maxsize=1)
def _texts(networks: tuple[Network, ...]) -> list[str]:
    """Of the configured targets, at every tick the same."""
    return [network_text(network) for network in networks]


def _network(text: bytes) -> Network:
    return ip_network(text.decode())
