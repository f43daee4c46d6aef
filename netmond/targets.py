"""The addresses and prefixes whose traffic is counted. Pure: the kernel's side is a protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Now, rates_of
from netmond.errors import AlreadyExists, LimitExceeded, NoSuchTarget
from netmond.model import COUNTERS, Network, Table

_FIELDS = ("in_packets", "in_bytes", "out_packets", "out_bytes")


class Tables(Protocol):
    """What the interface programs share about targets: kernel.tables.InterfaceTables, or a fake."""

    @property
    def target_counters(self) -> NDArray[Any]:
        """Shape (CPUs, capacity); they only ever grow."""

    def set_target(self, network: Network, place: int) -> None: ...

    def unset_target(self, network: Network) -> None: ...

    def announce_targets(self, ipv4: int, ipv6: int) -> None:
        """Tells the programs that the tries have changed, and how many targets there are now."""


@dataclass(slots=True)
class _Target:
    place: int
    since: float


def show(network: Network) -> str:
    """An address without its length if it is a single one, else address/length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


class Targets:
    """The targets in force, and their counters since each was added or reset.

    Where prefixes overlap, the most specific one counts a packet, and no other does.
    """

    def __init__(self, tables: Tables, limit: int) -> None:
        self._tables = tables
        self._limit = min(limit, tables.target_counters.shape[1])
        self._targets: dict[Network, _Target] = {}
        self._free = list(range(self._limit - 1, -1, -1))
        self._base = np.zeros((self._limit, len(_FIELDS)), np.uint64)
        self._previous: dict[Network, NDArray[np.uint64]] = {}

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, network: Network) -> bool:
        return network in self._targets

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(self._targets)

    def add(self, networks: Sequence[Network], wall: float) -> None:
        """Counts for these from now on; all or none. AlreadyExists, LimitExceeded."""
        wanted = list(dict.fromkeys(networks))
        for network in wanted:
            if network in self._targets:
                raise AlreadyExists(f"{show(network)} is a target already")
        if len(wanted) > len(self._free):
            raise LimitExceeded(
                f"at most {self._limit} targets, {len(self._targets)} are in use: remove some or raise [targets] limit"
            )
        added: list[Network] = []
        try:
            for network in wanted:
                place = self._free.pop()
                self._base[place] = self._read(place)
                self._targets[network] = _Target(place, wall)
                added.append(network)
                self._tables.set_target(network, place)
        except BaseException:
            self._drop(added)
            raise
        self._announce()

    def remove(self, networks: Sequence[Network]) -> None:
        """Stops counting for these; all or none. NoSuchTarget."""
        self._check(networks)
        self._drop(dict.fromkeys(networks))

    def reset(self, networks: Sequence[Network], wall: float) -> None:
        """Begins again at zero; all or none. NoSuchTarget."""
        self._check(networks)
        for network in networks:
            target = self._targets[network]
            self._base[target.place] = self._read(target.place)
            self._previous.pop(network, None)
            target.since = wall

    def table(self, now: Now) -> Table:
        """All targets as in model.Snapshot, by order of being added."""
        targets = list(self._targets.values())
        places = np.array([target.place for target in targets], np.intp)
        addresses = np.empty(len(targets), object)
        addresses[:] = [show(network) for network in self._targets]
        counters = np.zeros((len(targets), len(COUNTERS)), np.uint64)
        if len(places):
            highest = int(places.max()) + 1
            sums = self._sums(slice(0, highest))
            counters[:, : len(_FIELDS)] = sums[places] - self._base[places]
            counters[:, len(_FIELDS) :] = counters[:, : len(_FIELDS)]
        zero = np.zeros(len(COUNTERS), np.uint64)
        before = [self._previous.get(network, zero) for network in self._targets]
        deltas = counters - np.array(before, np.uint64).reshape(counters.shape)
        self._previous = dict(zip(self._targets, counters, strict=True))
        return Table(
            columns={"address": addresses, "since": np.array([target.since for target in targets])},
            counters=counters,
            rates=rates_of(deltas, now.interval),
        )

    def _check(self, networks: Iterable[Network]) -> None:
        for network in networks:
            if network not in self._targets:
                raise NoSuchTarget(f"{show(network)} is no target: see netmonctl target list")

    def _drop(self, networks: Iterable[Network]) -> None:
        for network in networks:
            target = self._targets.pop(network)
            self._previous.pop(network, None)
            self._tables.unset_target(network)
            self._free.append(target.place)
        self._announce()

    def _announce(self) -> None:
        ipv4 = sum(network.version == 4 for network in self._targets)
        self._tables.announce_targets(ipv4, len(self._targets) - ipv4)

    def _sums(self, places: slice) -> NDArray[np.uint64]:
        block = self._tables.target_counters[:, places]
        words = block.view(np.uint64).reshape(*block.shape, len(_FIELDS))
        sums: NDArray[np.uint64] = words.sum(axis=0, dtype=np.uint64)
        return sums

    def _read(self, place: int) -> NDArray[np.uint64]:
        sums: NDArray[np.uint64] = self._sums(slice(place, place + 1))[0]
        return sums
