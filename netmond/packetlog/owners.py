"""Whose packets are: unit, process id and process by slot of the flow table, as the end of a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.outputs import csvrows, textcolumns
from netmond.units import GONE

#: Different texts from which all are forgotten: each is 100 bytes or so.
_REMEMBERED = 8192

_NOBODY = b",0,\n"


class Flows(Protocol):
    """The flow table: kernel.tables.LongArray, or an array in a test."""

    @property
    def capacity(self) -> int: ...

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]: ...


class Owners:
    """Looks a socket up when its first packet comes, and remembers it as long as it has its slot."""

    def __init__(self, flows: Flows, units: Callable[[Iterable[int]], Mapping[int, str]]) -> None:
        """units: names of units by cgroup id, leaving out unknown ones."""
        self._flows = flows
        self._units = units
        # One more, for packets of sockets without a slot.
        self._generations = np.zeros(flows.capacity + 1, np.uint32)
        self._places = np.zeros(flows.capacity + 1, np.int32)
        self._forget()

    def ends(self, records: NDArray[Any]) -> textcolumns.Column:
        """``unit,pid,process`` and newline for each of some packets (wire.PACKET); empty and 0: unknown."""
        if len(self._place_of) > _REMEMBERED:
            self._forget()
        slots = np.minimum(records["slot"], self._flows.capacity).astype(np.intp)
        generations = records["generation"]
        new = (self._generations.take(slots) != generations) & (slots < self._flows.capacity)
        if new.any():
            self._learn(np.unique(slots[new]))
        known = self._generations.take(slots) == generations
        return self._texts.take(self._places.take(slots) * known)

    def _forget(self) -> None:
        self._generations[:] = self._places[:] = 0
        self._place_of = {_NOBODY: 0}
        self._texts = textcolumns.texts([_NOBODY])

    def _learn(self, slots: NDArray[np.intp]) -> None:
        """Takes in who has these slots now."""
        flows = self._flows.take(slots)
        before = len(self._place_of)
        units = self._units(set(flows["cgroup"].tolist()))
        for slot, cgroup, pid, comm in zip(
            slots.tolist(),
            flows["cgroup"].tolist(),
            flows["pid"].tolist(),
            flows["comm"].tolist(),
            strict=True,
        ):
            text = f"{csvrows.field(units.get(cgroup, GONE))},{pid},{csvrows.field(comm)}\n".encode()
            self._places[slot] = self._place_of.setdefault(text, len(self._place_of))
        self._generations[slots] = flows["generation"]
        if len(self._place_of) > before:
            self._texts = textcolumns.texts(list(self._place_of))
