"""How many packets passed each stage, and how long it took them from the stage before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from netmonctl.path_text import span
from netmonctl.render import MISSING, Column, Style, amount, clip, duration, number, plural, table, text

#: Heights of a bar in a line of text, from little to most.
_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", ".:-=+*%#"
_WIDEST = 40  #: cells of the longest bar that has a line of its own


def report(message: Mapping[str, Any], style: Style, *, full: bool) -> list[str]:
    """The page of a message of figures. `full`: each stage's latencies line by line, too."""
    stages = message["stages"]
    low, high = _range(stages)
    rows = [_row(stage, low, high, style) for stage in stages]
    lines = table(_COLUMNS, rows, style)
    if high:
        axis = f"HISTOGRAM: {span(low)} to {span(high)} since the stage before, each bar twice the last"
        lines += ["", style.paint(axis if style.width is None else clip(axis, style.width), "dim")]
    if full:
        for stage in stages:
            lines += _bars(stage, style)
    if drops := message.get("drops"):
        lines += ["", *table(_DROPS, drops, style)]
    count = sum(row["packets"] for row in message.get("drops", ()))
    return [
        *lines,
        "",
        f"{plural(len(rows), 'stage')}, {plural(count, 'drop')} in {duration(message['seconds'])}.",
    ]


def _time(title: str, key: str, drop: int = 0) -> Column:
    return Column(
        title=title,
        key=key,
        show=lambda row, _: span(row[key]) if key in row else MISSING,
        right=True,
        drop=drop,
    )


_COLUMNS = (
    text("KERNEL FUNCTION", "stage"),
    number("PACKETS", "packets"),
    amount("BYTES", "bytes", drop=3),
    number("SUPPRESSED", "suppressed", drop=4),
    _time("MEAN", "mean_ns", drop=2),
    _time("P50", "p50_ns"),
    _time("P99", "p99_ns"),
    Column(title="HISTOGRAM", key="histogram", show=lambda row, _: str(row["histogram"]), drop=1),
)
_DROPS = (
    text("DROPPED BECAUSE", "reason", shrink=16),
    text("IN", "function", shrink=16),
    text("STAGE", "stage", drop=1),
    number("PACKETS", "packets"),
)


def _range(stages: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """The lowest and the highest bound of all buckets that are in use."""
    bounds = [upper for stage in stages for upper, _ in _buckets(stage)]
    return (min(bounds), max(bounds)) if bounds else (0, 0)


def _row(stage: Mapping[str, Any], low: int, high: int, style: Style) -> dict[str, Any]:
    histogram = _histogram(dict(_buckets(stage)), low, high, style)
    return {**stage, **stage.get("latency", {}), "histogram": histogram}


def _buckets(stage: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Upper bounds in nanoseconds, which are powers of two, and how many there are below each."""
    return [(upper, count) for upper, count in stage.get("latency", {}).get("buckets", ())]


def _histogram(counts: Mapping[int, int], low: int, high: int, style: Style) -> str:
    """A bar for each power of two between the bounds, as high as its share of the highest."""
    if not counts:
        return MISSING
    bars, most, out = _BARS if style.unicode else _ASCII_BARS, max(counts.values()), ""
    upper = low
    while upper <= high:
        count = counts.get(upper, 0)
        out += bars[(count * len(bars) - 1) // most] if count else " "
        upper *= 2
    return out.rstrip()


def _bars(stage: Mapping[str, Any], style: Style) -> list[str]:
    """The stage's latencies, a line for each bucket in use."""
    buckets = _buckets(stage)
    if not buckets:
        return []
    most = max(count for _, count in buckets)
    lines = ["", f"{stage['stage']}: time since the stage before"]
    for upper, count in buckets:
        line = f"{'up to ' + span(upper):>14} {count:>10} {'#' * -(-count * _WIDEST // most)}"
        lines.append(line if style.width is None else clip(line, style.width))
    return lines
