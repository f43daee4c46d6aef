"""Waiting for an event instead of sleeping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: How much slower this machine is than others: an emulated one by a factor of ten and more.
SLOWNESS = float(os.environ.get("NETMOND_SLOWNESS", "1"))
DEADLINE = 20.0 * SLOWNESS
_PAUSE = 0.01


def eventually(condition: Callable[[], T], what: str = "", *, within: float = DEADLINE) -> T:
    """The first true value of the condition; AssertionError with the last value when time is up."""
    end = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {within:g} s: {what or condition!r}, last seen: {value!r}")
        time.sleep(_PAUSE)
    return value
