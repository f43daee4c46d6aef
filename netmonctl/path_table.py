"""Events of packets as lines of a table, in columns that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from netmonctl.path_text import HUES, PASS, Event, clock, figure, mark, process, span
from netmonctl.render import MISSING, Style, cells, clip, escape, shorten


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `least`: cells it begins with; `shrink`: to how few it may be cut, 0 for not at all.

    Columns of text grow with what is in them. On a narrow terminal those with the highest `drop` go first;
    those with 0 stay.
    """

    title: str
    least: int
    drop: int = 0
    text: bool = False
    shrink: int = 0


COLUMNS = (
    Column("KERNEL FUNCTION", 0, text=True),
    Column("SRC IP", 9, text=True, shrink=12),
    Column("DST IP", 9, text=True, shrink=12),
    Column("SRC PORT", 8, drop=1),
    Column("DST PORT", 8, drop=1),
    Column("SEQ", 10, drop=4),
    Column("ACK SEQ", 10, drop=5),
    Column("TIMESTAMP", 18, drop=3),
    Column("SINCE", 8),
    Column("INTERFACE", 9, drop=6, text=True, shrink=9),
    Column("LENGTH", 6, drop=2),
    Column("USER", 4, drop=7, text=True, shrink=8),
    Column("PROCESS", 7, drop=8, text=True, shrink=12),
)
_FUNCTION, _SRC, _DST, _INTERFACE, _USER, _PROCESS = (
    place for place, column in enumerate(COLUMNS) if column.text
)
#: No column grows beyond that.
_MOST = 39
_INDENT = "    "
_STAGE_HUES = {"in": "green", "out": "yellow"}


class Table:
    """Makes lines of events. `directions`: those of the stages that may come. `bare`: without a header.

    A header comes before the first line, and again when other columns fit from then on.
    """

    def __init__(self, style: Style, directions: Mapping[str, str], *, bare: bool = False) -> None:
        self._style = style
        self._bare = bare
        # What comes before and behind the name of a stage.
        self._paint = {
            stage: style.paint("|", _STAGE_HUES[direction]).split("|")
            for stage, direction in directions.items()
            if style.colour and direction in _STAGE_HUES
        }
        self._wanted = [max(column.least, len(column.title)) for column in COLUMNS]
        self._wanted[_FUNCTION] = max(map(len, (COLUMNS[_FUNCTION].title, *directions)))
        self._shown: list[int] = []
        self._headed = self._stale = False
        self._arrange()

    def lines(self, events: Iterable[Event]) -> list[str]:
        """The events' lines, and headers where they are due."""
        out: list[str] = []
        for event in events:
            line = self._line(event)
            if not self._headed:
                self._headed = True
                out.append(self._header())
            out.append(line)
        return out

    def restyle(self, style: Style) -> None:
        """Write in another width from now on."""
        self._style = style
        self._arrange()

    def _line(self, event: Event) -> str:
        get, cell = event.get, self._cell
        texts = (
            cell(event["stage"], _FUNCTION),
            cell(get("src", ""), _SRC),
            cell(get("dst", ""), _DST),
            figure(event, "sport"),
            figure(event, "dport"),
            figure(event, "seq"),
            figure(event, "ack"),
            clock(event["time"]),
            span(event["since_ns"]) if "since_ns" in event else MISSING,
            cell(get("interface", ""), _INTERFACE),
            figure(event, "length"),
            cell(get("user", ""), _USER),
            cell(process(event), _PROCESS),
        )
        if self._stale:
            self._arrange()
            return self._line(event)
        line: str = self._format.format(*texts).rstrip()
        if self._style.width is not None and len(line) > self._style.width:
            line = clip(line, self._style.width)
        if event["event"] != PASS:
            return self._marked(line, event)
        if paint := self._paint.get(event["stage"]):
            width = self._widths[_FUNCTION]
            return f"{paint[0]}{line[:width]}{paint[1]}{line[width:]}"
        return line

    def _marked(self, line: str, event: Event) -> str:
        """With what happened behind it, or on a line of its own if there is no room."""
        text, hue = mark(event), HUES.get(event["event"], "red")
        width = self._style.width
        if width is None or cells(line) + 2 + cells(text) <= width:
            return self._style.paint(f"{line}  {text}", hue)
        second = clip(_INDENT + text, width)
        return f"{self._style.paint(line, hue)}\n{self._style.paint(second, hue)}"

    def _arrange(self) -> None:
        """Choose the columns that fit and how wide they are."""
        shown, self._widths = list(range(len(COLUMNS))), list(self._wanted)
        if self._style.width is not None:
            shown, self._widths = fit(self._wanted, self._style.width)
        self._headed = self._bare or self._shown == shown
        self._shown = shown
        self._stale = False
        # Texts come with their padding, which takes their cells, not their characters.
        right = {place: "" if COLUMNS[place].text else f":>{self._widths[place]}" for place in shown}
        self._format = " ".join(f"{{{place}{pad}}}" for place, pad in right.items())
        self._cell = lru_cache(maxsize=65536)(self._make_cell)

    def _make_cell(self, text: str, place: int) -> str:
        """A text escaped, cut and padded as its column has it. One too long for it makes the column grow."""
        shown = escape(str(text)) or MISSING
        taken = min(cells(shown), _MOST)
        if taken > self._wanted[place]:
            self._wanted[place] = taken
            self._stale = True
        width = self._widths[place]
        shown = shorten(shown, width, self._style.ellipsis)
        return shown + " " * (width - cells(shown))

    def _header(self) -> str:
        titles = []
        for place in self._shown:
            title, pad = COLUMNS[place].title, " " * (self._widths[place] - len(COLUMNS[place].title))
            painted = self._style.paint(title, "underline")
            titles.append(painted + pad if COLUMNS[place].text else pad + painted)
        line = " ".join(titles).rstrip()
        return line if self._style.width is None else clip(line, self._style.width)


def fit(wanted: list[int], width: int) -> tuple[list[int], list[int]]:
    """Which columns there is room for, and the widths of all."""
    shown, widths = list(range(len(COLUMNS))), list(wanted)

    def least(place: int) -> int:
        shrink = COLUMNS[place].shrink
        return min(wanted[place], shrink) if shrink else wanted[place]

    def excess(measures: list[int]) -> int:
        return sum(measures[place] + 1 for place in shown) - 1 - width

    leasts = [least(place) for place in range(len(COLUMNS))]
    while excess(leasts) > 0 and (last := max(COLUMNS[place].drop for place in shown)):
        shown = [place for place in shown if COLUMNS[place].drop != last]
    while excess(widths) > 0 and any(widths[place] > leasts[place] for place in shown):
        # The widest gives first, so that two long addresses share the loss.
        widest = max(shown, key=lambda place: (widths[place] > leasts[place]) * widths[place])
        widths[widest] -= 1
    return shown, widths
