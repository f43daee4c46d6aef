"""One tick of the collector: live slots read, accounted for and turned into a Snapshot.

The real Meter and Collector over real maps of 131,072 slots, in a process of their own as lean as the daemon
(ticker.py), which is asked for a tick of 1,000, 10,000 and 100,000 slots in turn. All slots have traffic
before every tick; it is written through the mapping and not timed. They belong to 53 users, 61 units and
2,003 processes; 1,000 targets, no monitored interface. The first tick meets all sockets for the first time
and has a row of its own.

Peers: ten times fewer slots, for how the cost grows; and a loop in Python over the same 10,000 records that
keeps its flows in dictionaries, times ten for 100,000.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.host import ending
from bench.report import ROOT, Peer, Row, progress

BUDGET = 50.0
_COUNTS = (1_000, 10_000, 100_000)
_LOOPED = 10_000
_UNSTEADY = 3  # ticks from the first one on that still change how memory is used


class _Ticker:
    """ticker.py at work on so many slots."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def time(self, what: str) -> float:
        """ms that a ``tick`` or a ``loop`` took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the ticker ended")
        return float(answer) / 1e6


@contextmanager
def _ticker(count: int) -> Iterator[_Ticker]:
    argv = [sys.executable, "-m", "bench.ticker", str(count)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with ending(subprocess.Popen(argv, cwd=ROOT, text=True, **pipes)) as process:  # type: ignore[call-overload]
        yield _Ticker(process)


def _first(count: int, times: int) -> list[float]:
    samples = []
    for _ in range(times):
        with _ticker(count) as ticker:
            samples.append(ticker.time("tick"))
    return samples


def benchmark(quick: bool) -> list[Row]:
    """First ticks, then steady ones of all sizes and the loop in turn."""
    progress("tick: first")
    first = {count: _first(count, 2 if quick else 5) for count in _COUNTS}
    steady: dict[int, list[float]] = {count: [] for count in _COUNTS}
    loop: list[float] = []
    progress("tick: steady")
    with ExitStack() as stack:
        tickers = {count: stack.enter_context(_ticker(count)) for count in _COUNTS}
        for number in range(8 if quick else 33):
            for count, ticker in tickers.items():
                took = ticker.time("tick")
                if number >= _UNSTEADY:
                    steady[count].append(took)
            if number >= _UNSTEADY:
                loop.append(tickers[_LOOPED].time("loop"))
    return [
        *(_row("steady", count, steady, loop) for count in _COUNTS),
        *(_row("first", count, first, []) for count in _COUNTS),
    ]


def _row(kind: str, count: int, samples: dict[int, list[float]], loop: list[float]) -> Row:
    """loop: ms of the loop over _LOOPED flows, to be scaled; empty: not compared with."""
    peers = []
    if count // 10 in samples:
        peers.append(Peer(name=f"{count // 10:,} flows", samples=samples[count // 10]))
    if loop:
        peers.append(Peer(name="loop over dictionaries", samples=[took * count / _LOOPED for took in loop]))
    budget = BUDGET if kind == "steady" and count == max(_COUNTS) else None
    return Row(
        what=f"tick, {kind}, {count:,} flows", samples=samples[count], unit="ms", peers=peers, budget=budget
    )
