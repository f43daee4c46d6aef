"""RDMA over Ethernet, as the interfaces saw it, in the flow table. Pure.

A row is one opcode to one queue pair: what came in for this machine, what it sent, or what it passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now
from netmond.aging import AgingRows
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import FlowKind, TrafficType
from netmond.rdma.owners import Owners, Packets

#: The UDP port of version 2 (IANA, InfiniBand Architecture Specification 1, annex A17), and UDP itself
PORT, _UDP = 4791, 17

#: What n rows tell of their queue pairs, and what they grew by, (n, 8) -> whose they are
OwnersOf = Callable[[Packets, NDArray[np.uint64]], Owners]


def nobodys(packets: Packets, deltas: NDArray[np.uint64]) -> Owners:
    """OwnersOf, where nothing is known of queue pairs."""
    return Owners.nobody(len(packets))


class _Tallied:
    """The kernel's hash as one of tallies, and beside it the last sequence number of each row."""

    def __init__(self, table: Hash) -> None:
        self._table = table
        self.capacity = table.capacity
        self.sequences = np.zeros(0, np.uint32)

    def read(self) -> tuple[NDArray[Any], NDArray[Any]]:
        keys, rows = self._table.read()
        self.sequences = rows["sequence"]
        return keys, np.ascontiguousarray(rows["tally"])

    def take(self, key: NDArray[Any]) -> NDArray[Any] | None:
        row = self._table.take(key)
        return None if row is None else np.ascontiguousarray(row["tally"])


class Roce:
    """Flows of RoCE. They are in no socket's row, and in none of the other forwarded ones."""

    def __init__(self, table: Hash) -> None:
        self._table = _Tallied(table)
        self._rows = AgingRows(self._table, "roce", wire.ROCE_KEY, wire.TALLY)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """What has been accounted for."""
        return self._rows.checkpoint()

    def resume(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Goes on from a checkpoint of the same table."""
        self._rows.resume(arrays)

    @property
    def crowded(self) -> bool:
        """Whether there are so many flows that their hash should be read often."""
        return self._rows.crowded

    def add(self, flows: FlowRows, now: Now, owners: OwnersOf = nobodys) -> None:
        """Adds the flows at a tick; those silent for long leave the kernel's table, for good."""
        self._rows.read(now)
        keys = self._rows.keys
        if not len(keys):
            return
        forwarded = keys["way"] == wire.ROCE_FORWARDED
        outgoing = keys["way"] != wire.ROCE_IN
        columns = {**_columns(keys, outgoing), **self._rows.columns(now)}
        columns["psn"] = self._table.sequences
        totals, rates = self._rows.totals, self._rows.rates(now)
        for kind, rows in ((FlowKind.ROCE, ~forwarded), (FlowKind.FORWARDED, forwarded)):
            if not rows.any():
                continue
            part = {name: column[rows] for name, column in columns.items()}
            if kind == FlowKind.ROCE:
                packets = Packets(
                    ifindex=part["ifindex"],
                    outgoing=outgoing[rows],
                    local=part["local"],
                    remote=part["remote"],
                    qpn=part["qpn"],
                    uid=keys["uid"][rows],
                )
                whose = owners(packets, self._rows.deltas[rows])
                part |= {field.name: getattr(whose, field.name) for field in fields(whose)}
            flows.add(kind, totals[rows], rates[rows], **part)


def _columns(keys: NDArray[Any], outgoing: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """What the key of each row says."""
    second = keys["version"] == wire.ROCE_V2
    local, remote = keys["source"].copy(), keys["destination"].copy()
    local[~outgoing], remote[~outgoing] = keys["destination"][~outgoing], keys["source"][~outgoing]
    return {
        "protocol": second * np.uint8(_UDP),
        "traffic": np.where(second, TrafficType.ROCE_V2, TrafficType.ROCE_V1).astype(np.uint8),
        "opcode": keys["opcode"],
        "qpn": keys["queue_pair"],
        "pkey": keys["partition_key"],
        "local": local,
        "remote": remote,
        "local_port": (second & ~outgoing) * np.uint16(PORT),
        "remote_port": (second & outgoing) * np.uint16(PORT),
    }
