"""The CSV output: one log per user, ``<log_dir>/users/<uid>/traffic_user_<nic>_<uid>.log``.

Every `interval` seconds a row for each flow and direction that was active since the last one, and at
once a row for a flow that ended. Columns as in `csvrows.COLUMNS`; ``bytes`` are wire-true IP bytes, a
row's ``total_in`` and ``total_out`` the user's bytes up to and with this row. Rows that could not be
written are counted, and the totals advance with them, so the next row written is right again.

Users may read their own files, members of the daemon's group all, others none (`files` says with which modes
and access control lists). Where the file system has no such lists, only the group may; writing goes on.
"""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.config import OutputConfig, read_options
from netmond.model import Loss, Snapshot
from netmond.outputs import caps, csvparts, csvrows, files, userlog
from netmond.outputs.deltas import Deltas
from netmond.settings import BOOLEAN, Setting, number, size, text

log = logging.getLogger(__name__)

#: Logs kept open at the same time, two descriptors each. With more users each log is opened for each write.
OPEN_LOGS = 128

#: Flows formatted at a time: bounds the memory of a write.
CHUNK = 2048

#: Seconds between two clean-ups: rotation by age, compression, caps.
CLEAN_UP = 3600.0

OPTIONS = (
    Setting(
        key="interval", kind=number(1, 86400, "number of seconds"), default=10.0,
        help="seconds between two rows of a flow",
    ),
    Setting(
        key="nic", default="all",
        kind=text('1 to 32 letters, digits, "_", "-" or "."', r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}"),
        help="stands in the file names; the files hold the traffic of every interface",
    ),
    Setting(key="header", kind=BOOLEAN, default=True, help="begin every file with the names of the columns"),
    Setting(
        key="rotate_size", kind=size(4096, 1 << 40), default=16 << 20,
        help="begin a new file from this size on",
    ),
    Setting(
        key="rotate_age", kind=number(60, 31536000, "number of seconds"), default=86400.0,
        help="begin a new file when the first row is as old as this",
    ),
    Setting(
        key="keep_per_user", kind=size(4096, 1 << 50), default=256 << 20,
        help="delete a user's oldest rotated files beyond this size in all",
    ),
    Setting(
        key="keep_total", kind=size(4096, 1 << 50), default=2 << 30,
        help="delete the oldest rotated files of all users beyond this size in all",
    ),
)  # fmt: skip


class CsvOutput:
    """Writes the per-user logs. `write` never raises for what the file system does."""

    name = "csv"
    options = OPTIONS

    def __init__(self) -> None:
        self._deltas = Deltas()
        self._totals: dict[int, tuple[int, int]] = {}  # bytes in and out, by user
        self._recovered: set[int] = set()  # users whose totals include what the files say
        self._logs: OrderedDict[int, userlog.UserLog] = OrderedDict()
        self._users = -1
        self._lost_rows = 0
        self._failing: dict[int, str] = {}  # why, by user
        self._in_the_way: set[str] = set()  # what the last clean-up could not deal with
        self._limitation = ""
        self._latest: Snapshot | None = None
        self._written = self._cleaned = 0.0

    def init(self, config: OutputConfig) -> None:
        """Open the directory; OSError if that is impossible."""
        self._options: dict[str, Any] = read_options(OPTIONS, config)[0]
        self._log_dir = str(config.log_dir)
        self._users = self._open_users()
        self._limitation = ""
        self._written = self._cleaned = 0.0

    def write(self, snapshot: Snapshot) -> None:
        """Write the rows of ended flows, and, when it is time, of all that were active."""
        self._latest = snapshot
        if not self._users_is_current():
            self._close_logs()
            self._reopen_users()
        self._write(snapshot, *self._deltas.take_ended(snapshot.flows))
        if not self._written:
            self._written = snapshot.time
        if self._is_due(self._written, snapshot.time, self._options["interval"]):
            self._written = snapshot.time
            self._write(snapshot, *self._deltas.take_open(snapshot.flows))
        if self._is_due(self._cleaned, snapshot.time, CLEAN_UP):
            self._cleaned = snapshot.time
            self._clean_up(snapshot.time)

    def close(self) -> None:
        """Write what happened since the last rows, save the totals, close the files."""
        if self._users < 0:
            return
        if self._latest is not None:
            self._write(self._latest, *self._deltas.take_open(self._latest.flows))
        for uid in list(self._totals):
            user = self._log_of(uid)
            if user is not None:
                with suppress(OSError):
                    user.save_totals(*self._totals[uid])
        self._close_logs()
        os.close(self._users)
        self._users = -1
        self._latest = None

    def period(self) -> float:
        """As often as there are rows."""
        return float(self._options["interval"])

    def losses(self) -> tuple[Loss, ...]:
        """How many rows could not be written."""
        meaning = "CSV rows not written: disk full, or file or directory not usable; totals are right"
        return (Loss(name="output.csv.rows", count=self._lost_rows, meaning=meaning),)

    def limitation(self) -> str:
        """That users cannot read their own files, and what to do about it."""
        return self._limitation

    @staticmethod
    def _is_due(last: float, now: float, period: float) -> bool:
        return now >= last + period or now < last  # the clock may be set back

    def _write(self, snapshot: Snapshot, rows: NDArray[np.intp], delta: NDArray[np.uint64]) -> None:
        """Write rows of flows, user by user, each user's in the order of time."""
        if not len(rows):
            return
        uids = snapshot.flows.columns["uid"][rows]
        order = np.lexsort((snapshot.flows.columns["last_seen"][rows], uids))
        rows, delta, uids = rows[order], delta[order], uids[order]
        bounds = _bounds(uids)
        begin = 0
        while begin < len(bounds) - 1:
            chunk = bounds[begin : begin + OPEN_LOGS + 1]
            chunk = chunk[: bisect_right(chunk, chunk[0] + CHUNK)]
            self._write_chunk(snapshot, rows, delta, uids, chunk)
            begin += len(chunk) - 1

    def _write_chunk(
        self,
        snapshot: Snapshot,
        rows: NDArray[np.intp],
        delta: NDArray[np.uint64],
        uids: NDArray[np.uint32],
        bounds: list[int],
    ) -> None:
        """Write rows of at most OPEN_LOGS users; user i has those from bounds[i] to bounds[i + 1]."""
        chunk = slice(bounds[0], bounds[-1])
        users = uids[bounds[:-1]].tolist()
        logs = [self._log_of(uid) for uid in users]  # which reads the totals
        parts = csvparts.parts(
            snapshot, rows[chunk], delta[chunk], [bound - bounds[0] for bound in bounds],
            [self._totals.setdefault(uid, (0, 0)) for uid in users],
        )  # fmt: skip
        for uid, user, part in zip(users, logs, parts, strict=True):
            if user is None:
                self._lost_rows += part.rows
            else:
                self._write_user(user, snapshot.time, part)
            self._totals[uid] = part.totals

    def _write_user(self, user: userlog.UserLog, now: float, part: csvparts.Part) -> None:
        uid, lines = user.uid, part.lines
        try:
            self._rotate_if_due(user, now, len(lines), self._totals[uid])
            header = csvrows.HEADER if self._options["header"] and not user.size else b""
            begin = user.size
            error = user.append(header + lines)
            if error is not None:
                whole = max(0, user.size - begin - len(header))
                self._fail(uid, error, lines[whole:].count(b"\n"))
                return
        except OSError as error:
            self._fail(uid, error, part.rows)
            return
        if user.started is None:
            user.started = now
        if self._failing.pop(uid, None) and not self._failing:
            log.info("CSV files can be used again; %d rows were lost so far", self._lost_rows)

    def _fail(self, uid: int, error: OSError, rows: int) -> None:
        """Count lost rows and let go of the file: opening it again repairs it."""
        self._lost_rows += rows
        user = self._logs.pop(uid, None)
        if user is not None:
            user.close()
        problem = error.strerror or str(error)
        if problem not in self._failing.values():  # a full disk fails for everybody, one line is enough
            log.error(
                "CSV files of user %d cannot be used: %s: %s", uid, error.filename or self._log_dir, problem
            )
        self._failing[uid] = problem

    def _log_of(self, uid: int) -> userlog.UserLog | None:
        """The open log of a user; None if it cannot be opened."""
        user = self._logs.get(uid)
        if user is not None:
            if user.is_current(self._users):
                self._logs.move_to_end(uid)
                return user
            self._logs.pop(uid).close()
        try:
            user = self._logs[uid] = userlog.UserLog(self._users, uid, self._log_name(uid))
            if uid not in self._recovered:
                total_in, total_out = self._totals.get(uid, (0, 0))
                before_in, before_out = user.totals()
                self._totals[uid] = (before_in + total_in, before_out + total_out)
                self._recovered.add(uid)
            self._check_access(user)
        except OSError as error:
            self._fail(uid, error, 0)
            return None
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)[1].close()
        return user

    def _check_access(self, user: userlog.UserLog) -> None:
        if self._limitation or user.is_open_to_user:
            return
        self._limitation = (
            f"users cannot read their own files: the file system of {self._log_dir} has no access control"
            " lists; mount it with them, or set [daemon] log_dir to a directory on another one"
        )
        log.warning("CSV: %s", self._limitation)

    def _log_name(self, uid: int) -> str:
        return f"traffic_user_{self._options['nic']}_{uid}.log"

    def _rotate_if_due(self, user: userlog.UserLog, now: float, more: int, totals: tuple[int, int]) -> None:
        if user.started is None:
            return
        user.started = min(user.started, now)
        too_large = user.size + more > self._options["rotate_size"]
        if too_large or now - user.started >= self._options["rotate_age"]:
            with suppress(OSError):  # then the file grows on
                user.rotate(now, totals)
            self._delete_beyond_caps()

    def _clean_up(self, now: float) -> None:
        """Rotate idle logs by age, finish interrupted work, delete what is beyond the caps."""
        in_the_way: set[str] = set()
        for uid in self._uids():
            user = self._log_of(uid)
            if user is None:
                continue
            try:
                in_the_way |= {
                    f"{uid}/{problem.filename}: {problem.strerror}"
                    for problem in userlog.finish(user.directory, uid, user.name)
                }
                self._rotate_if_due(user, now, 0, self._totals[uid])
            except OSError as error:
                self._fail(uid, error, 0)
        for problem in sorted(in_the_way - self._in_the_way):
            log.warning("CSV: %s/users/%s", self._log_dir, problem)
        self._in_the_way = in_the_way
        self._delete_beyond_caps()

    def _uids(self) -> list[int]:
        try:
            return userlog.uids(self._users)
        except OSError:
            return []

    def _delete_beyond_caps(self) -> None:
        with suppress(OSError):
            caps.enforce(self._users, self._options["keep_per_user"], self._options["keep_total"])

    def _open_users(self) -> int:
        directory = files.open_log_directory(self._log_dir)
        try:
            return files.open_directory("users", directory, files.PASSAGE_MODE)
        finally:
            os.close(directory)

    def _users_is_current(self) -> bool:
        try:
            there = os.stat(f"{self._log_dir}/users", follow_symlinks=False)
            return os.path.samestat(there, os.fstat(self._users))
        except OSError:
            return False

    def _reopen_users(self) -> None:
        """After somebody removed the directory: make it again, or keep the old descriptor and lose rows."""
        with suppress(OSError):
            users = self._open_users()
            os.close(self._users)
            self._users = users

    def _close_logs(self) -> None:
        while self._logs:
            self._logs.popitem()[1].close()


def _bounds(uids: NDArray[np.uint32]) -> list[int]:
    """Where in sorted uids a user begins, or that user's next CHUNK; and where they end."""
    changes = (np.flatnonzero(np.diff(uids)) + 1).tolist()
    spans = pairwise([0, *changes, len(uids)])
    return [*(place for begin, end in spans for place in range(begin, end, CHUNK)), len(uids)]
