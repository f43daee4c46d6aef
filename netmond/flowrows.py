"""Puts the flow table of a snapshot together from the rows that several parts contribute."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netmond.model import COUNTERS, NOBODY_UID, RATES, FlowKind, Table

#: Column -> dtype and the value of rows whose contributor says nothing; meanings in model.Snapshot.
_COLUMNS: dict[str, tuple[str, int | float | bytes]] = {
    "id": ("u8", 0),
    "kind": ("u1", 0),
    "protocol": ("u1", 0),
    "local": ("V16", bytes(16)),
    "remote": ("V16", bytes(16)),
    "local_port": ("u2", 0),
    "remote_port": ("u2", 0),
    "ifindex": ("u4", 0),
    "uid": ("u4", NOBODY_UID),
    "pid": ("u4", 0),
    "comm": ("S16", b""),
    "unit_index": ("i4", -1),
    "first_seen": ("f8", 0.0),
    "last_seen": ("f8", 0.0),
    "srtt_us": ("u4", 0),
    "retransmits": ("u4", 0),
    "ended": ("?", 0),
}


class FlowRows:
    """Collects rows, then makes them a Table, once."""

    #: Columns that a socket's rows share with those of its peers.
    SHARED: ClassVar = (
        "protocol",
        "local",
        "remote",
        "local_port",
        "remote_port",
        "ifindex",
        "uid",
        "pid",
        "comm",
    )
    #: Fields of the kernel's struct flow that are kept per slot.
    IDENTITY: ClassVar = (*SHARED, "cookie", "netns", "first_seen", "flags")

    def __init__(self) -> None:
        self._parts: list[tuple[dict[str, NDArray[Any]], NDArray[np.uint64], NDArray[np.float64]]] = []

    def add(
        self,
        kind: FlowKind,
        counters: NDArray[np.uint64],
        rates: NDArray[np.float64],
        **columns: NDArray[Any],
    ) -> None:
        """Adds n rows of a kind: counters (n, 8), rates (n, 4), columns (n,); absent ones are filled."""
        length = len(counters)
        part: dict[str, NDArray[Any]] = {"kind": np.full(length, kind.value, np.uint8)}
        for name, (dtype, absent) in _COLUMNS.items():
            if name in columns:
                part[name] = columns[name].astype(dtype, copy=False)
            elif name != "kind":
                part[name] = np.full(length, np.array(absent, dtype), dtype)
        self._parts.append((part, counters, rates))

    def table(self) -> Table:
        if not self._parts:
            return Table.empty(**{name: np.zeros(0, dtype) for name, (dtype, _) in _COLUMNS.items()})
        if len(self._parts) == 1:
            part, counters, rates = self._parts[0]
            return Table(columns=part, counters=counters, rates=rates)
        parts, counters, rates = zip(*self._parts, strict=True)
        return Table(
            columns={name: np.concatenate([part[name] for part in parts]) for name in _COLUMNS},
            counters=np.concatenate(counters).reshape(-1, len(COUNTERS)),
            rates=np.concatenate(rates).reshape(-1, len(RATES)),
        )
