"""netmond's programs, their tables, and the programs they are compared with, loaded to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.programs import interface_unit, socket_unit
from netmond.kernel.tables import InterfaceTables, SocketTables
from netmond.kernel.unit import Program, Unit

SLOTS, PEERS = 65536, 16384
TARGETS, FORWARDED = 20_480, 16384

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Descriptors by name, and the tables of netmond's programs."""

    descriptors: dict[str, int]
    sockets: SocketTables
    interfaces: InterfaceTables
    socket_maps: Mapping[str, int]
    maps: dict[str, int]  # of our own C files


_EMPTY = Unit(
    source=str(_HERE / "empty.c"),
    defines={},
    programs=(
        Program(name="empty_cgroup", kind="CGROUP_SKB"),
        Program(name="empty_tc", kind="SCHED_CLS"),
        Program(name="empty_xdp", kind="XDP"),
    ),
    maps=(),
)
_NAIVE = Unit(
    source=str(_HERE / "naive.c"),
    defines={"FLOWS": SLOTS},
    programs=(
        Program(name="hash_tuple", kind="CGROUP_SKB"),
        Program(name="hash_process", kind="CGROUP_SKB"),
        Program(name="hash_tc", kind="SCHED_CLS"),
        Program(name="hash_xdp", kind="XDP"),
    ),
    maps=(),
)
#: Addresses that vary.c goes through: four times what a CPU remembers.
VARIED = 4096
_VARY = Unit(
    source=str(_HERE / "vary.c"),
    defines={"ADDRESSES": VARIED},
    programs=(
        *(Program(name=f"vary{family}_tc", kind="SCHED_CLS") for family in (4, 6)),
        *(Program(name=f"vary{family}_xdp", kind="XDP") for family in (4, 6)),
    ),
    maps=("next_tc", "next_xdp"),
)


def _compile(*units: Unit) -> list[Loaded]:
    return [compilation.result() for compilation in [Compilation(unit) for unit in units]]


def empty_programs() -> Mapping[str, int]:
    """Those that do nothing, for attachments."""
    (loaded,) = _compile(_EMPTY)
    return loaded.programs


@cache
def load() -> Programs:
    """All of them. They stay until this process ends."""
    units = (
        socket_unit(slots=SLOTS, peers=PEERS, cgroup=""),
        interface_unit(targets=TARGETS, forwarded=FORWARDED),
        _VARY,
        _NAIVE,
        _EMPTY,
    )
    loaded = meter, traffic, vary, *_ = _compile(*units)
    return Programs(
        descriptors={name: each for unit in loaded for name, each in unit.programs.items()},
        sockets=SocketTables.open(meter.maps, slots=SLOTS, peers=PEERS),
        interfaces=InterfaceTables.open(traffic.maps, targets=TARGETS, forwarded=FORWARDED),
        socket_maps=meter.maps,
        maps=dict(vary.maps),
    )
