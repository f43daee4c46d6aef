"""The kinds of sessions: which worker does it, and what it may leave behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netmond.kernel.devices import devices
from netmond.kernel.taps import remove_leftovers
from netmond.sessions.options import CAPTURE, PATH


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """module: the worker. clean_up: removes what one with this process id has left, if it ended badly."""

    module: str
    dropped: str = ""  #: what it means that packets are dropped; empty: it is no loss
    clean_up: Callable[[int], object] = lambda pid: None


KINDS: Mapping[str, Kind] = {
    CAPTURE: Kind(
        module="netmond.frames",
        dropped="frames that captures lack: read faster, or ask for a filter, a snaplen, a larger buffer",
        clean_up=lambda pid: remove_leftovers(devices(), pid),
    ),
    PATH: Kind(module="netmond.path"),  # drops what exceeds the rate that was asked for, and tells
}
