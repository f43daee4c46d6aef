"""Accounts for what passed the monitored interfaces: totals, classes, forwarded flows. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now, PerCpu, Tallies, rates_of, row_ids
from netmond.errors import KernelError, LimitExceeded
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import COUNTERS, RATES, FlowKind, Table

_CROWDED = 7 / 8  # share of rows in use from which silent flows are given up sooner
_IDLE, _IDLE_IF_CROWDED = 120.0, 10.0  # seconds
_NANO = 1e-9
_WORDS = wire.PORT_COUNTERS.itemsize // 8

#: Names of the class columns of model.Snapshot.interfaces.
CLASS_COLUMNS = tuple(
    f"{direction}_{class_}_{unit}"
    for direction in ("in", "out")
    for class_ in wire.CLASSES
    for unit in ("packets", "bytes")
)


class Tables(Protocol):
    """What the interface programs share: kernel.tables.InterfaceTables, or arrays in a test."""

    @property
    def port_counters(self) -> PerCpu: ...

    @property
    def forwarded(self) -> Hash: ...

    def set_port(self, ifindex: int, place: int, *, link_header: int, loopback: bool) -> None: ...

    def unset_port(self, ifindex: int) -> None: ...


class Ports:
    """The monitored interfaces, and their counters since monitoring began."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._places: dict[int, int] = {}
        self._free = list(range(tables.port_counters.capacity - 1, -1, -1))
        self._base = np.zeros((tables.port_counters.capacity, _WORDS), np.uint64)
        self._previous: dict[int, NDArray[np.uint64]] = {}
        self._rates: dict[int, NDArray[np.float64]] = {}
        self._forwarded = Tallies()

    def __contains__(self, ifindex: int) -> bool:
        return ifindex in self._places

    def open(self, ifindex: int, *, link_header: int, loopback: bool) -> None:
        """Counts for this interface from now on. LimitExceeded: too many."""
        if not self._free:
            raise LimitExceeded(f"at most {len(self._base)} interfaces can be monitored at a time")
        place = self._free.pop()
        self._base[place] = self._tables.port_counters.sums(place + 1)[place]
        try:
            self._tables.set_port(ifindex, place, link_header=link_header, loopback=loopback)
        except KernelError:
            self._free.append(place)
            raise
        self._places[ifindex] = place

    def close(self, ifindex: int) -> None:
        """Stops counting for this interface."""
        self._free.append(self._places.pop(ifindex))
        self._previous.pop(ifindex, None)
        self._rates.pop(ifindex, None)
        self._tables.unset_port(ifindex)

    def table(self, now: Now) -> Table:
        """All monitored interfaces as in model.Snapshot, at a tick: rates are taken anew."""
        table = self.current()
        zero = np.zeros(len(COUNTERS), np.uint64)
        before = [self._previous.get(ifindex, zero) for ifindex in self._places]
        deltas = table.counters - np.array(before, np.uint64).reshape(table.counters.shape)
        self._previous = dict(zip(self._places, table.counters, strict=True))
        self._rates = dict(zip(self._places, rates_of(deltas, now.interval), strict=True))
        return self.current()

    def current(self) -> Table:
        """The same between two ticks: the counters of now, the rates of the last tick."""
        places = list(self._places.values())
        sums = self._tables.port_counters.sums(max(places, default=-1) + 1)
        grown = (sums[places] - self._base[places]).view(wire.PORT_COUNTERS).reshape(len(places))
        counters = np.zeros((len(places), len(COUNTERS)), np.uint64)
        columns: dict[str, NDArray[Any]] = {"ifindex": np.array(list(self._places), np.uint32)}
        for offset, direction in ((0, "in"), (2, "out")):
            side = grown[direction]
            classes = side["class"]
            counters[:, offset] = classes["packets"][:, : wire.EXCLUSIVE_CLASSES].sum(axis=1)
            counters[:, offset + 1] = classes["bytes"][:, : wire.EXCLUSIVE_CLASSES].sum(axis=1)
            counters[:, offset + 4] = side["stack_packets"]
            counters[:, offset + 5] = side["stack_bytes"]
            for number, name in enumerate(wire.CLASSES):
                for unit in ("packets", "bytes"):
                    columns[f"{direction}_{name}_{unit}"] = classes[unit][:, number].copy()
        still = np.zeros(len(RATES))
        rates = np.array([self._rates.get(ifindex, still) for ifindex in self._places])
        return Table(columns=columns, counters=counters, rates=rates.reshape(-1, len(RATES)))

    def add_forwarded(self, flows: FlowRows, now: Now) -> None:
        """Adds the forwarded flows; those silent for long leave the kernel's table, for good."""
        self._forwarded.update(*self._tables.forwarded.read())
        keys, values = self._forwarded.keys, self._forwarded.values
        if not len(keys):
            return
        crowded = len(keys) > self._tables.forwarded.capacity * _CROWDED
        idle = (now.monotonic_ns - values["last_seen"].astype(np.int64)) * _NANO
        done = idle > (_IDLE_IF_CROWDED if crowded else _IDLE)
        self._take(np.flatnonzero(done))
        flows.add(
            FlowKind.FORWARDED,
            self._forwarded.totals,
            rates_of(self._forwarded.deltas, now.interval),
            id=row_ids(keys),
            protocol=keys["protocol"],
            local=keys["source"],
            remote=keys["destination"],
            local_port=keys["source_port"],
            remote_port=keys["destination_port"],
            ifindex=keys["ifindex"],
            first_seen=now.wall_of(values["first_seen"]),
            last_seen=now.wall_of(values["last_seen"]),
            ended=done,
        )

    def _take(self, rows: NDArray[np.intp]) -> None:
        for row in rows.tolist():
            final = self._tables.forwarded.take(self._forwarded.keys[row : row + 1])
            if final is not None:
                self._forwarded.finish(row, final)
