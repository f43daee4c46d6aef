"""What netmond adds to a small packet on its real way: sent and received over loopback, in CPU time.

A UDP socket sends 64 bytes, another receives them: the packet passes the meter's and the interface's egress
program, then both ingress programs. Around them runs the kernel's own code, so that caches are as cold as in
life: this is what BPF_PROG_TEST_RUN leaves out. The figure is CPU time of the thread, on one CPU, in turn
with nothing attached (off), with empty programs at the same four places, and with netmond's (exchange.py, in
a network namespace and cgroup of its own). The receiver is connected, as a client is, or not, as a server
is: then its peers are counted one by one.

Packets cannot be smaller nor their way shorter: it is the worst case, and most of it is the hooks.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median

from bench.host import cgroup, inside, namespace
from bench.record import ROOT, progress
from bench.samples import ratios
from bench.table import Row

_PROGRAMS = 4


def benchmark(quick: bool) -> list[Row]:
    """Sends packets in all three states in turn, to both kinds of receiver."""
    rows: list[Row] = []
    for kind in ("connected", "unconnected"):
        progress(f"packet: {kind}")
        with namespace("packet") as space, cgroup() as group:
            argv = [sys.executable, "-m", "bench.exchange", str(group), kind, "15" if quick else "101"]
            argv = inside(argv, space=space, group=group)
            output = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        rows += _rows(kind, json.loads(output))
    return rows


def _rows(kind: str, found: dict[str, list[float]]) -> list[Row]:
    what = f"UDP packet over loopback, {kind} receiver"
    apart = [(on - empty) / _PROGRAMS for on, empty in zip(found["netmond"], found["empty"], strict=True)]
    hooks = median(ratios(found["empty"], found["off"]))
    return [
        Row(
            what=what,
            samples=found["netmond"],
            unit="ns",
            against="off",
            peer=found["off"],
            note=f"the hooks alone, with empty programs: {hooks:.3f}",
        ),
        Row(
            what=what,
            samples=found["netmond"],
            unit="ns",
            against="empty programs",
            peer=found["empty"],
            note=f"{median(apart):.0f} ns for each of the four programs",
        ),
    ]
