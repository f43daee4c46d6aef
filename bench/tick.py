"""One tick of the collector: live slots read, accounted for and turned into a Snapshot.

The real Meter and Collector over real maps, in a process of their own as lean as the daemon (ticker.py),
which is asked for a tick of 1,000 to 1,000,000 slots in turn. All slots have traffic before every tick; it
is written through the mapping and not timed. They belong to 53 users, 61 units and 2,003 processes; 1,000
targets, no monitored interface. The first tick meets all sockets for the first time and has rows of its own.

Peers: a loop in Python over the same 10,000 records that keeps its flows in dictionaries, scaled to the
number of slots; and ten times fewer slots, for how the cost grows: n^1 is in proportion. The budget of that
is n^1.1. The checkpoint is what the daemon writes after each tick, so that nothing is lost if it is killed;
its peer is the tick itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median

from bench.compiled import Answering, answering
from bench.record import ROOT, progress
from bench.samples import exponent, ratios
from bench.table import AtMost, Row

BUDGET = {100_000: AtMost(50)}
GROWTH = AtMost(round(10**1.1, 1), of_ratio=True)
_COUNTS = (1_000, 10_000, 100_000, 1_000_000)
_SELDOM = 100_000  # slots beyond which fewer rounds must do
_LOOPED = 10_000
_UNSTEADY = 3  # ticks from the first one on that still change how memory is used


def _milliseconds(ticker: Answering, what: str) -> float:
    """That a ``tick``, a ``checkpoint`` or a ``loop`` takes."""
    return float(ticker.ask(what)) / 1e6


@contextmanager
def _ticker(count: int) -> Iterator[Answering]:
    with answering([sys.executable, "-m", "bench.ticker", str(count)], directory=ROOT) as ticker:
        yield ticker


def _first(count: int, times: int) -> list[float]:
    samples = []
    for _ in range(times if count <= _SELDOM else 2):
        with _ticker(count) as ticker:
            samples.append(_milliseconds(ticker, "tick"))
    return samples


def benchmark(quick: bool) -> list[Row]:
    """First ticks, then steady ones of all sizes and the loop in turn."""
    progress("tick: first")
    counts = _COUNTS[:-1] if quick else _COUNTS
    first = {count: _first(count, 1 if quick else 6) for count in counts}
    progress("tick: steady")
    steady: dict[int, list[float]] = {count: [] for count in counts}
    kept: dict[int, list[float]] = {count: [] for count in counts}
    loop: list[float] = []
    with ExitStack() as stack:
        tickers = {count: stack.enter_context(_ticker(count)) for count in counts}
        for number in range(7 if quick else 33):
            for count, ticker in tickers.items():
                if count > _SELDOM and number % 4:
                    continue
                took = _milliseconds(ticker, "tick")
                if number >= _UNSTEADY:
                    steady[count].append(took)
                    kept[count].append(_milliseconds(ticker, "checkpoint"))
            if number >= _UNSTEADY:
                loop.append(_milliseconds(tickers[_LOOPED], "loop"))
    return [
        *(_against_loop(count, steady[count], loop) for count in counts),
        *(_growth("steady", count, steady) for count in counts[1:]),
        *(_growth("first", count, first) for count in counts[1:]),
        *(_checkpoint(count, kept[count], steady[count]) for count in counts),
    ]


def _against_loop(count: int, samples: list[float], loop: list[float]) -> Row:
    """loop: ms of the loop over _LOOPED flows, to be scaled."""
    return Row(
        what=f"tick, steady, {count:,} flows",
        samples=samples,
        unit="ms",
        against="loop over dictionaries",
        peer=[took * count / _LOOPED for took in loop],
        budget=BUDGET.get(count),
    )


def _growth(kind: str, count: int, samples: Mapping[int, list[float]]) -> Row:
    ours, fewer = samples[count], samples[count // 10]
    return Row(
        what=f"tick, {kind}, {count:,} flows",
        samples=ours,
        unit="ms",
        against=f"{count // 10:,} flows",
        peer=fewer,
        budget=GROWTH,
        note=f"n^{exponent(median(ratios(ours, fewer)), 10):.2f}",
    )


def _checkpoint(count: int, samples: list[float], ticks: list[float]) -> Row:
    return Row(
        what=f"checkpoint, {count:,} flows",
        samples=samples,
        unit="ms",
        against="the tick",
        peer=ticks,
    )
