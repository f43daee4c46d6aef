"""path: the way of packets through the kernel, the time it takes them, where and why they are dropped."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from netmonctl import path_stages
from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client
from netmonctl.errors import CtlError, usage
from netmonctl.output import Answer, Output, present
from netmonctl.path_views import JourneyView, JsonView, StatsView, TableView, View
from netmonctl.session import Running
from netmonctl.user import resolved

#: Seconds between two reports, if nothing else is asked for.
_INTERVAL = 1.0

#: Seconds without an event after which journeys are looked at.
_PAUSE = 0.1


def add_parsers(commands: Commands) -> None:
    parser = commands.add("path", run, "packets on their way through the kernel: stages, times, drops")
    add_options(
        parser, "stages", "drops", "stats", "interval", "journeys", "debug_func", "rate", "count",
        "duration", "verbose", "full", several=("ip", "port", "protocol", "user"),
    )  # fmt: skip


def run(args: Namespace, client: Client, out: Output) -> None:
    options = _options(args, live=out.terminal or args.json != "off")
    with Running(client, client.start_path(options), out, sink=_sink(out)) as running:
        lines = Lines()
        if args.debug_func:
            _explain(args, out, running, lines)
            return
        view = _view(args, out)
        for chunk in running.chunks(_PAUSE if args.journeys else None):
            view.take(lines.of(chunk))
        why = running.finish()
        view.end()
    if why and not ("duration" in options and running.figures.get("end") == "duration"):
        raise CtlError(f"the path ended early: {why}")


def _options(args: Namespace, *, live: bool) -> dict[str, Any]:
    """What to ask netmond for. `live`: reports come until somebody ends it, not just once."""
    if args.interval is not None and not args.stats:
        raise usage("--interval is about reports; add --stats")
    if args.journeys and args.stats:
        raise usage("--stats has no journeys; write one of both")
    options: dict[str, Any] = {
        "addresses": args.ip,
        "ports": args.port,
        "protocols": args.protocol,
        "users": args.user and [resolved(name) for name in args.user],
        "stages": args.stages and args.stages.split(","),
        "drops": args.drops or None,
        "rate": args.rate,
        "count": args.count,
        "duration": args.duration,
    }
    if args.stats:
        options |= {"mode": "stats", "interval": args.interval or _INTERVAL}
        if not live and args.duration is None:
            options["duration"] = options["interval"]
    return {name: value for name, value in options.items() if value is not None}


def _view(args: Namespace, out: Output) -> View:
    if args.stats and args.json == "off":
        return StatsView(args, out)
    if args.journeys:
        return JourneyView(args, out)
    if args.json != "off":
        return JsonView(out)
    return TableView(args, out)


def _explain(args: Namespace, out: Output, running: Running, lines: Lines) -> None:
    """The stages, which come first, and nothing of what follows."""
    first = next(filter(None, map(lines.of, running.chunks())), None)
    if first is None:
        raise CtlError(f"the path ended before it began: {running.finish() or 'it was stopped'}")
    stages = json.loads(first[0])["stages"]

    def answer() -> Answer:
        return Answer(data=stages, text=lambda style: path_stages.listing(stages, style, full=args.verbose))

    present(args, out, answer)


class Lines:
    """Takes a stream apart into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, chunk: bytes) -> list[bytes]:
        """The lines that this piece completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return lines


def _sink(out: Output) -> int | None:
    """The descriptor of standard output; None if it has none."""
    try:
        return out.stdout.fileno()
    except OSError:
        return None
