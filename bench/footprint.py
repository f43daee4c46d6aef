"""What the real daemon takes all the time: resident memory and CPU, idle and with 1,000 to 100,000 flows.

netmond runs in a network namespace and meters a cgroup of its own, with everything else as installed: both
programs, the bus, CSV files, a tick and a checkpoint every five seconds, as nobody asks; but each second
with 100,000 flows. The flows are connected UDP sockets that talk over loopback; each sends and receives once
in ten seconds, and so has two rows in the CSV files every ten (crowd.py). For 100,000 of them the meter has
131,072 slots, else the default. CPU time is that of all its threads in ten seconds. Memory is VmRSS, the
largest of many samples, while netmonctl asks for status, users and flows.

Peers: one core of the machine; a bare interpreter that has imported numpy and dbus-next, which the daemon
cannot be without.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass

from bench.crowd import PERIOD
from bench.host import DEADLINE, Daemon, cgroup, daemon, ending, inside, namespace, resident, run_directory
from bench.record import ROOT, progress
from bench.table import AtMost, Row

MEMORY = {0: AtMost(45), 10_000: AtMost(45)}
CPU = {0: AtMost(0.3), 100_000: AtMost(5)}
_COUNTS = (0, 1_000, 10_000, 100_000)
_COUNTS_IF_QUICK = (0, 10_000)
_TOGETHER = 10_000  # sockets of one process: more need more descriptors than some hosts allow
_MANY = "[meter]\nslots = 131072\n[daemon]\nidle_interval = 1\n"
_BARE = "import numpy, dbus_next.aio; print('ready', flush=True); input()"
_QUESTIONS = (("status",), ("users",), ("flows", "-n", "100"))
_PAUSE = 0.1  # seconds between samples


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """flows: how many; memory in MiB, at most; CPU in percent of a core, once a period."""

    flows: int
    memory: float
    cpu: list[float]


def _bare() -> float:
    argv = [sys.executable, "-c", _BARE]
    with ending(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return resident(process.pid)


def _wait_for_flows(netmond: Daemon, count: int) -> None:
    end = time.monotonic() + DEADLINE
    while (known := netmond.flows()) < count:
        if time.monotonic() > end:
            raise RuntimeError(f"only {known} of {count} flows are known")


def _watch(netmond: Daemon, flows: int, periods: int) -> _Stage:
    progress(f"footprint: {flows:,} flows, {periods * PERIOD:g} s")
    memory, cpu = [], []
    for _ in range(periods):
        began, before = time.monotonic(), netmond.cpu_nanoseconds()
        while time.monotonic() - began < PERIOD:
            memory.append(netmond.resident())
            time.sleep(_PAUSE)
        spent = netmond.cpu_nanoseconds() - before
        cpu.append(spent / 1e7 / (time.monotonic() - began))
    for question in _QUESTIONS:
        netmond.ctl(*question)
        memory.append(netmond.resident())
    return _Stage(flows=flows, memory=max(memory), cpu=cpu)


def _stages(counts: tuple[int, ...], periods: int, config: str) -> list[_Stage]:
    """One daemon with more and more flows."""
    found = []
    with ExitStack() as stack:
        space = stack.enter_context(namespace("footprint"))
        group = stack.enter_context(cgroup())
        arguments = "--cgroup", str(group), "-i", "lo"
        run = stack.enter_context(run_directory())
        netmond = stack.enter_context(daemon(*arguments, space=space, run=run, config=config))
        known = crowds = 0
        for count in counts:
            while known < count:
                more = min(count - known, _TOGETHER)
                argv = [sys.executable, "-m", "bench.crowd", str(more), str(crowds)]
                argv = inside(argv, space=space, group=group)
                stack.enter_context(ending(subprocess.Popen(argv, cwd=ROOT)))
                known, crowds = known + more, crowds + 1
            _wait_for_flows(netmond, count)
            found.append(_watch(netmond, count, periods))
    return found


def benchmark(quick: bool) -> list[Row]:
    """Watches a daemon with the default size, then a larger one."""
    periods = 1 if quick else 2
    bare = [_bare() for _ in range(3)]
    few = _COUNTS_IF_QUICK if quick else _COUNTS[:-1]
    stages = [*_stages(few, periods, ""), *_stages(_COUNTS[-1:], periods, _MANY)]
    idle = stages[0].memory
    return [*(_memory(stage, idle, bare) for stage in stages), *map(_cpu, stages)]


def _what(stage: _Stage) -> str:
    return f"{stage.flows:,} flows" if stage.flows else "idle"


def _memory(stage: _Stage, idle: float, bare: list[float]) -> Row:
    each = f"{(stage.memory - idle) * (1 << 20) / stage.flows:.0f} bytes a flow" if stage.flows else ""
    return Row(
        what=f"resident memory, {_what(stage)}",
        samples=[stage.memory],
        unit="MiB",
        against="bare python + numpy + dbus-next",
        peer=bare,
        budget=MEMORY.get(stage.flows),
        others=None,
        note=each,
    )


def _cpu(stage: _Stage) -> Row:
    return Row(
        what=f"CPU, {_what(stage)}",
        samples=stage.cpu,
        unit="%",
        against="one core",
        peer=[100.0] * len(stage.cpu),
        budget=CPU.get(stage.flows),
    )
