"""rdma: devices and their ports, what NCCL's users look at, counters, queue pairs and whose they are."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from netmonctl import rdma_pages as pages
from netmonctl.arguments import Commands, add_options
from netmonctl.calls import Typed
from netmonctl.client import Client, Listing
from netmonctl.errors import usage
from netmonctl.lists import List, answer, legend, options
from netmonctl.output import Answer, Output, present
from netmonctl.rdma_verdict import Figures, Verdict, judge
from netmonctl.render import Style, escape

OWNERS = ("user", "unit", "pid")
PLACE = ("device", "port")

#: How often ports and counters are asked for until both are of one reading.
_TRIES = 3

#: What netmond says of the feature in that case.
_NO_DEVICE = "no RDMA device"

PORTS = List(what="RdmaPorts", noun="port", columns=pages.PORTS, scoped=False)
PAIRS = List(what="QueuePairs", noun="queue pair", columns=pages.PAIRS, filters=OWNERS, lines=100)


def add_parsers(commands: Commands) -> None:
    parser = commands.add("rdma", run, "RDMA devices, their ports and counters, and who uses them")
    views = ("device", "nccl", "queue_pairs")
    add_options(
        parser, *views, *OWNERS, "all", "own", "lines", "sort", "reverse", "watch", "full", "si", "verbose"
    )


def run(args: Namespace, client: Client, out: Output) -> None:
    _check(args)
    place = _place(args.device)
    if args.queue_pairs:
        present(args, out, lambda: answer(args, client, out, PAIRS, place))
    elif args.nccl or args.device is not None:
        present(args, out, lambda: _ports(args, client, place))
    else:
        present(args, out, lambda: _overview(args, client, out))


def _check(args: Namespace) -> None:
    """What makes no sense together."""
    if args.nccl and args.queue_pairs:
        raise usage("--nccl is about ports, --qp about queue pairs: only one of them at a time")
    if not args.queue_pairs and (args.all or args.own or any(getattr(args, name) for name in OWNERS)):
        raise usage("ports belong to nobody; for queue pairs and whose they are: netmonctl rdma --qp")
    listed = args.queue_pairs or not (args.nccl or args.device is not None)
    if not listed and (args.sort or args.reverse or args.lines is not None):
        raise usage("--sort, --reverse and --lines are for lists: netmonctl rdma, netmonctl rdma --qp")


def _place(device: str | None) -> dict[str, Any]:
    """The D-Bus options for ``DEVICE`` or ``DEVICE/PORT``."""
    if device is None:
        return {}
    name, slash, port = device.partition("/")
    if not name or (slash and not (port.isascii() and port.isdecimal() and int(port[:12]) < 1 << 32)):
        raise usage(f"{device!r} is neither a device nor a port of one, such as mlx5_0 or mlx5_0/1")
    return {"device": name} | ({"port": Typed("u", int(port[:12]))} if slash else {})


def _overview(args: Namespace, client: Client, out: Output) -> Answer:
    """A line for each port, and below them what ails those that are not well."""
    found, counters = _together(client, options(args, out, PORTS), {})
    judged = [
        {**figures.port, "verdict": verdict.state, "ails": verdict}
        for figures, verdict in _verdicts(found, counters)
    ]

    def lines(style: Style) -> list[str]:
        if not found.rows:
            return nothing
        body = pages.overview(judged, style, args.no_legend, args.sort or "")
        return [*body, *legend(args, found, PORTS)]

    nothing = [] if found.rows or args.no_legend else [_why_none(client)]
    return Answer(data=found.rows, text=lines)


def _ports(args: Namespace, client: Client, place: dict[str, Any]) -> Answer:
    """Everything about each port; with --nccl what matters to NCCL."""
    found, counters = _together(client, {**place, "limit": 0}, place)
    judged = _verdicts(found, counters)
    nothing = [] if found.rows or args.no_legend else [_why_none(client)]
    page = pages.nccl if args.nccl else pages.device

    def lines(style: Style) -> list[str]:
        shown = [["", *page(figures, verdict, style, args.verbose)] for figures, verdict in judged]
        return [line for lines in shown for line in lines][1:] or nothing

    return Answer(data=[_object(*each) for each in judged] if args.nccl else counters.rows, text=lines)


def _together(client: Client, wanted: dict[str, Any], place: dict[str, Any]) -> tuple[Listing, Listing]:
    """Ports and counters of one reading; where netmond reads all the time, of two, one after the other."""
    for _ in range(_TRIES):
        ports = client.listing(PORTS.what, wanted)
        counters = client.listing("RdmaCounters", {**place, "limit": 0}) if ports.rows else ports
        if ports.tick == counters.tick:
            break
    return ports, counters


def _verdicts(ports: Listing, counters: Listing) -> list[tuple[Figures, Verdict]]:
    """Each port with its own counters, and the verdict on it."""
    by_port: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in counters.rows:
        by_port.setdefault(tuple(row[key] for key in PLACE), []).append(row)
    figures = [
        Figures(
            port=row,
            counters=by_port.get(tuple(row[key] for key in PLACE), ()),
            watched=counters.watched,
            interval=counters.interval,
        )
        for row in ports.rows
    ]
    return [(each, judge(each)) for each in figures]


def _object(figures: Figures, verdict: Verdict) -> dict[str, Any]:
    """A port with its verdict for programs; the counters are rows as they are."""
    return {
        "device": figures.port["device"],
        "port": figures.port["port"],
        "verdict": verdict.state,
        "reason": verdict.reason,
        "look_at": verdict.look_at,
        "more": list(verdict.more),
        "interval": figures.interval,
        "counters": [row for row in figures.counters if row["kind"] in pages.NCCL],
    }


def _why_none(client: Client) -> str:
    """Why there is no port to show: mostly there is no such device, and else the feature says it."""
    features = {feature["name"]: feature for feature in client.describe()["features"]}
    reason = str(features.get("rdma", {}).get("reason", ""))
    if reason in ("", _NO_DEVICE):
        return "No RDMA device on this machine."
    return f"No RDMA port to show: {escape(reason)}."
