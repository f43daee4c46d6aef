"""Which flows get series of their own: a bounded number, chosen so that sums stay right.

Every byte of every flow is in one place: in the series that its flow has at that moment, or in "other". What
was counted stays where it was counted, so no counter goes back and none jumps when flows come and go:

    total == the series that are visible + what series had that no longer are + other

Series change in rounds, of `ROUND` seconds if it is not known how often somebody looks. A series is

    announced   for a round at 0, its flow still counts as other: rate() and increase() need a first sample
    counting    as long as its flow is open and among the largest
    final       for a round at its last value, its flow counts as other again: everybody has seen it

and then gone. So in a time series database the sum of increase() over all series is what flows exchanged.
The largest flows are those with most bytes in the last round; one that has a series already counts double,
and keeps it while nobody else needs the place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.model import IN_BYTES, NOBODY_UID, OUT_BYTES, FlowKind, Snapshot, TrafficType
from netmond.outputs.deltas import WRITTEN, Deltas
from netmond.rdma import opcodes

#: Seconds of a round. Who looks at least as often sees every value: Prometheus usually does, once a minute.
ROUND = 90.0

#: What counts for a flow that has a series already, against those that have none.
_LOYALTY = 2.0

#: in_packets, in_bytes, out_packets, out_bytes
Figures = NDArray[np.uint64]


class FlowLabels(NamedTuple):
    """What a series says about its flow, as it was when the flow got it."""

    id: str  #: unique while the daemon runs
    protocol: str  #: IANA number
    local: str  #: empty: any address
    local_port: str
    remote: str
    remote_port: str
    uid: str  #: empty: a forwarded flow
    user: str
    unit: str
    process: str
    traffic_type: str  #: ip, roce_v1 or roce_v2; the rest is of RoCE only
    opcode: str  #: by name
    queue_pair: str  #: the destination's

    @staticmethod
    def other() -> FlowLabels:
        return FlowLabels("other", *[""] * (len(FlowLabels._fields) - 1))


@dataclass(slots=True, eq=False)
class _Series:
    labels: FlowLabels
    figures: Figures  # since the series began; replaced, not changed: views have it
    lifetime: Figures  # of the flow itself, since the flow began
    counting: bool = False  # else it is announced


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowSeries:
    """One visible series."""

    labels: FlowLabels
    figures: Figures
    lifetime: Figures  #: what the flow itself exchanged since it began


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FlowView:
    """All series of flows at one moment."""

    series: tuple[FlowSeries, ...]
    other: Figures
    total: Figures


class TopFlows:
    """The series of the largest flows. Figures begin at 0 with the first snapshot."""

    def __init__(self, places: int, name_of: Callable[[int], str], *, period: float = ROUND) -> None:
        """places: how many flows have a series, not counting final ones; name_of: a login name for a uid."""
        self._places = places
        self._name_of = name_of
        self._period = period
        self._series: dict[int, _Series] = {}  # announced and counting, by id of their flow
        self._final: list[_Series] = []
        self._total = np.zeros(WRITTEN, np.uint64)
        self._gone = np.zeros(WRITTEN, np.uint64)
        self._since_tick = self._since_turn = Deltas(forwarded=True)
        self._started: float | None = None  # of the daemon whose ids these are
        self._turned = float("-inf")

    def take(self, snapshot: Snapshot) -> None:
        """Account for a snapshot. What flows exchanged before the first one of a daemon is not counted."""
        if snapshot.started != self._started:
            self._begin(snapshot)
        else:
            self._add(snapshot, *self._since_tick.take_ended(snapshot.flows))
            self._add(snapshot, *self._since_tick.take_open(snapshot.flows))
        if not self._turned <= snapshot.time < self._turned + self._period:  # the clock may be set back
            self._turn(snapshot)

    def view(self) -> FlowView:
        """All figures now."""
        series = tuple(
            FlowSeries(labels=each.labels, figures=each.figures, lifetime=each.lifetime)
            for each in (*self._series.values(), *self._final)
        )
        visible = sum((each.figures for each in series), np.zeros(WRITTEN, np.uint64))
        return FlowView(series=series, other=self._total - self._gone - visible, total=self._total)

    def _begin(self, snapshot: Snapshot) -> None:
        """Another daemon: its ids mean other flows, and they have exchanged something already."""
        self._final += self._series.values()
        self._series.clear()
        self._started = snapshot.started
        self._since_tick, self._since_turn = Deltas(forwarded=True), Deltas(forwarded=True)
        self._since_tick.take_open(snapshot.flows)

    def _add(self, snapshot: Snapshot, rows: NDArray[np.intp], delta: Figures) -> None:
        """Count differences, also in the series of those flows that have one."""
        self._total = self._total + delta.sum(axis=0, dtype=np.uint64)
        counting = np.array([id_ for id_, each in self._series.items() if each.counting], np.uint64)
        ids = snapshot.flows.columns["id"][rows]
        for place in np.flatnonzero(np.isin(ids, counting)).tolist():
            series = self._series[int(ids[place])]
            series.figures = series.figures + delta[place]
            series.lifetime = snapshot.flows.counters[rows[place], :WRITTEN].copy()

    def _turn(self, snapshot: Snapshot) -> None:
        """A new round: final series go, announced ones count, places are given to the largest flows."""
        self._turned = snapshot.time
        final = {each.labels: each for each in self._final}
        chosen = self._largest(snapshot)
        before, self._series = self._series, {}
        for id_, row in chosen.items():
            series = before.pop(id_, None)
            if series is None:
                labels = self._describe(snapshot, row)
                series = final.pop(labels, None) or self._announce(snapshot, row, labels)
            else:
                series.counting = True
            self._series[id_] = series
        self._final = list(before.values())
        self._gone = sum((each.figures for each in final.values()), self._gone)

    @staticmethod
    def _announce(snapshot: Snapshot, row: int, labels: FlowLabels) -> _Series:
        lifetime = snapshot.flows.counters[row, :WRITTEN].copy()
        return _Series(labels, np.zeros(WRITTEN, np.uint64), lifetime)

    def _largest(self, snapshot: Snapshot) -> dict[int, int]:
        """The open flows that shall have a series, by id, with their rows."""
        flows = snapshot.flows
        active, delta = self._since_turn.take_open(flows)
        weight = np.zeros(len(flows))
        weight[active] = delta[:, IN_BYTES].astype(float) + delta[:, OUT_BYTES]
        # Overflow rows are no flows: their traffic is of many, without an address.
        weight[flows.columns["ended"] | (flows.columns["kind"] == FlowKind.OVERFLOW.value)] = -1
        known = (weight >= 0) & np.isin(flows.columns["id"], np.array(list(self._series), np.uint64))
        weight[known] = weight[known] * _LOYALTY + 0.5  # an idle one has a claim, too, the least
        rows = np.flatnonzero(weight > 0)
        rows = rows[np.argsort(-weight[rows], kind="stable")[: self._places]]
        return dict(zip(flows.columns["id"][rows].tolist(), rows.tolist(), strict=True))

    def _describe(self, snapshot: Snapshot, row: int) -> FlowLabels:
        columns = {name: column[row] for name, column in snapshot.flows.columns.items()}
        uid, unit = int(columns["uid"]), int(columns["unit_index"])
        traffic = TrafficType(columns["traffic"])
        is_roce = traffic is not TrafficType.IP
        return FlowLabels(
            id=str(columns["id"]),
            protocol=str(columns["protocol"]),
            local=_address(columns["local"].tobytes()),
            local_port=str(columns["local_port"]),
            remote=_address(columns["remote"].tobytes()),
            remote_port=str(columns["remote_port"]),
            uid=str(uid) if uid != NOBODY_UID else "",
            user=self._name_of(uid) if uid != NOBODY_UID else "",
            unit=snapshot.unit_names[unit] if unit >= 0 else "",
            process=bytes(columns["comm"]).decode("utf-8", "surrogateescape"),
            traffic_type=traffic.name.lower(),
            opcode=opcodes.name(int(columns["opcode"])) if is_roce else "",
            queue_pair=str(columns["qpn"]) if is_roce else "",
        )


def _address(packed: bytes) -> str:
    """As in the flow table: all zeroes mean any."""
    if not any(packed):
        return ""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)
