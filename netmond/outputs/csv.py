"""The CSV output: one log per user, ``<log_dir>/users/<uid>/traffic_user_<nic>_<uid>.log``.

Every `interval` seconds a row for each flow and direction that was active since the last one, and at
once a row for a flow that ended. Columns as in `csvrows.COLUMNS`; ``bytes`` are wire-true IP bytes, a
row's ``total_in`` and ``total_out`` the user's bytes up to and with this row (`logs`).

Users may read their own files, members of the daemon's group all, others none (`files` says with which modes
and access control lists). Where the file system has no such lists, only the group may; writing goes on.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.config import OutputConfig, read_options
from netmond.model import NOBODY_UID, Loss, Snapshot
from netmond.outputs import csvparts, logs
from netmond.outputs.custody import Custody
from netmond.outputs.deltas import Deltas
from netmond.outputs.modes import Modes
from netmond.settings import Setting, choice, number, several, size, text, whole

#: Flows formatted at a time: bounds the memory of a write.
CHUNK = 2048

OPTIONS = (
    Setting(
        key="interval", kind=number(1, 86400, "number of seconds"), default=10.0,
        help="seconds between two rows of a flow",
    ),
    Setting(
        key="mode", kind=choice("interval", "packet"), default="interval",
        help="what a row is: what a flow did in an interval, or with packet a single packet of anybody",
    ),
    Setting(
        key="packet_users", default=(),
        kind=several(text("a user's name or number", r"[^\s:/\x00-\x1f\x7f]{1,255}")),
        help="users of whom a row is a packet, whatever it is for the others",
    ),
    Setting(
        key="sample", kind=whole(1, 1 << 31), default=1,
        help="where a row is a packet: log one of so many, drawn by chance",
    ),
    Setting(
        key="ring", kind=size(1 << 16, 1 << 30), default=16 << 20,
        help="bytes for packets that wait to be logged, 72 each; beyond that they are counted as lost",
    ),
    *logs.OPTIONS,
)  # fmt: skip


class CsvOutput:
    """Writes the per-user logs. `write` never raises for what the file system does."""

    name = "csv"
    options = OPTIONS

    def __init__(self, custody: Custody | None = None) -> None:
        """custody: who else writes users' files; None: nobody."""
        self.logs = logs.Logs()
        self._modes = Modes(custody or Custody())
        self._deltas = Deltas()
        self._latest: Snapshot | None = None
        self._written = self._cleaned = 0.0

    def init(self, config: OutputConfig) -> None:
        """Open the directory; OSError if that is impossible."""
        self._options: dict[str, Any] = read_options(OPTIONS, config)[0]
        self.logs.open(str(config.log_dir), self._options)
        self._modes.open(config.log_dir, config.state_dir, self.logs)
        self._written = self._cleaned = 0.0

    def write(self, snapshot: Snapshot) -> None:
        """Write the rows of ended flows, and, when it is time, of all that were active."""
        self._latest = snapshot
        self.logs.check()
        if not snapshot.tick:  # how an earlier daemon left them: it has written those rows
            self._deltas.take_open(snapshot.flows)
        self._write(snapshot, *self._deltas.take_ended(snapshot.flows))
        if not self._written:
            self._written = snapshot.time
        change = self._modes.is_to_change(snapshot)
        if change or self._is_due(self._written, snapshot.time, self._options["interval"]):
            self._written = snapshot.time
            self._write(snapshot, *self._deltas.take_open(snapshot.flows))
        self._modes.change(snapshot, self.logs)
        if NOBODY_UID not in self._modes.users and self._is_due(self._cleaned, snapshot.time, logs.CLEAN_UP):
            self._cleaned = snapshot.time
            self.logs.clean_up(snapshot.time)

    def close(self) -> None:
        """Write what happened since the last rows, save the totals, close the files."""
        if not self.logs.is_open:
            return
        if self._latest is not None:
            self._write(self._latest, *self._deltas.take_open(self._latest.flows))
        self.logs.close()
        self._latest = None

    def period(self) -> float:
        """As often as there are rows."""
        return float(self._options["interval"])

    def losses(self) -> tuple[Loss, ...]:
        """How many rows could not be written."""
        meaning = "CSV rows not written: disk full, or file or directory not usable; totals are right"
        return (Loss(name="output.csv.rows", count=self.logs.lost_rows, meaning=meaning),)

    def limitation(self) -> str:
        """That users cannot read their own files, and what to do about it."""
        return self.logs.limitation

    @staticmethod
    def _is_due(last: float, now: float, period: float) -> bool:
        return now >= last + period or now < last  # the clock may be set back

    def _write(self, snapshot: Snapshot, rows: NDArray[np.intp], delta: NDArray[np.uint64]) -> None:
        """Write rows of flows, user by user, each user's in the order of time."""
        mine = self._modes.of_intervals(snapshot.flows.columns["uid"][rows])
        rows, delta = rows[mine], delta[mine]
        if not len(rows):
            return
        uids = snapshot.flows.columns["uid"][rows]
        order = np.lexsort((snapshot.flows.columns["last_seen"][rows], uids))
        rows, delta, uids = rows[order], delta[order], uids[order]
        bounds = _bounds(uids)
        begin = 0
        while begin < len(bounds) - 1:
            chunk = bounds[begin : bisect_right(bounds, bounds[begin] + CHUNK, begin)]
            self._write_chunk(snapshot, rows[chunk[0] : chunk[-1]], delta[chunk[0] : chunk[-1]], uids, chunk)
            begin += len(chunk) - 1

    def _write_chunk(
        self,
        snapshot: Snapshot,
        rows: NDArray[np.intp],
        delta: NDArray[np.uint64],
        uids: NDArray[np.uint32],
        bounds: list[int],
    ) -> None:
        """Write some rows; user i has those from bounds[i] to bounds[i + 1], less bounds[0]."""
        users = uids[bounds[:-1]].tolist()
        parts = csvparts.parts(
            snapshot, rows, delta, [bound - bounds[0] for bound in bounds], [*map(self.logs.totals, users)]
        )
        for uid, part in zip(users, parts, strict=True):
            self.logs.append(uid, part.lines, part.rows, part.totals, snapshot.time)


def _bounds(uids: NDArray[np.uint32]) -> list[int]:
    """Where in sorted uids a user begins, or that user's next CHUNK; and where they end."""
    changes = (np.flatnonzero(np.diff(uids)) + 1).tolist()
    spans = pairwise([0, *changes, len(uids)])
    return [*(place for begin, end in spans for place in range(begin, end, CHUNK)), len(uids)]
