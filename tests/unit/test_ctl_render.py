"""What netmonctl writes: numbers with units, names that cannot do harm, tables that fit."""

from __future__ import annotations

from datetime import UTC

import pytest

from netmonctl.render import (
    Row,
    Style,
    amount,
    cells,
    clip,
    duration,
    endpoint,
    escape,
    exact_size,
    moment,
    number,
    packet_rate,
    rate,
    shorten,
    size,
    table,
    text,
)


@pytest.mark.parametrize(
    ("count", "iec", "si"),
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1000 B", "1.0 kB"),
        (1023, "1023 B", "1.0 kB"),
        (1024, "1.0 KiB", "1.0 kB"),
        (89432, "87.3 KiB", "89.4 kB"),
        (1048575, "1.0 MiB", "1.0 MB"),
        (2**64 - 1, "16.0 EiB", "18.4 EB"),
    ],
)
def test_size(count: int, iec: str, si: str) -> None:
    """Sizes have one decimal and never show 1024.0 of a unit that has a next one."""
    assert size(count) == iec
    assert size(count, si=True) == si


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes (0.00 KB)"),
        (89432, "89432 bytes (87.34 KB)"),
        (1048575, "1048575 bytes (1.00 MB)"),
        (5555555, "5555555 bytes (5.30 MB)"),
    ],
)
def test_exact_size(count: int, shown: str) -> None:
    """The form that users of per-target counters know, with 1024 bytes to the KB."""
    assert exact_size(count) == shown


def test_rates() -> None:
    """Rates carry their unit; packets have a decimal only where it says something."""
    assert rate(89432.7) == "87.3 KiB/s"
    assert rate(0.4) == "0 B/s"
    assert [packet_rate(x) for x in (0, 3.71, 99.96, 1023.4)] == [
        "0 packets/s",
        "3.7 packets/s",
        "100.0 packets/s",
        "1023 packets/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0ms"),
        (0.0123, "12.3ms"),
        (37, "37s"),
        (60, "1min"),
        (312, "5min 12s"),
        (3605, "1h"),
        (7421, "2h 3min"),
        (183600, "2d 3h"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    """At most two neighbouring units, as systemctl writes spans."""
    assert duration(seconds) == shown


def test_moment() -> None:
    """Points in time read as in systemctl status."""
    assert moment(1_700_000_023, UTC) == "Tue 2023-11-14 22:13:43 UTC"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("nginx.service", "nginx.service"),
        ("dev-disk\\x2dby.device", "dev-disk\\x2dby.device"),
        ("evil\x1b[31m", "evil\\x1b[31m"),
        ("two\nlines\ttabs", "two\\x0alines\\x09tabs"),
        ("c1\x9b31m", "c1\\x9b31m"),
        ("gnp\u202egpj.exe", "gnp\\u202egpj.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\U000e0041tag", "\\U000e0041tag"),
        ("日本語", "日本語"),
    ],
)
def test_escape(name: str, shown: str) -> None:
    """Nothing that steers a terminal, hides or reorders text gets through; the rest stays as it is."""
    assert escape(name) == shown


def test_widths_count_cells() -> None:
    """Wide characters take two cells, combining ones none, and are cut between characters."""
    assert cells("日本x") == 5
    assert cells("e\u0301") == 1
    assert clip("日本語", 5) == "日本"
    assert shorten("日本語", 5) == "日本…"
    assert shorten("short", 5) == "short"
    assert shorten("longer", 5, "...") == "lo..."


def test_clip_keeps_colours_complete() -> None:
    """A painted line is cut by what is seen, and the colour still ends."""
    assert clip("\x1b[31mabcdef\x1b[0m", 3) == "\x1b[31mabc\x1b[0m"


@pytest.mark.parametrize(
    ("address", "port", "shown"),
    [
        ("192.0.2.1", 443, "192.0.2.1:443"),
        ("192.0.2.1", 0, "192.0.2.1"),
        ("2001:db8::1", 53, "[2001:db8::1]:53"),
        ("2001:db8::1", 0, "2001:db8::1"),
        ("", 53, "*:53"),
        ("::", 0, "*"),
    ],
)
def test_endpoint(address: str, port: int, shown: str) -> None:
    """Address and port as one word that can be pasted; any address is a star."""
    assert endpoint(address, port) == shown


COLUMNS = (
    text("UNIT", "unit", shrink=8),
    text("SLICE", "slice", drop=2),
    number("FLOWS", "flows"),
    amount("IN", "in_bytes"),
    amount("OUT", "out_bytes", drop=1),
)
ROWS: list[Row] = [
    {"unit": "nginx.service", "slice": "system.slice", "flows": 23, "in_bytes": 89432, "out_bytes": 7},
    {"unit": "a-rather-long-name.service", "slice": "", "flows": 4711, "in_bytes": 0},
]


def test_table_as_wide_as_it_takes() -> None:
    """Text left, numbers right, a dash for what is missing; without a width nothing is cut."""
    assert table(COLUMNS, ROWS, Style()) == [
        "UNIT                        SLICE         FLOWS        IN  OUT",
        "nginx.service               system.slice     23  87.3 KiB  7 B",
        "a-rather-long-name.service  -              4711       0 B    -",
    ]


def test_table_shortens_names_first() -> None:
    """On a narrower terminal the longest name gives way, numbers never."""
    assert table(COLUMNS, ROWS, Style(width=54)) == [
        "UNIT                SLICE         FLOWS        IN  OUT",
        "nginx.service       system.slice     23  87.3 KiB  7 B",
        "a-rather-long-nam…  -              4711       0 B    -",
    ]


def test_table_leaves_out_columns_next() -> None:
    """Where shortening is not enough, whole columns leave, the least important first."""
    assert table(COLUMNS, ROWS, Style(width=30)) == [
        "UNIT      FLOWS        IN  OUT",
        "nginx.s…     23  87.3 KiB  7 B",
        "a-rathe…   4711       0 B    -",
    ]


def test_table_never_cuts_numbers() -> None:
    """Even when nothing helps, every figure is whole; the line is then too long."""
    assert table(COLUMNS, ROWS, Style(width=5))[2] == "a-rathe…   4711       0 B"


def test_columns_of_equal_rank_leave_together() -> None:
    """In and out of one kind come and go as a pair."""
    columns = (
        number("FLOWS", "flows"),
        amount("IN", "in_bytes", drop=1),
        amount("OUT", "out_bytes", drop=1),
    )
    assert table(columns, ROWS[:1], Style(width=17)) == ["FLOWS", "   23"]


def test_table_without_rows_is_its_header() -> None:
    """An empty list still says what it would have shown."""
    assert table(COLUMNS[:3], [], Style()) == ["UNIT  SLICE  FLOWS"]


def test_table_escapes_names() -> None:
    """A name from another user's process cannot leave its cell."""
    rows: list[Row] = [{"unit": "x\r\x1b[2Jroot", "flows": 1}]
    assert table(COLUMNS[:1], rows, Style())[1] == "x\\x0d\\x1b[2Jroot"


def test_colour_only_when_wanted() -> None:
    """The header is underlined with colour on, and plain bytes with colour off."""
    assert table(COLUMNS[2:3], ROWS[:1], Style(colour=True))[0] == "\x1b[4mFLOWS\x1b[0m"
    assert Style().paint("x", "red") == "x"


def test_ascii_terminal() -> None:
    """Where UTF-8 cannot be written, marks and ellipsis have ASCII forms."""
    plain = Style(width=9, unicode=False)
    assert plain.dot(True) + plain.dot(False) == "*o"
    assert table(COLUMNS[:1], ROWS[1:], plain)[1] == "a-rath..."
