"""Stand-ins for the kernel's tables: numpy arrays behind the protocols of the accounting modules."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Now, as_words
from netmond.errors import KernelError
from netmond.kernel import wire
from netmond.kernel.role import Role
from netmond.model import COUNTERS, RATES, Network, Table

SECOND = 1_000_000_000

#: How far the wall clock is ahead of the monotonic one, so that a test notices a mix-up.
WALL_AHEAD = 1_000_003.0


def moment(seconds: float, interval: float = 1.0) -> Now:
    """`seconds` on the monotonic clock."""
    return Now(monotonic_ns=round(seconds * SECOND), wall=WALL_AHEAD + seconds, interval=interval)


def address(text: str) -> NDArray[Any]:
    """A V16 column of one address as the kernel writes it, IPv4 mapped."""
    parsed = ip_address(text)
    packed = parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
    return np.frombuffer(packed, "V16")


def rows(table: Table, *names: str) -> list[tuple[Any, ...]]:
    """The named columns of a table row by row; counters go by their names too."""

    def column(name: str) -> list[Any]:
        if name in COUNTERS:
            return list(table.counters[:, COUNTERS.index(name)].tolist())
        if name in RATES:
            return list(table.rates[:, RATES.index(name)].tolist())
        return list(table.columns[name].tolist())

    return list(zip(*(column(name) for name in names), strict=True))


class Records:
    """An array shared with user space: meter.Records."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self.array = np.zeros(capacity, dtype)
        self.capacity = capacity
        self.fronts: list[int] = []  #: what was mapped, in order

    def front(self, length: int) -> NDArray[Any]:
        self.fronts.append(length)
        return self.array[:length]

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]:
        return self.array[places].copy()


class Hash:
    """A BPF hash: accounts.Hash. What happens meanwhile: `after_read` when it was read, `before_take` when a
    row is about to be taken."""

    def __init__(self, key: np.dtype[Any], value: np.dtype[Any], capacity: int) -> None:
        self._key, self._value = key, value
        self.capacity = capacity
        self.rows: dict[bytes, NDArray[Any]] = {}
        self.after_read: Callable[[], None] = lambda: None
        self.before_take: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, **fields: Any) -> NDArray[Any] | None:
        """The live value of a key, shape (1,), made if there is room."""
        key = np.zeros(1, self._key)
        for name, value in fields.items():
            key[name] = value
        packed = key.tobytes()
        if packed not in self.rows and len(self.rows) == self.capacity:
            return None
        return self.rows.setdefault(packed, np.zeros(1, self._value))

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        keys = np.frombuffer(b"".join(self.rows), self._key)
        values = np.concatenate([np.zeros(0, self._value), *self.rows.values()])
        self.after_read()
        return keys, values

    def take(self, key: NDArray[Any]) -> NDArray[Any] | None:
        self.before_take()
        return self.rows.pop(key.tobytes(), None)


class PerCpu:
    """Counters of all CPUs summed already: accounts.PerCpu."""

    def __init__(self, dtype: np.dtype[Any], capacity: int) -> None:
        self.array = np.zeros(capacity, dtype)
        self.capacity = capacity

    def sums(self, length: int) -> NDArray[np.uint64]:
        return as_words(self.array[:length].copy())


class Hooks:
    """The interface programs' side: ports.Tables and targets.Tables in one, as kernel.tables has it."""

    def __init__(self, *, ports: int = 8, targets: int = 8, forwarded: int = 8) -> None:
        self.port_counters = PerCpu(wire.PORT_COUNTERS, ports)
        self.target_counters = PerCpu(wire.TARGET_COUNTERS, targets)
        self.forwarded = Hash(wire.FORWARDED_KEY, wire.TALLY, forwarded)
        self.roce = Hash(wire.ROCE_KEY, wire.ROCE_TALLY, forwarded)
        self.ports: dict[int, tuple[int, int, bool]] = {}  #: ifindex -> place, link header, loopback
        self.roles: dict[int, tuple[int, int, bytes]] = {}  #: ifindex -> flags, master, its address
        self.targets: dict[Network, int] = {}
        self.announced: list[tuple[int, int]] = []
        self.refuse: set[object] = set()  #: networks and interface indexes that the kernel refuses

    def set_port(self, ifindex: int, place: int, role: Role) -> None:
        self._check(ifindex)
        self.ports[ifindex] = place, role.link_header, role.loopback
        self.roles[ifindex] = role.flags, role.master, role.address

    def unset_port(self, ifindex: int) -> None:
        self.ports.pop(ifindex, None)
        self.roles.pop(ifindex, None)

    def keep_ports(self, ifindexes: Collection[int]) -> None:
        self.ports = {ifindex: port for ifindex, port in self.ports.items() if ifindex in ifindexes}

    def set_target(self, network: Network, place: int) -> None:
        self._check(network)
        self.targets[network] = place

    def unset_target(self, network: Network) -> None:
        self.targets.pop(network, None)

    def keep_targets(self, networks: Collection[Network]) -> None:
        self.targets = {network: place for network, place in self.targets.items() if network in networks}

    def announce_targets(self, ipv4: int, ipv6: int) -> None:
        self.announced.append((ipv4, ipv6))

    def _check(self, key: object) -> None:
        if key in self.refuse:
            raise KernelError("cannot write a map: No space left on device")
