"""Rows of a log as aligned lines, one at a time: nobody knows yet what comes next."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from netmonctl import render
from netmonctl.logtail_names import Hosts, service
from netmonctl.logtail_rows import Comment, Row
from netmonctl.render import GAP, MISSING, Style, cells, clip, escape

#: Titles, least widths and whether numbers; a column grows with what is in it, up to MOST cells.
_COLUMNS = (
    ("TIME", 22, False), ("DIR", 3, False), ("SIZE", 9, True), ("PKTS", 4, True), ("PROTO", 5, False),
    ("LOCAL", 15, False), ("REMOTE", 15, False), ("PROCESS", 10, False), ("UNIT", 4, False),
)  # fmt: skip
MOST = 48
_FITTED = 100

_SINCE = re.compile(r"since=([0-9]+\.[0-9]+)", re.ASCII)
_HUES = {"in": ("green",), "out": ("yellow",)}


class Table:
    """Makes lines of rows. `hosts` None: addresses stay addresses."""

    def __init__(self, style: Style, hosts: Hosts | None = None) -> None:
        self._style = style
        self._hosts = hosts
        self._widths = [width for _, width, _ in _COLUMNS]
        self._plain, self._cells = self._layout()
        self._size = lru_cache(maxsize=65536)(lambda count: render.size(count, style.si))

    def fit(self, rows: Sequence[Row]) -> None:
        """Make the columns as wide as these rows need; in the longest log the last ones will do."""
        for row in rows[-_FITTED:]:
            self.line(row)

    def header(self) -> str:
        """The line of titles."""
        return self._line([title for title, _, _ in _COLUMNS], [("underline",)] * len(_COLUMNS))

    def line(self, row: Row) -> str:
        """A row as a line."""
        texts = [
            moment(row.time),
            row.direction,
            self._size(row.bytes),
            str(row.packets),
            _shown(row.protocol),
            self._endpoint(row.local, row.local_port, row.protocol),
            self._endpoint(row.remote, row.remote_port, row.protocol),
            _process(row.process, row.pid),
            _shown(row.unit),
        ]
        return self._line(texts, [("dim",), _HUES[row.direction]])

    def comment(self, comment: Comment) -> str:
        """A remark of the log itself as a line: times in it as times of day."""
        text = _SINCE.sub(lambda match: f"since {moment(match[1])}", comment.text)
        return self.note(f"{moment(comment.time)}  {text}" if comment.time else text)

    def note(self, text: str) -> str:
        """A remark as a line."""
        return self._style.paint(self._clipped(f"# {escape(text)}"), "dim")

    def _endpoint(self, address: str, port: int, protocol: str) -> str:
        host = self._hosts.name(address) if self._hosts else ""
        return _named(host, port, protocol) if host else _endpoint(address, port, protocol)

    def _line(self, texts: Sequence[str], hues: Sequence[tuple[str, ...]]) -> str:
        if not self._style.colour:  # most lines have nothing special: a fifth of the time
            line = self._plain % tuple(texts)
            if len(line) == self._cells and line.isascii():
                return line.rstrip()[: self._style.width]
        parts = []
        for place, (text, (_, _, right)) in enumerate(zip(texts, _COLUMNS, strict=True)):
            taken = cells(text)
            if taken > self._widths[place]:
                self._widths[place] = min(taken, MOST)
                self._plain, self._cells = self._layout()
            pad = " " * (self._widths[place] - taken)
            if place < len(hues):
                text = self._style.paint(text, *hues[place])
            parts.append(pad + text if right else text + pad)
        return self._clipped((" " * GAP).join(parts).rstrip())

    def _layout(self) -> tuple[str, int]:
        """A format for plain texts that fit, and how long the line is then."""
        formats = [
            f"%{width}s" if right else f"%-{width}s"
            for width, (_, _, right) in zip(self._widths, _COLUMNS, strict=True)
        ]
        return (" " * GAP).join(formats), sum(self._widths) + GAP * (len(formats) - 1)

    def _clipped(self, line: str) -> str:
        return line if self._style.width is None else clip(line, self._style.width)


def values(row: Row, hosts: Hosts | None = None) -> dict[str, Any]:
    """A row as an object of JSON, with the keys of netmond's rows, and names where there are any."""
    seconds, _, fraction = row.time.partition(".")
    found: dict[str, Any] = {
        "time": float(row.time),
        "time_ns": int(seconds) * 10**9 + int(fraction[:9].ljust(9, "0")),
        "direction": row.direction,
        "bytes": row.bytes,
        "packets": row.packets,
        "protocol": row.protocol,
    }
    for side, address, port in (
        ("local", row.local, row.local_port),
        ("remote", row.remote, row.remote_port),
    ):
        found |= {side: address, f"{side}_port": port}
        if name := service(port, row.protocol):
            found[f"{side}_service"] = name
        if hosts and (host := hosts.name(address)):
            found[f"{side}_host"] = host
    return found | {
        "pid": row.pid,
        "process": row.process,
        "unit": row.unit,
        "total_in": row.total_in,
        "total_out": row.total_out,
    }


def moment(text: str) -> str:
    """A time in the log as a local one, to the microsecond: ``Nov 21 09:37:37.123456``."""
    seconds, _, fraction = text.partition(".")
    return f"{_second(seconds)}.{fraction[:6].ljust(6, '0')}"


@lru_cache(maxsize=256)
def _second(seconds: str) -> str:
    try:
        return time.strftime("%b %d %H:%M:%S", time.localtime(int(seconds)))
    except (ValueError, OverflowError, OSError):
        return seconds


@lru_cache(maxsize=65536)
def _endpoint(address: str, port: int, protocol: str) -> str:
    name = service(port, protocol) if port else ""
    if not name:
        return escape(render.endpoint(address, port))
    return _named(f"[{address}]" if ":" in address else address or "*", port, protocol)


@lru_cache(maxsize=65536)
def _named(host: str, port: int, protocol: str) -> str:
    return escape(f"{host}:{service(port, protocol) or port}" if port else host)


@lru_cache(maxsize=4096)
def _process(name: str, pid: int) -> str:
    if not name and not pid:
        return MISSING
    return f"{escape(name)}[{pid}]" if pid else escape(name)


@lru_cache(maxsize=4096)
def _shown(name: str) -> str:
    return escape(name) or MISSING
