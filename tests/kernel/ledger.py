"""The kernel's programs without the daemon: how often they ran, and what became of each packet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.devices import devices
from netmond.kernel.links import Attachment, attach_meter
from netmond.kernel.pins import Links
from netmond.kernel.programs import MAX_PORTS, interface_unit, socket_unit
from netmond.kernel.role import Role
from netmond.kernel.tables import InterfaceTables, SocketTables
from netmond.ports import Ports
from tests.kernel.capture import entered
from tests.kernel.deadline import eventually
from tests.kernel.machine import Cgroup, Namespace
from tests.kernel.run_counts import counting_runs, run_count

_ETHERNET = 14  # bytes of header
PAGE_OF_SLOTS = 4096 // wire.SLOT.itemsize


@dataclass(frozen=True, slots=True)
class Account:
    """A moment without packets: how often each program had run, and where packets were counted.

    `seen` is the kernel's own figure, by program; `counted` and `lost` are netmond's, in stack packets.
    """

    seen: Mapping[str, int]
    counted: Mapping[str, int]
    lost: Mapping[str, int]


class Ledger:
    """Loaded programs and their tables. `read` waits until no packet is under way."""

    def __init__(
        self, loaded: Loaded, counted: Callable[[], dict[str, int]], lost: Callable[[], dict[str, int]]
    ) -> None:
        self.programs, self.maps = loaded.programs, loaded.maps
        self.count, self.lost = counted, lost  #: what is in the tables at this moment

    def read(self) -> Account:
        def account() -> Account | None:
            found = self._now()
            return found if found == self._now() else None

        found = eventually(account, "no packet is under way")
        assert found is not None
        return found

    def _now(self) -> Account:
        seen = {name: run_count(program) for name, program in self.programs.items() if "_" in name}
        return Account(seen, self.count(), self.lost())


def _losses(names: tuple[tuple[str, str], ...], counts: NDArray[np.uint64]) -> dict[str, int]:
    return dict(zip((name.partition(".")[2] for name, _ in names), counts.tolist(), strict=True))


def _low(packets: NDArray[np.uint64]) -> int:
    """Stack packets: the low halves of the words that hold both kinds."""
    return int((packets & np.uint64(0xFFFFFFFF)).sum())


@contextmanager
def meter(
    cgroup: Cgroup, *, slots: int = 4096, peers: int = 1024, overflows: int = 64, **sizes: int
) -> Iterator[Ledger]:
    """The meter on a cgroup, with tables of these sizes; its slots are never given back."""
    unit = socket_unit(slots=slots, peers=peers, cgroup=cgroup.path)
    unit = replace(unit, defines={**unit.defines, "OVERFLOWS": overflows, **sizes})
    with counting_runs():
        loaded = Compilation(unit).result()
        tables = SocketTables.open(loaded.maps, slots=slots, peers=peers)
        every = np.arange(slots)

        def counted() -> dict[str, int]:
            rows = tables.slots.front(slots).copy()
            many = rows[tables.flows.take(every)["flags"] & wire.FLOW_UNCONNECTED != 0]
            found = {"unconnected": _low(many["in"]["packets"]) + _low(many["out"]["packets"])}
            for side in ("in", "out"):
                found[f"slots {side}"] = _low(rows[side]["packets"])
                found[f"overflow {side}"] = _low(tables.overflow.read()[1][f"{side}_packets"])
            tallies = tables.peers.read()[1]
            return found | {"peers": _low(tallies["in_packets"]) + _low(tallies["out_packets"])}

        with attach_meter(loaded.programs, cgroup.directory, Links()):
            yield Ledger(loaded, counted, lambda: _losses(wire.SOCKET_LOSSES, tables.losses))
        loaded.close()


class InterfaceLedger(Ledger):
    """The interface programs in a namespace; interfaces are put on and taken off by name."""

    def __init__(self, loaded: Loaded, tables: InterfaceTables, space: Namespace) -> None:
        super().__init__(loaded, self._sums, lambda: _losses(wire.INTERFACE_LOSSES, tables.losses))
        self._tables, self._ports, self._space = tables, Ports(tables), space
        self._attached: dict[str, Attachment] = {}

    def put_on(self, device: str, mode: str = "tc") -> None:
        """Counts what passes a device from now on."""
        with entered(self._space):
            (found,) = [each for each in devices().values() if each.info.name == device]
            self._ports.open(found.info.index, link_header=found.link_header, loopback=found.loopback)
            self._attached[device] = Attachment(self.programs, found.info.index, mode, Links())

    def forget(self, device: str, *, known: bool) -> None:
        """Takes a device off the list, while the programs still see its packets. known: others need it."""
        ifindex = self._space.index(device)
        self._ports.close(ifindex)
        if known:
            self._ports.arrange({ifindex: Role(link_header=_ETHERNET, loopback=False)})

    def take_off(self, device: str) -> None:
        """Detaches the programs from a device."""
        with entered(self._space):
            self._attached.pop(device).close()

    def close(self) -> None:
        """Detaches the programs from all of them."""
        for device in list(self._attached):
            self.take_off(device)

    def _sums(self) -> dict[str, int]:
        rows = self._tables.port_counters.sums(MAX_PORTS).view(wire.PORT_COUNTERS).reshape(MAX_PORTS)
        found = {side: int(rows[side]["stack_packets"].sum()) for side in ("in", "out")}
        for side in ("in", "out"):
            packets = rows[side]["class"]["packets"].sum(axis=0).tolist()
            found |= {f"{side} {name}": count for name, count in zip(wire.CLASSES, packets, strict=True)}
        found["forwarded"] = _low(self._tables.forwarded.read()[1]["out_packets"])
        roce = self._tables.roce.read()[1]["tally"]
        found["roce"] = _low(roce["in_packets"]) + _low(roce["out_packets"])
        return found


@contextmanager
def interfaces(space: Namespace, *, forwarded: int = 1024) -> Iterator[InterfaceLedger]:
    """The interface programs in a namespace, not on any interface yet."""
    with counting_runs(), ExitStack() as stack:
        loaded = Compilation(interface_unit(targets=1, forwarded=forwarded)).result()
        stack.callback(loaded.close)
        tables = InterfaceTables.open(loaded.maps, targets=1, forwarded=forwarded)
        ledger = InterfaceLedger(loaded, tables, space)
        stack.callback(ledger.close)
        yield ledger
