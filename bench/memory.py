"""Resident memory of the real daemon: idle, with 10,000 flows, and after a list of all of them.

netmond runs in a network namespace and meters a cgroup of its own, with everything else as installed: both
programs, the bus, CSV files. The flows are 10,000 connected UDP sockets that talk over loopback (crowd.py).
VmRSS is sampled for 20 s, while netmonctl asks for status, users and flows; the largest sample counts, and
min … max shows how much it moves. The last row is after one client listed every flow.

Peer: a bare interpreter that has imported numpy and dbus-next, which the daemon cannot be without.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack

from bench.host import DEADLINE, Daemon, cgroup, daemon, ending, inside, namespace, resident
from bench.report import ROOT, Peer, Row, progress

BUDGET = 45.0
_FLOWS = 10_000
_BARE = "import numpy, dbus_next.aio; print('ready', flush=True); input()"
_QUESTIONS = (("status",), ("users",), ("flows",))
_PAUSE = 0.1  # seconds between samples


def _bare() -> float:
    argv = [sys.executable, "-c", _BARE]
    with ending(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return resident(process.pid)


def _watch(netmond: Daemon, seconds: float, questions: Sequence[Sequence[str]]) -> list[float]:
    """Samples of its memory, the questions asked in between."""
    samples = []
    began = time.monotonic()
    asked = 0
    while (elapsed := time.monotonic() - began) < seconds:
        if asked < len(questions) and elapsed > seconds * (asked + 1) / (len(questions) + 1):
            netmond.ctl(*questions[asked])
            asked += 1
        samples.append(netmond.resident())
        time.sleep(_PAUSE)
    return samples


def _wait_for_flows(netmond: Daemon) -> None:
    end = time.monotonic() + DEADLINE
    while (known := netmond.flows()) < _FLOWS:
        if time.monotonic() > end:
            raise RuntimeError(f"only {known} flows are known")


def benchmark(quick: bool) -> list[Row]:
    """Watches one daemon through all three states."""
    seconds = 5.0 if quick else 20.0
    bare = [_bare() for _ in range(3)]
    with ExitStack() as stack:
        space = stack.enter_context(namespace("memory"))
        group = stack.enter_context(cgroup())
        netmond = stack.enter_context(daemon("--cgroup", str(group), "-i", "lo", space=space))
        progress(f"memory: idle, {seconds:g} s")
        idle = _watch(netmond, seconds, _QUESTIONS)
        crowd = inside([sys.executable, "-m", "bench.crowd", str(_FLOWS)], space=space, group=group)
        stack.enter_context(ending(subprocess.Popen(crowd, cwd=ROOT)))
        _wait_for_flows(netmond)
        progress(f"memory: {_FLOWS:,} flows, {seconds:g} s")
        busy = _watch(netmond, seconds, _QUESTIONS)
        progress("memory: listing all flows")
        listed = _watch(netmond, seconds / 2, [("flows", "-n", "0")])
    return [
        _row("idle", idle, bare, BUDGET),
        _row(f"{_FLOWS:,} flows", busy, bare, BUDGET),
        _row(f"{_FLOWS:,} flows, after a list of all", listed, bare, None),
    ]


def _row(what: str, samples: list[float], bare: list[float], budget: float | None) -> Row:
    return Row(
        what=f"resident memory (max), {what}",
        samples=samples,
        figure_of=max,
        unit="MiB",
        budget=budget,
        peers=[Peer(name="bare python + numpy + dbus-next", samples=bare)],
    )
