"""The forms in which netmonctl shows a path while it comes: a table, journeys, figures, JSON."""

from __future__ import annotations

import json
import math
import textwrap
import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from netmonctl import path_journeys, path_stages, path_stats
from netmonctl.output import Output, dump, repaint
from netmonctl.path_table import Table
from netmonctl.path_text import Event
from netmonctl.render import Style, escape, plural

Message = Mapping[str, Any]


class View(Protocol):
    """Shows the lines of a stream."""

    def take(self, lines: Sequence[bytes]) -> None:
        """Show what these lines say; none at all: nothing has come for a while."""

    def end(self) -> None:
        """Nothing more will come."""


def messages(lines: Sequence[bytes]) -> list[Message]:
    """All lines at once, which takes half the time of one by one."""
    return list(json.loads(b"[%s]" % b",".join(lines)))


class JsonView:
    """The lines as they come."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def take(self, lines: Sequence[bytes]) -> None:
        """ASCII only: names cannot steer a terminal that way either."""
        if not lines:
            return
        data = b"\n".join(lines)
        text = (
            data.decode() if data.isascii() else "\n".join(dump(each, "short") for each in messages(lines))
        )
        print(text, file=self._out.stdout, flush=True)

    def end(self) -> None:
        pass


class EventView(ABC):
    """What the table and the journeys have in common: remarks before, between and behind the events."""

    def __init__(self, args: Namespace, out: Output) -> None:
        self._args, self._out = args, out
        self._json = args.json != "off"
        self._style = replace(out.style, width=None) if args.full else out.style
        self._counts: Counter[str] = Counter()
        self._suppressed: Message = {"stages": {}, "lost": 0}
        self._began = time.monotonic()

    def take(self, lines: Sequence[bytes]) -> None:
        self._resized()
        events: list[Event] = []
        for message in messages(lines):
            kind = message["type"]
            if kind == "event":
                events.append(message)
                continue
            self._pass(events)
            events = []
            if kind == "stages":
                self._begin(message["stages"])
            elif kind == "suppressed":
                self._suppressed = message
                self._remark(message, self._wrapped(f"# {_suppressed(message)}"))
        self._pass(events)

    def end(self) -> None:
        if not self._args.no_legend:
            self._remark({}, ["", *self._wrapped(self._summary())])

    def _resized(self) -> None:
        self._out.resized()
        if not self._args.full:
            self._style = self._out.style

    def _begin(self, stages: Sequence[path_stages.Stage]) -> None:
        self._remark(
            {"type": "stages", "stages": stages},
            path_stages.missing(stages, self._style, full=self._args.verbose),
        )

    def _pass(self, events: Sequence[Event]) -> None:
        self._counts.update([event["event"] for event in events])
        self._print(self._lines(events))

    @abstractmethod
    def _lines(self, events: Sequence[Event]) -> list[str]:
        """What is to be shown of these events."""

    def _print(self, lines: Sequence[str]) -> None:
        if lines:
            print("\n".join(lines), file=self._out.stdout, flush=True)

    def _remark(self, message: Message, lines: Sequence[str]) -> None:
        """In its place among the events on a terminal and in JSON, else out of the way of those."""
        if self._json:
            self._print([dump(message, "short")] if message else [])
        elif self._out.terminal:
            self._print(lines)
        else:
            for line in filter(None, lines):
                self._out.note(line)

    def _wrapped(self, text: str) -> list[str]:
        """A sentence as lines that the terminal need not wrap."""
        return [text] if self._style.width is None else textwrap.wrap(text, self._style.width)

    def _summary(self) -> str:
        counts = self._counts
        marked = [plural(counts[what], what) for what in ("drop", "retransmit", "reset") if counts[what]]
        text = plural(sum(counts.values()), "event")
        text += f" ({', '.join(marked)})" if marked else ""
        text += f" in {time.monotonic() - self._began:.1f} s"
        return f"{text}; {_suppressed(self._suppressed)}" if _missing(self._suppressed) else f"{text}."


class TableView(EventView):
    """A line for each event."""

    def _begin(self, stages: Sequence[path_stages.Stage]) -> None:
        super()._begin(stages)
        self._table = Table(self._style, path_stages.directions(stages), bare=self._args.no_legend)

    def _resized(self) -> None:
        before = self._style
        super()._resized()
        if self._style != before:
            self._table.restyle(self._style)

    def _lines(self, events: Sequence[Event]) -> list[str]:
        return self._table.lines(events) if events else []


class JourneyView(EventView):
    """Some lines for each packet, when it is at rest."""

    def __init__(self, args: Namespace, out: Output) -> None:
        super().__init__(args, out)
        self._journeys = path_journeys.Journeys()

    def take(self, lines: Sequence[bytes]) -> None:
        super().take(lines)
        self._show(time.monotonic())

    def end(self) -> None:
        self._show(math.inf)
        super().end()

    def _lines(self, events: Sequence[Event]) -> list[str]:
        self._journeys.add(events, time.monotonic())
        return []

    def _show(self, now: float) -> None:
        lines = []
        for events in self._journeys.over(now):
            if self._json:
                journey = {"type": "journey", "journey": events[0].get("journey"), "events": events}
                lines.append(dump(journey, "short"))
            else:
                lines += path_journeys.page(events, self._style)
        self._print(lines)


class StatsView:
    """Figures, again and again on a terminal, elsewhere those of the end."""

    def __init__(self, args: Namespace, out: Output) -> None:
        self._args, self._out = args, out
        self._last: Message | None = None
        self._first = True
        self._remarks: list[str] = []

    def take(self, lines: Sequence[bytes]) -> None:
        for message in messages(lines):
            if message["type"] == "stages":
                self._remarks = path_stages.missing(message["stages"], self._style, full=self._args.verbose)
            elif message["type"] == "stats":
                self._last = message
        if self._out.terminal and self._last is not None:
            self._out.resized()
            repaint(self._out, [*self._remarks, *self._page(self._last)], first=self._first)
            self._first = False

    def end(self) -> None:
        if self._last is not None and not self._out.terminal:
            for remark in self._remarks:
                self._out.note(remark)
            print("\n".join(self._page(self._last)), file=self._out.stdout)

    @property
    def _style(self) -> Style:
        return replace(self._out.style, width=None) if self._args.full else self._out.style

    def _page(self, message: Message) -> list[str]:
        return path_stats.report(message, self._style, full=self._args.verbose)


def _missing(message: Message) -> bool:
    return bool(message["lost"] or any(message["stages"].values()))


def _suppressed(message: Message) -> str:
    """How many events nobody sees, and why."""
    stages = {name: count for name, count in message["stages"].items() if count}
    parts = []
    if stages:
        named = ", ".join(f"{escape(name)} {count}" for name, count in stages.items())
        parts.append(f"suppressed by the rate limit (see --rate): {sum(stages.values())} ({named})")
    if message["lost"]:
        parts.append(f"lost, because they came too fast: {message['lost']}")
    return "; ".join(parts)
