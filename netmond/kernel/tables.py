"""The maps of the loaded programs as numpy arrays.

Arrays are mapped: reading them is reading memory. Hashes are read whole by batch system calls.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from netmond.errors import KernelError
from netmond.kernel import libbpf, wire
from netmond.kernel.prefilter import Prefilter
from netmond.kernel.programs import DETOURS, MAX_PORTS, OVERFLOWS, possible_cpus, target_capacity
from netmond.kernel.role import Role
from netmond.model import Network

_FILTER_WORDS = (1 << wire.FILTER_BITS) // 64

#: Room for entries that come while a table is read.
_SLACK = 256


def map_array(descriptor: int, dtype: DTypeLike, length: int, offset: int = 0) -> NDArray[Any]:
    """`length` elements of an mmap-able BPF array as a live, writable numpy array.

    offset: where they begin, in bytes, a multiple of the page size.
    """
    size = np.dtype(dtype).itemsize * length
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    try:
        memory = mmap.mmap(
            descriptor, pages, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset
        )
    except OSError as error:
        raise KernelError(f"cannot map a BPF array: {os.strerror(error.errno or 0)}") from error
    return np.frombuffer(memory, dtype, length)


class LongArray:
    """An mmap-able BPF array of which only the part in use is mapped: mapping one makes it resident.

    User space reads from the front; what lies behind stays the kernel's alone.
    """

    def __init__(self, descriptor: int, dtype: np.dtype[Any], capacity: int) -> None:
        self._descriptor = descriptor
        self._dtype = dtype
        self.capacity = capacity

    def front(self, length: int) -> NDArray[Any]:
        """The first `length` elements, live and writable."""
        return map_array(self._descriptor, self._dtype, length)

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]:
        """Copies of some elements. The pages around them are mapped just for that."""
        if not len(places):
            return np.zeros(0, self._dtype)
        size = self._dtype.itemsize
        first, last = int(places.min()), int(places.max())
        start = first * size // mmap.PAGESIZE * mmap.PAGESIZE
        length = -(-((last + 1) * size - start) // mmap.PAGESIZE) * mmap.PAGESIZE
        with mmap.mmap(self._descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=start) as memory:
            whole = np.frombuffer(memory, self._dtype, last + 1 - first, first * size - start)
            taken: NDArray[Any] = whole[places - first]
            del whole  # or the mapping could not be closed
        return taken


class CpuArray:
    """Counters laid out CPU by CPU in an mmap-able array; of each CPU's only the front is mapped.

    capacity: elements for each CPU; all together must fill whole pages.
    """

    def __init__(self, descriptor: int, dtype: np.dtype[Any], cpus: int, capacity: int) -> None:
        self._descriptor = descriptor
        self._dtype = dtype
        self._cpus = cpus
        self._windows: list[NDArray[np.uint64]] = []
        self._mapped = 0
        self.capacity = capacity

    def sums(self, length: int) -> NDArray[np.uint64]:
        """The first `length` elements summed over all CPUs, as rows of u8 words."""
        words = self._dtype.itemsize // 8
        total = np.zeros((length, words), np.uint64)
        if length > self._mapped:
            self._map(length)
        for window in self._windows:
            total += window[:length]
        return total

    def _map(self, length: int) -> None:
        per_page = mmap.PAGESIZE // self._dtype.itemsize
        self._mapped = min(-(-length // per_page) * per_page, self.capacity)
        size = self._mapped * self._dtype.itemsize
        self._windows = [
            map_array(
                self._descriptor, np.uint64, size // 8, offset=cpu * self.capacity * self._dtype.itemsize
            ).reshape(self._mapped, -1)
            for cpu in range(self._cpus)
        ]


class HashTable:
    """A BPF hash whose keys and values have the given layouts."""

    def __init__(self, descriptor: int, key: np.dtype[Any], value: np.dtype[Any], capacity: int) -> None:
        self._descriptor = descriptor
        self._keys = np.zeros(capacity + _SLACK, key)
        self._values = np.zeros(capacity + _SLACK, value)
        self.capacity = capacity

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """All entries, as copies: keys and values of equal length, in no order."""
        count = libbpf.map_read(self._descriptor, self._keys, self._values)
        return self._keys[:count].copy(), self._values[:count].copy()

    def take(self, key: NDArray[Any]) -> NDArray[Any] | None:
        """Removes an entry and returns its final value, shape (1,); None: it was not there."""
        value = np.zeros(1, self._values.dtype)
        return value if libbpf.map_take(self._descriptor, key, value) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SocketTables:
    """What bpf/sockets.c shares; see wire.py for the layouts."""

    slots: LongArray
    flows: LongArray
    losses: NDArray[np.uint64]
    settings: NDArray[np.uint64]
    peers: HashTable
    overflow: HashTable
    detours: HashTable
    free_slots: int  #: descriptor of the stack

    @staticmethod
    def open(maps: Mapping[str, int], *, slots: int, peers: int, fresh: bool = True) -> SocketTables:
        """Maps the arrays. If they are fresh, fills the stack of free slots, the lowest on top."""
        tables = SocketTables(
            slots=LongArray(maps["slots"], wire.SLOT, slots),
            flows=LongArray(maps["flows"], wire.FLOW, slots),
            losses=map_array(maps["losses"], np.uint64, len(wire.SOCKET_LOSSES)),
            settings=map_array(maps["settings"], np.uint64, wire.SETTINGS),
            peers=HashTable(maps["peers"], wire.PEER_KEY, wire.TALLY, peers),
            overflow=HashTable(maps["overflow"], wire.OVERFLOW_KEY, wire.TALLY, OVERFLOWS),
            detours=HashTable(maps["detours"], wire.DETOUR_KEY, wire.TALLY, DETOURS),
            free_slots=maps["free_slots"],
        )
        if fresh:
            tables.give_back(np.arange(slots - 1, -1, -1, dtype=np.uint32))
        return tables

    def count_interfaces_of(self, netns: int) -> None:
        """Tells the programs whose interface numbers mean something here: the cookie of a namespace."""
        self.settings[wire.SETTING_NETNS] = netns

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        """Makes slots free for new sockets, and sockets without one look again."""
        libbpf.map_push(self.free_slots, slots)
        self.settings[wire.SETTING_EPOCH] += 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class InterfaceTables:
    """What bpf/interfaces.c shares; see wire.py for the layouts."""

    port_counters: CpuArray
    target_counters: CpuArray
    losses: NDArray[np.uint64]
    settings: NDArray[np.uint64]
    forwarded: HashTable
    roce: HashTable
    filter4: Prefilter
    filter6: Prefilter
    ports: int  #: descriptors, as the two below
    targets4: int
    targets6: int

    @staticmethod
    def open(maps: Mapping[str, int], *, targets: int, forwarded: int) -> InterfaceTables:
        """forwarded: room for as many forwarded flows, and as many of RoCE."""
        cpus = possible_cpus()
        words = map_array(maps["target_filter"], np.uint64, 2 * _FILTER_WORDS)
        return InterfaceTables(
            port_counters=CpuArray(maps["port_counters"], wire.PORT_COUNTERS, cpus, MAX_PORTS),
            target_counters=CpuArray(
                maps["target_counters"], wire.TARGET_COUNTERS, cpus, target_capacity(targets)
            ),
            losses=map_array(maps["losses"], np.uint64, len(wire.INTERFACE_LOSSES)),
            settings=map_array(maps["settings"], np.uint64, wire.SETTINGS),
            forwarded=HashTable(maps["forwarded"], wire.FORWARDED_KEY, wire.TALLY, forwarded),
            roce=HashTable(maps["roce"], wire.ROCE_KEY, wire.ROCE_TALLY, forwarded),
            filter4=Prefilter(words[:_FILTER_WORDS]),
            filter6=Prefilter(words[_FILTER_WORDS:]),
            ports=maps["ports"],
            targets4=maps["targets4"],
            targets6=maps["targets6"],
        )

    def set_port(self, ifindex: int, place: int, role: Role) -> None:
        """Lets the programs count for an interface, or with wire.NO_PLACE know of it."""
        flags = role.flags | (wire.PORT_LOOPBACK | wire.PORT_ECHO if role.loopback else 0)
        fields = place, flags, role.link_header, role.master, list(role.address), 0
        port = np.array([fields], wire.PORT)
        libbpf.map_update(self.ports, np.array([ifindex], np.uint32), port)
        self._forget()

    def unset_port(self, ifindex: int) -> None:
        libbpf.map_delete(self.ports, np.array([ifindex], np.uint32))
        self._forget()

    def keep_ports(self, ifindexes: Collection[int]) -> None:
        """Stops counting for all other interfaces."""
        for key in libbpf.map_keys(self.ports, np.zeros(1, np.uint32)):
            ifindex = int.from_bytes(key, sys.byteorder)
            if ifindex not in ifindexes:
                self.unset_port(ifindex)

    def set_target(self, network: Network, place: int) -> None:
        """Lets the programs count for a prefix; announce_targets() makes it certain."""
        self._filter(network).add(network)
        libbpf.map_update(self._trie(network), _trie_key(network), np.array([place], np.uint32))

    def unset_target(self, network: Network) -> None:
        libbpf.map_delete(self._trie(network), _trie_key(network))
        self._filter(network).remove(network)

    def keep_targets(self, networks: Collection[Network]) -> None:
        """Takes all other prefixes out of the tries."""
        wanted = {_trie_key(network).tobytes() for network in networks}
        for trie, size in ((self.targets4, 8), (self.targets6, 20)):
            for key in libbpf.map_keys(trie, np.zeros(size, np.uint8)):
                if key not in wanted:
                    libbpf.map_delete(trie, np.frombuffer(key, np.uint8))

    def announce_targets(self, ipv4: int, ipv6: int) -> None:
        """Tells the programs how many targets there are, and to look for them anew."""
        self.settings[wire.SETTING_TARGETS4] = ipv4
        self.settings[wire.SETTING_TARGETS6] = ipv6
        self._forget()

    def _forget(self) -> None:
        """Empties the programs' memory of earlier look-ups."""
        self.settings[wire.SETTING_EPOCH] += 1

    def _filter(self, network: Network) -> Prefilter:
        return self.filter4 if network.version == 4 else self.filter6

    def _trie(self, network: Network) -> int:
        return self.targets4 if network.version == 4 else self.targets6


def _trie_key(network: Network) -> NDArray[np.uint8]:
    """struct bpf_lpm_trie_key: the length, then the address."""
    key = network.prefixlen.to_bytes(4, sys.byteorder) + network.network_address.packed
    return np.frombuffer(key, np.uint8)
