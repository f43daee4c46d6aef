"""What the meter adds to every packet of every socket, in ns beyond an empty program.

BPF_PROG_TEST_RUN of meter_ingress and meter_egress against an empty program: IPv4 and IPv6, a TCP segment of
1,500 bytes and a UDP datagram of 64. Each test run makes a socket of its own, which claims a slot with its
first packet and counts in it from then on. The super-packet is what a TCP sender hands down with
segmentation offload: 45 segments, headers read.

Peers, in the same rounds, same hook: hash_process, a hash per packet with process lookup, as tools that show
processes do it; and hash_tuple, an LRU per-CPU hash keyed by addresses, ports and protocol, which knows no
users (naive.c). Both find their row in a warm cache, as the meter does, and in a table of hardly any rows.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from bench.frames import address, frame
from bench.loaded import SLOTS, load
from bench.record import progress
from bench.table import AtMost, Row
from bench.testrun import Run, beyond_empty, skb_context
from netmond.kernel.tables import SocketTables

BUDGET = AtMost(50)
_REPEAT = 50_000
_MANNERS = tuple(product((4, 6), ("TCP", "UDP")))
_OURS = "meter_ingress", "meter_egress"
_PEERS = {"hash_process": "hash per packet with process lookup", "hash_tuple": "hash by 5-tuple"}
_FOLDED = "meter_egress", 4, "super-packet"


def benchmark(quick: bool) -> list[Row]:
    """Times the meter's two programs and both peers in turn."""
    progress("meter: a packet at a time")
    programs = load()
    runs = {}
    for name, (family, protocol) in product((*_OURS, *_PEERS), _MANNERS):
        run = Run(program=programs.descriptors[name], frame=frame(family, address(family, 7), protocol))
        runs[name, family, protocol] = run, replace(run, program=programs.descriptors["empty_cgroup"])
    context = skb_context(segments=45, segment=1448)
    whole, empty = runs["meter_egress", 4, "TCP"]
    runs[_FOLDED] = replace(whole, context=context), replace(empty, context=context)
    rounds = 9 if quick else 41
    before = _counted(programs.sockets)
    cost = beyond_empty(runs, rounds=rounds, repeat=_REPEAT)
    _check(programs.sockets, before, (1 + rounds) * _REPEAT)
    return [
        Row(
            what=f"{name.replace('_', ', ')}, IPv{family} {protocol}",
            samples=cost[name, family, protocol],
            unit="ns",
            against=said,
            peer=cost[peer, family, "TCP" if protocol == "super-packet" else protocol],
            budget=BUDGET if protocol != "super-packet" else None,
        )
        for name, family, protocol in runs
        for peer, said in _PEERS.items()
        if name in _OURS and (peer == "hash_process" or (family, protocol) == (4, "TCP"))
    ]


def _counted(tables: SocketTables) -> list[int]:
    slots = tables.slots.front(SLOTS)
    return [int((slots[side]["packets"] & 0xFFFFFFFF).sum()) for side in ("in", "out")]


def _check(tables: SocketTables, before: list[int], runs: int) -> None:
    """What was timed has also counted, each packet in a slot; once more to egress, for the super-packets."""
    counted = [now - then for now, then in zip(_counted(tables), before, strict=True)]
    if counted != [len(_MANNERS) * runs, (1 + len(_MANNERS)) * runs] or tables.losses.any():
        raise RuntimeError(f"{counted} packets were counted, in and out, in {runs:,} runs of each kind")
