"""Which interfaces the sockets' packets passed: what interfaces' books compare with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Tallies
from netmond.kernel import wire
from netmond.model import COUNTERS

#: Protocols whose packets come in for sockets alone, see is_transport() in bpf/parse.h: TCP, UDP, DCCP,
#: SCTP, UDP-Lite. Of the others (ICMP) sockets get copies, and the books leave them with the kernel.
_TRANSPORT = np.isin(np.arange(256), (6, 17, 33, 132, 136))

_IN, _OUT = (0, 1, 4, 5), (2, 3, 6, 7)  # of model.COUNTERS

_Deltas = NDArray[np.uint64]  # (n, 8)
_Rows = NDArray[Any]  # a number for each


class Passages:
    """Running totals by interface of our own network namespace."""

    def __init__(self) -> None:
        self._sums: dict[int, NDArray[np.uint64]] = {}
        self._detours = Tallies()

    @property
    def totals(self) -> Mapping[int, NDArray[np.uint64]]:
        """Counters (8,) by interface index; live. `in` is without protocols that are the kernel's."""
        return self._sums

    def add(self, deltas: _Deltas, ways_in: _Rows, ways_out: _Rows) -> None:
        """Adds what sockets did; ways_*: the interface that each one's packets pass, 0: none that counts."""
        self._add_side(deltas[:, _IN], ways_in, _IN)
        self._add_side(deltas[:, _OUT], ways_out, _OUT)

    def add_sockets(self, deltas: _Deltas, ways: _Rows, protocols: _Rows) -> None:
        """Adds what sockets did; ways (n, 2): the interfaces that each one's packets pass, in and out."""
        self.add(deltas, np.where(_TRANSPORT[protocols], ways[:, 0], 0), ways[:, 1])

    def move(self, detours: Hash) -> None:
        """Takes in what passed other interfaces than those it is added to. Read it before the slots: the
        kernel counts there first."""
        self._detours.update(*detours.read())
        keys = self._detours.keys
        if not len(keys):
            return
        deltas = self._detours.deltas.copy()
        deltas[np.ix_(~_TRANSPORT[keys["protocol"]], np.array(_IN))] = 0
        for key, delta in zip(keys, deltas, strict=True):
            self._sum(int(key["home"]))[:] -= delta
            self._sum(int(key["ifindex"]))[:] += delta

    def _add_side(self, deltas: _Deltas, ways: _Rows, columns: tuple[int, ...]) -> None:
        if len(ways) and (ways == ways[0]).all():  # most machines have one way
            if ways[0]:
                self._sum(int(ways[0]))[list(columns)] += deltas.sum(axis=0)
            return
        for way in np.unique(ways).tolist():
            if way:
                self._sum(way)[list(columns)] += deltas[ways == way].sum(axis=0)

    def _sum(self, ifindex: int) -> NDArray[np.uint64]:
        return self._sums.setdefault(ifindex, np.zeros(len(COUNTERS), np.uint64))


def pass_ours(netns: _Rows, flags: _Rows, home: int) -> NDArray[np.bool_]:
    """Which sockets' packets pass interfaces of namespace `home`; the kernel's own answer for them all."""
    ours: NDArray[np.bool_] = netns == home
    ours &= flags & wire.FLOW_CONTROL == 0
    return ours
