"""Captured frames as people and programs read them: a line each, with its bytes below it; or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator

from netmonctl.frame_text import hexdump, summary
from netmonctl.output import dump
from netmonctl.pcapng import Frame
from netmonctl.render import Style, escape

_WAYS = {"in": " In ", "out": " Out"}


class Lines:
    """Frames as lines of text. hexadecimal: their bytes, too; characters: and what these are in ASCII."""

    def __init__(self, style: Style, *, hexadecimal: bool, characters: bool) -> None:
        self._style = style
        self._hexadecimal, self._characters = hexadecimal or characters, characters
        self._second, self._clock = -1, ""

    def of(self, frame: Frame) -> Iterator[str]:
        text, _ = summary(frame.interface.linktype, frame.data, frame.length)
        way = _WAYS.get(frame.direction, "")
        line = f"{self._moment(frame.time)} {escape(frame.interface.name)}{way} {text}"
        whose = frame.owner
        process = f"{whose['process']}[{whose.get('pid', '?')}]" if "process" in whose else ""
        unit = str(whose.get("unit", "")).removeprefix("/")  # the root of all cgroups is no unit's
        words = [str(whose.get("user", whose.get("uid", ""))), process, unit]
        if shown := " ".join(filter(None, words)):
            line += self._style.paint(f"  {escape(shown)}", "dim")
        yield line
        if self._hexadecimal:
            yield from hexdump(frame.data, characters=self._characters)

    def _moment(self, nanoseconds: int) -> str:
        """The time of day here, to the microsecond."""
        second, rest = divmod(nanoseconds, 1_000_000_000)
        if second != self._second:
            self._second, self._clock = second, time.strftime("%H:%M:%S", time.localtime(second))
        return f"{self._clock}.{rest // 1000:06d}"


class Objects:
    """Frames as JSON, an object in a line."""

    def of(self, frame: Frame) -> Iterator[str]:
        text, values = summary(frame.interface.linktype, frame.data, frame.length)
        known = {
            "time": frame.time / 1e9,
            "time_ns": frame.time,
            "interface": frame.interface.name,
            "direction": frame.direction or None,
            "length": frame.length,
            "captured": len(frame.data),
            "summary": text,
            **values,
            **frame.owner,
        }
        yield dump({name: value for name, value in known.items() if value is not None}, "short")
