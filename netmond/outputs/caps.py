"""Keeps the CSV files below their caps: deletes rotated files, oldest first; the logs count but stay."""

from __future__ import annotations

import os
from contextlib import suppress

from netmond.outputs import files, userlog


def enforce(users: int, keep_per_user: int, keep_total: int) -> None:
    """Delete what is beyond these numbers of bytes, of each user and then of all, as far as possible."""
    oldest: list[userlog.Rotated] = []
    total = 0
    for uid in userlog.uids(users):
        with suppress(OSError):
            used, mine = userlog.usage(users, uid)
            while mine and used > keep_per_user:
                used -= _delete(users, mine.pop(0))
            total += used
            oldest += mine
    for file in sorted(oldest):
        if total <= keep_total:
            return
        total -= _delete(users, file)


def _delete(users: int, file: userlog.Rotated) -> int:
    with suppress(OSError):
        directory = files.open_directory(str(file.uid), users, reader=file.uid)
        try:
            files.remove(file.name, directory)
        finally:
            os.close(directory)
    return file.size
