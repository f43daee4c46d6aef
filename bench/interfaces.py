"""What the interface programs add to every frame, in ns beyond an empty program.

BPF_PROG_TEST_RUN of interface_ingress, interface_egress and interface_xdp on TCP, 1,500 bytes, with no,
1,000 and 10,000 targets of each IP version. Cached: one destination, a target seen before, as in a flow.
Uncached, the worst case: 4,096 destinations in turn (vary.c), four times what a CPU remembers, so that
nearly every frame searches the trie; the first of them are the targets, the rest match none. Forwarded: a
frame that leaves and came in by another monitored interface, counted in the flow table.

Peer: the same program without targets. The budget is for 1,000 targets, cached.
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
_COUNTS = (0, _BUDGETED, 10_000)
_CACHED, _UNCACHED = ", cached", ", uncached"
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
    ours: Loaded
    vary: Loaded

    def empty(self, direction: str) -> int:
        return (
            self.vary.programs["empty_xdp"] if direction == "xdp" else self.ours.programs["interface_empty"]
        )

    def cached(self, direction: str, family: int) -> tuple[Run, Run]:
        packet = frame(family, address(family, 7))
        run = Run(program=self.ours.programs[f"interface_{direction}"], frame=packet)
        return run, replace(run, program=self.empty(direction))

    def uncached(self, direction: str, family: int) -> tuple[Run, Run]:
        hook = "xdp" if direction == "xdp" else "tc"
        first = self.vary.programs[f"vary{family}_{hook}"]
        following = self.ours.programs[f"interface_{direction}"], self.empty(direction)
        whole, nothing = (
            Run(
                program=first,
                frame=frame(family, address(family, 0)),
                prepare=partial(_put, self.vary.maps[f"next_{hook}"], program),
            )
            for program in following
        )
        return whole, nothing

    def runs(self, count: int) -> dict[tuple[str, str], tuple[Run, Run]]:
        """What is timed with so many targets: (program and packet, how its target is found) -> runs."""
        runs: dict[tuple[str, str], tuple[Run, Run]] = {}
        for direction, family in product(_DIRECTIONS, (4, 6)):
            name = f"{direction}, IPv{family}"
            if count == 0:
                runs[name, ""] = self.cached(direction, family)
            else:
                runs[name, _CACHED] = self.cached(direction, family)
                runs[name, _UNCACHED] = self.uncached(direction, family)
        if count == 0:
            runs["forwarded, IPv4", ""] = self.forwarded()
        return runs

    def forwarded(self) -> tuple[Run, Run]:
        run, nothing = self.cached("egress", 4)
        context = skb_context(ingress_ifindex=_ELSEWHERE)
        return replace(run, context=context), replace(nothing, context=context)

    def close(self) -> None:
        self.ours.close()
        self.vary.close()


def _put(map_: int, program: int) -> None:
    libbpf.map_update(map_, np.zeros(1, np.uint32), np.array([program], np.uint32))


def _load() -> tuple[_Programs, InterfaceTables]:
    unit = interface_unit(targets=_LIMIT, forwarded=_FORWARDED)
    empty = Program(name="interface_empty", kind="SCHED_CLS")
    compilations = Compilation(replace(unit, programs=(*unit.programs, empty))), Compilation(_VARY)
    ours, vary = (compilation.result() for compilation in compilations)
    tables = InterfaceTables.open(ours.maps, targets=_LIMIT, forwarded=_FORWARDED)
    for place, ifindex in enumerate((_LOOPBACK, _ELSEWHERE)):
        tables.set_port(ifindex, place, link_header=_ETHERNET, loopback=False)
    return _Programs(ours=ours, vary=vary), tables


def benchmark(quick: bool) -> list[Row]:
    """Times all programs with more and more targets."""
    programs, tables = _load()
    rows: list[Row] = []
    without: dict[str, list[float]] = {}
    known = 0
    for count in _COUNTS:
        progress(f"interfaces: {count:,} targets")
        for number in range(known, count):
            for family in (4, 6):
                tables.set_target(target(family, number), 2 * number + (family == 6))
        known = count
        tables.announce_targets(count, count)
        costs = beyond_empty(programs.runs(count), rounds=5 if quick else 31, repeat=_REPEAT)
        _check(tables, count)
        without = without or {name: samples for (name, _), samples in costs.items()}
        rows += [_row(key, count, samples, without) for key, samples in costs.items()]
    programs.close()
    return rows


def _row(key: tuple[str, str], count: int, samples: list[float], without: Mapping[str, list[float]]) -> Row:
    name, manner = key
    return Row(
        what=f"interface {name}, {count:,} targets{manner}",
        samples=samples,
        unit="ns",
        peers=[Peer(name="no target", samples=without[name])] if count else [],
        budget=BUDGET if count == _BUDGETED and manner == _CACHED else None,
    )


def _check(tables: InterfaceTables, count: int) -> None:
    """What was timed has also counted: frames everywhere, targets where there are any, nothing lost."""
    frames = tables.port_counters.sums(1)
    found = tables.target_counters.sums(count)[:, 0] if count else np.zeros(1, np.uint64)
    if not frames.any() or bool(found.any()) != bool(count) or tables.losses.any():
        raise RuntimeError(f"with {count} targets not everything was counted: {tables.losses}")
