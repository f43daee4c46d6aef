"""log on, off, list: whose packets are logged one by one; `log tail` is in logtail.py."""

from __future__ import annotations

import os
from argparse import Namespace

from netmonctl import completers, lists, logtail
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client
from netmonctl.errors import usage
from netmonctl.output import Output, done, present
from netmonctl.render import Column, amount, escape, moment, number, text
from netmonctl.user import named, resolved

EVERYONE = "everyone"

LOGS = (
    Column(title="USER", key="user", show=lambda row, _: escape(str(row.get("user", EVERYONE))), shrink=8),
    number("UID", "uid", drop=3),
    text("MODE", "mode"),
    number("EVERY", "every"),
    Column(title="SINCE", key="since", show=lambda row, _: moment(row["since"]), drop=2),
    number("ROWS", "rows"),
    number("LOST PKTS", "lost_packets"),
    amount("LOST", "lost_bytes"),
)
LIST = lists.List(what="PacketLogs", noun="packet log", columns=LOGS)


def add_parsers(commands: Commands) -> None:
    group = commands.group("log", "log packets one by one, look into users' logs")
    on = group.add("on", switch_on, "log each packet of these users, one's own by default")
    off = group.add("off", switch_off, "no longer log their packets, one's own by default")
    listing = group.add("list", list_logs, "whose packets are logged, and what the logs lack (default)")
    for parser, completer in ((on, completers.more_users), (off, completers.logged)):
        action = parser.add_argument("users", nargs="*", metavar="NAME|UID", help="user name or number")
        with_completer(action, completer)
    add_options(on, "all", "every")
    add_options(off, "all")
    add_options(listing, "all", "own", "lines", "sort", "reverse", "watch", "full", "si")
    logtail.add_parser(group)


def switch_on(args: Namespace, client: Client, out: Output) -> None:
    uids, whose = _users(args)
    every = 1 if args.every is None else args.every
    client.enable_packet_log(uids, every)
    which = "each packet" if every == 1 else f"one of {every} packets"
    done(args, out, {"users": uids, "all": args.all, "every": every}, f"Logging {which} of {whose}.")


def switch_off(args: Namespace, client: Client, out: Output) -> None:
    uids, whose = _users(args)
    client.disable_packet_log(uids)
    done(args, out, {"users": uids, "all": args.all}, f"No longer logging packets of {whose}.")


def _users(args: Namespace) -> tuple[list[int], str]:
    """The users' numbers, none for everyone, and how to call them in a sentence."""
    if args.all and args.users:
        raise usage(f"{args.verb} --all is about everyone; name users or write --all")
    if args.all:
        return [], EVERYONE
    if not args.users:
        return [os.getuid()], escape(named(os.getuid()))
    return [resolved(name) for name in args.users], ", ".join(map(escape, args.users))


def list_logs(args: Namespace, client: Client, out: Output) -> None:
    present(args, out, lambda: lists.answer(args, client, out, LIST))
