"""RDMA ports, counters and queue pairs as text. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from netmonctl.rdma_verdict import Figures, Verdict, count
from netmonctl.render import (
    MISSING,
    Column,
    Row,
    Style,
    amount,
    cells,
    escape,
    number,
    size,
    speed,
    table,
    text,
)

#: What matters to NCCL, by kind of counter, in the order in which one looks at it.
NCCL = {
    "data": "Data",
    "packets": "Packets",
    "retransmits": "Sent again",
    "order": "Out of sequence",
    "congestion": "Congestion: ECN, notifications (CNP), credits",
    "rnr": "Receiver not ready (RNR)",
    "timeouts": "Timeouts",
    "discards": "Discards",
    "errors": "Errors",
    "link": "Line",
}

_HUES = {"healthy": "green", "congested": "yellow", "starved": "yellow", "unknown": "dim"}


def hue(state: str) -> tuple[str, ...]:
    """Of a verdict."""
    return (_HUES.get(state, "red"),)


def name(row: Row) -> str:
    """``mlx5_0/1``."""
    return escape(f"{row['device']}/{row['port']}")


def bits(per_second: float) -> str:
    """The speed of a link: ``100 Gb/s``, ``2.5 Gb/s``."""
    for unit in ("", "k", "M", "G"):
        if per_second < 1000:
            return f"{per_second:g} {unit}b/s"
        per_second /= 1000
    return f"{per_second:g} Tb/s"


def _state(value: str) -> tuple[str, ...]:
    return ("green",) if value == "active" else ("red",)


def _figure(column: Column) -> Column:
    """A figure of a queue pair; those that nobody counted are missing, not zero."""
    return replace(column, show=lambda row, style: column.show(row, style) if row.get("source") else MISSING)


def _of_port() -> Column:
    return Column(title="PORT", key="device", show=lambda row, _: name(row), shrink=10)


_BYTES = (
    amount("IN", "in_bytes", drop=1),
    amount("OUT", "out_bytes", drop=1),
    speed("IN RATE", "in_byte_rate"),
    speed("OUT RATE", "out_byte_rate"),
)


def _traffic(packets: int) -> tuple[Column, ...]:
    """What was exchanged; soft-RoCE counts no bytes, then packets have the room, which leave as `packets`
    says."""
    return (
        *(replace(column, rare=("in_bytes", "out_bytes")) for column in _BYTES),
        number("IN PKTS", "in_packets", drop=packets),
        number("OUT PKTS", "out_packets", drop=packets),
    )


PORTS = (
    _of_port(),
    replace(text("STATE", "state"), hue=_state),
    text("LINK", "link_layer", drop=8),
    Column(
        title="SPEED",
        key="speed",
        show=lambda row, _: bits(row["speed"]) if row.get("speed") else MISSING,
        right=True,
        drop=6,
    ),
    text("NETDEV", "netdev", drop=4),
    *_traffic(packets=5),
    number("ERRORS", "errors", drop=7),
    replace(text("VERDICT", "verdict"), hue=hue),
)

PAIRS = (
    _of_port(),
    number("QP", "queue_pair"),
    number("REMOTE", "remote_queue_pair", drop=7),
    text("TYPE", "type", drop=6),
    text("STATE", "state", drop=6),
    Column(
        title="USER",
        key="user",
        show=lambda row, _: escape(str(row.get("user", "unknown"))),
        shrink=8,
    ),
    number("PID", "pid", drop=4),
    text("PROCESS", "process", shrink=8, drop=3),
    text("UNIT", "unit", shrink=12, drop=5),
    *map(_figure, _traffic(packets=9)),
    text("FROM", "source", drop=8),
)


def overview(rows: Sequence[Row], style: Style, bare: bool, marked: str) -> list[str]:
    """A table of ports; below it the reasons of those that are not healthy."""
    lines = table(PORTS, rows, style, marked)[bare:]
    ailing = [row for row in rows if row["verdict"] not in ("healthy", "unknown")]
    reasons = [line for row in ailing for line in _sentence(row, row["ails"], style)]
    return [*lines, *(["", *reasons] if reasons else [])]


def nccl(figures: Figures, verdict: Verdict, style: Style, verbose: bool) -> list[str]:
    """The verdict, the port in a line, and its counters in groups, each explained."""
    port = figures.port
    speed = bits(port["speed"]) if port.get("speed") else ""
    facts = (port["state"], port.get("physical_state"), port["link_layer"], speed, port.get("netdev"))
    return [
        *_verdict(port, verdict, style),
        f"  {escape(', '.join(str(fact) for fact in facts if fact))}",
        *_groups(figures.counters, NCCL, _COUNTERS, style, verbose),
    ]


def device(figures: Figures, verdict: Verdict, style: Style, verbose: bool) -> list[str]:
    """The verdict, all that is known of the port, and all its counters."""
    port = figures.port
    made = (port.get("driver"), port.get("firmware") and f"firmware {port['firmware']}")
    facts = {
        "State": ", ".join(filter(None, (str(port["state"]), str(port.get("physical_state", ""))))),
        "Link": " ".join(
            [str(port["link_layer"]), *([f"at {bits(port['speed'])}"] if port.get("speed") else [])]
        ),
        "Netdev": port.get("netdev"),
        "LID": port.get("lid"),
        "Node GUID": port.get("node_guid"),
        "Driver": ", ".join(str(part) for part in made if part),
    }
    lines = _verdict(port, verdict, style)
    lines += [f"{title:>10}: {escape(str(fact))}" for title, fact in facts.items() if fact]
    for title, gid in zip(_then_blank("GIDs"), port.get("gids", ()), strict=False):
        where = ", ".join(filter(None, (str(gid["type"]), str(gid["netdev"]))))
        lines.append(escape(f"{title:>10}{':' if title else ' '} {gid['index']} {gid['address']} ({where})"))
    return [*lines, *_groups(figures.counters, NCCL | _OTHERS, (*_COUNTERS, _RAW), style, verbose)]


_OTHERS = {"multicast": "Multicast", "requests": "Requests", "other": "Others"}


def _then_blank(title: str) -> Iterable[str]:
    yield title
    while True:
        yield ""


def _verdict(port: Row, verdict: Verdict, style: Style) -> list[str]:
    dot = style.paint(style.dot(verdict.state not in ("down", "unknown")), *hue(verdict.state))
    first, *rest = _sentence(port, verdict, style, 2)
    return [f"{dot} {style.paint(first, 'bold')}", *(f"  {line}" for line in rest)]


def _sentence(port: Row, verdict: Verdict, style: Style, taken: int = 0) -> list[str]:
    """What a port's state is and why, in lines that fit beside `taken` cells."""
    said = "; ".join(filter(None, (verdict.reason, *verdict.more, verdict.look_at)))
    return _wrapped(escape(f"{port['device']}/{port['port']} {verdict.state}: {said}"), style, taken)


def _wrapped(line: str, style: Style, taken: int) -> list[str]:
    if style.width is None:
        return [line]
    width = max(20, style.width - taken)
    return textwrap.wrap(line, width, break_on_hyphens=False, subsequent_indent="" if taken else "  ")


def _total(row: Row, style: Style) -> str:
    return size(row["total"], style.si) if row["unit"] == "bytes" else f"{row['total']:,}"


def _rate(row: Row, style: Style) -> str:
    return f"{size(row['rate'], style.si) if row['unit'] == 'bytes' else count(row['rate'])}/s"


def _column(title: str, show: Callable[[Row, Style], str]) -> Column:
    return Column(title=title, key=title.lower(), show=show, right=True)


_COUNTERS = (
    replace(text("COUNTER", "counter"), show=lambda row, _: f"  {escape(str(row['counter']))}"),
    _column("TOTAL", _total),
    _column("RATE", _rate),
)


#: What the device says in its own unit, such as words of 4 bytes: to compare with what is in sysfs.
_RAW = number("RAW", "value")


def _groups(
    rows: Sequence[Row], groups: Mapping[str, str], columns: Sequence[Column], style: Style, verbose: bool
) -> list[str]:
    """The counters by kind, with what they mean; those that are zero are named only, unless `verbose`."""
    shown = [row for kind in groups for row in rows if row["kind"] == kind and (verbose or row["total"])]
    header, *lines = table(columns, shown, replace(style, width=None))
    widest = max((cells(escape(str(row["meaning"]))) for row in shown), default=0)
    beside = style.width is None or cells(header) + 2 + widest <= style.width
    out = ["", header] if shown else []
    for kind, title in groups.items():
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            continue
        moved = [(row, line) for row, line in zip(shown, lines, strict=True) if row["kind"] == kind]
        zero = ", ".join(escape(str(row["counter"])) for row in of_kind if not (verbose or row["total"]))
        if not moved:
            first, *rest = _wrapped(f"{title}: none ({zero})", style, 0)
            out += [style.paint(first[: len(title)], "bold") + first[len(title) :], *rest]
            continue
        out.append(style.paint(title, "bold"))
        for row, line in moved:
            out += _explained(line, escape(str(row["meaning"])), beside, style)
        out += [f"  {line}" for line in _wrapped(f"none: {zero}", style, 2)] if zero else []
    return out


def _explained(line: str, meaning: str, beside: bool, style: Style) -> list[str]:
    """A counter with what it means: beside it if all of them fit there, else below."""
    if beside:
        return [f"{line}  {style.paint(meaning, 'dim')}"]
    return [line, *(f"    {style.paint(part, 'dim')}" for part in _wrapped(meaning, style, 4))]
