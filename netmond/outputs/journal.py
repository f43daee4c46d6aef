"""The journal output: what changed, and now and then who used the network, as structured messages.

Every message has a MESSAGE_ID (`messages`, explained by ``journalctl -x``) and some of these fields:

NETMOND_USER, NETMOND_USER_UID       login name and number of a user
NETMOND_TARGET                       a target's address or prefix
NETMOND_IN_BYTES, NETMOND_IN_PACKETS, NETMOND_OUT_BYTES, NETMOND_OUT_PACKETS
                                     wire-true counts of the period; for targets `in` is what went to them
NETMOND_PERIOD                       seconds the counts were taken over
NETMOND_SINCE                        Unix time at which counting began
NETMOND_FEATURE, NETMOND_REASON      part of netmond; why it is not on
NETMOND_RDMA_DEVICE, NETMOND_RDMA_PORT, NETMOND_INTERFACE
                                     device and number of an RDMA port; its network interface, or nothing
NETMOND_STATE, NETMOND_PREVIOUS_STATE
                                     of a part: on, degraded or off; of a port: active, armed, init or down
NETMOND_LOSS, NETMOND_COUNT, NETMOND_TOTAL, NETMOND_MEANING
                                     line of the loss ledger, how many more, how many in all, what it means
NETMOND_VERSION, NETMOND_INTERFACES, NETMOND_TARGETS
                                     at the start: version, monitored interfaces, number of targets
NETMOND_SUPPRESSED                   messages of this kind left out before this one
NETMOND_WARNINGS                     warnings of a reload, one a line

Who changed something over D-Bus, and who was refused: `audit`. What the daemon's own log adds to every
message: `log`.

Everything comes from comparing a snapshot with the one before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from netmond import __version__
from netmond.config import OutputConfig, read_options
from netmond.model import (
    COUNTERS,
    IN_BYTES,
    NO_RDMA_DEVICE,
    OUT_BYTES,
    Feature,
    FeatureState,
    Rdma,
    Snapshot,
    Table,
)
from netmond.outputs import rdma_events
from netmond.outputs.limit import Limit, told
from netmond.outputs.log import INFO, NOTICE, WARNING, Sender, escape, open_sender
from netmond.outputs.messages import MessageId
from netmond.settings import Setting, number, whole
from netmond.users import Names

#: Seconds between two messages about the same loss.
LOSS_PAUSE = 60.0

OPTIONS = (
    Setting(
        key="summary", kind=number(0, 604800, "number of seconds"), default=3600.0,
        help="seconds between two summaries of users and targets; 0 means none",
    ),
    Setting(
        key="top", kind=whole(1, 1000), default=10,
        help="how many users and targets a summary names, those with most bytes",
    ),
)  # fmt: skip

#: in_packets, in_bytes, out_packets, out_bytes
Counts = tuple[int, ...]
Books = dict[str, Counts]


class JournalOutput:
    """Writes to the journal, or lines to stderr where there is none."""

    name = "journal"
    options = OPTIONS

    def __init__(self, sender: Sender | None = None, names: Names | None = None) -> None:
        self._given_sender = sender
        self._names = names or Names()
        self._last: Snapshot | None = None
        self._limit = Limit()
        self._losses: dict[str, tuple[int, float]] = {}  # count and time of the last report
        self._summed: float | None = None
        self._users: Books = {}  # at the last summary
        self._targets: Books = {}

    def init(self, config: OutputConfig) -> None:
        """Choose the way to the journal."""
        options, _ = read_options(OPTIONS, config)
        self._period: float = options["summary"]
        self._top: int = options["top"]
        self._sender = self._given_sender or open_sender()

    def write(self, snapshot: Snapshot) -> None:
        """Report what is different from the snapshot before; a summary when it is time."""
        before, self._last = self._last, snapshot
        if before is None:
            self._report_start(snapshot)
        self._report_features(before, snapshot)
        self._report_losses(snapshot)
        self._report_targets(before, snapshot)
        for event in rdma_events.changes(before.rdma if before else Rdma(), snapshot.rdma):
            self._send(*event)
        if self._summed is None:
            self._summed = self._begin_summaries(snapshot)
        if self._period and not self._summed <= snapshot.time < self._summed + self._period:
            self._summarise(snapshot)

    def period(self) -> float:
        """As often as there are summaries: what changes may be told a little later."""
        return self._period or math.inf

    def close(self) -> None:
        """What was held back, a last summary, and that nothing more comes."""
        if self._last is None:
            return
        self._report_losses(self._last, pause=0.0)
        if self._period:
            self._summarise(self._last)
        counts = tuple(self._last.users.counters[:, :4].sum(axis=0).tolist())
        self._send(
            MessageId.STOPPED, INFO, f"netmond stops reporting, users had {traffic(counts)}",
            {"NETMOND_SINCE": f"{self._last.since:.6f}", **_fields(counts)},
        )  # fmt: skip
        self._last = None

    def _report_start(self, snapshot: Snapshot) -> None:
        interfaces = " ".join(sorted(link.name for link in snapshot.links.values() if link.monitored))
        targets = len(snapshot.targets)
        self._send(
            MessageId.STARTED, INFO,
            f"netmond {__version__} reports; interfaces: {interfaces or 'none'}; targets: {targets}",
            {
                "NETMOND_VERSION": __version__, "NETMOND_INTERFACES": interfaces,
                "NETMOND_TARGETS": str(targets), "NETMOND_SINCE": f"{snapshot.since:.6f}",
            },
        )  # fmt: skip

    def _report_features(self, before: Snapshot | None, snapshot: Snapshot) -> None:
        """Changed states; from the first snapshot what is not on."""
        known = {feature.name: feature for feature in before.features} if before else {}
        for feature in snapshot.features:
            old = known.get(feature.name) or Feature(name=feature.name, state=FeatureState.ON)
            if (old.state, old.reason) == (feature.state, feature.reason):
                continue
            reason = f": {feature.reason}" if feature.reason else ""
            good = feature.state is FeatureState.ON or feature.reason == NO_RDMA_DEVICE
            self._send(
                MessageId.FEATURE, NOTICE if good else WARNING,
                f"{feature.name} is {feature.state.value}{reason}",
                {
                    "NETMOND_FEATURE": feature.name,
                    "NETMOND_STATE": feature.state.value, "NETMOND_PREVIOUS_STATE": old.state.value,
                    "NETMOND_REASON": feature.reason,
                },
            )  # fmt: skip

    def _report_losses(self, snapshot: Snapshot, pause: float = LOSS_PAUSE) -> None:
        """Losses that grew, each at once and then with a pause; all since the last message is told."""
        if snapshot.tick == 0:  # nothing has happened yet: an earlier daemon has told of those
            self._losses = {loss.name: (loss.count, float("-inf")) for loss in snapshot.losses}
        for loss in snapshot.losses:
            told_of, when = self._losses.get(loss.name, (0, float("-inf")))
            if loss.count < told_of:  # it counts anew
                told_of = 0
                self._losses[loss.name] = told_of, when
            if loss.count == told_of or when <= snapshot.time < when + pause:
                continue
            more = loss.count - told_of
            self._deliver(
                MessageId.LOSS, WARNING,
                f"{loss.name}: {more} more, {loss.count} in all: {loss.meaning}",
                {
                    "NETMOND_LOSS": loss.name, "NETMOND_COUNT": str(more),
                    "NETMOND_TOTAL": str(loss.count), "NETMOND_MEANING": loss.meaning,
                },
            )  # fmt: skip
            self._losses[loss.name] = (loss.count, snapshot.time)  # now that it is told

    def _report_targets(self, before: Snapshot | None, snapshot: Snapshot) -> None:
        if before is None:
            return
        old = before.targets.columns["address"]
        new = snapshot.targets.columns["address"]
        if old is new or (len(old) == len(new) and bool((old == new).all())):
            return
        was, now = set(old.tolist()), set(new.tolist())
        for target in sorted(now - was):
            self._send(MessageId.TARGET_ADDED, INFO, f"Target {target} added", {"NETMOND_TARGET": target})
        for target in sorted(was - now):
            self._send(
                MessageId.TARGET_REMOVED, INFO, f"Target {target} removed", {"NETMOND_TARGET": target}
            )

    def _begin_summaries(self, snapshot: Snapshot) -> float:
        """From when on the first one counts."""
        if snapshot.since < snapshot.started:  # there are figures of an earlier run, which has told them
            self._users, self._targets = self._books_of(snapshot)
        return max(snapshot.since, snapshot.started)

    @staticmethod
    def _books_of(snapshot: Snapshot) -> tuple[Books, Books]:
        return _books(snapshot.users, "uid"), _books(snapshot.targets, "address")

    def _summarise(self, snapshot: Snapshot) -> None:
        """Name those who had most bytes since the last summary; `top` limits how many."""
        period = max(0.0, snapshot.time - (self._summed or 0.0))
        self._summed = snapshot.time
        users, targets = self._books_of(snapshot)
        for uid, counts in _top(users, self._users, self._top):
            user = self._names.lookup(int(uid))
            self._deliver(
                MessageId.USER_SUMMARY, INFO, f"User {user} {traffic(counts)} in {period:.0f} s",
                {
                    "NETMOND_USER": user, "NETMOND_USER_UID": uid,
                    "NETMOND_PERIOD": f"{period:.0f}", **_fields(counts),
                },
            )  # fmt: skip
        for target, counts in _top(targets, self._targets, self._top):
            self._deliver(
                MessageId.TARGET_SUMMARY, INFO, f"Target {target} {traffic(counts)} in {period:.0f} s",
                {"NETMOND_TARGET": target, "NETMOND_PERIOD": f"{period:.0f}", **_fields(counts)},
            )  # fmt: skip
        self._users, self._targets = users, targets

    def _send(self, kind: MessageId, priority: int, message: str, fields: Mapping[str, str]) -> None:
        """One message, unless there were too many of its kind."""
        suppressed = self._limit.take(kind, self._last.time if self._last else 0.0)
        if suppressed is not None:
            message, more = told(message, suppressed)
            self._deliver(kind, priority, message, {**fields, **more})

    def _deliver(self, kind: MessageId, priority: int, message: str, fields: Mapping[str, str]) -> None:
        """One message, of a kind that has its own limit."""
        self._sender(escape(message), priority, {"MESSAGE_ID": kind.value, **fields})


def _books(table: Table, key: str) -> Books:
    return dict(
        zip(map(str, table.columns[key].tolist()), map(tuple, table.counters[:, :4].tolist()), strict=True)
    )


def _top(now: Books, before: Books, count: int) -> list[tuple[str, Counts]]:
    """Those with most bytes since before, and their counts since; figures that were reset count anew."""
    grown = []
    for key, counts in now.items():
        old = before.get(key, (0, 0, 0, 0))
        if any(a < b for a, b in zip(counts, old, strict=True)):
            old = (0, 0, 0, 0)
        delta = tuple(a - b for a, b in zip(counts, old, strict=True))
        if any(delta):
            grown.append((key, delta))
    return sorted(grown, key=lambda each: (-each[1][IN_BYTES] - each[1][OUT_BYTES], each[0]))[:count]


def _fields(counts: Counts) -> dict[str, str]:
    return {f"NETMOND_{name.upper()}": str(count) for name, count in zip(COUNTERS[:4], counts, strict=True)}


def traffic(counts: Counts) -> str:
    """What was exchanged, for reading."""
    return f"{_size(counts[IN_BYTES])} in, {_size(counts[OUT_BYTES])} out"


def _size(count: int) -> str:
    """Bytes for reading, in powers of 1024."""
    power = min(max(0, count.bit_length() - 1) // 10, 5)
    return f"{count / (1 << 10 * power):.1f} {'KMGTP'[power - 1]}iB" if power else f"{count} B"
