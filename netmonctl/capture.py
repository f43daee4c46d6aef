"""capture: packets of this machine, with whose they are, to the terminal or to a file for Wireshark."""

from __future__ import annotations

import io
import json
import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from netmonctl import capture_read
from netmonctl.arguments import Commands, add_options
from netmonctl.capture_files import MILLION, File, Ring, writing
from netmonctl.capture_lines import Lines, Objects
from netmonctl.client import Client, Session
from netmonctl.errors import CtlError, usage
from netmonctl.output import Output
from netmonctl.pcapng import Frame, PcapngError, Reader
from netmonctl.render import duration, escape, size
from netmonctl.session import Running
from netmonctl.user import resolved

STDOUT = "-"

#: Takes all that a session brings.
Take = Callable[[Running], None]


def add_parsers(commands: Commands) -> None:
    parser = commands.add("capture", run, "packets as they pass, with user, process and unit")
    files = ("read", "write", "file_size", "file_duration", "file_count")
    ends = ("count", "duration")
    shown = ("hex", "ascii", "habits")
    several = ("interface", "user", "unit", "process", "pid")
    add_options(parser, *files, *ends, "snaplen", "buffer", "way", *shown, several=several)
    parser.add_argument(
        "filter", nargs="*", metavar="FILTER", help="which packets, as with tcpdump: see pcap-filter(7)"
    )


def run(args: Namespace, client: Client, out: Output) -> None:
    _check(args)
    if args.read is not None:
        capture_read.run(args, _printer(args, out), out)
        return
    chosen = options(args)
    with _output(args, out) as (take, begin, sink):
        session = client.start_capture(chosen)
        show = _progress if args.write is not None and not args.no_legend else None
        with Running(client, session, out, show=show, sink=sink) as running:
            begin()
            if not args.no_legend:
                where = ", ".join(args.interface or _interfaces(client, session))
                out.note(f"Capturing on {escape(where)}, session {session.number}. Ctrl-C ends it.")
            take(running)
            end = running.finish()
    if running.figures and not args.no_legend:
        out.note(_total(running.figures))
    if end:
        raise CtlError(f"the capture ended early: {end}")
    if running.figures["end"] == "duration" and args.duration is None:
        out.note("netmonctl: netmond lets no session be longer; see netmond.toml(5), [sessions]")


def _interfaces(client: Client, session: Session) -> list[str]:
    """Those that netmond has chosen; it says so in its list."""
    rows = client.listing("Sessions", {"scope": "own"}).rows
    for row in rows:
        if row["session"] == session.number:
            return list(json.loads(row["description"])["interfaces"])
    return ["an interface that is gone already"]


def _check(args: Namespace) -> None:
    """What makes no sense together."""
    if args.write is not None and (args.hex or args.ascii or args.json != "off"):
        raise usage("--write is for programs; --hex, --ascii and --json are for packets that are shown")
    if args.file_count is not None and not _is_ring(args):
        raise usage("--file-count needs --file-size or --file-duration, after which there is a new file")
    if _is_ring(args) and args.write in (None, STDOUT):
        raise usage("--file-size and --file-duration need --write FILE")


def _is_ring(args: Namespace) -> bool:
    return args.file_size is not None or args.file_duration is not None


def options(args: Namespace) -> dict[str, Any]:
    """The D-Bus options for what was asked on the command line."""
    wanted = {
        "interfaces": args.interface,
        "direction": None if args.way is None else args.way.replace("inout", "both"),
        "filter": " ".join(args.filter) or None,
        "users": args.user and [resolved(name) for name in args.user],
        "units": args.unit,
        "processes": args.process,
        "pids": args.pid,
        "snaplen": args.snaplen or None,
        "count": args.count,
        "duration": args.duration,
        "buffer": args.buffer and args.buffer * 1024,
    }
    return {name: value for name, value in wanted.items() if value is not None}


@contextmanager
def _output(args: Namespace, out: Output) -> Iterator[tuple[Take, Callable[[], None], int | None]]:
    """How to take what comes, what to do before that, and the descriptor that somebody may cease to read."""
    if args.write is None:
        sink = _descriptor(out)
        printer = _printer(args, out)
        yield lambda running: _print(running, printer, out), _nothing, sink
    elif args.write == STDOUT:
        if out.terminal:
            raise usage("packets are not for a terminal; write --write FILE, or pipe them to a program")
        stdout = out.stdout.fileno()
        yield lambda running: running.copy(stdout), _nothing, stdout
    elif not _is_ring(args):
        file = File(args.write)
        try:
            yield lambda running: _copy(running, file), file.begin, file.descriptor
        finally:
            file.close()
    else:
        size = math.inf if args.file_size is None else args.file_size * MILLION
        period = math.inf if args.file_duration is None else args.file_duration
        ring = Ring(args.write, size, period, args.file_count)
        try:
            yield lambda running: _fill(running, ring), ring.begin, None
        finally:
            ring.close()


def _printer(args: Namespace, out: Output) -> Lines | Objects:
    if args.json != "off":
        return Objects()
    return Lines(out.style, hexadecimal=args.hex, characters=args.ascii)


def _nothing() -> None:
    """Standard output is as it is."""


def _descriptor(out: Output) -> int | None:
    try:
        return out.stdout.fileno()
    except io.UnsupportedOperation:
        return None


def _print(running: Running, printer: Lines | Objects, out: Output) -> None:
    reader = Reader()
    try:
        for data in running.chunks():
            frames = [item for item in reader.feed(data) if isinstance(item, Frame)]
            if lines := [line for frame in frames for line in printer.of(frame)]:
                print("\n".join(lines), file=out.stdout, flush=True)
    except PcapngError as error:
        raise CtlError(f"netmond sent packets that cannot be read: {error}") from None


def _copy(running: Running, file: File) -> None:
    with writing(file.path):
        running.copy(file.descriptor)


def _fill(running: Running, ring: Ring) -> None:
    try:
        for data in running.chunks():
            ring.write(data)
    except PcapngError as error:
        raise CtlError(f"netmond sent packets that cannot be read: {error}") from None


def _progress(figures: dict[str, Any]) -> str:
    """So far, in a line that changes."""
    return (
        f"{figures['packets']} packets, {size(figures['bytes'])}, {figures['dropped']} dropped, "
        f"{duration(figures['seconds'])}"
    )


def _total(figures: dict[str, Any]) -> str:
    """In the end, in tcpdump's words."""
    return (
        f"{figures['packets']} packets captured, {figures['filtered']} filtered, "
        f"{figures['dropped']} dropped by the kernel"
    )
