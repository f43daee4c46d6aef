"""What a metric is: a name, labels, and at one moment a value for each of its series."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: The values of a metric's labels, in the order of `Family.labels`.
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric: all series of a name."""

    name: str  #: as it is queried, a counter's with ``_total``
    help: str
    labels: tuple[str, ...] = ()

    @property
    def is_counter(self) -> bool:
        return self.name.endswith("_total")

    def reading(self, samples: Iterable[tuple[Labels, float]]) -> Reading:
        """These series. Of those with equal labels the last counts."""
        return Reading(family=self, samples=list(dict(samples).items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A metric at one moment: its series, no two with equal labels."""

    family: Family
    samples: Sequence[tuple[Labels, float]]
