"""What a capture is made of in the kernel: bpf/capture.c, its tables, and the programs on interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import libbpf, wire
from netmond.kernel.programs import METER_OFFSETS, possible_cpus
from netmond.kernel.unit import Program, Unit

#: Interfaces of a session: a table size.
MAX_TAPS = 1024

#: Cgroups whose unit was asked about: a table size.
_CGROUPS = 65536

_HERE = np.ones(1, np.uint8)
#: Bytes of a process's name, without the NUL behind it (TASK_COMM_LEN): the kernel cuts longer ones.
_COMM = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose frames: any of each list; an empty one: everybody's."""

    users: tuple[int, ...] = ()
    units: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()  #: names as in proc_pid_comm(5)
    pids: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.users or self.units or self.processes or self.pids)


def capture_unit(
    *, ring: int, snaplen: int, filter_: str, wanted: Wanted, owners: bool, tickets: int | None
) -> Unit:
    """What to compile for a session.

    ring: bytes, a power of two and whole pages. snaplen: bytes kept of a frame. filter_: C of filter_source,
    empty: all frames. owners: it is asked whose frames are. tickets: the meter's socket storage, None: there
    is none.
    """
    sizes = {
        "USERS": len(wanted.users),
        "UNITS": _CGROUPS if wanted.units else 0,
        "PROCESSES": len(wanted.processes),
        "PIDS": len(wanted.pids),
    }
    flags = {
        "FILTER": bool(filter_),
        "OWNERS": owners or bool(wanted),
        "METERED": tickets is not None,
    }
    return Unit(
        source="capture.c",
        defines={
            "CPUS": possible_cpus(),
            "TAPS": MAX_TAPS,
            "RING": ring,
            "SNAPLEN": snaplen,
            **{name: size for name, size in sizes.items() if size},
            **{name: 1 for name, is_set in flags.items() if is_set},
        },
        programs=tuple(Program(name=f"capture_{way}", kind="SCHED_CLS") for way in ("ingress", "egress")),
        maps=("ring", "taps", *(name.lower() for name, size in sizes.items() if size)),
        preamble=filter_,
        shared={"owners": tickets} if tickets is not None else {},
        offsets=METER_OFFSETS,
    )


class CaptureTables:
    """The maps of bpf/capture.c."""

    def __init__(self, maps: Mapping[str, int], wanted: Wanted) -> None:
        """maps: descriptors by name, which stay the caller's.

        Who is wanted is told the programs here, but for units, see tell().
        """
        self._maps = maps
        self._cpus = possible_cpus()
        for name, keys in (
            ("users", np.array(wanted.users, np.uint32)),
            ("pids", np.array(wanted.pids, np.uint32)),
            ("processes", np.array([name.encode()[:_COMM] for name in wanted.processes], f"S{_COMM + 1}")),
        ):
            for place in range(len(keys)):
                libbpf.map_update(maps[name], keys[place : place + 1], _HERE)

    def add(self, ifindex: int, link_type: int) -> None:
        """Lets the programs capture from an interface; wire.LINK_*."""
        tap = np.zeros(self._cpus, wire.TAP)
        tap["link_type"] = link_type
        libbpf.map_update(self._maps["taps"], _key(ifindex), tap)

    def tell(self, cgroup: int, is_wanted: bool) -> None:
        """Whether a cgroup belongs to a unit that is wanted."""
        libbpf.map_update(
            self._maps["units"], np.array([cgroup], np.uint64), np.array([is_wanted], np.uint8)
        )

    def tapped(self, ifindexes: Iterable[int]) -> NDArray[Any]:
        """What became of the frames of each interface: wire.TAP, sums of all CPUs."""
        sums = [self._sum(ifindex) for ifindex in ifindexes]
        return np.array(sums, np.uint64).reshape(-1).view(wire.TAP)

    def _sum(self, ifindex: int) -> NDArray[np.uint64]:
        taps = np.zeros(self._cpus, wire.TAP)
        libbpf.map_lookup(self._maps["taps"], _key(ifindex), taps)
        total: NDArray[np.uint64] = taps.view(np.uint64).reshape(self._cpus, -1).sum(axis=0)
        return total


def _key(ifindex: int) -> NDArray[np.uint32]:
    return np.array([ifindex], np.uint32)
