"""What a snapshot is as metrics: names, labels and values, as Prometheus and OpenMetrics have them.

`SUBJECTS` and `SINGLE` are all names there are: the manual is made of them. They follow
https://prometheus.io/docs/practices/naming/: base units, and counters end in ``_total``.

Counters are the running totals of the snapshot: they survive restarts of the daemon and of the exporter, and
a sample that is lost costs nothing but its moment. A value is a float64 on the other side: exact up to
2**53.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond import __version__
from netmond.export import rdma_metrics
from netmond.export.cardinality import FlowLabels, FlowView
from netmond.export.families import Family, Labels, Reading
from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS, FeatureState, Snapshot
from netmond.outputs.log import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is counted in both directions, in bytes and in packets: four counters with the same labels."""

    prefix: str
    labels: tuple[str, ...]
    of: str  #: whose bytes and packets, for the end of a sentence

    def families(self) -> tuple[Family, ...]:
        """The four, in the order of `_COLUMNS`."""
        return tuple(
            Family(
                name=f"{self.prefix}_{direction}_{unit}_total",
                help=f"{unit.capitalize()} {direction}{'d' if direction == 'receive' else 'ted'} {self.of}",
                labels=self.labels,
            )
            for direction, unit, _ in _COLUMNS
        )


_COLUMNS = (
    ("receive", "bytes", IN_BYTES),
    ("transmit", "bytes", OUT_BYTES),
    ("receive", "packets", IN_PACKETS),
    ("transmit", "packets", OUT_PACKETS),
)

HOST = Subject(prefix="netmond_host", labels=(), of="by this machine, each packet once")
USER = Subject(prefix="netmond_user", labels=("uid", "user"), of="by a user's sockets")
UNIT = Subject(prefix="netmond_unit", labels=("unit", "slice"), of="by the sockets of a systemd unit")
INTERFACE = Subject(
    prefix="netmond_interface", labels=("interface",),
    of="by a monitored network interface, link-layer headers included",
)  # fmt: skip
TARGET = Subject(
    prefix="netmond_target", labels=("target",),
    of="by a target, seen from the target: it receives what is sent to it",
)  # fmt: skip
FLOW = Subject(
    prefix="netmond_flow", labels=FlowLabels._fields,
    of='by one of the largest flows while it has a series; id="other" is what has none',
)  # fmt: skip
ALL_FLOWS = Subject(prefix="netmond_all_flows", labels=(), of="by all flows, since the exporter started")
SUBJECTS = (HOST, USER, UNIT, INTERFACE, TARGET, FLOW, ALL_FLOWS)

OPEN_FLOWS = Family(name="netmond_open_flows", help="Flows that a user has open now", labels=("uid", "user"))
LOSSES = Family(
    name="netmond_losses_total", labels=("name",),
    help="How often something could not be counted or delivered, by line of the loss ledger",
)  # fmt: skip
FEATURE = Family(
    name="netmond_feature_state", labels=("feature", "state"),
    help="1 for the state that a part of netmond is in (on, degraded, off), 0 for the others",
)  # fmt: skip
BUILD = Family(name="netmond_build_info", help="1, with the version of netmond", labels=("version",))
SINCE = Family(
    name="netmond_since_timestamp_seconds",
    help="When counting began (Unix time): totals go on from there until the next boot",
)
STARTED = Family(name="netmond_start_timestamp_seconds", help="When the daemon started (Unix time)")
TAKEN = Family(name="netmond_snapshot_timestamp_seconds", help="When these figures were taken (Unix time)")
CPU = Family(name="netmond_cpu_seconds_total", help="CPU time that the daemon has used")
RESIDENT = Family(name="netmond_resident_bytes", help="Memory that the daemon has resident")
TICK = Family(name="netmond_tick_seconds", help="How long the daemon's last tick took")
SINGLE = (
    OPEN_FLOWS, *rdma_metrics.FAMILIES, LOSSES, FEATURE, BUILD, SINCE, STARTED, TAKEN, CPU, RESIDENT, TICK,
)  # fmt: skip

#: Every metric there is, but the names of another tool (see `netmond.export.xtrace`).
FAMILIES = (*(family for subject in SUBJECTS for family in subject.families()), *SINGLE)


def read(
    snapshot: Snapshot, name_of: Callable[[int], str], flows: FlowView | None = None
) -> Iterator[Reading]:
    """The metrics of a snapshot. name_of: a login name for a uid; flows: if flows are wanted."""
    users = [(str(uid), escape(name_of(uid))) for uid in snapshot.users.columns["uid"].tolist()]
    yield from _counted(HOST, [()], snapshot.host.counters)
    yield from _counted(USER, users, snapshot.users.counters)
    yield from _counted(UNIT, _texts(snapshot.units.columns, "unit", "slice"), snapshot.units.counters)
    yield from _interfaces(snapshot)
    yield from _counted(TARGET, _texts(snapshot.targets.columns, "address"), snapshot.targets.counters)
    if flows is not None:
        labels = [tuple(map(escape, each.labels)) for each in flows.series]
        figures = [each.figures for each in flows.series]
        yield from _counted(FLOW, [*labels, FlowLabels.other()], np.array([*figures, flows.other]))
        yield from _counted(ALL_FLOWS, [()], flows.total.reshape(1, -1))
    yield OPEN_FLOWS.reading(zip(users, snapshot.users.columns["flows"].tolist(), strict=True))
    yield from rdma_metrics.read(snapshot.rdma, name_of)
    yield LOSSES.reading(((escape(loss.name),), loss.count) for loss in snapshot.losses)
    yield FEATURE.reading(
        ((escape(feature.name), state.value), feature.state is state)
        for feature in snapshot.features
        for state in FeatureState
    )
    yield BUILD.reading([((__version__,), 1)])
    for family, value in (
        (SINCE, snapshot.since), (STARTED, snapshot.started), (TAKEN, snapshot.time),
        (CPU, snapshot.cost.cpu_seconds), (RESIDENT, snapshot.cost.resident_bytes),
        (TICK, snapshot.cost.tick_seconds),
    ):  # fmt: skip
        yield family.reading([((), value)])


def _texts(columns: Any, *names: str) -> list[Labels]:
    return [tuple(map(escape, row)) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


def _interfaces(snapshot: Snapshot) -> Iterator[Reading]:
    """Those that are still there: an index without a name says nothing to anybody."""
    indices = snapshot.interfaces.columns["ifindex"].tolist()
    rows = [row for row, index in enumerate(indices) if index in snapshot.links]
    names = [(escape(snapshot.links[indices[row]].name),) for row in rows]
    yield from _counted(INTERFACE, names, snapshot.interfaces.counters[rows])


def _counted(subject: Subject, labels: Sequence[Labels], counters: NDArray[np.uint64]) -> Iterator[Reading]:
    """The four metrics of a subject. Rows with equal labels (a unit of several cgroups) are added up."""
    place: dict[Labels, int] = {}
    rows = [place.setdefault(each, len(place)) for each in labels]
    if len(place) < len(rows):
        sums = np.zeros((len(place), counters.shape[1]), np.uint64)
        np.add.at(sums, rows, counters)
        counters = sums
    for family, (_, _, column) in zip(subject.families(), _COLUMNS, strict=True):
        yield Reading(family=family, samples=list(zip(place, counters[:, column].tolist(), strict=True)))
