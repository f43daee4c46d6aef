"""users, units, processes, flows, interfaces: one table each, all made the same way."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netmonctl import books, completers
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client, Listing
from netmonctl.errors import usage
from netmonctl.list_columns import FLOWS, INTERFACES, PROCESSES, UNITS, USERS
from netmonctl.output import Answer, Output, present
from netmonctl.render import Column, Row, Style, escape, table

#: Most rows that netmond gives at once.
MAX_LINES = 10_000

#: Lines around the rows of a repainted screen: stamp, blank, header, blank, legend, note, cursor.
WATCH_FRAME = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """One listing: D-Bus name, noun for the legend, columns, filters it takes, rows by default."""

    what: str
    noun: str
    columns: tuple[Column, ...]
    filters: tuple[str, ...] = ()
    lines: int = MAX_LINES
    help: str = ""
    scoped: bool = True


FLOW_FILTERS = (
    "user", "unit", "pid", "protocol", "port", "peer", "interface", "kind", "traffic_type", "active"
)  # fmt: skip

LISTS = {
    "users": List(what="Users", noun="user", columns=USERS, help="traffic of each user"),
    "units": List(
        what="Units",
        noun="unit",
        columns=UNITS,
        filters=("user", "unit", "pid"),
        help="traffic of each systemd unit",
    ),
    "processes": List(
        what="Processes",
        noun="process",
        columns=PROCESSES,
        filters=("user", "unit", "pid"),
        lines=100,
        help="traffic of each process",
    ),
    "flows": List(
        what="Flows",
        noun="flow",
        columns=FLOWS,
        filters=FLOW_FILTERS,
        lines=100,
        help="connections and other conversations",
    ),
    "interfaces": List(
        what="Interfaces",
        noun="interface",
        columns=INTERFACES,
        filters=("monitored",),
        help="network interfaces, monitored or not",
        scoped=False,
    ),
}


def add_parsers(commands: Commands) -> None:
    for verb, listing in LISTS.items():
        parser = commands.add(verb, run, listing.help)
        scope = ("all", "own") if listing.scoped else ()
        own = ("books",) if verb == "interfaces" else ()
        add_options(
            parser, *listing.filters, *own, *scope, "lines", "sort", "reverse", "watch", "full", "si"
        )
        if own:
            name = parser.add_argument(
                "name", nargs="?", metavar="NAME", help="with --books: only this interface"
            )
            with_completer(name, completers.interfaces)


def run(args: Namespace, client: Client, out: Output) -> None:
    listing = LISTS[args.verb]
    if listing.what == "Interfaces":
        if args.books:
            books.run(args, client, out)
            return
        if args.name:
            raise usage(f"{args.name} what? For its books: netmonctl interfaces --books {args.name}")
    present(args, out, lambda: answer(args, client, out, listing))


def answer(
    args: Namespace, client: Client, out: Output, listing: List, more: Mapping[str, Any] | None = None
) -> Answer:
    """Ask netmond for the rows that `args` describe, and `more` options that are not among its own."""
    wanted = {**options(args, out, listing), **(more or {})}
    found = client.listing(listing.what, wanted)

    def lines(style: Style) -> list[str]:
        return [
            *body(found.rows, listing, style, args.no_legend, wanted.get("sort", "")),
            *legend(args, found, listing),
        ]

    return Answer(data=found.rows, text=lines, note=note(args, found, listing))


def options(args: Namespace, out: Output, listing: List) -> dict[str, Any]:
    """The D-Bus options for what was asked on the command line."""
    chosen: dict[str, Any] = {}
    for name in listing.filters:
        value = getattr(args, name)
        if value is not None and value is not False:
            chosen[name] = value
    if args.sort:
        chosen["sort"] = args.sort
    if args.reverse:
        chosen["reverse"] = True
    if listing.scoped and (args.all or args.own):
        chosen["scope"] = "own" if args.own else "all"
    repainted = args.watch is not None and out.height is not None and args.json == "off"
    if args.lines is not None:
        chosen["limit"] = args.lines
    elif repainted and out.height is not None:
        chosen["limit"] = max(1, out.height - WATCH_FRAME)
    else:
        chosen["limit"] = listing.lines
    return chosen


def body(rows: Sequence[Row], listing: List, style: Style, bare: bool, marked: str = "") -> list[str]:
    """Table and the reasons of interfaces that are in trouble."""
    lines = table(listing.columns, rows, style, marked)
    reasons = [
        f"{escape(str(row['name']))}: {escape(str(row['reason']))}" for row in rows if row.get("reason")
    ]
    return [*lines[bare:], *(["", *reasons] if reasons else [])]


def legend(args: Namespace, found: Listing, listing: List) -> list[str]:
    """The closing lines: how many of how many."""
    if args.no_legend:
        return []
    shown = len(found.rows)
    line = f"{shown} {nouns(listing.noun, shown)} listed"
    if found.total > shown:
        more = "; -n 0 lists all" if _could_be_all(args, found) and args.watch is None else ""
        line += f", {found.total} in total{more}"
    return ["", f"{line}."]


def _could_be_all(args: Namespace, found: Listing) -> bool:
    """Whether rows are missing that nobody asked to leave out and that one answer could hold."""
    return args.lines is None and len(found.rows) < found.total <= MAX_LINES


def nouns(noun: str, count: int) -> str:
    """``1 flow``'s noun, ``23 flows``', ``2 processes``'."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def note(args: Namespace, found: Listing, listing: List) -> str:
    """What a person could misread: figures of one user only, or JSON that is not complete."""
    remarks = []
    if listing.scoped and found.scope == "own" and not args.own:
        remarks.append(
            "Showing own figures only; for everyone's use --all, run as root or join group netmond."
        )
    if args.json != "off" and _could_be_all(args, found):
        remarks.append(
            f"{len(found.rows)} of {found.total} {nouns(listing.noun, found.total)}; -n 0 prints all."
        )
    return "\n".join(remarks)
