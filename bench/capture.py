"""Frames a second that are captured without loss, beside tcpdump -w on the same interface and load.

Small frames whole, and of large ones the first 96 bytes, which is all that most questions take.
A program on one CPU has them arrive at a device (flood.c), and all of them are captured to a file in memory:
by netmond's worker, whose pipe a client moves to the file as netmonctl does, and by `tcpdump -w`, in turn,
with buffers of one size, which hold a tenth of the frames or less. Nothing else looks at these frames. If
some are lost, the same is done again a little slower, until none is. The kernel's share is paid by the CPU
where they arrive and is a figure of its own, as is what the processes spend: worker and client, and tcpdump.

Drained: the processes are stopped until so many frames are waiting, then go on: frames by their CPU time, as
in packetlog.py.

What arrives is what was captured and what is said to be lost, which is checked each time. What tcpdump has
in its buffer when it is ended, and leaves there, counts as captured.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.cable import DEVICES, Cable, cable
from bench.compiled import Answering, answering, compiled
from bench.host import DEADLINE, ending, inside
from bench.record import ROOT, progress
from bench.table import AtLeast, Row

_SMALL, _LARGE = 106, 1514  # bytes of a frame: 64 in a datagram, and as many as fit
_BUFFER = 32 << 20
_FLOOD = 2_000_000  # frames in a turn
_SLOWER = 0.95  # than the last turn, at least
_LEAST = 100_000  # frames a second: slower than that nothing is measured
_WHOLE, _PARTS = 262_144, 96  # snaplen
_PAUSE = 0.01  # seconds between two looks

#: Moves a pipe to a file as the client does.
_CLIENT = """
import os, sys
while os.splice(0, 1, 1 << 20):
    pass
"""

BUDGETS = {"whole": AtLeast(1.0, of_ratio=True), "parts": AtLeast(2.0, of_ratio=True)}

Flood = Callable[[int, int], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Tool:
    """One that captures. pids: its processes; ended: has it end, returns frames captured and lost."""

    pids: Sequence[int]
    file: Path
    ended: Callable[[], tuple[int, int]]

    def spent(self) -> float:
        """CPU seconds of its processes; see Documentation/scheduler/sched-stats.rst."""
        tasks = (task for pid in self.pids for task in Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def settle(self) -> None:
        """Waits until it writes no more."""
        end, size = time.monotonic() + DEADLINE, -1
        while (now := self.file.stat().st_size) != size or not size:
            if time.monotonic() > end:
                raise RuntimeError("a capture does not come to rest")
            size = now
            time.sleep(20 * _PAUSE)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is captured stays in the buffer until the block ends."""
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in self.pids:
                os.kill(pid, signal.SIGCONT)


Make = Callable[[], AbstractContextManager[_Tool]]


@contextmanager
def _tcpdump(space: str, directory: Path, snaplen: int) -> Iterator[_Tool]:
    file = directory / "tcpdump.pcap"
    argv = ["tcpdump", "-i", DEVICES[1], "-Q", "in", "-w", str(file), "-s", str(snaplen), "-n"]
    argv += ["-B", str(_BUFFER >> 10), "-Z", "root"]
    process = subprocess.Popen(inside(argv, space=space), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    complaint = process.stderr

    def ended() -> tuple[int, int]:
        process.send_signal(signal.SIGINT)
        said = complaint.read()
        process.wait(DEADLINE)
        found = re.findall(r"(\d+) packets? (received by filter|dropped by kernel)", said)
        counts = {what: int(count) for count, what in found}
        lost = counts["dropped by kernel"]
        return counts["received by filter"] - lost, lost  # received it has both

    with ending(process):
        while "listening on" not in complaint.readline():
            pass
        yield _Tool((process.pid,), file, ended)
    file.unlink()


@contextmanager
def _netmond(space: str, directory: Path, snaplen: int, *, comments: bool = False) -> Iterator[_Tool]:
    file = directory / "netmond.pcapng"
    ours, theirs = socket.socketpair()
    reading, stream = os.pipe()
    telling, told = os.pipe()
    with ExitStack() as stack:
        argv = [sys.executable, "-m", "netmond.frames", str(theirs.fileno())]
        worker = subprocess.Popen(
            inside(argv, space=space), pass_fds=(theirs.fileno(), stream, told), cwd=ROOT
        )
        stack.enter_context(ending(worker))
        with file.open("wb") as output:
            client = subprocess.Popen([sys.executable, "-c", _CLIENT], stdin=reading, stdout=output)
        stack.enter_context(ending(client))
        theirs.close()
        for descriptor in (reading, stream, told):
            os.close(descriptor)
        stack.callback(os.close, telling)
        lines = stack.enter_context(stack.enter_context(ours).makefile("rw"))
        options = {
            "interfaces": [DEVICES[1]],
            "direction": "in",
            "snaplen": snaplen,
            "buffer": _BUFFER,
            "comments": comments,
        }
        given = {"stream": stream, "progress": told}
        print(json.dumps({"do": "start", "options": options, "given": given}), file=lines, flush=True)
        if "error" in (answer := json.loads(lines.readline())):
            raise RuntimeError(answer["error"])

        def ended() -> tuple[int, int]:
            print(json.dumps({"do": "stop"}), file=lines, flush=True)
            *_, last = lines
            figures = json.loads(last)["figures"]
            client.wait(DEADLINE)
            return figures["packets"], figures["dropped"]

        yield _Tool((worker.pid, client.pid), file, ended)
    file.unlink()


def _flood(program: Answering, count: int, rate: int) -> tuple[float, float]:
    """Frames a second that arrived, and ns of CPU for each, waiting for the next one among them."""
    seconds, worked = program.ask(f"{count} {rate}").split()
    return count / float(seconds), float(worked) / count * 1e9


def _lossless(make: Make, flood: Flood) -> tuple[float, float]:
    """Thousands of frames a second at which none was lost, and what the processes spent for each in ns."""
    rate, lost = 0, 1
    while lost:
        with make() as tool:
            before = tool.spent()
            reached, _ = flood(_FLOOD, rate)
            tool.settle()
            spent = (tool.spent() - before) / _FLOOD
            captured, lost = tool.ended()
        if captured + lost != _FLOOD:
            raise RuntimeError(f"{_FLOOD} arrived, but {captured} captured and {lost} lost")
        rate = int(reached * min(_SLOWER, captured / _FLOOD))
        if lost and rate < _LEAST:
            raise RuntimeError("this machine is too busy: frames are lost at any rate")
    return reached / 1e3, spent * 1e9


def _drained(make: Make, flood: Flood, size: int) -> tuple[float, float]:
    """Millions of frames by the CPU second of the processes; ns in the kernel for each frame before that."""
    waiting = _BUFFER // 3 // size
    with make() as tool:
        before = tool.spent()
        with tool.stopped():
            _, kernel = flood(waiting, 0)
        tool.settle()
        spent = tool.spent() - before
        captured, lost = tool.ended()
    if lost:
        raise RuntimeError(f"{lost} of {waiting} frames found no room")
    return captured / spent / 1e6, kernel


def benchmark(quick: bool) -> list[Row]:
    """Small frames whole, and large ones with a snaplen of 96, each against tcpdump -w."""
    progress(f"capture: {_FLOOD:,} frames at a time")
    rows: list[Row] = []
    with ExitStack() as stack:
        ends = stack.enter_context(cable())
        memory = TemporaryDirectory(prefix="netmond-bench-", dir="/dev/shm")
        directory = Path(stack.enter_context(memory))
        for space in (ends.near, ends.far):  # nothing else arrives
            silence = ["sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"]
            subprocess.run(inside(silence, space=space), check=True)
        program = stack.enter_context(compiled("flood"))
        for what, size, snaplen in (("whole", _SMALL, _WHOLE), ("parts", _LARGE, _PARTS)):
            argv = inside([str(program), DEVICES[1], str(size)], space=ends.far)
            with answering(argv) as sender:
                flood = partial(_flood, sender)
                rows += _rows(what, size, snaplen, ends, directory, flood, 3 if quick else 11)
    return rows


def _rows(
    what: str, size: int, snaplen: int, ends: Cable, directory: Path, flood: Flood, turns: int
) -> Iterator[Row]:
    ours: list[tuple[float, ...]] = []
    theirs: list[tuple[float, ...]] = []
    owned: list[float] = []
    for _ in range(turns):
        for found, make in (
            (ours, partial(_netmond, ends.far, directory, snaplen)),
            (theirs, partial(_tcpdump, ends.far, directory, _WHOLE)),
        ):
            found.append((*_lossless(make, flood), *_drained(make, flood, size)))
        owned.append(_lossless(partial(_netmond, ends.far, directory, snaplen, comments=True), flood)[0])
    rates, spent, drained, kernel = zip(*ours, strict=True)
    peer_rates, peer_spent, peer_drained, peer_kernel = zip(*theirs, strict=True)
    unseen = [flood(_BUFFER // 3 // size, 0)[1] for _ in range(turns)]
    frames = f"{size} bytes" if snaplen == _WHOLE else f"{size} bytes, snaplen {snaplen}"
    against = "tcpdump -w, whole frames"
    yield Row(
        what=f"capture without loss, {frames}",
        samples=rates,
        unit="k frames/s",
        against=against,
        peer=peer_rates,
        budget=BUDGETS[what],
        note=f"with owners {sorted(owned)[len(owned) // 2]:.0f} k frames/s",
    )
    yield Row(
        what=f"capture, CPU of the processes, {frames}",
        samples=spent,
        unit="ns/frame",
        against=against,
        peer=peer_spent,
        note="worker and client",
    )
    yield Row(
        what=f"capture, CPU of the kernel, {frames}",
        samples=kernel,
        unit="ns/frame",
        against=against,
        peer=peer_kernel,
        note=f"with what a frame costs that nobody captures, {sorted(unseen)[turns // 2]:.0f} ns",
    )
    yield Row(
        what=f"capture, drained flat out, {frames}",
        samples=drained,
        unit="M frames/s of CPU",
        against=against,
        peer=peer_drained,
        budget=BUDGETS["parts"] if what == "parts" else None,
    )
