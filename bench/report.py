"""What a benchmark reports, and the table it ends up in."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What netmond is compared with, and its samples, taken in turn with netmond's."""

    name: str
    samples: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of the table: the median of its samples, or what `figure_of` says, its budget, its peers.

    at_least: the budget is a lower bound. budget_of_ratio: it is about the ratio to the first peer.
    """

    what: str
    samples: Sequence[float]
    unit: str
    figure_of: Callable[[Sequence[float]], float] = median
    peers: Sequence[Peer] = ()
    budget: float | None = None
    at_least: bool = False
    budget_of_ratio: bool = False

    @property
    def figure(self) -> float:
        return self.figure_of(self.samples)

    def ratio(self, peer: Peer) -> float:
        """Netmond's figure divided by the peer's; of samples taken in turn the median of their ratios."""
        if len(peer.samples) == len(self.samples) and self.figure_of is median:
            return median(ours / theirs for ours, theirs in zip(self.samples, peer.samples, strict=True))
        return self.figure / median(peer.samples)

    def lines(self) -> Iterator[tuple[str, ...]]:
        """The cells of its line in the table, and of one more for each further peer."""
        compared = [
            (f"{peer.name}: {_number(median(peer.samples))}", _ratio(self.ratio(peer)))
            for peer in self.peers
        ]
        first, *further = compared or [("", "")]
        spread = f"{_number(min(self.samples))} … {_number(max(self.samples))}"
        yield (self.what, _number(self.figure), spread, self.unit, *first, *self._verdict())
        for pair in further:
            yield ("", "", "", "", *pair, "", "")

    def _verdict(self) -> tuple[str, str]:
        if self.budget is None:
            return "", ""
        measured = self.ratio(self.peers[0]) if self.budget_of_ratio else self.figure
        met = measured >= self.budget if self.at_least else measured <= self.budget
        sign, unit = "≥" if self.at_least else "≤", "ratio" if self.budget_of_ratio else self.unit
        return f"{sign} {self.budget:g} {unit}", "met" if met else "MISSED"


HEADINGS = ("what", "figure", "min … max", "unit", "against", "ratio", "budget", "")

#: A benchmark: told whether to be quick, it returns its rows.
Benchmark = Callable[[bool], list[Row]]


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(value: float) -> str:
    inverse = f" = 1/{1 / value:.1f}" if 0 < value < 2 / 3 else ""
    return f"{value:.3g}{inverse}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table whose columns line up in a terminal, too."""
    lines = [HEADINGS, *(line for row in rows for line in row.lines())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def progress(text: str) -> None:
    """Tells whoever waits what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


# -- the record -------------------------------------------------------------------------------------


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """The commit, and whether the measured files differ from it."""
    commit = _said("git", "log", "-1", "--format=%h %s")
    changed = _said("git", "status", "--porcelain", "--", "bpf", "netmond")
    return f"{commit}{' (with uncommitted changes)' if changed else ''}"


def machine() -> list[tuple[str, str]]:
    """What is about to be measured, on what, and how busy that is with other things."""
    system = platform.uname()
    return [
        ("date", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("commit", _commit()),
        ("kernel", f"{system.system} {system.release} {system.version} {system.machine}"),
        ("processor", f"{_processor()}, {os.cpu_count()} cores ({_said('systemd-detect-virt')})"),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("numpy", metadata.version("numpy")),
        ("bcc", _said("dpkg-query", "-W", "-f=${Version}", "python3-bpfcc")),
        ("load average before", f"{os.getloadavg()[0]:.2f}"),
    ]


_INTRODUCTION = """\
# Results of the benchmarks

Written by `sudo /usr/bin/python3 -m bench --write`; what each row measures, and how, is in the docstrings
of `bench/*.py`. Every figure and its peer were taken in turn in one run. The ratio is netmond's figure
divided by the peer's. Program costs are beyond an empty program, by `BPF_PROG_TEST_RUN` with warm caches.
"""


def write(rows: Sequence[Row], facts: Sequence[tuple[str, str]]) -> None:
    """Leaves the table and the machine's description in RESULTS.md."""
    described = "\n".join(f"- {name}: {value}" for name, value in facts)
    RESULTS.write_text(f"{_INTRODUCTION}\n{described}\n\n{table(rows)}\n")
