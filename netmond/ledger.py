"""The loss ledger of a unit's programs: what they could not count as they should, by reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel.wire import ELSEWHERE
from netmond.model import Loss


class Ledger:
    """Counts by reason, which go on from those of an earlier daemon."""

    def __init__(self, reasons: Sequence[tuple[str, str]], counts: NDArray[np.uint64]) -> None:
        """reasons: stable name and meaning. counts: the programs', live, in the same order."""
        self._reasons = reasons
        self._counts = counts
        self._before = np.zeros(len(reasons), np.uint64)  # what other builds counted
        self._last: list[int] = []
        self._told: tuple[Loss, ...] = ()

    def losses(self) -> tuple[Loss, ...]:
        """All lines that are losses, those of zero as well."""
        counts = (self._counts + self._before).tolist()
        if counts != self._last:
            self._last = counts
            self._told = tuple(
                Loss(name=name, count=count, meaning=meaning)
                for (name, meaning), count in zip(self._reasons, counts, strict=True)
                if name not in ELSEWHERE
            )
        return self._told

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """To `resume` from."""
        return {
            "ledger.names": np.array([name for name, _ in self._reasons], "S"),
            "ledger.counts": self._counts.copy(),
            "ledger.before": self._before,
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same programs."""
        self._before = arrays["ledger.before"]

    def include(self, arrays: Mapping[str, NDArray[Any]], counts: NDArray[np.uint64]) -> None:
        """Adds what another build has counted, `counts` in the order of its own checkpoint's names."""
        earlier = arrays["ledger.before"] + counts
        known = dict(zip(arrays["ledger.names"].tolist(), earlier.tolist(), strict=True))
        self._before = self._before + np.array(
            [known.get(name.encode(), 0) for name, _ in self._reasons], np.uint64
        )
