"""What an event of a path says, as text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from netmonctl.render import MISSING, escape

#: One line of the stream (org.netmond1(5), StartPath).
Event = Mapping[str, Any]

PASS = "pass"

#: How what did not simply pass is painted.
HUES = {"drop": "red", "reset": "red", "retransmit": "yellow"}


def clock(moment: str) -> str:
    """A time of the stream as local time of day: ``09:37:37.123456789``."""
    seconds, _, fraction = moment.partition(".")
    return f"{_second(seconds)}.{fraction}"


@lru_cache(maxsize=256)
def _second(seconds: str) -> str:
    return time.strftime("%H:%M:%S", time.localtime(int(seconds)))


def span(nanoseconds: float) -> str:
    """A short time with a unit: ``850 ns``, ``12.3 us``, ``1.2 ms``, ``2.5 s``."""
    if nanoseconds < 1000:
        return f"{nanoseconds:.0f} ns"
    if nanoseconds < 999_950:
        return f"{nanoseconds / 1e3:.1f} us"
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 999_950_000 else f"{nanoseconds / 1e9:.1f} s"


def mark(event: Event) -> str:
    """What happened, why and in which function, if the packet did not simply pass; else nothing."""
    what = event["event"]
    if what == PASS:
        return ""
    return _mark(what, event.get("reason", ""), event.get("function", ""))


@lru_cache(maxsize=4096)
def _mark(what: str, reason: str, function: str) -> str:
    text = f"{what}: {reason}" if reason else what
    return escape(f"{text} in {function}" if function else text)


def process(event: Event) -> str:
    """Name and number of the process, unescaped: ``curl[4211]``; nothing if it is not known."""
    name, pid = event.get("process", ""), event.get("pid", 0)
    return f"{name}[{pid}]" if pid else str(name)


def figure(event: Event, key: str) -> str:
    """A number, or that there is none."""
    value = event.get(key)
    return MISSING if value is None else str(value)
