"""What samples say: medians, how far they can be trusted, and how a cost grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, both included."""

    low: float
    high: float

    @property
    def nearest(self) -> float:
        """The distance from 1 of its nearer end."""
        return min(abs(self.low - 1), abs(self.high - 1))

    @property
    def farthest(self) -> float:
        """That of its farther end."""
        return max(abs(self.low - 1), abs(self.high - 1))


def interval(samples: Sequence[float]) -> Interval:
    """Where the median lies with a confidence of 95 %, by order statistics: whatever their distribution.

    With fewer than six samples nothing is that certain: from the smallest to the largest.
    """
    ordered = sorted(samples)
    aside = 0  # so many may be left out at either end
    while _outside(len(ordered), aside + 1) <= 1 - _CONFIDENCE:
        aside += 1
    return Interval(ordered[aside], ordered[len(ordered) - 1 - aside])


def _outside(count: int, aside: int) -> float:
    """How likely the median is outside what remains when so many samples are left out at either end."""
    if 2 * aside >= count:
        return 1.0
    cases: int = sum(math.comb(count, number) for number in range(aside + 1))
    return math.ldexp(cases, 1 - count)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of samples taken in turn, one ratio a pair: what slows the machine for a while slows both."""
    if len(ours) == len(theirs):
        return [one / other for one, other in zip(ours, theirs, strict=True)]
    return [median(ours) / median(theirs)]


def among(samples: Sequence[float], around: Sequence[float]) -> list[float]:
    """Ratios of samples to the mean of what was measured just before and just after each.

    `around` has one sample more, the first before everything: A B A B A. A steady drift cancels out.
    """
    return [one / (sum(pair) / 2) for one, pair in zip(samples, pairwise(around), strict=True)]


def against_itself(around: Sequence[float]) -> list[float]:
    """The same of the samples between, as if every second of them were another thing: what noise does."""
    return [
        one / ((before + after) / 2)
        for before, one, after in zip(around, around[1:], around[2:], strict=False)
    ]


def exponent(ratio: float, factor: float) -> float:
    """How a cost grows that is `ratio` times larger for `factor` times the load: 1 is in proportion."""
    return math.log(ratio) / math.log(factor)
