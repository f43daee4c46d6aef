"""What the interface programs add to every frame, in ns beyond an empty program.

BPF_PROG_TEST_RUN of interface_ingress, interface_egress and interface_xdp with 1,000 targets of each IP
version: IPv4 and IPv6, a TCP segment of 1,500 bytes and a UDP datagram of 64, to a target (known) or to an
address that is none (unknown), the same again and again, as in a flow. Scattered, the worst case: 4,096
destinations in turn (vary.c), four times what a CPU remembers, with 1,000 and with 10,000 targets; nearly
every frame searches the trie, the first destinations are the targets, the rest match none. Forwarded: a
frame that leaves and came in by another monitored interface, counted in the flow table.

Peer, in the same rounds, same hook: a hash by 5-tuple (naive.c), which knows neither targets nor
segmentation nor tags. The scattered ones are compared with one known target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from bench.frames import address, frame, target
from bench.loaded import Programs, load
from bench.record import progress
from bench.table import AtMost, Row
from bench.testrun import Run, beyond_empty, skb_context
from netmond.kernel import libbpf
from netmond.kernel.role import Role

BUDGET = AtMost(100)
_SOME, _MANY = 1_000, 10_000  # targets of each version
_PLACES = {"known": 7, "unknown": 1 << 20}
_REPEAT = 1 << 15
_LOOPBACK, _ELSEWHERE = 1, 7777  # interface indexes: where test runs happen, and one that need not exist
_ETHERNET = 14
_HOOKS = {"ingress": "tc", "egress": "tc", "xdp": "xdp"}
_NAIVE = "naive"

#: hook, IP version, protocol, and which address
_Key = tuple[str, int, str, str]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Pairs of a program's run and the empty one's."""

    programs: Programs
    targets: int  # of each version

    def of(self, hook: str, family: int, protocol: str, place: str) -> tuple[Run, Run]:
        """One address all the time; place: a key of _PLACES, or _NAIVE for the peer on a known one."""
        name = f"hash_{_HOOKS[hook]}" if place == _NAIVE else f"interface_{hook}"
        packet = frame(family, address(family, _PLACES.get(place, 7)), protocol)
        run = Run(program=self.programs.descriptors[name], frame=packet, prepare=self._announce)
        return run, replace(run, program=self._empty(hook))

    def scattered(self, hook: str, family: int) -> tuple[Run, Run]:
        """Another address each time."""
        kind = _HOOKS[hook]
        first = self.programs.descriptors[f"vary{family}_{kind}"]

        def prepare(program: int) -> None:
            self._announce()
            place, descriptor = np.zeros(1, np.uint32), np.array([program], np.uint32)
            libbpf.map_update(self.programs.maps[f"next_{kind}"], place, descriptor)

        whole, nothing = (
            Run(program=first, frame=frame(family, address(family, 0)), prepare=partial(prepare, program))
            for program in (self.programs.descriptors[f"interface_{hook}"], self._empty(hook))
        )
        return whole, nothing

    def _announce(self) -> None:
        self.programs.interfaces.announce_targets(self.targets, self.targets)

    def _empty(self, hook: str) -> int:
        return self.programs.descriptors["empty_xdp" if hook == "xdp" else "empty_tc"]


def _set_targets(programs: Programs, known: int, wanted: int) -> None:
    for number, family in product(range(known, wanted), (4, 6)):
        programs.interfaces.set_target(target(family, number), 2 * number + (family == 6))


def benchmark(quick: bool) -> list[Row]:
    """Times all programs with some targets, then the scattered ones with many."""
    programs = load()
    for place, ifindex in enumerate((_LOOPBACK, _ELSEWHERE)):
        programs.interfaces.set_port(ifindex, place, Role(link_header=_ETHERNET))
    rounds = 5 if quick else 25
    progress(f"interfaces: {_SOME:,} targets")
    _set_targets(programs, 0, _SOME)
    make = _Runs(programs, _SOME)
    keys = product(_HOOKS, (4, 6), ("TCP", "UDP"), (*_PLACES, _NAIVE))
    runs: dict[_Key, tuple[Run, Run]] = {key: make.of(*key) for key in keys}
    context = skb_context(ingress_ifindex=_ELSEWHERE)
    forwarded = "egress", 4, "TCP", "forwarded"
    whole, empty = make.of("egress", 4, "TCP", "unknown")
    runs[forwarded] = replace(whole, context=context), replace(empty, context=context)
    for hook, family in product(_HOOKS, (4, 6)):
        runs[_scattered(hook, family, _SOME)] = make.scattered(hook, family)
    costs = beyond_empty(runs, rounds=rounds, repeat=_REPEAT)
    _check(programs, _SOME)
    progress(f"interfaces: {_MANY:,} targets")
    _set_targets(programs, _SOME, _MANY)
    make = _Runs(programs, _MANY)
    runs = {
        _scattered(hook, family, _MANY): make.scattered(hook, family)
        for hook, family in product(_HOOKS, (4, 6))
    }
    costs |= beyond_empty(runs, rounds=rounds, repeat=_REPEAT)
    _check(programs, _MANY)
    return [_row(key, costs) for key in costs if key[-1] != _NAIVE]


def _scattered(hook: str, family: int, targets: int) -> _Key:
    return hook, family, "TCP", f"scattered over {targets:,}"


def _row(key: _Key, costs: Mapping[_Key, list[float]]) -> Row:
    hook, family, protocol, place = key
    known = "known" if place.startswith("scattered") else _NAIVE
    peer = costs[hook, family, protocol, known]
    return Row(
        what=f"interface, {hook}, IPv{family} {protocol}, {place}{' target' if place in _PLACES else ''}",
        samples=costs[key],
        unit="ns",
        against="hash by 5-tuple" if known == _NAIVE else "one known target",
        peer=peer,
        budget=BUDGET if place in _PLACES else None,
    )


def _check(programs: Programs, count: int) -> None:
    """What was timed has also counted: frames, and those of both kinds of targets, nothing lost."""
    tables = programs.interfaces
    found = tables.target_counters.sums(2 * count)[:, 0]
    if not tables.port_counters.sums(1).any() or not found[::2].any() or not found[1::2].any():
        raise RuntimeError(f"with {count} targets not everything was counted")
    if tables.losses.any():
        raise RuntimeError(f"with {count} targets something was lost: {tables.losses}")
