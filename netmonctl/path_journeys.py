"""Events of the same packet put together: its journey through the kernel."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from netmonctl.path_text import HUES, PASS, Event, clock, mark, process, span
from netmonctl.render import Style, clip, endpoint, escape

#: Seconds without an event after which a journey is over: a packet may wait for its reader.
REST = 0.5

#: Journeys in progress; of more the oldest are shown as they are.
_MOST = 4096


class Journeys:
    """Collects events until their packet is at rest."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, tuple[float, list[Event]]] = OrderedDict()
        self._alone = 0  # numbers of events that belong to no journey: below those of journeys

    def add(self, events: Iterable[Event], now: float) -> None:
        """Take over events that came at `now` (seconds, monotonic)."""
        for event in events:
            number = event.get("journey")
            if number is None:
                self._alone -= 1
                number = self._alone
            _, journey = self._open.pop(number, (now, list[Event]()))
            journey.append(event)
            self._open[number] = now, journey

    def over(self, now: float) -> Iterator[list[Event]]:
        """The journeys at rest, the oldest first, each in the order of time; infinity: all of them."""
        while self._open:
            since, _ = next(iter(self._open.values()))
            if now - since < REST and len(self._open) <= _MOST:
                return
            _, (_, events) = self._open.popitem(last=False)
            yield sorted(events, key=lambda event: str(event["time"]))


def page(events: Sequence[Event], style: Style) -> list[str]:
    """A journey as lines: whose packet it is, then a stage each."""
    width = max(len(event["stage"]) for event in events)
    lines = [style.paint(_clipped(line, style), "bold") for line in _titles(events) if line]
    for event in events:
        since = f"+{span(event['since_ns'])}" if "since_ns" in event else ""
        cells = [clock(event["time"]), f"{since:>10}", f"{escape(event['stage']):<{width}}"]
        line = "  ".join([*cells, escape(event.get("interface", "")), mark(event)]).rstrip()
        hue = () if event["event"] == PASS else (HUES.get(event["event"], "red"),)
        lines.append(style.paint(_clipped(f"  {line}", style), *hue))
    return lines


def _titles(events: Sequence[Event]) -> tuple[str, str]:
    """Protocol, addresses, length; sequence numbers and owner: as far as any of the stages knew them."""
    known: dict[str, Any] = {}
    for event in reversed(events):
        known |= event
    words = [f"#{known['journey']}"] if "journey" in known else []
    words += [str(known.get("protocol", "packet"))]
    if "src" in known:
        source = endpoint(known["src"], known.get("sport", 0))
        words += [source, "->", endpoint(known["dst"], known.get("dport", 0))]
    words += [f"[{known['flags']}]"] if "flags" in known else []
    words += [f"length {known['length']}"] if "length" in known else []
    words += [f"(again, first #{known['first']})"] if "first" in known else []
    more = [f"{name} {known[name]}" for name in ("seq", "ack") if name in known]
    more += [word for word in (known.get("user", ""), process(known)) if word]
    return escape(" ".join(words)), escape(" ".join(more))


def _clipped(line: str, style: Style) -> str:
    return line if style.width is None else clip(line, style.width)
