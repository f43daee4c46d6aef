"""What the meter adds to every packet of every socket, in ns beyond an empty program.

BPF_PROG_TEST_RUN of meter_ingress and meter_egress on TCP/IPv4, 1,500 bytes, against meter_empty. Each test
run makes a socket of its own, which claims a slot with its first packet and counts in it from then on. The
super-packet is what a TCP sender hands down with segmentation offload: 45 segments, headers read.

Peers, in the same rounds, same hook: hash_tuple, an LRU per-CPU hash keyed by addresses, ports and protocol,
which knows no users; and hash_process, a hash per packet with process lookup, as tools that show processes
do it (naive.c). Both find their row in a warm cache, as the meter does, and in a table of hardly any rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.frames import address, frame
from bench.report import Peer, Row, progress
from bench.testrun import Run, beyond_empty, skb_context
from netmond.kernel.compile import Compilation, Program, Unit
from netmond.kernel.programs import socket_unit
from netmond.kernel.tables import SocketTables

BUDGET = 50.0
_REPEAT = 100_000
_SLOTS = 65536
_PEERS = 16384
_NAIVE = Unit(
    source=str(Path(__file__).with_name("naive.c")),
    defines={"FLOWS": _SLOTS},
    programs=(
        Program(name="hash_tuple", kind="CGROUP_SKB"),
        Program(name="hash_process", kind="CGROUP_SKB"),
    ),
    maps=(),
)


def benchmark(quick: bool) -> list[Row]:
    """Times the meter's two programs and both peers in turn."""
    unit = socket_unit(slots=_SLOTS, peers=_PEERS)
    empty = Program(name="meter_empty", kind="CGROUP_SKB")
    compilations = Compilation(replace(unit, programs=(*unit.programs, empty))), Compilation(_NAIVE)
    ours, naive = (compilation.result() for compilation in compilations)
    tables = SocketTables.open(ours.maps, slots=_SLOTS, peers=_PEERS)
    progress("meter: a packet at a time")
    packet = frame(4, address(4, 7))
    nothing = Run(program=ours.programs["meter_empty"], frame=packet)
    programs = {**ours.programs, **naive.programs}
    names = ("meter_ingress", "meter_egress", *naive.programs)
    runs = {name: (Run(program=programs[name], frame=packet), nothing) for name in names}
    folded = replace(runs["meter_egress"][0], context=skb_context(segments=45, segment=1448))
    runs["super-packet"] = folded, replace(nothing, context=folded.context)
    rounds = 9 if quick else 51
    cost = beyond_empty(runs, rounds=rounds, repeat=_REPEAT)
    _check(tables, (1 + rounds) * _REPEAT)
    ours.close()
    naive.close()
    peers = (
        Peer(name="hash by 5-tuple", samples=cost["hash_tuple"]),
        Peer(name="hash per packet with process lookup", samples=cost["hash_process"]),
    )
    return [
        Row(what="meter, ingress", samples=cost["meter_ingress"], unit="ns", budget=BUDGET, peers=peers),
        Row(what="meter, egress", samples=cost["meter_egress"], unit="ns", budget=BUDGET, peers=peers),
        Row(what="meter, egress, super-packet", samples=cost["super-packet"], unit="ns"),
    ]


def _check(tables: SocketTables, runs: int) -> None:
    """What was timed has also counted, each packet in a slot: egress twice, for the super-packets."""
    slots = tables.slots.front(_SLOTS)
    counted = [int((slots[side]["packets"] & 0xFFFFFFFF).sum()) for side in ("in", "out")]
    if counted != [runs, 2 * runs] or tables.losses.any():
        raise RuntimeError(f"of {runs:,} packets in and twice as many out {counted} were counted")
