"""Users whose files another process writes for now, and that their totals come out right in the end.

In interval mode a user's total grows with the meter's, so the difference between the two says what the
total has to be when the user comes back: what the files then lack is told in a comment and added. That
difference is kept in a file, too: also after SIGKILL the totals come out right.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netmond.model import IN_BYTES, NOBODY_UID, OUT_BYTES, Snapshot
from netmond.outputs.comments import comment
from netmond.outputs.custody import Custody, Users, lock
from netmond.outputs.logs import Logs

log = logging.getLogger(__name__)

_FILE = "packet-mode"

Pair = tuple[int, int]


class Modes:
    """Belongs to the CSV output's thread."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody
        self._file: Path | None = None
        self._offsets: dict[int, Pair] = {}  # a user's totals less the meter's, in and out
        self._of_others = False  # an earlier daemon's process may still write
        self.users: Users = frozenset()  #: in packet mode; NOBODY_UID: everyone

    def open(self, log_dir: Path, state_dir: Path, logs: Logs) -> None:
        """Takes up what an earlier daemon left behind if it was killed."""
        self._log_dir = log_dir
        if self._file is None:
            self._file = state_dir / _FILE
            with suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(self._file.read_text())
                self._offsets = {int(uid): (offset[0], offset[1]) for uid, offset in kept["offsets"].items()}
                self._since: float = kept["since"]
                self.users = frozenset(kept["users"])
                self._of_others = True
                for uid in self._offsets:
                    logs.release(uid)

    def of_intervals(self, uids: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of some users are in interval mode."""
        if NOBODY_UID in self.users:
            return np.zeros(len(uids), np.bool_)
        return ~np.isin(uids, list(self.users))

    def is_to_change(self, snapshot: Snapshot) -> bool:
        """Whether somebody comes or goes with this snapshot: then all rows up to it are written first."""
        return self._may_change(snapshot) and self._custody.wanted(snapshot.read) != self.users

    def change(self, snapshot: Snapshot, logs: Logs) -> None:
        """Gives the files away that are wanted, and takes back those that are not any more."""
        if not self._may_change(snapshot):
            return
        wanted = self._custody.wanted(snapshot.read)
        if wanted != self.users:
            exchanged = _exchanged(snapshot)
            everybody = {*logs.uids(), *exchanged} if NOBODY_UID in wanted | self.users else set()
            before, after = (everybody if NOBODY_UID in users else users for users in (self.users, wanted))
            for uid in sorted(before - after):
                self._take_back(uid, snapshot, exchanged.get(uid, (0, 0)), logs)
            for uid in sorted(after - before):
                self._offsets[uid] = _less(logs.release(uid), exchanged.get(uid, (0, 0)))
            self.users, self._since = wanted, snapshot.since
            self._keep()
        self._custody.settle(wanted, snapshot.read)

    def _may_change(self, snapshot: Snapshot) -> bool:
        if not snapshot.tick:
            return False  # how things stood when the daemon started: the past
        if self._of_others:
            try:
                os.close(lock(str(self._log_dir), wait=False))
            except OSError:
                return False
            self._of_others = False
        return True

    def _take_back(self, uid: int, snapshot: Snapshot, exchanged: Pair, logs: Logs) -> None:
        offset = self._offsets.pop(uid, (0, 0))
        logs.claim(uid)
        found = logs.totals(uid)
        between = (0, 0)
        if self._since == snapshot.since:  # else the meter has begun anew
            lacking = _less(exchanged, _less(found, offset))
            between = max(0, lacking[0]), max(0, lacking[1])
        totals = found[0] + between[0], found[1] + between[1]
        figures = {"in_bytes": between[0], "out_bytes": between[1]}
        line = comment("interval mode:", round(snapshot.time * 1e9), totals, **figures)
        logs.append(uid, line, 0, totals, snapshot.time)

    def _keep(self) -> None:
        assert self._file is not None
        try:
            if not self.users:
                self._file.unlink(missing_ok=True)
                return
            kept = {"since": self._since, "users": [*self.users], "offsets": self._offsets}
            draft = self._file.with_suffix(".tmp")
            draft.write_text(json.dumps(kept))
            os.replace(draft, self._file)
        except OSError as error:
            log.warning("CSV: totals may lack packets after a crash: %s: %s", self._file, error.strerror)


def _exchanged(snapshot: Snapshot) -> dict[int, Pair]:
    """What the meter has counted of each user: bytes in and out."""
    users = snapshot.users
    received, sent = users.counters[:, [IN_BYTES, OUT_BYTES]].T.tolist()
    return dict(zip(users.columns["uid"].tolist(), zip(received, sent, strict=True), strict=True))


def _less(one: Pair, other: Pair) -> Pair:
    return one[0] - other[0], one[1] - other[1]
