"""What it costs a packet to be logged, in ns beyond the meter that does not log.

BPF_PROG_TEST_RUN of meter_egress, IPv4 TCP, beyond an empty program. Logged: a row in a ring of 8 MiB that
was just read. Ring full: what it costs to count the packet as lost. Left out: not drawn into a sample of one
in a million. Somebody else: packets of another user are logged. Peer, in the same rounds: the meter without
a ring.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.frames import address, frame
from bench.loaded import load
from bench.record import progress
from bench.table import AtMost, Row
from bench.testrun import Run, beyond_empty
from netmond.kernel import wire
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.ring import Ring

BUDGET = AtMost(50)
_REPEAT = 50_000
_SIZE, _SMALLEST = 1 << 23, 4096
_SOMEBODY = 4242  # whose sockets no test run has


@dataclass(frozen=True, slots=True)
class _State:
    """How packets are logged while a program is timed."""

    what: str
    user: int
    every: int
    size: int


_STATES = (
    _State("logged", wire.EVERYONE, 1, _SIZE),
    _State("logged, ring full", wire.EVERYONE, 1, _SMALLEST),
    _State("logged, left out of the sample", wire.EVERYONE, 1_000_000, _SIZE),
    _State("logged is somebody else", _SOMEBODY, 1, _SIZE),
)


def benchmark(quick: bool) -> list[Row]:
    """Times the meter in each of these states, and without a ring."""
    progress("logged: a packet at a time")
    programs = load()
    tables = PacketLogTables.open(programs.socket_maps)
    if tables is None:
        raise RuntimeError("this kernel cannot log packets")
    rings = {size: Ring.create(size) for size in (_SIZE, _SMALLEST)}
    run = Run(program=programs.descriptors["meter_egress"], frame=frame(4, address(4, 7), "TCP"))
    empty = replace(run, program=programs.descriptors["empty_cgroup"])
    off = replace(run, prepare=tables.stop)
    runs = {"off": (off, empty)}
    for state in _STATES:
        runs[state.what] = replace(run, prepare=_preparation(tables, state, rings[state.size])), empty
    try:
        cost = beyond_empty(runs, rounds=9 if quick else 41, repeat=_REPEAT)
        _check(tables, rings[_SIZE])
    finally:
        tables.stop()
        for ring in rings.values():
            os.close(ring)
    return [
        Row(
            what=f"{state.what}, egress, IPv4 TCP",
            samples=cost[state.what],
            unit="ns",
            against="not logged",
            peer=cost["off"],
            budget=BUDGET if state.what == "logged is somebody else" else None,
        )
        for state in _STATES
    ]


def _preparation(tables: PacketLogTables, state: _State, descriptor: int) -> Callable[[], None]:
    """What brings the kernel into a state."""
    ring = Ring.open(descriptor)

    def prepare() -> None:
        for state_ in _STATES:
            tables.remove(state_.user)
        tables.set(state.user, state.every)
        tables.start(descriptor)
        if state.size == _SIZE:
            ring.read(_SIZE)
            ring.release()

    return prepare


def _check(tables: PacketLogTables, descriptor: int) -> None:
    """What was timed has also been logged, or is known to be missing."""
    _, missing = tables.unlogged()
    lost, skipped = (int(missing[what]["out_packets"].sum()) for what in ("lost", "skipped"))
    if not lost or not skipped:
        raise RuntimeError(f"{lost} packets were lost and {skipped} left out: not what was to be timed")
