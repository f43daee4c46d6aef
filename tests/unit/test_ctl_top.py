"""netmonctl top without a terminal: what keys do and what the screen shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from netmonctl.client import Listing
from netmonctl.render import cells
from netmonctl.top import FOOT, VIEWS, Figures, State, press, screen

ROWS = 19


@pytest.mark.parametrize(
    ("keys", "state"),
    [
        ("p", State(view="processes")),
        ("4", State(view="flows")),
        ("\t", State(view="processes")),
        ("\t\t\t\t", State()),
        ("b", State(sort="bytes")),
        (">", State(sort="in_byte_rate")),
        ("<", State(sort="out_packets")),
        ("R", State(reverse=True)),
        (" ", State(paused=True)),
        ("  ", State()),
        ("jjk", State(offset=1)),
        ("k", State()),
        ("jjp", State(view="processes")),
        ("h", State(help=True)),
        ("hp", State()),
        ("hq", State(quit=True)),
        ("q", State(quit=True)),
        ("z", State()),
    ],
)
def test_keys(keys: str, state: State) -> None:
    """Each key changes one thing; a new view or order starts at the top; any key leaves the help."""
    reached = State()
    for key in keys:
        reached = press(reached, key, ROWS)
    assert reached == state


def test_special_keys() -> None:
    """Page keys move by a screenful, Home to the top, Shift-Tab to the view before."""
    down = press(State(), "KEY_NPAGE", ROWS)
    assert down.offset == ROWS
    assert press(down, "KEY_PPAGE", 7).offset == ROWS - 7
    assert press(down, "KEY_HOME", ROWS).offset == 0
    assert press(State(), "KEY_BTAB", ROWS).view == VIEWS[-1]
    assert press(State(), "KEY_RESIZE", ROWS) == State()
    assert press(State(), "", ROWS) == State()


def traffic(scale: int) -> dict[str, Any]:
    return {
        "in_packets": 101 * scale,
        "in_bytes": 89432 * scale,
        "out_packets": 23 * scale,
        "out_bytes": 4417 * scale,
        "in_packet_rate": 3.7 * scale,
        "in_byte_rate": 2048.0 * scale,
        "out_packet_rate": 0.0,
        "out_byte_rate": 17.0 * scale,
    }


def row(index: int) -> dict[str, Any]:
    return {"uid": 1000 + index, "user": f"user-{index}\x1b[2J", "flows": index, **traffic(index + 1)}


def figures(count: int = 2) -> Figures:
    """As many users of 340, and losses."""
    losses = [{"name": "meter.no-slot", "count": 23, "meaning": "…"}]
    return Figures(
        status={"since": 0.0, "totals": traffic(1000), "losses": losses, "users": 2, "flows": 340},
        listing=Listing(rows=[row(index) for index in range(count)], total=340),
        time=7421.0,
    )


def test_screen() -> None:
    """The whole screen at a small size."""
    assert screen(State(), figures(), 80, 9) == [
        "netmond - 02:03:41, counting for 2h 3min, 2 users, 340 flows",
        "In 2.0 MiB/s 3700 packets/s, out 16.6 KiB/s 0 packets/s; 23 lost",
        "[users]   processes    units    flows    sort: byte_rate   2 of 340",
        "USER            UID  FLOWS         IN      OUT    IN RATE  OUT RATE",
        "user-0\\x1b[2J  1000      0   87.3 KiB  4.3 KiB  2.0 KiB/s    17 B/s",
        "user-1\\x1b[2J  1001      1  174.7 KiB  8.6 KiB  4.0 KiB/s    34 B/s",
        "",
        "",
        FOOT,
    ]


@pytest.mark.parametrize("width", [1, 23, 80, 131])
@pytest.mark.parametrize("height", [1, 3, 5, 24])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("asks_help", [False, True])
def test_screen_fits(width: int, height: int, view: str, asks_help: bool) -> None:
    """Never a line too many nor a cell too wide, so that curses has nothing to refuse."""
    lines = screen(State(view=view, help=asks_help), figures(101), width, height)

    assert len(lines) <= height
    assert max(map(cells, lines)) <= width


def test_scrolled() -> None:
    """Scrolling shows the rows from the offset on."""
    lines = screen(State(offset=97), figures(101), 80, 24)

    assert [line.split("\\")[0] for line in lines[4:9]] == ["user-97", "user-98", "user-99", "user-100", ""]


def test_error_in_the_foot() -> None:
    """When netmond goes away the last figures stay, with the reason below."""
    lines = screen(State(), replace(figures(), error="netmond is not running\x1b"), 80, 9)

    assert lines[-1] == "netmond is not running\\x1b"
    assert lines[4].startswith("user-0")


def test_own_scope_and_pause_in_the_title() -> None:
    """Both change what the figures mean, so both are said on top."""
    title = screen(State(paused=True), replace(figures(), listing=Listing(rows=[], scope="own")), 100, 9)[0]

    assert title.endswith("2 users, 340 flows, own figures below  PAUSED")
