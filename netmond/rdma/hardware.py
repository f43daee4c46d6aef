"""What devices count by themselves: queue pairs' own counters, and what ports count beyond all that. Pure.

Hardware moves its packets past the network stack: only its counters tell of them, and whose they are only if
somebody has bound queue pairs to counters (``rdma statistic``). Soft-RoCE counts what its interface does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.kernel.rdma_netlink import BoundCounter
from netmond.model import RdmaPort
from netmond.rdma.catalogue import Name
from netmond.rdma.traffic import whole

_Key = tuple[str, int]  # device, port

#: Ports, and counters, that may be away at a time and are known when they are back.
_REMEMBERED = 1024

#: Counters that queue pairs are bound to, in the order of model.COUNTERS; others tell no bytes
#: (drivers/infiniband/hw/mlx5/counters.c, Linux 6.14).
_OF_QUEUE_PAIR = ("rdma_rx_packets", "rdma_rx_bytes", "rdma_tx_packets", "rdma_tx_bytes")


class _Total(NamedTuple):
    """What some counters together have counted."""

    names: tuple[Name, ...]
    value: int


def widened(figures: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first four counters (n, 4) as all of model.COUNTERS (n, 8): devices know no larger packets."""
    return np.concatenate([figures, figures], axis=1)


class Remainders:
    """What each port has counted that is nobody's yet.

    A port is read before its interface is, so what the interface has seen is never less than what the port
    has counted of it: too little may be left over for a moment, never too much.
    """

    def __init__(self) -> None:
        self._totals: dict[_Key, dict[int, _Total]] = {}  # by column
        self._balances: dict[_Key, NDArray[np.int64]] = {}

    def attribute(self, key: _Key, figures: NDArray[np.uint64]) -> None:
        """So much (4,) of what the port counts is known to be somebody's, or nobody's, already."""
        if key in self._balances:
            self._balances[key] = self._balances[key] - figures.astype(np.int64)

    def update(self, ports: Sequence[RdmaPort]) -> NDArray[np.uint64]:
        """A new reading of all ports: what is left over in all, (4,)."""
        left = np.zeros(4, np.int64)
        for port in ports:
            key = port.device, port.port
            balance = self._balances.get(key, np.zeros(4, np.int64)) + self._grown(key, port)
            claim = np.maximum(balance, 0)
            left += claim
            self._balances[key] = balance - claim
        if len(self._totals) > _REMEMBERED + len(ports):
            self._forget({(port.device, port.port) for port in ports})
        return left.astype(np.uint64)

    def _grown(self, key: _Key, port: RdmaPort) -> NDArray[np.int64]:
        """What the port has counted since the reading before, (4,).

        A counter that could not be read meanwhile goes on from where it was. One that stands in for another
        begins with what it shows.
        """
        before = self._totals.setdefault(key, {})
        grown = np.zeros(4, np.int64)
        for column, places in whole(port).items():
            now = _Total(tuple(port.names[place] for place in places), int(port.totals[places].sum()))
            was = before.get(column, now)
            if was.names == now.names:
                grown[column] = now.value - was.value if now.value >= was.value else now.value  # anew
            before[column] = now
        return grown

    def _forget(self, present: Collection[_Key]) -> None:
        for key in self._totals.keys() - present:
            del self._totals[key], self._balances[key]


class BoundCounters:
    """What counters grow by that queue pairs are bound to."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, int, int, int], NDArray[np.int64]] | None = None

    def update(self, counters: Sequence[BoundCounter]) -> list[tuple[BoundCounter, NDArray[np.uint64]]]:
        """A new reading: counters that moved, and by what, (4,). What was there at first came before; what
        could not be read for a while goes on."""
        before, now, moved = self._before, {}, []
        for counter in counters:
            key = counter.device, counter.port, counter.number, counter.pid
            now[key] = figures = _bound(counter)
            was = figures if before is None else before.get(key, np.zeros(4, np.int64))
            grown = figures - was
            if (grown < 0).any():  # its number was given to another
                grown = figures
            if grown.any():
                moved.append((counter, grown.astype(np.uint64)))
        self._before = now if before is None or len(before) > _REMEMBERED + len(now) else before | now
        return moved


def _bound(counter: BoundCounter) -> NDArray[np.int64]:
    return np.array([counter.values.get(name, 0) for name in _OF_QUEUE_PAIR], np.int64)
