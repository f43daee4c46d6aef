"""Puts the flow table of a snapshot together from the rows that several parts contribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netmond.model import NOBODY_UID, FlowKind, Table

#: Column -> dtype and the value of rows whose contributor says nothing; meanings in model.Snapshot.
_COLUMNS: dict[str, tuple[str, int | float | bytes]] = {
    "id": ("u8", 0),
    "kind": ("u1", 0),
    "protocol": ("u1", 0),
    "traffic": ("u1", 0),
    "opcode": ("u1", 0),
    "qpn": ("u4", 0),
    "pkey": ("u2", 0),
    "psn": ("u4", 0),
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
        part: dict[str, NDArray[Any]] = {"kind": _repeated("kind", kind.value, len(counters))}
        for name, column in columns.items():
            part[name] = column.astype(_COLUMNS[name][0], copy=False)
        self._parts.append((part, counters, rates))

    def table(self) -> Table:
        if not self._parts:
            return Table.empty(**{name: np.zeros(0, dtype) for name, (dtype, _) in _COLUMNS.items()})
        parts, counters, rates = zip(*self._parts, strict=True)
        lengths = [len(each) for each in counters]
        return Table(
            columns={name: _column(name, parts, lengths) for name in _COLUMNS},
            counters=_joined(counters),
            rates=_joined(rates),
        )


def _column(name: str, parts: Sequence[Mapping[str, NDArray[Any]]], lengths: Sequence[int]) -> NDArray[Any]:
    absent = _COLUMNS[name][1]
    if not any(name in part for part in parts):
        return _repeated(name, absent, sum(lengths))
    return _joined(
        [
            part[name] if name in part else _repeated(name, absent, length)
            for part, length in zip(parts, lengths, strict=True)
        ]
    )


def _repeated(name: str, value: int | float | bytes, length: int) -> NDArray[Any]:
    """A column of one value. It takes no memory, as long as nothing else is to stand in it."""
    return np.broadcast_to(np.array(value, _COLUMNS[name][0]), length)


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
