"""What traffic loses when netmond watches it: over a veth pair between namespaces, on against off.

On: the real daemon meters the cgroup of both ends and monitors the near interface (tc, both directions).
Off: nothing is attached and the daemon is stopped. For the note: programs that do nothing where netmond
counts packets, which is what any other tool pays before it counts anything; and netmond's programs with the
daemon stopped, so that what is missing beyond is the daemon's share. The daemon's own links are replaced by
switch.py, so that turns are as short as a workload: off, empty, programs, on, off, …, half a second each,
which shows what a packet costs. iperf3's turns are as long as the pause between two ticks of a daemon that
nobody asks, so that each of them has one: they show what netmond costs in all. On is compared with the mean
of the off before and the off after it.

Peer against itself: each off with the mean of the offs around it, by the same arithmetic. It would be 1 on a
quiet machine; how far it strays says how far this one can be trusted today.

Workloads (traffic.c): TCP over one and over 16 connections, UDP datagrams of 64 bytes, each end on a CPU of
its own, and short connections, opened, asked, answered and closed one after another by four clients.

Short connections use slots up: each needs two, until one or two ticks after its end. At more than some
20,000 sockets a second the default number is not enough, and while the daemon is stopped none comes back.
What finds no slot is counted by user and cgroup, which costs more for a packet but saves the claim. So both
states with netmond's programs mix two ways of counting; the note says how.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

from bench import samples
from bench.cable import ADDRESSES, DEVICES, Cable, cable
from bench.compiled import Answering, answering, compiled
from bench.host import Daemon, cgroup, daemon, ending, inside
from bench.record import ROOT, progress
from bench.table import AtLeast, Row

BUDGET = AtLeast(0.97, of_ratio=True)
_STATES = "off", "empty", "programs", "on"
_COUNTED = "programs", "on"
_TICK = 1.0  # seconds
_TICK_UNASKED = 5  # seconds, the default of [daemon] idle_interval
_KINDS = {
    "TCP, one connection": ("tcp 1", "Gbit/s", 8e-9),
    "TCP, 16 connections": ("tcp 16", "Gbit/s", 8e-9),
    "UDP, 64 bytes": ("udp 1", "k packets/s", 1e-3),
    "short TCP connections": ("connections 4", "k/s", 1e-3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workload:
    """`run` returns the rate in `unit`. sockets: how many it opens in a turn for each of those; 0: a few."""

    what: str
    unit: str
    run: Callable[[], float]
    sockets: float = 0
    long: bool = False  #: takes ten times as long as the others


def _generated(traffic: Answering, command: str, factor: float, milliseconds: int) -> float:
    return float(traffic.ask(f"{command} {milliseconds}")) * factor


def iperf3(space: str, group: Path) -> float:
    argv = ["iperf3", "--client", ADDRESSES[4][1], "--json", f"--time={_TICK_UNASKED}"]
    done = subprocess.run(
        inside(argv, space=space, group=group), capture_output=True, text=True, check=False
    )
    report = json.loads(done.stdout)
    if "error" in report:
        raise RuntimeError(f"iperf3: {report['error']}")
    return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def iperf3_server(space: str, group: Path) -> Iterator[None]:
    argv = inside(["iperf3", "--server", "--forceflush"], space=space, group=group)
    with ending(
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ) as server:
        assert server.stdout is not None
        while "Server listening" not in (line := server.stdout.readline()):
            if not line:
                raise RuntimeError("the iperf3 server ended")
        yield


@contextmanager
def _workloads(ends: Cable, group: Path, milliseconds: int) -> Iterator[list[_Workload]]:
    with ExitStack() as stack:
        program = stack.enter_context(compiled("traffic"))
        stack.enter_context(iperf3_server(ends.far, group))
        found = []
        traffic = {}
        for family, addresses in ADDRESSES.items():
            argv = [str(program), f"/run/netns/{ends.near}", f"/run/netns/{ends.far}", addresses[1]]
            traffic[family] = stack.enter_context(answering(inside(argv, group=group)))
        for (kind, (command, unit, factor)), family in product(_KINDS.items(), traffic):
            run = partial(_generated, traffic[family], command, factor, milliseconds)
            sockets = 2 * milliseconds * 1e-3 / factor if command.startswith("connections") else 0
            found.append(_Workload(what=f"{kind}, IPv{family}", unit=unit, run=run, sockets=sockets))
        run = partial(iperf3, ends.near, group)
        found.append(_Workload(what="iperf3, TCP, IPv4", unit="Gbit/s", run=run, long=True))
        yield found


def benchmark(quick: bool) -> list[Row]:
    """One workload after the other, each in turns of all states."""
    rounds, milliseconds = (3, 150) if quick else (15, 450)
    with _measured(milliseconds) as (workloads, switch, netmond):
        rows = []
        for workload in workloads:
            if workload.long and quick:
                continue
            before = _without_slot(switch, netmond) if workload.sockets else 0
            rates = _turns(workload, switch, rounds // 2 if workload.long else rounds)
            after = _without_slot(switch, netmond) if workload.sockets else 0
            rows.append(_row(workload, rates, after - before))
        return rows


@contextmanager
def _measured(milliseconds: int) -> Iterator[tuple[list[_Workload], Answering, Daemon]]:
    """What there is to measure, the switch, and what it switches."""
    with ExitStack() as stack:
        ends = stack.enter_context(cable())
        group = stack.enter_context(cgroup())
        arguments = "--cgroup", str(group), "-i", DEVICES[0]
        netmond = stack.enter_context(daemon(*arguments, space=ends.near))
        workloads = stack.enter_context(_workloads(ends, group, milliseconds))
        argv = [sys.executable, "-m", "bench.switch", str(netmond.pid), str(group), DEVICES[0]]
        switch = stack.enter_context(answering(inside(argv, space=ends.near), directory=ROOT))
        yield workloads, switch, netmond


def _without_slot(switch: Answering, netmond: Daemon) -> int:
    """How many sockets have found no free slot."""
    switch.ask("on")
    time.sleep(2 * _TICK)
    losses = json.loads(netmond.ctl("status", "--json=short"))["losses"]
    return sum(loss["count"] for loss in losses if loss["name"] == "meter.no-slot-sockets")


def _turns(workload: _Workload, switch: Answering, rounds: int) -> dict[str, list[float]]:
    progress(f"throughput: {workload.what}")
    rates: dict[str, list[float]] = {state: [] for state in _STATES}
    for state in (*(_STATES * rounds), "off"):
        switch.ask(state)
        rates[state].append(workload.run())
    return rates


def _row(workload: _Workload, rates: dict[str, list[float]], without_slot: int) -> Row:
    off = rates["off"]
    note = ""
    if without_slot:
        opened = workload.sockets * sum(sum(rates[state]) for state in _COUNTED)
        note = f"; of both's sockets about {min(without_slot / opened, 1):.0%} found no slot"
    empty, programs = (median(samples.among(rates[state], off)) for state in ("empty", "programs"))
    return Row(
        what=f"throughput, {workload.what}",
        samples=rates["on"],
        unit=workload.unit,
        against="off",
        peer=off,
        paired=samples.among(rates["on"], off),
        noise=samples.against_itself(off),
        budget=BUDGET,
        note=f"with empty programs {empty:.3f}, with netmond's but no daemon {programs:.3f}{note}",
    )
