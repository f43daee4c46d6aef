"""What the interface programs add to every frame, in ns beyond an empty program.

BPF_PROG_TEST_RUN of interface_ingress, interface_egress and interface_xdp on TCP, 1,500 bytes, with no,
1,000 and 10,000 targets of each IP version. Cached: one destination, a target seen before, as in a flow.
Uncached, the worst case: 4,096 destinations in turn (vary.c), four times what a CPU remembers, so that
nearly every frame searches the trie; the first of them are the targets, the rest match none. Forwarded: a
frame that leaves and came in by another monitored interface, counted in the flow table.

Peer: the same program told of no targets, in turn. The budget is for 1,000 targets, cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from bench.frames import address, frame, target
from bench.report import Peer, Row, progress
from bench.testrun import Run, beyond_empty, skb_context
from netmond.kernel import libbpf
from netmond.kernel.compile import Compilation, Loaded, Program, Unit
from netmond.kernel.programs import interface_unit
from netmond.kernel.tables import InterfaceTables

BUDGET = 100.0
_BUDGETED = 1000  # targets
_COUNTS = (_BUDGETED, 10_000)
_NONE, _CACHED, _UNCACHED = "no target", "cached", "uncached"
_ADDRESSES = 4096
_REPEAT = 1 << 16
_LOOPBACK, _ELSEWHERE = 1, 7777  # interface indexes: where test runs happen, and one that need not exist
_ETHERNET = 14
_LIMIT = 2 * max(_COUNTS)
_FORWARDED = 16384
_DIRECTIONS = ("ingress", "egress", "xdp")
_VARY = Unit(
    source=str(Path(__file__).with_name("vary.c")),
    defines={"ADDRESSES": _ADDRESSES},
    programs=(
        *(Program(name=f"vary{family}_tc", kind="SCHED_CLS") for family in (4, 6)),
        *(Program(name=f"vary{family}_xdp", kind="XDP") for family in (4, 6)),
        Program(name="empty_xdp", kind="XDP"),
    ),
    maps=("next_tc", "next_xdp"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Programs:
    """The programs under test, those around them, and the tables of the former."""

    ours: Loaded
    vary: Loaded
    tables: InterfaceTables

    def cached(self, direction: str, family: int, targets: int) -> tuple[Run, Run]:
        """The program and the empty one on one packet, the program being told of so many targets."""
        packet = frame(family, address(family, 7))
        run = Run(program=self.ours.programs[f"interface_{direction}"], frame=packet)
        nothing = replace(run, program=self._empty(direction))
        return replace(run, prepare=partial(self.tables.announce_targets, targets, targets)), nothing

    def uncached(self, direction: str, family: int, targets: int) -> tuple[Run, Run]:
        """The same on another packet each time."""
        hook = "xdp" if direction == "xdp" else "tc"
        first = self.vary.programs[f"vary{family}_{hook}"]

        def prepare(program: int) -> None:
            self.tables.announce_targets(targets, targets)
            place, descriptor = np.zeros(1, np.uint32), np.array([program], np.uint32)
            libbpf.map_update(self.vary.maps[f"next_{hook}"], place, descriptor)

        whole, nothing = (
            Run(program=first, frame=frame(family, address(family, 0)), prepare=partial(prepare, program))
            for program in (self.ours.programs[f"interface_{direction}"], self._empty(direction))
        )
        return whole, nothing

    def forwarded(self) -> tuple[Run, Run]:
        """A packet that came in by another monitored interface."""
        run, nothing = self.cached("egress", 4, 0)
        context = skb_context(ingress_ifindex=_ELSEWHERE)
        return replace(run, context=context), replace(nothing, context=context)

    def _empty(self, direction: str) -> int:
        return (
            self.vary.programs["empty_xdp"] if direction == "xdp" else self.ours.programs["interface_empty"]
        )

    def close(self) -> None:
        self.ours.close()
        self.vary.close()


def _load() -> _Programs:
    unit = interface_unit(targets=_LIMIT, forwarded=_FORWARDED)
    empty = Program(name="interface_empty", kind="SCHED_CLS")
    compilations = Compilation(replace(unit, programs=(*unit.programs, empty))), Compilation(_VARY)
    ours, vary = (compilation.result() for compilation in compilations)
    tables = InterfaceTables.open(ours.maps, targets=_LIMIT, forwarded=_FORWARDED)
    for place, ifindex in enumerate((_LOOPBACK, _ELSEWHERE)):
        tables.set_port(ifindex, place, link_header=_ETHERNET, loopback=False)
    return _Programs(ours=ours, vary=vary, tables=tables)


def benchmark(quick: bool) -> list[Row]:
    """Times all programs with more and more targets, and told of none in turn."""
    programs = _load()
    rows: list[Row] = []
    known = 0
    for count in _COUNTS:
        progress(f"interfaces: {count:,} targets")
        for number, family in product(range(known, count), (4, 6)):
            programs.tables.set_target(target(family, number), 2 * number + (family == 6))
        known = count
        runs = {}
        for name in product(_DIRECTIONS, (4, 6)):
            runs[*name, _NONE] = programs.cached(*name, 0)
            runs[*name, _CACHED] = programs.cached(*name, count)
            runs[*name, _UNCACHED] = programs.uncached(*name, count)
        runs["forwarded", 4, _NONE] = programs.forwarded()
        costs = beyond_empty(runs, rounds=5 if quick else 31, repeat=_REPEAT)
        _check(programs.tables, count)
        rows += [_row(key, count, costs) for key in runs if key[-1] != _NONE or count == _BUDGETED]
    programs.close()
    return sorted(rows, key=lambda row: not row.what.endswith(_NONE))


def _row(key: tuple[str, int, str], count: int, costs: Mapping[tuple[str, int, str], list[float]]) -> Row:
    direction, family, manner = key
    targets = manner if manner == _NONE else f"{count:,} targets, {manner}"
    return Row(
        what=f"interface {direction}, IPv{family}, {targets}",
        samples=costs[key],
        unit="ns",
        peers=[Peer(name=_NONE, samples=costs[direction, family, _NONE])] if manner != _NONE else [],
        budget=BUDGET if count == _BUDGETED and manner == _CACHED else None,
    )


def _check(tables: InterfaceTables, count: int) -> None:
    """What was timed has also counted: frames, and those of both kinds of targets, nothing lost."""
    found = tables.target_counters.sums(2 * count)[:, 0]
    if not tables.port_counters.sums(1).any() or not found[::2].any() or not found[1::2].any():
        raise RuntimeError(f"with {count} targets not everything was counted")
    if tables.losses.any():
        raise RuntimeError(f"with {count} targets something was lost: {tables.losses}")
