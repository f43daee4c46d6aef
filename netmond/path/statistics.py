"""Counts and times by stage as a line: what the kernel has added up since the session began. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def stage_rows(
    stages: Sequence[str], counters: NDArray[Any], latencies: NDArray[np.uint64]
) -> list[dict[str, Any]]:
    """What passed each stage that anything passed. counters: wire.PATH_COUNTERS (n,); latencies: (n, 64), by
    the power of two at or below the ns since the packet's stage before."""
    return [
        {
            "stage": stage,
            "packets": int(counter["matched"]),
            "bytes": int(counter["bytes"]),
            "suppressed": int(counter["suppressed"]),
            **({"latency": _latency(int(counter["waited"]), buckets)} if buckets.any() else {}),
        }
        for stage, counter, buckets in zip(stages, counters, latencies, strict=True)
        if counter["matched"]
    ]


def drop_rows(
    stages: Sequence[str],
    drops: tuple[NDArray[Any], NDArray[np.uint64]],
    reason: Callable[[int], str],
    function: Callable[[int], str],
) -> list[dict[str, Any]]:
    """Drops by reason, place and stage, the most frequent first; drops: wire.PATH_DROP (n,), counts (n,)."""
    keys, counts = drops
    return [
        {
            "reason": reason(int(keys["reason"][place])),
            "function": function(int(keys["location"][place])),
            "stage": stages[int(keys["stage"][place])],
            "packets": int(counts[place]),
        }
        for place in np.argsort(-counts.astype(np.int64), kind="stable").tolist()
    ]


def _latency(total: int, buckets: NDArray[np.uint64]) -> dict[str, Any]:
    count = int(buckets.sum())
    return {
        "count": count,
        "mean_ns": round(total / count),
        "p50_ns": quantile(buckets, 0.5),
        "p99_ns": quantile(buckets, 0.99),
        "buckets": [[2 << place, int(buckets[place])] for place in np.flatnonzero(buckets).tolist()],
    }


def quantile(buckets: NDArray[np.uint64], part: float) -> int:
    """The value below which this part lies, if the logarithms of values in a bucket are spread evenly."""
    sums = np.cumsum(buckets)
    wanted = part * float(sums[-1])
    place = int(np.searchsorted(sums, wanted))
    inside = float(buckets[place])
    before = float(sums[place]) - inside
    return round(2 ** (place + (wanted - before) / inside))
