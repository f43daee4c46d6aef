"""interfaces --books: whose it was what the kernel counted on an interface, line by line."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from netmonctl.client import Client
from netmonctl.output import Answer, Output, present
from netmonctl.render import Column, Row, Style, escape, moment, number, table, text

#: What the lines are called, and the layers they were counted at.
_TITLES = {
    "kernel": "kernel counter",
    "users": "users",
    "unmetered": "sockets not metered",
    "forwarded": "forwarded",
    "rdma": "RDMA over Ethernet",
    "system": "kernel's own",
    "upper": "upper interfaces",
    "fragments": "headers of fragments",
    "link": "link headers, padding",
    "segments": "segments, one by one",
    "headers": "headers not counted",
    "dropped": "dropped by the queue",
    "queued": "waiting in the queue",
    "unattributed": "unattributed",
    "wire": "(on the wire)",
}
_DIRECTIONS = {"in": "received", "out": "sent"}


def _line(row: Row, _: Style) -> str:
    line = str(row["line"])
    title = _TITLES.get(line, escape(line))
    return f"{title}: {escape(str(row['note']))}" if row["note"] else title


def _layer(value: str) -> tuple[str, ...]:
    return ("dim",)


_COLUMNS = (
    Column(title="LINE", key="line", show=_line, shrink=12),
    replace(text("COUNTED AT", "layer", drop=1), hue=_layer),
    number("PACKETS", "line_packets"),
    number("BYTES", "line_bytes"),
    Column(title="SHARE", key="share", show=lambda row, _: _percent(row), right=True),
)


def _percent(row: Row) -> str:
    return f"{row['share']:.3f} %"


def run(args: Namespace, client: Client, out: Output) -> None:
    present(args, out, lambda: answer(args, client))


def answer(args: Namespace, client: Client) -> Answer:
    """The books of the interface that `args` names, or of all that are monitored."""
    found = client.listing("Books", {"interface": args.name} if args.name else {})
    return Answer(data=found.rows, text=lambda style: page(found.rows, style, args.no_legend))


def page(rows: Sequence[Row], style: Style, bare: bool) -> list[str]:
    """A table for each interface and direction, and how much of all is unexplained."""
    lines: list[str] = []
    for (name, direction), group in groupby(rows, key=lambda row: (row["interface"], row["direction"])):
        book = _with_shares(list(group))
        since = moment(book[0]["since"])
        title = f"{escape(str(name))}, {_DIRECTIONS.get(str(direction), escape(str(direction)))}"
        if not bare:
            lines += [f"{style.paint(title, 'bold')} since {since}"]
        lines += [*table(_COLUMNS, book, style)[bare:], ""]
    if bare or not rows:
        return lines[:-1]
    return [*lines, unexplained(rows)]


def unexplained(rows: Sequence[Row]) -> str:
    """The closing line: bytes without explanation, of all that the kernel counted."""
    total = sum(row["line_bytes"] for row in rows if row["line"] == "kernel")
    rest = sum(abs(row["line_bytes"]) for row in rows if row["line"] == "unattributed")
    return f"{100 * rest / max(total, 1):.4f} % unexplained: {rest} of {total} bytes."


def _with_shares(book: Sequence[Row]) -> list[dict[str, Any]]:
    total = max(1, next((row["line_bytes"] for row in book if row["line"] == "kernel"), 1))
    return [{**row, "share": 100 * row["line_bytes"] / total} for row in book]
