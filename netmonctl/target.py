"""target add, remove, list, show, reset: addresses and prefixes that netmond counts on request."""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import Any

from netmonctl import completers, lists
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client
from netmonctl.errors import CtlError, usage
from netmonctl.output import Answer, Output, done, present
from netmonctl.render import (
    Column,
    Row,
    Style,
    amount,
    duration,
    escape,
    exact_size,
    moment,
    number,
    plural,
    speed,
    text,
)

TARGETS = (
    text("TARGET", "address"),
    number("IN PKTS", "in_packets"),
    amount("IN", "in_bytes"),
    number("OUT PKTS", "out_packets"),
    amount("OUT", "out_bytes"),
    speed("IN RATE", "in_byte_rate", drop=2),
    speed("OUT RATE", "out_byte_rate", drop=2),
    Column(title="SINCE", key="since", show=lambda row, _: moment(row["since"]), drop=3),
)
LIST = lists.List(what="Targets", noun="target", columns=TARGETS, scoped=False)

DONE = {"add": "Added", "remove": "Removed", "reset": "Reset"}


def add_parsers(commands: Commands) -> None:
    group = commands.group("target", "addresses and prefixes to count")
    add = group.add("add", change, "count these addresses from now on; all or none")
    remove = group.add(
        "remove", change, "stop counting these addresses and forget their figures; all or none"
    )
    reset = group.add("reset", change, "set the counters of these addresses to zero; all or none")
    show = group.add("show", show_targets, "inbound, outbound and total of these addresses")
    listing = group.add("list", list_targets, "all targets")
    for parser in (add, remove, reset):
        _add_addresses(parser, "*", live=parser is not add)
        add_options(parser, "file")
    _add_addresses(show, "+", live=True)
    add_options(show, "watch", "si")
    add_options(listing, "lines", "sort", "reverse", "watch", "full", "si")


def _add_addresses(parser: argparse.ArgumentParser, count: str, live: bool) -> None:
    action = parser.add_argument(
        "addresses",
        nargs=count,
        metavar="ADDR[/PREFIX]",
        help="IPv4 or IPv6 address or prefix"
        + ("" if count == "+" else "; - reads them from standard input"),
    )
    if live:
        with_completer(action, completers.targets)


def change(args: Namespace, client: Client, out: Output) -> None:
    """add, remove, reset: everything in one call, so that it is all or none."""
    verb = args.verb.partition(" ")[2]
    addresses = wanted(args, out)
    paths: list[str] = []
    if verb == "add":
        paths = client.add_targets(addresses)
    elif verb == "remove":
        client.remove_targets(addresses)
    else:
        client.reset_targets(addresses)
    data: Any = paths if verb == "add" else addresses
    done(args, out, data, f"{DONE[verb]} {plural(len(addresses), 'target')}.")


def wanted(args: Namespace, out: Output) -> list[str]:
    """The addresses of command line, file and standard input; commas separate, too."""
    words: list[str] = []
    for word in args.addresses:
        words += _words(out.stdin.read() if word == "-" else word)
    if args.file == "-":
        words += _words(out.stdin.read())
    elif args.file is not None:
        words += _words(_read(args.file))
    for word in words:
        if not (word.isascii() and word.isprintable()):
            raise usage(f"{word!r} is not an address; write 192.0.2.1, 2001:db8::1 or 192.0.2.0/24")
    if not words:
        raise usage("no address given; write for example 192.0.2.1, 2001:db8::/32, - or --file FILE")
    return words


def _words(content: str) -> list[str]:
    """Addresses of a text; # starts a comment."""
    lines = (line.partition("#")[0] for line in content.splitlines())
    return [word for line in lines for word in line.replace(",", " ").split()]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise CtlError(f"cannot read {path}: {error.strerror}") from None


def show_targets(args: Namespace, client: Client, out: Output) -> None:
    def fetch() -> Answer:
        targets = [client.target(address) for address in args.addresses]

        def lines(style: Style) -> list[str]:
            return "\n\n".join("\n".join(block(row, style, out.now())) for row in targets).split("\n")

        return Answer(data=targets, text=lines)

    present(args, out, fetch)


def block(row: Row, style: Style, now: float) -> list[str]:
    """One target as the users of per-target counters know it."""
    packets = {side: row[f"{side}_packets"] for side in ("in", "out")}
    count = {side: row[f"{side}_bytes"] for side in ("in", "out")}
    entries = (
        ("Since", f"{moment(row['since'])}; {duration(now - row['since'])} ago"),
        ("Inbound Packets", str(packets["in"])),
        ("Inbound Bytes", exact_size(count["in"], style.si)),
        ("Outbound Packets", str(packets["out"])),
        ("Outbound Bytes", exact_size(count["out"], style.si)),
        ("Total Packets", str(packets["in"] + packets["out"])),
        ("Total Bytes", exact_size(count["in"] + count["out"], style.si)),
    )
    head = f"{style.paint(style.dot(True), 'green')} {style.paint(escape(row['address']), 'bold')}"
    return [head, *(f"{name:>18}: {value}" for name, value in entries)]


def list_targets(args: Namespace, client: Client, out: Output) -> None:
    present(args, out, lambda: lists.answer(args, client, out, LIST))
