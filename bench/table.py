"""One row of the table: a figure, its peer, their ratio, the budget and what is to be said about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import Any

from bench.samples import Interval, interval, ratios

#: Cores that other things may keep busy without being blamed for a missed budget.
QUIET = 0.2


class Verdict(Enum):
    NONE = ""
    MET = "met"
    MISSED = "MISSED"
    NOISY = "too noisy to say"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A budget: of the figure in its unit, or of the ratio."""

    limit: float
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"≤ {self.limit:g}"

    def judge(self, measured: Interval) -> Verdict:
        if measured.high <= self.limit:
            return Verdict.MET
        return Verdict.MISSED if measured.low > self.limit else Verdict.NOISY


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The same as a lower bound."""

    limit: float
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"≥ {self.limit:g}"

    def judge(self, measured: Interval) -> Verdict:
        if measured.low >= self.limit:
            return Verdict.MET
        return Verdict.MISSED if measured.high < self.limit else Verdict.NOISY


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """netmond's samples and those of the peer it is compared with, taken in turn in the same run.

    `paired`: the ratios, if they are not simply those of samples in the same place. `noise`: ratios of the
    peer to itself, which would all be 1 on a quiet machine. `others`: the cores that other things than the
    benchmark kept busy meanwhile, asked where no noise is known; None: the figure is none of time. `note`
    says why, or what it means.
    """

    what: str
    samples: Sequence[float]
    unit: str
    against: str
    peer: Sequence[float]
    paired: Sequence[float] = ()
    noise: Sequence[float] = ()
    budget: AtMost | AtLeast | None = None
    others: float | None = 0.0
    note: str = ""

    @property
    def figure(self) -> float:
        return median(self.samples)

    @property
    def ratios(self) -> Sequence[float]:
        return self.paired or ratios(self.samples, self.peer)

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def judged(self) -> Interval:
        """Where what the budget is about lies."""
        of_ratio = self.budget is not None and self.budget.of_ratio
        return interval(self.ratios if of_ratio else self.samples)

    @property
    def verdict(self) -> Verdict:
        if self.budget is None:
            return Verdict.NONE
        verdict = self.budget.judge(self.judged)
        return Verdict.NOISY if verdict is Verdict.MISSED and self._disturbance() else verdict

    def _disturbance(self) -> str:
        """What may have made it slow instead of netmond, empty: nothing."""
        if self.noise and interval(self.noise).farthest >= interval(self.ratios).nearest:
            return f"the peer itself strays as far, {_span(interval(self.noise))}"
        if not self.noise and self.others and self.others > QUIET:
            return f"other things kept {self.others:.1f} cores busy"
        return ""

    def cells(self) -> tuple[str, ...]:
        """As in HEADINGS."""
        return (
            self.what,
            f"{number(self.figure)} {self.unit}",
            f"{self.against}: {number(median(self.peer))}",
            f"{_ratio(self.ratio)} ({_span(interval(self.ratios))})",
            f"{median(self.noise):.3f} ({_span(interval(self.noise))})" if self.noise else "",
            self._budget(),
            "; ".join(filter(None, (self._said(), self.note))),
        )

    def _budget(self) -> str:
        if self.budget is None:
            return ""
        return f"ratio {self.budget}" if self.budget.of_ratio else f"{self.budget} {self.unit}"

    def _said(self) -> str:
        """The verdict, with the reason if there is none."""
        verdict = self.verdict
        if verdict is not Verdict.NOISY or self.budget is None:
            return verdict.value
        if self.budget.judge(self.judged) is Verdict.NOISY:
            return f"{verdict.value}: {_span(self.judged)} lies on both sides of {self.budget.limit:g}"
        return f"{verdict.value}: {self._disturbance()}"

    def to_json(self) -> dict[str, Any]:
        """Everything about it, samples included."""
        return {
            "what": self.what,
            "figure": self.figure,
            "unit": self.unit,
            "against": self.against,
            "ratio": self.ratio,
            "ratio_interval": _pair(interval(self.ratios)),
            "noise_interval": _pair(interval(self.noise)) if self.noise else None,
            "budget": self._budget(),
            "verdict": self.verdict.value,
            "note": self.note,
            "samples": list(self.samples),
            "peer_samples": list(self.peer),
        }


HEADINGS = ("what", "netmond", "against", "ratio (95 %)", "peer against itself", "budget", "")


def number(value: float) -> str:
    """With as many digits as matter."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(value: float) -> str:
    inverse = f" = 1/{1 / value:.1f}" if 0 < value < 2 / 3 else ""
    return f"{value:.3g}{inverse}"


def _span(span: Interval) -> str:
    return f"{span.low:.3g} … {span.high:.3g}"


def _pair(span: Interval) -> list[float]:
    return [span.low, span.high]


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table whose columns line up in a terminal, too."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
