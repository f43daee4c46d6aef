"""sessions list, sessions stop: the captures and paths that are under way."""

from __future__ import annotations

from argparse import Namespace

from netmonctl import completers, lists
from netmonctl.arguments import Commands, add_options, with_completer
from netmonctl.client import Client
from netmonctl.option import whole
from netmonctl.output import Output, done, present
from netmonctl.render import MISSING, Column, Row, amount, moment, number, plural, text


def _moment(title: str, key: str, drop: int) -> Column:
    def show(row: Row, _: object) -> str:
        return moment(row[key]) if row.get(key) else MISSING

    return Column(title=title, key=key, show=show, drop=drop)


SESSIONS = (
    number("SESSION", "session"),
    text("KIND", "kind"),
    text("USER", "user", shrink=8),
    _moment("SINCE", "since", drop=2),
    _moment("UNTIL", "until", drop=3),
    number("PACKETS", "packets"),
    amount("BYTES", "bytes"),
    number("DROPPED", "dropped"),
    text("OPTIONS", "options", shrink=8, drop=1),
)
LIST = lists.List(what="Sessions", noun="session", columns=SESSIONS)


def add_parsers(commands: Commands) -> None:
    group = commands.group("sessions", "captures and paths that are under way, and their end")
    listing = group.add("list", list_sessions, "the captures and paths that are under way (default)")
    add_options(listing, "all", "own", "lines", "sort", "reverse", "watch", "full", "si")
    stop = group.add("stop", stop_sessions, "end these captures and paths, as their own Ctrl-C would")
    action = stop.add_argument(
        "sessions", nargs="+", type=whole(0, 2**63 - 1), metavar="SESSION", help="number of a session"
    )
    with_completer(action, completers.sessions)
    add_options(stop)


def list_sessions(args: Namespace, client: Client, out: Output) -> None:
    present(args, out, lambda: lists.answer(args, client, out, LIST))


def stop_sessions(args: Namespace, client: Client, out: Output) -> None:
    for session in args.sessions:
        client.stop_session(session)
    done(args, out, {"sessions": args.sessions}, f"Stopped {plural(len(args.sessions), 'session')}.")
