"""Waiting for what others do."""

from __future__ import annotations

import time
from collections.abc import Callable

from netmonctl.errors import CtlError

_PAUSE = 0.05


def within(seconds: float, condition: Callable[[], bool], complaint: str) -> None:
    """Looks until it is so. CtlError when time is up."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise CtlError(f"{complaint}, not within {seconds:.0f} s")
        time.sleep(_PAUSE)
