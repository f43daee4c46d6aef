"""The lines as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netmonctl.render import Column, Row, Style, escape, plural, table, text
from netmonctl.selftest.checks import Check
from netmonctl.selftest.figures import Figures

_HUES = {"ok": ("green",), "FAILED": ("red", "bold")}


def data(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The JSON form: a line has either figures, null for those without a witness, or a reason."""
    return [_line(check) for check in checks]


def _line(check: Check) -> dict[str, Any]:
    line: dict[str, Any] = {"check": check.name, "result": check.result}
    if check.reason:
        return {**line, "reason": check.reason}
    return {**line, "expected": _figures(check, check.expected), "counted": _figures(check, check.counted)}


def _figures(check: Check, figures: Figures) -> dict[str, int | None]:
    return {name: None if name in check.unknown else value for name, value in figures._asdict().items()}


def _direction(title: str, direction: str) -> Column:
    def show(row: Row, _: Style) -> str:
        if "reason" in row:
            return ""
        expected, counted = (_pair(row[which], direction) for which in ("expected", "counted"))
        return expected if expected == counted else f"{expected}, counted {counted}"

    return Column(title=title, key=direction, show=show)


def _pair(figures: dict[str, Any], direction: str) -> str:
    values = (figures[f"{direction}_{what}"] for what in ("packets", "bytes"))
    shown = "/".join("-" if value is None else str(value) for value in values)
    return "" if shown == "-/-" else shown


COLUMNS = (
    text("CHECK", "check"),
    Column(
        title="RESULT",
        key="result",
        show=lambda row, _: str(row["result"]),
        hue=lambda value: _HUES.get(value, ("yellow",)),
    ),
    _direction("IN (PACKETS/BYTES)", "in"),
    _direction("OUT (PACKETS/BYTES)", "out"),
)


def lines(checks: Sequence[Check], style: Style, bare: bool) -> list[str]:
    """A line for each check, however narrow the terminal; then the reasons of those not checked."""
    rows = data(checks)
    whole = table(COLUMNS, rows, Style(colour=style.colour, unicode=style.unicode))
    body = [line.rstrip() for line in whole[bare:]]
    reasons = [f"{check.name}: not checked: {escape(check.reason)}" for check in checks if check.reason]
    return [*body, *(["", *reasons] if reasons else []), *([] if bare else ["", summary(checks)])]


def summary(checks: Sequence[Check]) -> str:
    """One sentence."""
    failed = [check.name for check in checks if check.failed]
    compared = sum(not check.reason for check in checks)
    left = f", {len(checks) - compared} not checked" if compared < len(checks) else ""
    verdict = f"{len(failed)} FAILED" if failed else "every counter is right"
    return f"{plural(compared, 'check')}{left}: {verdict}."
