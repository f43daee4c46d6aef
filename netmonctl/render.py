"""Numbers, names and tables as text. Pure: knows neither the terminal nor D-Bus."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

Row = Mapping[str, Any]

MISSING = "-"
_PAINT = re.compile("(\x1b\\[[0-9;]*m)")
SGR = {"bold": "1", "dim": "2", "underline": "4", "red": "31", "green": "32", "yellow": "33"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How to write. `width` None means: as wide as it takes, nothing shortened or left out."""

    width: int | None = None
    colour: bool = False
    unicode: bool = True
    si: bool = False

    def paint(self, text: str, *attributes: str) -> str:
        """`text` in the given SGR attributes, if colour is wanted at all."""
        if not self.colour or not attributes:
            return text
        codes = ";".join(SGR[name] for name in attributes)
        return f"\x1b[{codes}m{text}\x1b[0m"

    @property
    def ellipsis(self) -> str:
        return "…" if self.unicode else "..."

    def dot(self, filled: bool) -> str:
        """systemd's state mark: ● for something that runs, ○ for something that does not."""
        if self.unicode:
            return "●" if filled else "○"
        return "*" if filled else "o"


def escape(text: str) -> str:
    """`text` without characters that could steer the terminal or hide: those become \\xNN, \\uNNNN.

    A backslash stays one, because unit names contain ``\\x2d`` and must stay copyable.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in text)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cells(text: str) -> int:
    """How many terminal cells `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(c) for c in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, width: int, mark: str = "…") -> str:
    """`text` cut to `width` cells, ending in `mark` if something was cut."""
    if cells(text) <= width:
        return text
    return clip(text, max(0, width - len(mark))) + mark[: max(0, width)]


def clip(text: str, width: int) -> str:
    """The part of `text` that fits into `width` cells; colours take none and stay complete."""
    if text.isascii() and "\x1b" not in text:
        return text[: max(0, width)]
    out: list[str] = []
    for index, part in enumerate(_PAINT.split(text)):
        if index % 2:
            out.append(part)
            continue
        for char in part:
            width -= _cells(char)
            if width < 0:
                break
            out.append(char)
    return "".join(out)


def size(count: float, si: bool = False) -> str:
    """Bytes with a unit: ``512 B``, ``87.3 KiB``; with `si` ``89.4 kB``."""
    step, units = (1000.0, "kMGTPE") if si else (1024.0, "KMGTPE")
    suffix = "B" if si else "iB"
    if round(count) < step:
        return f"{count:.0f} B"
    value = float(count)
    for unit in units:
        value /= step
        if round(value, 1) < step or unit == units[-1]:
            return f"{value:.1f} {unit}{suffix}"
    raise AssertionError("unreachable: the last unit always returns")


def rate(per_second: float, si: bool = False) -> str:
    """Bytes per second with a unit."""
    return size(per_second, si) + "/s"


def packet_rate(per_second: float) -> str:
    """Packets per second: one decimal while that says something."""
    return f"{per_second:.1f} packets/s" if 0 < per_second < 100 else f"{per_second:.0f} packets/s"


def exact_size(count: int, si: bool = False) -> str:
    """``89432 bytes (87.34 KB)``: the exact count and two decimals, at least in kilobytes.

    KB is 1024 bytes here, as in the counters' output that people of the older tool know.
    """
    step, units = (
        (1000.0, ("kB", "MB", "GB", "TB", "PB")) if si else (1024.0, ("KB", "MB", "GB", "TB", "PB"))
    )
    value = count / step
    for unit in units:
        if round(value, 2) < step or unit == units[-1]:
            return f"{count} bytes ({value:.2f} {unit})"
        value /= step
    raise AssertionError("unreachable: the last unit always returns")


def duration(seconds: float) -> str:
    """The two largest units of a span: ``2d 3h``, ``5min 12s``, ``37s``, ``12.3ms``."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.1f}ms"
    rest = int(seconds)
    parts: list[str] = []
    for unit, length in (("y", 31557600), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2 or (parts and not count):
            break
    return " ".join(parts)


def moment(seconds: float, zone: tzinfo | None = None) -> str:
    """A point in time as systemctl writes it, in local time unless `zone` says otherwise."""
    return datetime.fromtimestamp(seconds, zone).astimezone(zone).strftime("%a %Y-%m-%d %H:%M:%S %Z")


def endpoint(address: str, port: int) -> str:
    """``192.0.2.1:80``, ``[2001:db8::1]:80``; without a port just the address; ``*`` for any."""
    address = address if address not in ("", "0.0.0.0", "::") else "*"
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def plural(count: int, noun: str) -> str:
    """``1 user``, ``23 users``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table.

    key: the row key that it shows and sorts by; show: value or row -> text
    right: numbers align right and are never cut
    shrink: fewest cells a cell may be cut to on a narrow terminal; 0 = never cut
    drop: columns with the highest number leave a narrow terminal first, together; 0 = never
    hue: attributes for a shown value
    rare: keys; the column leaves a table in which no row has a value for any of them
    """

    title: str
    key: str
    show: Callable[[Row, Style], str]
    right: bool = False
    shrink: int = 0
    drop: int = 0
    hue: Callable[[str], tuple[str, ...]] = lambda _: ()
    rare: tuple[str, ...] = ()


def text(title: str, key: str, *, shrink: int = 0, drop: int = 0) -> Column:
    """A column of names. Names come from anywhere, so they are escaped here and nowhere else."""
    return Column(
        title=title,
        key=key,
        show=lambda row, _: escape(str(row.get(key, ""))) or MISSING,
        shrink=shrink,
        drop=drop,
    )


def number(title: str, key: str, *, drop: int = 0) -> Column:
    """A column of plain integers."""
    return _right(title, key, drop, lambda value, _: str(value))


def amount(title: str, key: str, *, drop: int = 0) -> Column:
    """A column of byte counts."""
    return _right(title, key, drop, lambda value, style: size(value, style.si))


def speed(title: str, key: str, *, drop: int = 0) -> Column:
    """A column of byte rates."""
    return _right(title, key, drop, lambda value, style: rate(value, style.si))


def _right(title: str, key: str, drop: int, show: Callable[[Any, Style], str]) -> Column:
    return Column(
        title=title,
        key=key,
        show=lambda row, style: show(row[key], style) if key in row else MISSING,
        right=True,
        drop=drop,
    )


GAP = 2


def table(
    columns: Sequence[Column], rows: Sequence[Row], style: Style, marked: str = "", indent: str = ""
) -> list[str]:
    """Aligned lines, the header first; the column with key `marked` is emphasised in the header."""
    columns = [
        column
        for column in columns
        if not column.rare or any(row.get(key) for row in rows for key in column.rare)
    ]
    grid = [[column.show(row, style) for column in columns] for row in rows]
    widths = [
        max(cells(column.title), *(cells(line[index]) for line in grid), 0)
        for index, column in enumerate(columns)
    ]
    keep = list(range(len(columns)))
    if style.width is not None:
        keep = _fit(columns, widths, style.width - len(indent))
    titles = [
        (c.title, ("underline", "bold") if marked and c.key == marked else ("underline",)) for c in columns
    ]
    lines = [_line([(*titles[i], widths[i], columns[i]) for i in keep], style, indent)]
    for line in grid:
        lines.append(
            _line([(line[i], columns[i].hue(line[i]), widths[i], columns[i]) for i in keep], style, indent)
        )
    return lines


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Which columns stay; narrows `widths` of those that may be cut."""
    keep = list(range(len(columns)))

    def least(index: int) -> int:
        cut = max(columns[index].shrink, cells(columns[index].title))
        return min(widths[index], cut) if columns[index].shrink else widths[index]

    def total(measure: Callable[[int], int]) -> int:
        return sum(measure(i) for i in keep) + GAP * (len(keep) - 1)

    while total(least) > width and (last := max(columns[i].drop for i in keep)):
        keep = [i for i in keep if columns[i].drop != last]
    excess = total(widths.__getitem__) - width
    while excess > 0:
        # The widest gives first, so that two long names end up sharing the loss.
        index = max(keep, key=lambda i: widths[i] - least(i) and widths[i])
        if widths[index] <= least(index):
            break
        widths[index] -= 1
        excess -= 1
    return keep


def _line(parts: Sequence[tuple[str, tuple[str, ...], int, Column]], style: Style, indent: str) -> str:
    out: list[str] = []
    for index, (value, hue, width, column) in enumerate(parts):
        shown = shorten(value, width, style.ellipsis) if column.shrink else value
        pad = " " * (width - cells(shown))
        # Painting the padding of a header would underline it; blanks at the line's end help nobody.
        if column.right:
            out.append(pad + style.paint(shown, *hue))
        else:
            out.append(style.paint(shown, *hue) + ("" if index == len(parts) - 1 else pad))
    return indent + (" " * GAP).join(out)
