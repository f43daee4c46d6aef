"""Whose packets are: unit, process id and process by slot of the flow table, as the end of a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from netmond.outputs import csvrows, textcolumns
from netmond.owner_texts import Flows, OwnerTexts


def _end(unit: str, pid: int, process: bytes) -> bytes:
    return f"{csvrows.field(unit)},{pid},{csvrows.field(process)}\n".encode()


class Owners:
    """Looks a socket up when its first packet comes, and remembers it as long as it has its slot."""

    def __init__(self, flows: Flows, units: Callable[[Iterable[int]], Mapping[int, str]]) -> None:
        """units: names of units by cgroup id, leaving out unknown ones."""
        self._owners = OwnerTexts(flows, units, _end, b",0,\n")
        self._known: list[bytes] = []  # what is in the column
        self._column: textcolumns.Column

    def ends(self, records: NDArray[Any]) -> textcolumns.Column:
        """``unit,pid,process`` and newline for each of some packets (wire.PACKET); empty and 0: unknown."""
        places = self._owners.places(records)
        if self._known is not self._owners.texts or len(self._column.lengths[0]) < len(self._known):
            self._known = self._owners.texts
            self._column = textcolumns.texts(self._known)
        return self._column.take(places)
