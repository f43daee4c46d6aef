"""Where the books of each interface begin, and what was counted since: the evidence for balance.py. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netmond.balance import KERNEL
from netmond.kernel.devices import Device
from netmond.kernel.queues import Queue
from netmond.model import COUNTERS, Evidence, Growth
from netmond.topology import lower

_NO_QUEUE = Queue(0, 0, 0)
_DROPS_MODULUS = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """All counters of the interfaces at one moment, or nearly so."""

    devices: Mapping[int, Device]
    queues: Mapping[int, Queue]
    words: Mapping[int, NDArray[np.uint64]]  #: of PORT_COUNTERS, since the interface is monitored
    hooks: Mapping[int, str]


_Reading = NDArray[np.int64]  # the counters of one interface in a Look: KERNEL, Queue, words
_QUEUE = slice(len(KERNEL), len(KERNEL) + len(_NO_QUEUE))


def _reading(look: Look, ifindex: int) -> _Reading:
    counters = look.devices[ifindex].info.kernel
    kernel = [counters.get(name, 0) for name in KERNEL]
    queue = look.queues.get(ifindex, _NO_QUEUE)
    return np.concatenate([np.array([*kernel, *queue], np.int64), look.words[ifindex].astype(np.int64)])


def _growth(since: _Reading, now: _Reading) -> Growth:
    grown = now - since
    grown[_QUEUE.start] %= _DROPS_MODULUS
    return Growth(kernel=grown[: _QUEUE.start], queue=grown[_QUEUE], port=grown[_QUEUE.stop :])


@dataclass(frozen=True, slots=True, eq=False)
class _Base:
    """Where the books of an interface begin: readings around the moment of the sockets' figures."""

    since: float
    before: _Reading
    after: _Reading
    sockets: NDArray[np.uint64]
    hook: str


class Books:
    """Where the books of each interface begin, and what was counted since."""

    def __init__(self, *, whole: bool) -> None:
        """whole: the meter counts all sockets of the machine."""
        self._whole = whole
        self._bases: dict[int, _Base] = {}
        self.evidence: Mapping[int, Evidence] = {}

    def update(
        self, before: Look, after: Look, sockets: Mapping[int, NDArray[np.uint64]] | None, wall: float
    ) -> None:
        """Takes in a tick: what was read before and after the sockets' figures, and those.

        An interface's books begin at its first tick, anew if a counter is set back or the hook changes.
        """
        both = before.words.keys() & after.words.keys() & before.devices.keys() & after.devices.keys()
        self._bases = {index: base for index, base in self._bases.items() if index in both}
        names = _names_above(after.devices)
        evidence = {}
        nothing = np.zeros(len(COUNTERS), np.uint64)
        for index in sorted(both):
            first, second = _reading(before, index), _reading(after, index)
            counted = (sockets or {}).get(index, nothing)
            hook = after.hooks.get(index, "")
            base = self._bases.get(index)
            begins = base is None or base.hook != hook or _set_back(base, first)
            if base is None or begins:
                base = self._bases[index] = _Base(wall, first, second, counted.copy(), hook)
            device = after.devices[index]
            evidence[index] = Evidence(
                since=base.since,
                low=_growth(first if begins else base.after, first),
                high=_growth(first if begins else base.before, first if begins else second),
                sockets=None if sockets is None else counted - base.sockets,
                whole=self._whole,
                link_header=0 if device.loopback else device.link_header,
                hook=hook,
                upper=names.get(index, ()),
            )
        self.evidence = evidence


def _set_back(base: _Base, now: _Reading) -> bool:
    less = now < base.before
    less[_QUEUE] = False  # what waits in it comes and goes
    return bool(less.any())


def _names_above(devices: Mapping[int, Device]) -> dict[int, tuple[str, ...]]:
    """The names of the interfaces that stand directly on each."""
    names: dict[int, tuple[str, ...]] = {}
    for upper, lowers in lower(devices).items():
        for index in lowers:
            names[index] = (*names.get(index, ()), devices[upper].info.name)
    return names
