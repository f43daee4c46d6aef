"""The maps of a build that was replaced, as tables of today's layouts: copies, nothing changes any more."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel import libbpf, wire
from netmond.kernel.layout import Layout
from netmond.kernel.pins import Generation
from netmond.kernel.role import Role
from netmond.kernel.tables import HashTable, LongArray, map_array
from netmond.model import Network


def layouts(**dtypes: np.dtype[Any]) -> dict[str, Any]:
    """Layouts by name, for from_json() of a later version."""
    return {name: Layout.of(dtype).to_json() for name, dtype in dtypes.items()}


SOCKET_LAYOUTS = layouts(slot=wire.SLOT, flow=wire.FLOW, overflow_key=wire.OVERFLOW_KEY, tally=wire.TALLY)
INTERFACE_LAYOUTS = layouts(
    port_counters=wire.PORT_COUNTERS,
    target_counters=wire.TARGET_COUNTERS,
    roce_key=wire.ROCE_KEY,
    roce_tally=wire.ROCE_TALLY,
    tally=wire.TALLY,
)


@dataclass(frozen=True, slots=True, eq=False)
class Former:
    """A build that was replaced: its description, and what of its counts was accounted for already."""

    generation: Generation
    about: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def layouts(self, *names: str) -> list[Layout]:
        return [Layout.from_json(self.about["layouts"][name]) for name in names]

    def sizes(self, *names: str) -> list[int]:
        return [int(self.about["defines"][name]) for name in names]

    def open(self, *names: str) -> dict[str, int]:
        """Descriptors of its maps."""
        opened: dict[str, int] = {}
        try:
            for name in names:
                opened[name] = libbpf.open_pin(self.generation.path / "maps" / name)
        except KernelError:
            for descriptor in opened.values():
                os.close(descriptor)
            raise
        return opened

    def losses(self) -> NDArray[np.uint64]:
        """Its ledger's counts."""
        maps = self.open("losses")
        try:
            return map_array(maps["losses"], np.uint64, len(self.arrays["ledger.names"])).copy()
        finally:
            os.close(maps["losses"])


class _Records:
    """A long array in another layout."""

    def __init__(self, descriptor: int, capacity: int, layout: Layout, dtype: np.dtype[Any]) -> None:
        self._array = LongArray(descriptor, np.dtype(f"V{layout.size}"), capacity)
        self._layout, self._dtype = layout, dtype
        self.capacity = capacity

    def front(self, length: int) -> NDArray[Any]:
        return self._layout.convert(self._array.front(length), self._dtype)

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]:
        return self.front(int(places.max()) + 1)[places] if len(places) else np.zeros(0, self._dtype)


class _Rows:
    """What a hash held; or one that held nothing."""

    capacity = 1

    def __init__(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        self._keys, self._values = keys, values

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self._keys, self._values

    def take(self, key: NDArray[Any]) -> NDArray[Any] | None:
        return None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The layouts of a hash then and now: of keys, and of values."""

    key: Layout
    value: Layout
    key_now: np.dtype[Any]
    value_now: np.dtype[Any]

    def read(self, descriptor: int, capacity: int) -> _Rows:
        """What the hash holds."""
        raw = np.dtype(f"V{self.key.size}"), np.dtype(f"V{self.value.size}")
        keys, values = HashTable(descriptor, *raw, capacity).read()
        return _Rows(self.key.convert(keys, self.key_now), self.value.convert(values, self.value_now))

    def kept(self, arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
        """What a checkpoint has of its rows, as arrays that begin with a name."""
        return {
            f"{name}.keys": self.key.convert(arrays[f"{name}.keys"], self.key_now),
            f"{name}.values": self.value.convert(arrays[f"{name}.values"], self.value_now),
        }


class _CpuSums:
    """Counters of all CPUs in another layout."""

    def __init__(
        self, descriptor: int, cpus: int, capacity: int, layout: Layout, dtype: np.dtype[Any]
    ) -> None:
        whole = map_array(descriptor, f"V{layout.size}", cpus * capacity)
        self._by_cpu = layout.convert(whole, dtype).view(np.uint64).reshape(cpus, capacity, -1)
        self.capacity = capacity

    def sums(self, length: int) -> NDArray[np.uint64]:
        total: NDArray[np.uint64] = self._by_cpu[:, :length].sum(axis=0)
        return total


class FormerSockets:
    """meter.Tables of a build of sockets.c, and its meter's checkpoint.

    Peers and detours are left out: what they did is in their sockets' slots as well.
    """

    def __init__(self, former: Former) -> None:
        """KernelError: the maps are not there any more."""
        slot, flow, key, tally = former.layouts("slot", "flow", "overflow_key", "tally")
        capacity, overflows = former.sizes("SLOTS", "OVERFLOWS")
        self.losses = former.losses()
        self._maps = former.open("slots", "flows", "overflow")
        self.slots = _Records(self._maps["slots"], capacity, slot, wire.SLOT)
        self.flows = _Records(self._maps["flows"], capacity, flow, wire.FLOW)
        overflow = _Pair(key, tally, wire.OVERFLOW_KEY, wire.TALLY)
        self.overflow = overflow.read(self._maps["overflow"], overflows)
        self.peers = _Rows(np.zeros(0, wire.PEER_KEY), np.zeros(0, wire.TALLY))
        self.detours = _Rows(np.zeros(0, wire.DETOUR_KEY), np.zeros(0, wire.TALLY))
        self.arrays = {
            **{name: array for name, array in former.arrays.items() if not name.startswith("peers.")},
            **overflow.kept(former.arrays, "overflow"),
        }

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        """Nobody takes them any more."""

    def close(self) -> None:
        for descriptor in self._maps.values():
            os.close(descriptor)


class FormerInterfaces:
    """ports.Tables and targets.Tables of a build of interfaces.c, of which only the counters are left; and
    what it had of RoCE, if it knew that."""

    def __init__(self, former: Former) -> None:
        """KernelError: the maps are not there any more."""
        port, target = former.layouts("port_counters", "target_counters")
        cpus, ports, targets = former.sizes("CPUS", "PORTS", "TARGETS")
        self.losses = former.losses()
        maps = former.open("port_counters", "target_counters")
        try:
            self.port_counters = _CpuSums(maps["port_counters"], cpus, ports, port, wire.PORT_COUNTERS)
            self.target_counters = _CpuSums(
                maps["target_counters"], cpus, targets, target, wire.TARGET_COUNTERS
            )
        finally:
            for descriptor in maps.values():
                os.close(descriptor)
        self.forwarded = _Rows(np.zeros(0, wire.FORWARDED_KEY), np.zeros(0, wire.TALLY))
        self.roce = _Rows(np.zeros(0, wire.ROCE_KEY), np.zeros(0, wire.ROCE_TALLY))
        base = port.convert(former.arrays["ports.base"].reshape(-1), wire.PORT_COUNTERS)
        self.arrays = {
            **{name: array for name, array in former.arrays.items() if not name.startswith("forwarded.")},
            "ports.base": base.view(np.uint64).reshape(-1, wire.PORT_COUNTERS.itemsize // 8),
        }
        if "roce_key" in former.about["layouts"]:
            self._take_roce(former)

    def _take_roce(self, former: Former) -> None:
        key, row, tally = former.layouts("roce_key", "roce_tally", "tally")
        (capacity,) = former.sizes("FORWARDED")
        maps = former.open("roce")
        try:
            self.roce = _Pair(key, row, wire.ROCE_KEY, wire.ROCE_TALLY).read(maps["roce"], capacity)
        finally:
            os.close(maps["roce"])
        self.arrays |= _Pair(key, tally, wire.ROCE_KEY, wire.TALLY).kept(former.arrays, "roce")

    def set_port(self, ifindex: int, place: int, role: Role) -> None:
        """As all below: nothing is counted here any more."""

    def unset_port(self, ifindex: int) -> None: ...

    def keep_ports(self, ifindexes: Collection[int]) -> None: ...

    def set_target(self, network: Network, place: int) -> None: ...

    def unset_target(self, network: Network) -> None: ...

    def keep_targets(self, networks: Collection[Network]) -> None: ...

    def announce_targets(self, ipv4: int, ipv6: int) -> None: ...
