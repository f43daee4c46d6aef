"""Accounts for what passed the monitored interfaces: totals, classes, forwarded flows. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now, PerCpu, rates_of
from netmond.aging import AgingRows
from netmond.errors import KernelError, LimitExceeded
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.kernel.role import Role
from netmond.model import COUNTERS, RATES, FlowKind, Table

_WORDS = wire.PORT_COUNTERS.itemsize // 8
_WAYS, _UNITS = ("in", "out"), ("packets", "bytes")

#: Names of the class columns of model.Snapshot.interfaces.
CLASS_COLUMNS = tuple(
    f"{direction}_{class_}_{unit}" for direction in _WAYS for class_ in wire.CLASSES for unit in _UNITS
)


def _words_of(field: str, length: int) -> NDArray[np.intp]:
    """The places of that many words from a field on, in each direction: (2 * length,)."""
    starts = [wire.word_of(wire.PORT_COUNTERS, direction, field) for direction in _WAYS]
    return np.add.outer(starts, np.arange(length)).reshape(-1)


_OF_CLASSES = _words_of("class", len(wire.CLASSES) * len(_UNITS))  # in the order of CLASS_COLUMNS
_OF_STACK = _words_of("stack_packets", len(_UNITS))
_ONCE = _words_of("once", len(_UNITS))


class Tables(Protocol):
    """What the interface programs share: kernel.tables.InterfaceTables, or arrays in a test."""

    @property
    def port_counters(self) -> PerCpu: ...

    @property
    def forwarded(self) -> Hash: ...

    def set_port(self, ifindex: int, place: int, role: Role) -> None: ...

    def unset_port(self, ifindex: int) -> None: ...

    def keep_ports(self, ifindexes: Collection[int]) -> None:
        """Stops counting for all others."""


class Ports:
    """The monitored interfaces, and their counters since monitoring began."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._places: dict[int, int] = {}
        self._roles: dict[int, Role] = {}
        self._extent = 0  # beyond it no place was ever used
        self._free = list(range(tables.port_counters.capacity - 1, -1, -1))
        self._base = np.zeros((tables.port_counters.capacity, _WORDS), np.uint64)
        self._previous: dict[int, NDArray[np.uint64]] = {}
        self._rates: dict[int, NDArray[np.float64]] = {}
        self._of_host = np.zeros((1, len(COUNTERS)), np.uint64)
        self._earlier_of_host = np.zeros((1, len(COUNTERS)), np.uint64)
        self._forwarded = AgingRows(tables.forwarded, "forwarded", wire.FORWARDED_KEY, wire.TALLY)

    def __contains__(self, ifindex: int) -> bool:
        return ifindex in self._places

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """The interfaces, and what their counters began with."""
        places = np.fromiter(self._places.values(), np.intp, len(self._places))
        zero = np.zeros(len(COUNTERS), np.uint64)
        previous = [self._previous.get(ifindex, zero) for ifindex in self._places]
        return {
            "ports.ifindex": np.fromiter(self._places, np.uint32, len(places)),
            "ports.place": places,
            "ports.base": self._base[places],
            "ports.previous": np.array(previous, np.uint64).reshape(len(places), len(COUNTERS)),
            "ports.extent": np.array([self._extent]),
            "ports.of_host": self._of_host,
            "ports.earlier_of_host": self._earlier_of_host,
            **self._forwarded.checkpoint(),
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same tables. No interface is open yet."""
        ifindexes, places = arrays["ports.ifindex"].tolist(), arrays["ports.place"].tolist()
        self._places = dict(zip(ifindexes, places, strict=True))
        self._free = [place for place in self._free if place not in places]
        self._base[places] = arrays["ports.base"]
        self._previous = dict(zip(ifindexes, arrays["ports.previous"], strict=True))
        self._extent = int(arrays["ports.extent"][0])
        self._of_host = arrays["ports.of_host"]
        self._earlier_of_host = arrays["ports.earlier_of_host"]
        self._forwarded.resume(arrays)
        self._tables.keep_ports(self._places)

    def include(self, other: Ports) -> None:
        """Lets counters go on from those of another, for the interfaces that both have."""
        before = other.current()
        for row, (ifindex, place) in enumerate(other._places.items()):
            if ifindex in self._places:
                self._base[self._places[ifindex]] -= other._grown([place])[0]
                self._previous[ifindex] = before.counters[row]
        self._earlier_of_host = self._earlier_of_host + other._host()
        self._of_host = other._of_host

    def open(self, ifindex: int, *, link_header: int, loopback: bool) -> None:
        """Counts for this interface from now on. LimitExceeded: too many."""
        if not self._free:
            raise LimitExceeded(f"at most {len(self._base)} interfaces can be monitored at a time")
        place = self._free.pop()
        self._base[place] = self._tables.port_counters.sums(place + 1)[place]
        try:
            self._tables.set_port(ifindex, place, Role(link_header=link_header, loopback=loopback))
        except KernelError:
            self._free.append(place)
            raise
        self._places[ifindex] = place
        self._extent = max(self._extent, place + 1)

    def close(self, ifindex: int) -> None:
        """Stops counting for this interface."""
        self._free.append(self._places.pop(ifindex))
        self._previous.pop(ifindex, None)
        self._rates.pop(ifindex, None)
        self._roles.pop(ifindex, None)
        self._tables.unset_port(ifindex)

    def arrange(self, roles: Mapping[int, Role]) -> None:
        """Tells the programs how the interfaces stand on each other now, see topology.roles()."""
        for ifindex in [index for index in self._roles if index not in roles]:
            del self._roles[ifindex]
            if ifindex not in self._places:
                self._tables.unset_port(ifindex)
        for ifindex, role in roles.items():
            if self._roles.get(ifindex) != role:
                self._tables.set_port(ifindex, self._places.get(ifindex, wire.NO_PLACE), role)
                self._roles[ifindex] = role

    def table(self, now: Now) -> Table:
        """All monitored interfaces as in model.Snapshot, at a tick: rates are taken anew."""
        columns, counters = self._counted()
        zero = np.zeros(len(COUNTERS), np.uint64)
        before = [self._previous.get(ifindex, zero) for ifindex in self._places]
        deltas = counters - np.array(before, np.uint64).reshape(counters.shape)
        rates = rates_of(deltas, now.interval)
        self._previous = dict(zip(self._places, counters, strict=True))
        self._rates = dict(zip(self._places, rates, strict=True))
        return Table(columns=columns, counters=counters, rates=rates)

    def current(self) -> Table:
        """The same between two ticks: the counters of now, the rates of the last tick."""
        columns, counters = self._counted()
        still = np.zeros(len(RATES))
        rates = np.array([self._rates.get(ifindex, still) for ifindex in self._places])
        return Table(columns=columns, counters=counters, rates=rates.reshape(-1, len(RATES)))

    def _counted(self) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint64]]:
        """Columns and counters of the table at this moment."""
        grown = self._grown(list(self._places.values()))
        classes = grown.T[_OF_CLASSES]
        exclusive = classes.reshape(len(_WAYS), len(wire.CLASSES), len(_UNITS), len(grown))
        counters = np.empty((len(grown), len(COUNTERS)), np.uint64)
        counters[:, : len(_ONCE)] = (
            exclusive[:, : wire.EXCLUSIVE_CLASSES].sum(axis=1).reshape(len(_ONCE), len(grown)).T
        )
        counters[:, len(_ONCE) :] = grown[:, _OF_STACK]
        ifindexes = np.array(list(self._places), np.uint32)
        return {"ifindex": ifindexes, **dict(zip(CLASS_COLUMNS, classes, strict=True))}, counters

    @property
    def crowded(self) -> bool:
        """Whether there are so many forwarded flows that their hash should be read often."""
        return self._forwarded.crowded

    def words(self) -> dict[int, NDArray[np.uint64]]:
        """What the programs counted for each interface since it is monitored: words of PORT_COUNTERS."""
        return dict(zip(self._places, self._grown(list(self._places.values())), strict=True))

    def host(self, now: Now) -> Table:
        """One row: each packet of the machine once. Rates are of the time since the last call."""
        before, self._of_host = self._of_host, self._host()
        return Table(
            columns={}, counters=self._of_host, rates=rates_of(self._of_host - before, now.interval)
        )

    def _host(self) -> NDArray[np.uint64]:
        """The sum of all places, whoever had them: what an interface counted stays when it goes."""
        once = self._tables.port_counters.sums(self._extent)[:, _ONCE].sum(axis=0)
        counters: NDArray[np.uint64] = self._earlier_of_host + np.concatenate([once, once])
        return counters

    def _grown(self, places: list[int]) -> NDArray[np.uint64]:
        """What places have counted since they were opened, as words of struct port_counters."""
        sums = self._tables.port_counters.sums(max(places, default=-1) + 1)
        return sums[places] - self._base[places]

    def add_forwarded(self, flows: FlowRows, now: Now) -> None:
        """Adds the forwarded flows; those silent for long leave the kernel's table, for good."""
        self._forwarded.read(now)
        keys = self._forwarded.keys
        if not len(keys):
            return
        flows.add(
            FlowKind.FORWARDED,
            self._forwarded.totals,
            self._forwarded.rates(now),
            protocol=keys["protocol"],
            local=keys["source"],
            remote=keys["destination"],
            local_port=keys["source_port"],
            remote_port=keys["destination_port"],
            **self._forwarded.columns(now),
        )
