"""The logs of all users, as the CSV output and packet mode write them: totals, rotation, caps, losses.

Rows that cannot be written are counted, and the totals advance with them, so the next row is right again.
A user's directory belongs to one process at a time (`release`, `claim`).
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from netmond.outputs import csvrows, files, rotated
from netmond.outputs.caps import Caps
from netmond.outputs.compressor import Compressor
from netmond.outputs.userlog import UserLog, log_name
from netmond.settings import BOOLEAN, Setting, number, size, text

log = logging.getLogger(__name__)

#: Logs kept open at the same time, two descriptors each. With more users each log is opened for each write.
OPEN_LOGS = 128

#: Seconds between two clean-ups: rotation by age, interrupted compression, caps.
CLEAN_UP = 3600.0

OPTIONS = (
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


class Logs:
    """Only `open` raises for what the file system does."""

    def __init__(self) -> None:
        self.lost_rows = 0
        self.limitation = ""  #: that users cannot read their own files, and what to do about it
        self._totals: dict[int, tuple[int, int]] = {}  # bytes in and out, by user
        self._recovered: set[int] = set()  # users whose totals include what the files say
        self._released: set[int] = set()
        self._logs: OrderedDict[int, UserLog] = OrderedDict()
        self._users = -1
        self._failing: dict[int, str] = {}  # why, by user

    def open(self, log_dir: str, options: Mapping[str, Any]) -> None:
        """Open the directory; OSError if that is impossible. `options` has the keys of OPTIONS."""
        self._log_dir, self._options = log_dir, options
        self._users = self._open_users()
        self._caps = Caps(options["keep_per_user"], options["keep_total"])
        self.compressor = Compressor(log_dir, self._caps.changed)
        self.limitation = ""
        self._access_checked = False

    @property
    def is_open(self) -> bool:
        """Whether there is anything to close."""
        return self._users >= 0

    def close(self) -> None:
        """Save the totals and close the files."""
        self.compressor.close()
        for uid in self._totals:
            self._save_totals(uid)
        self._close_logs()
        os.close(self._users)
        self._users = -1

    def check(self) -> None:
        """Before some rows: notice that somebody replaced the directory; delete what is beyond the caps."""
        if not self._users_is_current():
            self._close_logs()
            with suppress(OSError):  # else the rows are lost
                users = self._open_users()
                os.close(self._users)
                self._users = users
        self._delete_beyond_caps()

    def totals(self, uid: int) -> tuple[int, int]:
        """A user's bytes in and out so far. Files are read the first time, so ask before each `append`."""
        if uid not in self._recovered:
            self._log_of(uid)
        return self._totals.setdefault(uid, (0, 0))

    def append(
        self, uid: int, lines: bytes | memoryview, rows: int, totals: tuple[int, int], now: float
    ) -> int:
        """Write whole lines, of which so many are rows; with them the totals are as given.

        Begins a new file first if one is due. Returns how many rows could not be written.
        """
        lost = self._append(uid, lines, rows, now)
        self._totals[uid] = totals
        if lost is not None:
            self.lost_rows += lost
            return lost
        if uid in self._failing:
            del self._failing[uid]
            if not self._failing:
                log.info("CSV files can be used again; %d rows were lost so far", self.lost_rows)
        return 0

    def is_failing(self, uid: int) -> bool:
        """Whether the last lines of a user, rows or comments, could not be written whole."""
        return uid in self._failing

    def clean_up(self, now: float, uids: Iterable[int] | None = None) -> None:
        """Rotate by age, finish interrupted work, delete what is beyond the caps; of all users or those."""
        for uid in self.uids() if uids is None else uids:
            if uid in self._released:
                continue
            user = self._log_of(uid)
            if user is None:
                continue
            try:
                self._rotate_if_due(user, now, 0)
            except OSError as error:
                self._fail(uid, error)
            self.compressor.submit(uid, everything=True)
        self._caps.forget()
        self._delete_beyond_caps()

    def release(self, uid: int) -> tuple[int, int]:
        """Leave a user's directory to another process, until `claim`; returns the totals."""
        totals = self.totals(uid)
        self._released.add(uid)
        self.compressor.drop(uid)
        self._save_totals(uid)
        if uid in self._logs:
            self._logs.pop(uid).close()
        self._failing.pop(uid, None)
        self._recovered.discard(uid)
        del self._totals[uid]
        return totals

    def claim(self, uid: int, totals: tuple[int, int] | None = None) -> None:
        """A user's directory is ours (again). The totals are as given, else as the files tell."""
        self._released.discard(uid)
        if totals is not None:
            self._totals[uid] = totals
            self._recovered.add(uid)
        self.compressor.submit(uid)

    def _append(self, uid: int, lines: bytes | memoryview, rows: int, now: float) -> int | None:
        """Returns how many rows could not be written, None: all lines were."""
        user = self._log_of(uid) if uid in self._recovered else None
        if user is None:
            return rows
        try:
            self._rotate_if_due(user, now, len(lines))
            begin = user.size
            header = csvrows.HEADER if self._options["header"] and not begin else b""
            error = user.append(header + lines if header else lines)
            self._caps.grown(uid, user.size - begin)
            if error is not None:
                written = max(0, user.size - begin - len(header))
                self._fail(uid, error)
                return csvrows.count(bytes(lines[written:]))
        except OSError as error:
            self._fail(uid, error)
            return rows
        if user.started is None:
            user.started = now
        return None

    def _fail(self, uid: int, error: OSError) -> None:
        """Let go of the file: opening it again repairs it."""
        user = self._logs.pop(uid, None)
        if user is not None:
            user.close()
        problem = error.strerror or str(error)
        if problem not in self._failing.values():  # a full disk fails for everybody, one line is enough
            log.error(
                "CSV files of user %d cannot be used: %s: %s", uid, error.filename or self._log_dir, problem
            )
        self._failing[uid] = problem

    def _log_of(self, uid: int) -> UserLog | None:
        """The open log of a user; None if it cannot be opened."""
        user = self._logs.get(uid)
        if user is not None:
            if user.is_current(self._users):
                self._logs.move_to_end(uid)
                return user
            self._logs.pop(uid).close()
        try:
            user = self._logs[uid] = UserLog(self._users, uid, log_name(self._options["nic"], uid))
            if uid not in self._recovered:
                total_in, total_out = self._totals.get(uid, (0, 0))
                before_in, before_out = user.totals()
                self._totals[uid] = (before_in + total_in, before_out + total_out)
                self._recovered.add(uid)
            self._check_access(user)
        except OSError as error:
            self._fail(uid, error)
            return None
        if len(self._logs) > OPEN_LOGS:
            self._logs.popitem(last=False)[1].close()
        return user

    def _check_access(self, user: UserLog) -> None:
        """Whether users can read their files is a question of the file system: ask it once."""
        if self._access_checked or user.uid == 0:
            return
        self._access_checked = True
        if user.is_open_to_user:
            return
        self.limitation = (
            f"users cannot read their own files: the file system of {self._log_dir} has no access control"
            " lists; mount it with them, or set [daemon] log_dir to a directory on another one"
        )
        log.warning("CSV: %s", self.limitation)

    def _save_totals(self, uid: int) -> None:
        user = self._log_of(uid)
        if user is not None:
            with suppress(OSError):
                user.save_totals(*self._totals[uid])

    def _rotate_if_due(self, user: UserLog, now: float, more: int) -> None:
        if user.started is None:
            return
        user.started = min(user.started, now)
        too_large = user.size + more > self._options["rotate_size"]
        if too_large or now - user.started >= self._options["rotate_age"]:
            try:
                user.rotate(now, self._totals[user.uid])
            except OSError:
                if user.is_current(self._users):
                    return  # the file grows on
                raise
            if not self.compressor.submit(user.uid):  # it does not keep up
                self._caps.changed(user.uid)
                self._delete_beyond_caps()

    def _delete_beyond_caps(self) -> None:
        with suppress(OSError):
            self._caps.enforce(self._users)

    def uids(self) -> list[int]:
        """The users that have a directory."""
        try:
            return rotated.uids(self._users)
        except OSError:
            return []

    def _users_is_current(self) -> bool:
        try:
            there = os.stat(f"{self._log_dir}/users", follow_symlinks=False)
            return os.path.samestat(there, os.fstat(self._users))
        except OSError:
            return False

    def _open_users(self) -> int:
        directory = files.open_log_directory(self._log_dir)
        try:
            return files.open_directory("users", directory, files.PASSAGE_MODE)
        finally:
            os.close(directory)

    def _close_logs(self) -> None:
        while self._logs:
            self._logs.popitem()[1].close()
