"""Keeps the CSV files below their caps: deletes rotated files, oldest first; the logs count but stay.

What each user's files take is kept in memory: a rotation costs a look at its own directory, a deletion a
look at that of whoever has the oldest file, whatever the number of users. Directories that others have
changed (by hand, or another process of ours) are known by their time of modification, within SCAN seconds.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from netmond.outputs import rotated
from netmond.outputs.files import open_directory, remove

#: Seconds between two looks at which directories have changed: 2 µs for each user.
SCAN = 60.0


class _Directory(NamedTuple):
    """What was found in a user's directory."""

    modified: int = 0  # ns
    used: int = 0  # bytes
    oldest: str = ""  # stamp of the oldest rotated file


class Caps:
    """Bytes that each user and all may use."""

    def __init__(self, keep_per_user: int, keep_total: int) -> None:
        self._keep_per_user, self._keep_total = keep_per_user, keep_total
        self._changed: deque[int] = deque()  # also appended to by the compressor's thread
        self.forget()

    def forget(self) -> None:
        """Look at everything again."""
        self._directories: dict[int, _Directory] = {}
        self._total = 0
        self._oldest: list[
            tuple[str, int]
        ] = []  # a heap of each user's oldest stamps, some of them outdated
        self._scanned: float | None = None

    def changed(self, uid: int) -> None:
        """A user's directory is to be looked at again."""
        self._changed.append(uid)

    def grown(self, uid: int, size: int) -> None:
        """A user's log has grown by so many bytes."""
        if uid in self._directories:
            found = self._directories[uid]
            self._directories[uid] = found._replace(used=found.used + size)
            self._total += size

    def enforce(self, users: int) -> None:
        """Delete what is too much, of each user and then of all, as far as possible."""
        if self._scanned is None or time.monotonic() >= self._scanned + SCAN:
            self._scan(users)
        while self._changed:
            self._look(users, self._changed.popleft())
        while self._total > self._keep_total and self._oldest:
            stamp, uid = heapq.heappop(self._oldest)
            if uid in self._directories and self._directories[uid].oldest == stamp:
                self._look(users, uid, has_oldest=True)

    def _scan(self, users: int) -> None:
        self._scanned = time.monotonic()
        found = rotated.uids(users)
        for gone in self._directories.keys() - set(found):
            self._total -= self._directories.pop(gone).used
        for uid in found:
            with suppress(OSError):
                modified = os.stat(str(uid), dir_fd=users, follow_symlinks=False).st_mtime_ns
                if uid not in self._directories or self._directories[uid].modified != modified:
                    self._look(users, uid)
        self._oldest = [(each.oldest, uid) for uid, each in self._directories.items() if each.oldest]
        heapq.heapify(self._oldest)

    def _look(self, users: int, uid: int, *, has_oldest: bool = False) -> None:
        """Read a user's directory; delete what is beyond its cap, and files that are the oldest of all."""
        before = self._directories.pop(uid, _Directory())
        self._total -= before.used
        with suppress(OSError):
            fd = open_directory(str(uid), users, reader=uid, make=False)
            try:
                modified = os.fstat(fd).st_mtime_ns
                used, files = rotated.listing(fd, uid)
                while files and (
                    used > self._keep_per_user
                    or (has_oldest and self._total + used > self._keep_total and self._is_oldest(files[0]))
                ):
                    file = files.pop(0)
                    used -= file.size
                    with suppress(OSError):
                        remove(file.name, fd)
            finally:
                os.close(fd)
            oldest = files[0].stamp if files else ""
            self._directories[uid] = _Directory(modified, used, oldest)
            self._total += used
            if oldest and (has_oldest or oldest != before.oldest):
                heapq.heappush(self._oldest, (oldest, uid))

    def _is_oldest(self, file: rotated.Rotated) -> bool:
        return not self._oldest or (file.stamp, file.uid) <= self._oldest[0]
