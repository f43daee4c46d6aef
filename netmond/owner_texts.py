"""Whose packets are, as text: looked up in the flow table with a socket's first packet, and remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.units import GONE

#: Different texts from which all are forgotten: each is 100 bytes or so.
REMEMBERED = 8192


class Flows(Protocol):
    """The flow table: kernel.tables.LongArray, or an array in a test."""

    @property
    def capacity(self) -> int: ...

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]: ...


class OwnerTexts:
    """Texts by slot of the flow table, each kept as long as its socket has the slot."""

    def __init__(
        self,
        flows: Flows,
        units: Callable[[Iterable[int]], Mapping[int, str]],
        text: Callable[[str, int, bytes], bytes],
        unknown: bytes,
    ) -> None:
        """units: names of units by cgroup id, leaving out unknown ones; text: what is said of a unit
        (units.GONE: unknown), process id (0: unknown) and process; unknown: what is said of a packet without
        a known socket.
        """
        self.texts = [unknown]
        self._flows = flows
        self._units = units
        self._text = text
        # One more, for packets of sockets without a slot.
        self._generations = np.zeros(flows.capacity + 1, np.uint32)
        self._places = np.zeros(flows.capacity + 1, np.int32)
        self._place_of = {unknown: 0}

    def places(self, records: NDArray[Any]) -> NDArray[np.intp]:
        """Where in `texts` that of each record (with fields slot and generation) is; 0: unknown.

        `texts` is another list when all were forgotten: places given before are no longer good.
        """
        if len(self.texts) > REMEMBERED:
            self._generations[:] = self._places[:] = 0
            self.texts = self.texts[:1]
            self._place_of = {self.texts[0]: 0}
        slots = np.minimum(records["slot"], self._flows.capacity).astype(np.intp)
        generations = records["generation"]
        new = (self._generations.take(slots) != generations) & (slots < self._flows.capacity)
        if new.any():
            self._learn(np.unique(slots[new]))
        known = self._generations.take(slots) == generations
        places: NDArray[np.intp] = self._places.take(slots) * known.astype(np.intp)
        return places

    def _learn(self, slots: NDArray[np.intp]) -> None:
        """Takes in who has these slots now."""
        flows = self._flows.take(slots)
        units = self._units(set(flows["cgroup"].tolist()))
        for slot, cgroup, pid, comm in zip(
            slots.tolist(),
            flows["cgroup"].tolist(),
            flows["pid"].tolist(),
            flows["comm"].tolist(),
            strict=True,
        ):
            text = self._text(units.get(cgroup, GONE), pid, comm)
            place = self._place_of.setdefault(text, len(self.texts))
            if place == len(self.texts):
                self.texts.append(text)
            self._places[slot] = place
        self._generations[slots] = flows["generation"]
