"""status: how netmond is, on one page."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client
from netmonctl.list_columns import INTERFACES
from netmonctl.output import Answer, Output, present
from netmonctl.render import Row, Style, duration, escape, moment, plural, size, table
from netmonctl.user import traffic

HUES = {"on": "green", "degraded": "yellow"}
LABEL = 10  #: cells before the colon

STATUS_INTERFACES = tuple(column for column in INTERFACES if not column.key.startswith("kernel_"))


def add_parsers(commands: Commands) -> None:
    parser = commands.add(
        "status", run, "state of netmond: features, interfaces, totals, losses, cost (default)"
    )
    add_options(parser, "verbose", "watch", "full", "si")


def run(args: Namespace, client: Client, out: Output) -> None:
    def fetch() -> Answer:
        status = client.describe()
        return Answer(data=status, text=lambda style: page(status, style, out.now(), args.verbose))

    present(args, out, fetch)


def page(status: Mapping[str, Any], style: Style, now: float, verbose: bool) -> list[str]:
    """The whole page. `now` dates start and counting; loss counters of zero only if `verbose`."""
    features = status["features"]
    hue = "yellow" if any(f["state"] == "degraded" for f in features) else "green"
    counts = (plural(status[f"{noun}s"], noun) for noun in ("user", "flow", "target"))
    name = style.paint(f"netmond {escape(str(status['version']))}", "bold")
    interval = duration(round(status["interval"], 2))
    return [
        f"{style.paint(style.dot(True), hue)} {name} - who uses the network on this machine",
        *_entry("Since", [_ago(status["started"], now)]),
        *_entry("Counting", [f"since {_ago(status['since'], now)}"]),
        *_entry("Tick", [f"{status['tick']}, {interval} after the one before"]),
        *_entry("Knows", [", ".join(counts)]),
        *(line for name, value in traffic(status["totals"], style) for line in _entry(name, [value])),
        *_entry("Losses", _losses(status["losses"], style, verbose)),
        *_entry("Cost", [_cost(status, style, now)]),
        *_entry("Features", _features(features, style)),
        *_entry("Machine", [_machine(status["host"], style)]),
        *_interfaces(status["interfaces"], style),
    ]


def _entry(name: str, values: Sequence[str]) -> list[str]:
    """A label and its lines below each other."""
    blank = " " * (LABEL + 2)
    return [(f"{name:>{LABEL}}: " if index == 0 else blank) + value for index, value in enumerate(values)]


def _ago(time: float, now: float) -> str:
    return f"{moment(time)}; {duration(now - time)} ago"


def _losses(losses: Sequence[Row], style: Style, verbose: bool) -> list[str]:
    shown = [loss for loss in losses if verbose or loss["count"]]
    clean = not any(loss["count"] for loss in losses)
    lines = ["no losses"] if clean else []
    digits = max((len(str(loss["count"])) for loss in shown), default=0)
    for loss in shown:
        line = f"{loss['count']:>{digits}} {escape(loss['name'])}: {escape(loss['meaning'])}"
        lines.append(style.paint(line, "red") if loss["count"] else line)
    return lines


def _cost(status: Mapping[str, Any], style: Style, now: float) -> str:
    cost = status["cost"]
    share = 100 * cost["cpu_seconds"] / max(now - status["started"], 1e-9)
    return (
        f"{duration(cost['cpu_seconds'])} CPU ({min(share, 100.0):.2f} % of one core since the start), "
        f"{size(cost['resident_bytes'], style.si)} memory, last tick took {duration(cost['tick_seconds'])}"
    )


def _features(features: Sequence[Row], style: Style) -> list[str]:
    names = max((len(escape(f["name"])) for f in features), default=0)
    lines = []
    for feature in features:
        state = str(feature["state"])
        dot = style.paint(style.dot(state != "off"), *([HUES[state]] if state in HUES else []))
        reason = f" - {escape(feature['reason'])}" if feature["reason"] else ""
        lines.append(f"{dot} {escape(feature['name']):<{names}} {escape(state)}{reason}")
    return lines or ["none"]


def _machine(host: Row, style: Style) -> str:
    """Each packet of the machine once, whatever interfaces it passed."""
    parts = []
    for direction in ("in", "out"):
        amount, packets = size(host[f"{direction}_bytes"], style.si), host[f"{direction}_packets"]
        parts.append(f"{direction} {amount} in {packets} packets")
    return f"{', '.join(parts)}: all interfaces, each packet once"


def _interfaces(rows: Sequence[Row], style: Style) -> list[str]:
    """The monitored interfaces as a table, the others as a number."""
    monitored = [row for row in rows if row["monitored"]]
    others = len(rows) - len(monitored)
    more = f"; {others} not monitored, see: netmonctl interfaces" if others else ""
    lines = _entry("Interfaces", [f"{len(monitored)} monitored{more}"])
    if monitored:
        columns = [column for column in STATUS_INTERFACES if column.key != "monitored"]
        lines += ["", *table(columns, monitored, style, indent="  ")]
    troubles = [f"  {escape(row['name'])}: {escape(row['reason'])}" for row in rows if row.get("reason")]
    return [*lines, *troubles]
