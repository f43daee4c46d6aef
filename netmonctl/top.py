"""top: a live full-screen view. The screen is computed by pure functions; curses only paints it."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from netmonctl.arguments import Commands, add_options
from netmonctl.client import Client, Listing
from netmonctl.errors import CtlError, usage
from netmonctl.lists import LISTS
from netmonctl.output import Output
from netmonctl.render import Column, Style, cells, clip, duration, escape, packet_rate, plural, rate, table

if TYPE_CHECKING:
    import curses

VIEWS = ("users", "processes", "units", "flows")
VIEW_KEYS = {"u": "users", "p": "processes", "n": "units", "f": "flows"} | {
    str(index): view for index, view in enumerate(VIEWS, 1)
}
SORTS = (
    "byte_rate",
    "in_byte_rate",
    "out_byte_rate",
    "bytes",
    "in_bytes",
    "out_bytes",
    "in_packets",
    "out_packets",
)
SORT_KEYS = {"r": "byte_rate", "i": "in_byte_rate", "o": "out_byte_rate", "b": "bytes"}
MOVES = {"KEY_DOWN": 1, "j": 1, "KEY_UP": -1, "k": -1}

FRAME = 5  #: lines that are not rows: title, rates, tabs, header, foot
FOOT = "Tab view  <> sort  R reverse  Space pause  arrows scroll  h help  q quit"
HELP = (
    "u p n f, 1-4, Tab   users, processes, units, flows; the next of them",
    "< >                 sort by the previous or next key",
    "r i o b             sort by rate, rate in, rate out, bytes",
    "R                   reverse the order",
    "Space               pause and go on",
    "Up Down PgUp PgDn   scroll; Home goes to the top",
    "h ?                 this help",
    "q                   quit",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the person has chosen."""

    view: str = VIEWS[0]
    sort: str = SORTS[0]
    reverse: bool = False
    paused: bool = False
    help: bool = False
    quit: bool = False
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What netmond said last; `error` if it no longer answers."""

    status: Mapping[str, Any]
    listing: Listing
    time: float
    error: str = ""


def press(state: State, key: str, rows: int) -> State:
    """The state after `key`; a screenful is `rows` rows. Unknown keys change nothing."""
    if state.help:
        return replace(state, help=False, quit=key == "q")
    if key in VIEW_KEYS:
        return replace(state, view=VIEW_KEYS[key], offset=0)
    if key in ("\t", "KEY_BTAB"):
        return replace(state, view=_neighbour(VIEWS, state.view, 1 if key == "\t" else -1), offset=0)
    if key in SORT_KEYS:
        return replace(state, sort=SORT_KEYS[key], offset=0)
    if key in ("<", ">"):
        return replace(state, sort=_neighbour(SORTS, state.sort, 1 if key == ">" else -1), offset=0)
    moves = MOVES | {"KEY_NPAGE": rows, "KEY_PPAGE": -rows, "KEY_HOME": -state.offset}
    if key in moves:
        return replace(state, offset=max(0, state.offset + moves[key]))
    if key == "R":
        return replace(state, reverse=not state.reverse, offset=0)
    if key == " ":
        return replace(state, paused=not state.paused)
    if key in ("h", "?"):
        return replace(state, help=True)
    return replace(state, quit=True) if key in ("q", "Q") else state


def _neighbour(values: tuple[str, ...], value: str, step: int) -> str:
    return values[(values.index(value) + step) % len(values)]


def screen(state: State, figures: Figures, width: int, height: int, si: bool = False) -> list[str]:
    """The whole screen: title, rates, tabs, header, rows, foot; never more than `height` lines."""
    style = Style(width=width, si=si)
    room = max(0, height - FRAME)
    if state.help:
        main = ["", *HELP][: room + 1]
    else:
        rows = figures.listing.rows[state.offset : state.offset + room]
        main = table(_columns(state.view), rows, style)
    main += [""] * (room + 1 - len(main))
    foot = escape(figures.error) or FOOT
    lines = [_title(state, figures), _rates(figures, style), _tabs(state, figures), *main, foot]
    return [clip(line, width) for line in lines][:height]


def _columns(view: str) -> list[Column]:
    """The list's columns; here rates stay and totals give way on a narrow terminal."""
    out = []
    for column in LISTS[view].columns:
        if column.key.endswith("_rate"):
            column = replace(column, drop=0)
        elif column.key.endswith(("in_bytes", "out_bytes")):
            column = replace(column, drop=2)
        out.append(column)
    return out


def _title(state: State, figures: Figures) -> str:
    status = figures.status
    clock = time.strftime("%H:%M:%S", time.localtime(figures.time))
    up = duration(max(1.0, figures.time - status["since"]))
    counts = f"{plural(status['users'], 'user')}, {plural(status['flows'], 'flow')}"
    scope = ", own figures below" if figures.listing.scope == "own" else ""
    return f"netmond - {clock}, counting for {up}, {counts}{scope}{'  PAUSED' if state.paused else ''}"


def _rates(figures: Figures, style: Style) -> str:
    totals = figures.status["totals"]
    speed = {
        side: f"{rate(totals[f'{side}_byte_rate'], style.si)} {packet_rate(totals[f'{side}_packet_rate'])}"
        for side in ("in", "out")
    }
    lost = sum(loss["count"] for loss in figures.status["losses"])
    return f"In {speed['in']}, out {speed['out']}{f'; {lost} lost' if lost else ''}"


def _tabs(state: State, figures: Figures) -> str:
    tabs = "  ".join(f"[{view}]" if view == state.view else f" {view} " for view in VIEWS)
    shown = f"{len(figures.listing.rows)} of {figures.listing.total}"
    order = f"sort: {state.sort}{' reversed' if state.reverse else ''}"
    return f"{tabs}   {order}" if cells(tabs + order) > 70 else f"{tabs}   {order}   {shown}"


def add_parsers(commands: Commands) -> None:
    parser = commands.add("top", run, "live full-screen view; h shows the keys")
    add_options(parser, "delay", "all", "own", "si")


def fetch(client: Client, state: State, scope: str, rows: int) -> Figures:
    """Ask netmond for what `state` shows."""
    options: dict[str, Any] = {"sort": state.sort, "limit": state.offset + max(1, rows)}
    options |= {"reverse": True} if state.reverse else {}
    options |= {"scope": scope} if scope else {}
    listing = client.listing(LISTS[state.view].what, options)
    return Figures(status=client.describe(), listing=listing, time=time.time())


def run(args: Namespace, client: Client, out: Output) -> None:
    if not out.terminal or not out.stdin.isatty():
        raise usage("top needs a terminal; for a pipe or a file use: netmonctl users --watch")
    import curses
    import locale
    import os

    locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "25")
    # Ask before the screen is taken over: a refusal is an ordinary error then, a password prompt visible.
    scope = "own" if args.own else "all" if args.all else ""
    first = fetch(client, State(), scope, 1)
    client.interactive = False
    try:
        curses.wrapper(_loop, args, client, scope, first)
    except curses.error as error:
        raise CtlError(f"cannot use this terminal: {error}; check $TERM") from None


def _loop(window: curses.window, args: Namespace, client: Client, scope: str, figures: Figures) -> None:
    import curses

    curses.curs_set(0)
    state, due = State(), 0.0
    while not state.quit:
        height, width = window.getmaxyx()
        rows = max(1, height - FRAME)
        if time.monotonic() >= due:
            due = time.monotonic() + args.delay
            try:
                figures = fetch(client, state, scope, rows)
            except CtlError as error:
                figures = replace(figures, error=str(error))
        _paint(window, screen(state, figures, width, height, args.si), height, width)
        wait = 3600.0 if state.paused else max(0.0, due - time.monotonic())
        window.timeout(int(wait * 1000) + 1)
        before = state
        state = press(state, _key(window), rows)
        if (state.view, state.sort, state.reverse, state.offset) != (
            before.view,
            before.sort,
            before.reverse,
            before.offset,
        ) or (before.paused and not state.paused):
            due = 0.0
        elif state.paused:
            due = float("inf")


def _key(window: curses.window) -> str:
    import curses

    try:
        return window.getkey()
    except curses.error:
        return ""


def _paint(window: curses.window, lines: list[str], height: int, width: int) -> None:
    import curses

    window.erase()
    for y, line in enumerate(lines):
        attribute = curses.A_REVERSE if y == 3 else curses.A_BOLD if y in (0, 2) else curses.A_NORMAL
        # The last cell of the screen cannot be written: the cursor would have nowhere to go.
        room = width - 1 if y == height - 1 else width
        window.addstr(y, 0, clip(f"{line:<{width}}" if y == 3 else line, room), attribute)
    window.refresh()
