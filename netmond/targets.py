"""The addresses and prefixes whose traffic is counted. Pure: the kernel's side is a protocol."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Now, PerCpu, rates_of
from netmond.errors import AlreadyExists, LimitExceeded, NoSuchTarget
from netmond.model import COUNTERS, RATES, Network, Table
from netmond.query import network_text

_FIELDS = ("in_packets", "in_bytes", "out_packets", "out_bytes")


class Tables(Protocol):
    """What the interface programs share about targets: kernel.tables.InterfaceTables, or a fake."""

    @property
    def target_counters(self) -> PerCpu: ...

    def set_target(self, network: Network, place: int) -> None: ...

    def unset_target(self, network: Network) -> None: ...

    def keep_targets(self, networks: Collection[Network]) -> None:
        """Takes all others out of the tries."""

    def announce_targets(self, ipv4: int, ipv6: int) -> None:
        """Tells the programs that the tries have changed, and how many targets there are now."""


class Targets:
    """The targets in force, and their counters since each was added or reset.

    Where prefixes overlap, the most specific one counts a packet, and no other does.
    """

    def __init__(self, tables: Tables, limit: int) -> None:
        self._tables = tables
        self.limit = min(limit, tables.target_counters.capacity)
        self._places: dict[Network, int] = {}
        self._since: dict[Network, float] = {}
        self._free = list(range(self.limit - 1, -1, -1))
        self._base = np.zeros((self.limit, len(_FIELDS)), np.uint64)
        self._previous = np.zeros_like(self._base)  # counters at the last tick, by place
        self._rates = np.zeros((self.limit, len(RATES)))
        self._addresses: NDArray[np.object_] | None = None  # of the last table, while they are right

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, network: Network) -> bool:
        return network in self._places

    @property
    def since(self) -> Mapping[Network, float]:
        """Every target, and since when (Unix seconds) it counts. A live view."""
        return self._since

    def add(self, networks: Sequence[Network], wall: float) -> None:
        """Counts for these from now on; all or none. AlreadyExists, LimitExceeded."""
        wanted = list(dict.fromkeys(networks))
        for network in wanted:
            if network in self._places:
                raise AlreadyExists(f"{network_text(network)} is a target already")
        if len(wanted) > len(self._free):
            raise LimitExceeded(
                f"at most {self.limit} targets, {len(self._places)} in use:"
                " remove some or raise [targets] limit"
            )
        added: list[Network] = []
        self._begin(self._free[len(self._free) - len(wanted) :])
        try:
            for network in wanted:
                place = self._free.pop()
                self._places[network] = place
                self._since[network] = wall
                added.append(network)
                self._tables.set_target(network, place)
        except BaseException:
            self._drop(added)
            raise
        self._announce()

    def restore(self, network: Network, since: float, counters: NDArray[np.uint64]) -> None:
        """Lets a target go on from the counters (the first four of model.COUNTERS) of an earlier run."""
        self._base[self._places[network]] -= counters[: len(_FIELDS)]
        self._since[network] = since

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """The targets, and what their counters began with."""
        places = self._used()
        return {
            "targets.network": np.array(self._texts().tolist(), "S"),
            "targets.place": places,
            "targets.since": np.fromiter(self._since.values(), np.float64, len(places)),
            "targets.base": self._base[places],
            "targets.previous": self._previous[places],
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same tables. There are no targets yet."""
        places = arrays["targets.place"].tolist()
        networks = [ip_network(text.decode()) for text in arrays["targets.network"].tolist()]
        self._places = dict(zip(networks, places, strict=True))
        self._since = dict(zip(networks, arrays["targets.since"].tolist(), strict=True))
        taken = set(places)
        self._free = [place for place in self._free if place not in taken]
        self._base[places] = arrays["targets.base"]
        self._previous[places] = arrays["targets.previous"]
        for network, place in self._places.items():
            self._tables.set_target(network, place)
        self._tables.keep_targets(self._places)
        self._announce()

    def remove(self, networks: Sequence[Network]) -> None:
        """Stops counting for these; all or none. NoSuchTarget."""
        self._check(networks)
        self._drop(dict.fromkeys(networks))

    def reset(self, networks: Sequence[Network], wall: float) -> None:
        """Begins again at zero; all or none. NoSuchTarget."""
        self._check(networks)
        self._begin([self._places[network] for network in networks])
        self._since |= dict.fromkeys(networks, wall)

    def table(self, now: Now) -> Table:
        """All targets as in model.Snapshot, by order of being added, at a tick: rates are taken anew."""
        places = self._used()
        if len(places):
            sums = self._sums(places)
            deltas = np.zeros((len(places), len(COUNTERS)), np.uint64)
            deltas[:, : len(_FIELDS)] = sums - self._previous[places]
            self._previous[places] = sums
            self._rates[places] = rates_of(deltas, now.interval)
        return self.current()

    def current(self) -> Table:
        """The same between two ticks: the counters of now, the rates of the last tick."""
        places = self._used()
        counters = np.zeros((len(places), len(COUNTERS)), np.uint64)
        if len(places):
            counters[:, : len(_FIELDS)] = self._sums(places) - self._base[places]
            counters[:, len(_FIELDS) :] = counters[:, : len(_FIELDS)]
        since = np.fromiter(self._since.values(), np.float64, len(self._since))
        columns: dict[str, NDArray[Any]] = {"address": self._texts(), "since": since}
        return Table(columns=columns, counters=counters, rates=self._rates[places])

    def _texts(self) -> NDArray[np.object_]:
        """The targets as people write them; thousands take long, so they are kept until they change."""
        if self._addresses is None:
            self._addresses = np.empty(len(self._places), object)
            self._addresses[:] = [network_text(network) for network in self._places]
        return self._addresses

    def _used(self) -> NDArray[np.intp]:
        return np.fromiter(self._places.values(), np.intp, len(self._places))

    def _sums(self, places: NDArray[np.intp]) -> NDArray[np.uint64]:
        return self._tables.target_counters.sums(int(places.max()) + 1)[places]

    def _begin(self, places: Sequence[int]) -> None:
        """Lets places count from zero."""
        if places:
            chosen = np.array(places, np.intp)
            self._base[chosen] = self._previous[chosen] = self._sums(chosen)
            self._rates[chosen] = 0

    def _check(self, networks: Iterable[Network]) -> None:
        for network in networks:
            if network not in self._places:
                raise NoSuchTarget(f"{network_text(network)} is no target: see netmonctl target list")

    def _drop(self, networks: Iterable[Network]) -> None:
        for network in networks:
            self._free.append(self._places.pop(network))
            del self._since[network]
            self._tables.unset_target(network)
        self._announce()

    def _announce(self) -> None:
        self._addresses = None
        ipv4 = sum(network.version == 4 for network in self._places)
        self._tables.announce_targets(ipv4, len(self._places) - ipv4)
