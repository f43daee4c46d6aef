"""Packets and bytes in both directions, as every comparison has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Figures(NamedTuple):
    """in is what came to the near end, the one in netmond's namespace."""

    in_packets: int
    in_bytes: int
    out_packets: int
    out_bytes: int

    @property
    def mirrored(self) -> Figures:
        """As the far end sees it."""
        return Figures(self.out_packets, self.out_bytes, self.in_packets, self.in_bytes)


NOTHING = Figures(0, 0, 0, 0)


def total(each: Iterable[Figures]) -> Figures:
    return Figures(*(sum(values) for values in zip(NOTHING, *each, strict=True)))


def difference(later: Figures, before: Figures) -> Figures:
    return Figures(*(a - b for a, b in zip(later, before, strict=True)))


def wire(row: Mapping[str, Any] | None) -> Figures:
    """The wire figures of a row of netmond's; nothing for a row that is not there."""
    return Figures(*(row[name] for name in Figures._fields)) if row else NOTHING


def stack(row: Mapping[str, Any] | None) -> Figures:
    """The same as the network stack handled it, segmentation offload not undone."""
    if not row:
        return NOTHING
    return Figures(*(row[name.replace("_", "_stack_")] for name in Figures._fields))
