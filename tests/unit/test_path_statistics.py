"""Lines of statistics."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.path.statistics import drop_rows, quantile, stage_rows


def _buckets(**counts: int) -> NDArray[np.uint64]:
    made = np.zeros(64, np.uint64)
    for name, count in counts.items():
        made[int(name.removeprefix("b"))] = count
    return made


def test_stages_that_something_passed() -> None:
    """With times only where there is a stage before."""
    counters = np.zeros(3, wire.PATH_COUNTERS)
    counters["matched"], counters["bytes"], counters["suppressed"] = (23, 4, 0), (2300, 40, 0), (1, 0, 0)
    counters["waited"] = 0, 9000, 0
    latencies = np.stack((_buckets(), _buckets(b10=3, b12=1), _buckets()))

    assert stage_rows(("ip_rcv", "tcp_v4_do_rcv", "icmp_rcv"), counters, latencies) == [
        {"stage": "ip_rcv", "packets": 23, "bytes": 2300, "suppressed": 1},
        {
            "stage": "tcp_v4_do_rcv",
            "packets": 4,
            "bytes": 40,
            "suppressed": 0,
            "latency": {
                "count": 4,
                "mean_ns": 2250,
                "p50_ns": 1625,
                "p99_ns": 7968,
                "buckets": [[2048, 3], [8192, 1]],
            },
        },
    ]


@pytest.mark.parametrize(
    ("buckets", "part", "low", "high"),
    [
        (_buckets(b0=1), 0.5, 1, 2),
        (_buckets(b10=100), 0.99, 1024, 2048),
        (_buckets(b10=99, b20=1), 0.5, 1024, 2048),
        (_buckets(b10=98, b20=2), 0.99, 1 << 20, 1 << 21),
        (_buckets(b63=1), 0.99, 1 << 63, 1 << 64),
    ],
)
def test_a_quantile_is_in_its_bucket(buckets: NDArray[np.uint64], part: float, low: int, high: int) -> None:
    assert low <= quantile(buckets, part) <= high


def test_quantiles_are_about_right() -> None:
    """Against the real ones of values of which only the buckets are known."""
    values = np.random.default_rng(23).lognormal(9, 1, 100_000)
    buckets = np.bincount(np.log2(values).astype(int), minlength=64).astype(np.uint64)

    for part in (0.5, 0.99):
        assert quantile(buckets, part) == pytest.approx(np.quantile(values, part), rel=0.15)


def test_drops_the_most_frequent_first() -> None:
    keys = np.array([(16, 3, 1), (32, 6, 0)], wire.PATH_DROP_KEY)
    rows = drop_rows(
        ("ip_rcv", "kfree_skb"), (keys, np.array([2, 9], np.uint64)), "r{}".format, "f{}".format
    )

    assert rows == [
        {"reason": "r6", "function": "f32", "stage": "ip_rcv", "packets": 9},
        {"reason": "r3", "function": "f16", "stage": "kfree_skb", "packets": 2},
    ]


def test_nothing_dropped() -> None:
    nothing = np.zeros(0, wire.PATH_DROP_KEY), np.zeros(0, np.uint64)

    assert drop_rows((), nothing, str, str) == []
