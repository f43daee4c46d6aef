"""Adds what passes the wire, and what devices count, to users: each difference once. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Earlier, Now
from netmond.kernel.rdma_netlink import BoundCounter
from netmond.model import RdmaPort
from netmond.rdma.hardware import BoundCounters, Remainders, widened
from netmond.rdma.owners import NOBODY, Directory, Owners, Packets
from netmond.rdma.register import Census
from netmond.rdma.usage import Usage

_NANO = 1e-9

#: Seconds until a row is nobody's for good, if queue pairs were not looked at before.
_PATIENCE = 30.0


class _Batch(NamedTuple):
    """Packets of which it is not known yet whose they are, and how many there were, (n, 8)."""

    packets: Packets
    deltas: NDArray[np.uint64]
    since: float  #: when they passed at the earliest
    read: int  #: ns: when they had passed; a look at the queue pairs that begins later may tell


class Attribution:
    """Belongs to one thread. A tick is begin_tick(), account() if there are rows, and add_counters()."""

    def __init__(self, unit_rows: Callable[[NDArray[np.uint64]], NDArray[np.int32]] | None = None) -> None:
        """unit_rows: cgroup ids -> unit_index of the flow table; None: there are no units."""
        self.usage = Usage()
        self._unit_rows = unit_rows
        self._waiting: list[_Batch] = []
        self._remainders = Remainders()
        self._bound = BoundCounters()
        self._census = Census()
        self._interfaces: Mapping[str, Collection[int]] = {}
        self._ports: dict[int, tuple[str, int]] = {}  # by ifindex
        self._only: tuple[str, int] | None = None  # the port, where there is just one
        self._told: Sequence[BoundCounter] = ()
        self._directory: Directory | None = None
        self._now = Now(monotonic_ns=0, wall=0.0, interval=0.0)
        self._asked = False

    def begin_tick(self, now: Now, census: Census, *, asked: bool) -> None:
        """asked: there will be a next census."""
        if census.holders is not self._census.holders:
            self._directory = None
        self._now, self._census, self._asked = now, census, asked
        self.usage.begin_tick(census)
        waiting, self._waiting = self._waiting, []
        for batch in waiting:
            waits = now.monotonic_ns - batch.read < _PATIENCE / _NANO
            if asked and waits and census.begun < batch.read:
                self._waiting.append(batch)
            else:
                found = self._find().find(batch.packets, batch.since)
                self.usage.add(found.who, batch.deltas, "wire")

    @property
    def waits(self) -> bool:
        """Whether anything is to be found out by the next census."""
        return bool(self._waiting)

    def account(self, packets: Packets, deltas: NDArray[np.uint64]) -> Owners:
        """Rows of RoCE and what they grew by in this tick (n, 8): roce.OwnersOf."""
        moved = deltas.any(axis=1)
        if moved.any():
            self._add(packets[moved], deltas[moved])
        return self._owners(packets)

    def _add(self, packets: Packets, deltas: NDArray[np.uint64]) -> None:
        for ifindex in np.unique(packets.ifindex).tolist():
            # At an interface that is no port's it may be any port above, see owners.Directory.
            if port := self._ports.get(ifindex, self._only):
                figures = deltas[packets.ifindex == ifindex, :4].sum(axis=0)
                self._remainders.attribute(port, figures)
        since = self._now.monotonic_ns * _NANO - self._now.interval
        found = self._find().find(packets, since)
        later = ~found.known & self._asked
        self.usage.add(found.who[~later], deltas[~later], "wire")
        if later.any():
            self._waiting.append(_Batch(packets[later], deltas[later], since, self._now.monotonic_ns))

    def _owners(self, packets: Packets) -> Owners:
        """Whose flows are: his who has the queue pair now, or had it last."""
        found = self._find().find(packets, np.inf)
        gone = ~found.known
        if gone.any():
            found.who[gone] = self._find().find(packets[gone], 0.0).who
        units = np.full(len(packets), -1, np.int32)
        ours = found.who["cgroup"] != 0
        if self._unit_rows and ours.any():
            units[ours] = self._unit_rows(found.who["cgroup"][ours])
        who = found.who
        return Owners(uid=who["uid"], pid=who["pid"], comm=who["comm"], unit_index=units)

    def _find(self) -> Directory:
        if self._directory is None:
            self._directory = Directory(self._census, self._interfaces)
        return self._directory

    def add_counters(
        self, ports: Sequence[RdmaPort], bound: Sequence[BoundCounter], index_of: Mapping[str, int]
    ) -> None:
        """A new reading of the devices.

        bound: the same object as before if they were not asked for since
        index_of: ifindexes of all interfaces by name
        """
        self._ports.clear()
        interfaces: dict[str, set[int]] = {}
        for port in ports:
            own = {port.ifindex, *(index_of.get(gid.netdev, 0) for gid in port.gids)} - {0}
            self._ports.update(dict.fromkeys(own, (port.device, port.port)))
            interfaces.setdefault(port.device, set()).update(own)
        self._only = (ports[0].device, ports[0].port) if len(ports) == 1 else None
        if interfaces != self._interfaces:
            self._interfaces, self._directory = interfaces, None
        if bound and bound is self._told:
            return  # what ports have counted meanwhile may be theirs
        self._told = bound
        for counter, figures in self._bound.update(bound):
            who = self._find().holder(counter.device, counter.qpns)
            self.usage.add(who, widened(figures[np.newaxis]), "device")
            self._remainders.attribute((counter.device, counter.port), figures)
        left = self._remainders.update(ports)
        if left.any():
            self.usage.add(NOBODY, widened(left[np.newaxis]), "device")

    # -- over restarts -------------------------------------------------------------------------------

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """All that was counted, by user; what waits for a census as if none came any more."""
        if not self._waiting:
            return self.usage.checkpoint()
        total = Usage()
        total.resume(self.usage.checkpoint())
        for batch in self._waiting:
            total.restore(Earlier(batch.packets.uid.tolist(), batch.deltas))
        return total.checkpoint()
