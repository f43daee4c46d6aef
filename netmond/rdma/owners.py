"""Whose RDMA traffic is: from what is written in a packet to the queue pair here, and its holder. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import distinct
from netmond.model import NOBODY_UID
from netmond.rdma.register import HOLDER, Census

_Rows = NDArray[np.intp]
_NUMBER = np.uint64(24)  # bits of a queue pair's number (IBTA 1, 9.2, base transport header)

#: Who is behind rows that are nobody's: one HOLDER.
NOBODY = np.zeros(1, HOLDER)
NOBODY["uid"] = NOBODY_UID


_BETWEEN = np.dtype([("ifindex", "u8"), ("local", "V16"), ("remote", "V16")])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Owners:
    """Whose n rows are, in columns of the flow table (model.Snapshot)."""

    uid: NDArray[np.uint32]  #: NOBODY_UID: unknown
    pid: NDArray[np.uint32]  #: 0: unknown, or the kernel's
    comm: NDArray[np.bytes_]  #: S16, empty: unknown
    unit_index: NDArray[np.int32]  #: -1: none

    @staticmethod
    def nobody(length: int) -> Owners:
        """Of so many rows, none is known to be anybody's."""
        return Owners(
            uid=np.full(length, NOBODY_UID, np.uint32),
            pid=np.zeros(length, np.uint32),
            comm=np.zeros(length, "S16"),
            unit_index=np.full(length, -1, np.int32),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packets:
    """What n rows of packets tell of their queue pairs."""

    ifindex: NDArray[np.uint32]
    outgoing: NDArray[np.bool_]
    local: NDArray[Any]  #: V16, of the flow table
    remote: NDArray[Any]
    qpn: NDArray[np.uint32]  #: of the receiver
    uid: NDArray[np.uint32]  #: whose socket sent it, as soft-RoCE has one; NOBODY_UID: it does not tell

    def __len__(self) -> int:
        return len(self.qpn)

    def __getitem__(self, rows: Any) -> Packets:
        return Packets(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def between(self) -> NDArray[Any]:
        """Interface and addresses of each row, as records of whole u8 words."""
        ends = np.zeros(len(self), _BETWEEN)
        ends["ifindex"], ends["local"], ends["remote"] = self.ifindex, self.local, self.remote
        return ends


@dataclass(frozen=True, slots=True, eq=False)
class Holders:
    """Who is behind n rows: as HOLDER. A field on which all who it may be do not agree is nobody's.

    `known` is where there was somebody at all: his user may be unknown for good.
    """

    who: NDArray[Any]
    known: NDArray[np.bool_]


class Directory:
    """Finds holders in one census."""

    def __init__(self, census: Census, interfaces: Mapping[str, Collection[int]]) -> None:
        """interfaces: those of each device, as ifindexes.

        A packet is seen at the lowest interface, and a device may be that of a VLAN or bond above it: at an
        interface that is no device's it may be any.
        """
        self._holders = census.holders
        self._places = {device: place for place, device in enumerate(census.devices)}
        self._any = list(range(len(census.devices)))
        self._devices: dict[int, list[int]] = {}
        for device, ifindexes in interfaces.items():
            for ifindex in ifindexes:
                here = self._devices.setdefault(ifindex, [])
                if device in self._places:
                    here.append(self._places[device])
        self._by_number = _Index(census.holders["device"], census.holders["qpn"])
        self._by_remote = _Index(census.holders["device"], census.holders["remote_qpn"])

    def find(self, packets: Packets, since: float) -> Holders:
        """The holders of queue pairs that were open then (monotonic seconds) or later.

        What comes in names the queue pair here. What goes out names the one at the other end: it is that of
        whoever is connected to one of that number. If several users are, only a socket tells which.
        """
        rows, devices = self._candidates(packets.ifindex)
        keys = _keys(devices, packets.qpn[rows])
        outgoing = packets.outgoing[rows]
        come = self._by_number.find(rows[~outgoing], keys[~outgoing])
        left = self._by_remote.find(rows[outgoing], keys[outgoing])
        places, found = np.concatenate([come[0], left[0]]), np.concatenate([come[1], left[1]])
        then = (self._holders["gone"][found] >= since) & self._may_be(packets.uid[places], found)
        places, found = places[then], found[then]
        order = np.argsort(places, kind="stable")
        holders = self._agreed(places[order], found[order], len(packets))
        told = packets.uid != NOBODY_UID
        holders.who["uid"][told] = packets.uid[told]
        lost = np.flatnonzero(~holders.known)
        if told[lost].any():
            holders.who["uid"][lost] = _by_company(packets[lost])
        return holders

    def holder(self, device: str, qpns: Collection[int]) -> NDArray[Any]:
        """Who has these queue pairs now, as far as it is one: a HOLDER, (1,)."""
        theirs = self._holders["device"] == self._places.get(device, len(self._places))
        theirs &= np.isin(self._holders["qpn"], list(qpns)) & np.isinf(self._holders["gone"])
        found = np.flatnonzero(theirs)
        return self._agreed(np.zeros_like(found), found, 1).who

    def _may_be(self, uids: NDArray[np.uint32], found: _Rows) -> NDArray[np.bool_]:
        """Where a holder is not another than the user that the packets tell."""
        holders = self._holders["uid"][found]
        agree: NDArray[np.bool_] = (uids == NOBODY_UID) | (holders == NOBODY_UID) | (holders == uids)
        return agree

    def _candidates(self, ifindexes: NDArray[np.uint32]) -> tuple[_Rows, NDArray[np.uint64]]:
        """Rows, and a device that each may be of; a row stands there once for each device."""
        distinct, inverse = np.unique(ifindexes, return_inverse=True)
        devices = [self._devices.get(ifindex, self._any) for ifindex in distinct.tolist()]
        lengths = np.array([len(each) for each in devices], np.intp)
        flat = np.array([device for each in devices for device in each], np.uint64)
        return _spread((lengths.cumsum() - lengths)[inverse], lengths[inverse], flat)

    def _agreed(self, rows: _Rows, found: _Rows, length: int) -> Holders:
        """rows: ascending; found: a holder for each."""
        who = np.repeat(NOBODY, length)
        known = np.zeros(length, np.bool_)
        if len(rows):
            distinct, starts, counts = np.unique(rows, return_index=True, return_counts=True)
            known[distinct] = True
            holders = self._holders[found]
            for name in HOLDER.names or ():
                column = holders[name]
                first = column[starts]
                agreed = np.logical_and.reduceat(column == np.repeat(first, counts), starts)
                who[name][distinct[agreed]] = first[agreed]
        return Holders(who, known)


def _by_company(packets: Packets) -> NDArray[np.uint32]:
    """Users of rows whose queue pairs nobody knows: who is the only one to send between two ends gets the
    answers as well. So a program is known that was too short for a look at its queue pair."""
    first, group = distinct(packets.between())
    told = packets.uid != NOBODY_UID
    least, most = np.full(len(first), NOBODY_UID, np.uint32), np.zeros(len(first), np.uint32)
    np.minimum.at(least, group[told], packets.uid[told])
    np.maximum.at(most, group[told], packets.uid[told])
    users = np.where(told, packets.uid, np.where(least == most, least, NOBODY_UID)[group])
    return users.astype(np.uint32, copy=False)


class _Index:
    """Places of keys that may be there several times."""

    def __init__(self, devices: NDArray[np.uint32], numbers: NDArray[np.uint32]) -> None:
        """Queue pairs of number 0 are not to be found: that stands for none."""
        places = np.flatnonzero(numbers)
        keys = _keys(devices[places], numbers[places])
        order = np.argsort(keys, kind="stable")
        self._keys, self._places = keys[order], places[order]

    def find(self, rows: _Rows, keys: NDArray[np.uint64]) -> tuple[_Rows, _Rows]:
        """Rows, and the place of an equal of each one's key; a row stands there once for each."""
        first = np.searchsorted(self._keys, keys, "left")
        lengths = np.searchsorted(self._keys, keys, "right") - first
        found, places = _spread(first, lengths, self._places)
        return rows[found], places


def _keys(devices: NDArray[Any], numbers: NDArray[np.uint32]) -> NDArray[np.uint64]:
    keys: NDArray[np.uint64] = devices.astype(np.uint64) << _NUMBER | numbers
    return keys


def _spread(first: _Rows, lengths: _Rows, values: NDArray[Any]) -> tuple[_Rows, NDArray[Any]]:
    """For each row as many of the values as its length says, from its first on; with the row's number."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(rows)) - np.repeat(lengths.cumsum() - lengths, lengths)
    return rows, values[np.repeat(first, lengths) + within]
