"""What it costs to follow packets: traffic that nobody asked for, and 10,000 events a second.

Traffic: over a veth pair, while a session's filter matches none of it, against no session; a session for
each turn. TCP by iperf3 is what machines do; UDP datagrams of 64 bytes are what cannot be hidden: each is
looked at at seven stages and more, in two network namespaces. For the note: programs that do nothing at the
same hooks (hooked.py), which is what any filter pays.

Events: datagrams at a rate that comes to about 10,000 events a second, without a limit. The figure is CPU
time of the worker and of its programs in the kernel, as the kernel measures them, which itself costs some ns
a run; who reads the lines is not in it. Peer: tcpdump that writes a line for each of the same datagrams and
flushes it, as far as its process goes; what the packet socket costs in the kernel is not in it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median

from bench.cable import ADDRESSES, DEVICES, Cable, cable
from bench.compiled import answering, compiled
from bench.host import cgroup, ending, inside
from bench.record import ROOT, progress
from bench.samples import against_itself, among
from bench.session import cpu_time, session, timed_programs
from bench.table import AtLeast, AtMost, Row
from bench.throughput import iperf3, iperf3_server

#: Of those documentation addresses (RFC 5737) no packet passes.
_NOBODY = ["192.0.2.0/24"]
_MODULES = "netmond.path", "bench.hooked"
_PORT = 28799
_EVENTS = 10_000  # a second
_STAGES = 7  # that a datagram passes, as the kernels here show them
_RATE = _EVENTS // _STAGES
_PARTS = 1e2 / 1e9  # percent of a core: ns a second

THROUGHPUT = AtLeast(0.98, of_ratio=True)
COST = AtMost(10)


def benchmark(quick: bool) -> list[Row]:
    """Throughput, then cost."""
    return [*_throughput(quick), _cost(quick)]


def _throughput(quick: bool) -> list[Row]:
    rounds, milliseconds = (3, 450) if quick else (15, 900)
    with ExitStack() as stack:
        ends = stack.enter_context(cable())
        group = stack.enter_context(cgroup())
        program = stack.enter_context(compiled("traffic"))
        stack.enter_context(iperf3_server(ends.far, group))
        argv = [str(program), f"/run/netns/{ends.near}", f"/run/netns/{ends.far}", ADDRESSES[4][1]]
        traffic = stack.enter_context(answering(inside(argv, group=group)))

        def datagrams() -> float:
            return float(traffic.ask(f"udp 1 {milliseconds}")) * 1e-3

        stream = partial(iperf3, ends.near, group)
        tcp = _against_nothing("iperf3, TCP, IPv4", "Gbit/s", stream, ends, rounds // 2, THROUGHPUT)
        udp = _against_nothing("UDP, 64 bytes, IPv4", "k packets/s", datagrams, ends, rounds, None)
    return [tcp, udp]


def _against_nothing(
    what: str, unit: str, run: Callable[[], float], ends: Cable, rounds: int, budget: AtLeast | None
) -> Row:
    progress(f"path: {what}")
    rates: dict[str, list[float]] = {module: [] for module in _MODULES}
    off = [run()]
    for _ in range(rounds):
        for module in _MODULES:
            with session(module, space=ends.near, addresses=_NOBODY):
                rates[module].append(run())
        off.append(run())
    on, empty = (rates[module] for module in _MODULES)
    return Row(
        what=f"path, nothing matches, {what}",
        samples=on,
        unit=unit,
        against="no session",
        peer=off,
        paired=among(on, off),
        noise=against_itself(off),
        budget=budget,
        note=f"with empty programs at the same hooks {median(among(empty, off)):.3f}",
    )


@contextmanager
def _datagrams(ends: Cable) -> Iterator[None]:
    argv = [sys.executable, "-m", "bench.pace", ends.near, ends.far, ADDRESSES[4][1], str(_PORT), str(_RATE)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
    with ending(process):
        assert process.stdout is not None
        if process.stdout.readline() != b"flows\n":
            raise RuntimeError("no datagrams flow")
        yield


def _cost(quick: bool) -> Row:
    progress("path: 10,000 events a second")
    count = 5 if quick else 21
    with ExitStack() as stack:
        ends = stack.enter_context(cable())
        stack.enter_context(_datagrams(ends))
        ours, events, dropped = _worker(ends, count)
        theirs = _tcpdump(ends, count)
    return Row(
        what=f"path, {_EVENTS:,} events a second",
        samples=ours,
        unit="% of a core",
        against="tcpdump -l, its process only, for as many lines",
        peer=theirs,
        budget=COST,
        note=f"at {events:,.0f} events a second, {dropped} lost",
    )


def _worker(ends: Cable, count: int) -> tuple[list[float], float, int]:
    """Percent of a core for _EVENTS a second, events a second as they were, and how many were lost."""
    samples, rates = [], []
    with timed_programs(), session("netmond.path", space=ends.near, ports=[_PORT], rate=0) as path:
        path.figures()  # what the first reports pay is not of interest
        before, worked = path.figures(), path.worked()
        for _ in range(count):
            path.figures()
            now, spent = path.figures(), path.worked()
            events = now["packets"] - before["packets"]
            samples.append((spent - worked) / events * _EVENTS * _PARTS)
            rates.append(events / (now["seconds"] - before["seconds"]))
            before, worked = now, spent
    return samples, median(rates), int(before["dropped"])


def _tcpdump(ends: Cable, count: int) -> list[float]:
    """Percent of a core for _EVENTS lines a second."""
    samples = []
    argv = ["tcpdump", "-l", "-n", "-i", DEVICES[0], "udp"]
    process = subprocess.Popen(
        inside(argv, space=ends.near), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with ending(process), ending(subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)):
        time.sleep(1)
        for _ in range(count):
            spent, began = cpu_time(process.pid), time.monotonic()
            time.sleep(1)
            lines = _RATE * (time.monotonic() - began)
            samples.append((cpu_time(process.pid) - spent) / lines * _EVENTS * _PARTS)
    return samples
