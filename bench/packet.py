"""What netmond adds to a small packet on its real way: sent and received over loopback, in CPU time.

A UDP socket sends 64 bytes, another receives them: the packet passes the meter's and the interface's egress
program, then both ingress programs. Around them runs the kernel's own code, some 4 µs of it, so that caches
are as cold as in life: this is what BPF_PROG_TEST_RUN leaves out. The figure is CPU time of the thread, on
one CPU, in turn with nothing attached (off), with empty programs at the same four places, and with netmond's
(exchange.py, in a network namespace and cgroup of its own). The receiver is connected, as a client is, or
not, as a server is: then its peers are counted one by one.

The budget is that of throughput: a sender bound by its CPU keeps 97 %. It is made for full-sized packets;
compare with the empty programs, whose hooks alone take more than that of one so small.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench.host import cgroup, inside, namespace
from bench.report import ROOT, Peer, Row, progress

BUDGET = 1.03
_PROGRAMS = 4


def benchmark(quick: bool) -> list[Row]:
    """Sends packets in all three states in turn, to both kinds of receiver."""
    rows: list[Row] = []
    for kind in ("connected", "unconnected"):
        progress(f"packet: {kind}")
        with namespace("packet") as space, cgroup() as group:
            argv = [sys.executable, "-m", "bench.exchange", str(group), kind, "9" if quick else "51"]
            argv = inside(argv, space=space, group=group)
            output = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        rows += _rows(kind, json.loads(output))
    return rows


def _rows(kind: str, found: dict[str, list[float]]) -> list[Row]:
    apart = [(on - empty) / _PROGRAMS for on, empty in zip(found["netmond"], found["empty"], strict=True)]
    return [
        Row(
            what=f"UDP packet over loopback, {kind} receiver",
            samples=found["netmond"],
            unit="ns",
            peers=[
                Peer(name="off", samples=found["off"]),
                Peer(name="empty programs", samples=found["empty"]),
            ],
            budget=BUDGET,
            budget_of_ratio=True,
        ),
        Row(what="a program's share of that, over an empty one", samples=apart, unit="ns"),
    ]
