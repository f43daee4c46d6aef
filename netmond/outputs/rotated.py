"""What is in ``users/<uid>`` beside the log: ``<log>-<UTC time>`` rotated, with ``.gz`` when compressed.

Functions raise OSError.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

from netmond.model import NOBODY_UID

_STAMP = "%Y%m%dT%H%M%SZ"
_UID = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)
_ROTATED = re.compile(r"(?P<log>.+)-(?P<stamp>[0-9]{8}T[0-9]{6}Z)(?P<gz>\.gz)?", re.ASCII)


class Rotated(NamedTuple):
    """A rotated file; the order is by age, oldest first."""

    stamp: str
    uid: int
    name: str
    size: int
    log: str  #: the name of the log it was

    @property
    def is_compressed(self) -> bool:
        return self.name.endswith(".gz")


def uids(users: int) -> list[int]:
    """The users that have a directory."""
    return sorted(int(name) for name in os.listdir(users) if _UID.fullmatch(name) and int(name) < NOBODY_UID)


def listing(directory: int, uid: int) -> tuple[int, list[Rotated]]:
    """Bytes of all files, and every rotated one, of whatever log, oldest first.

    One that exists both plain and compressed is there twice.
    """
    used, found = 0, []
    for name in os.listdir(directory):
        with suppress(FileNotFoundError):
            size = os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
            used += size
            if match := _ROTATED.fullmatch(name):
                found.append(Rotated(match["stamp"], uid, name, size, match["log"]))
    return used, sorted(found)


def of_log(directory: int, uid: int, log: str) -> list[Rotated]:
    """The rotated files of one log."""
    return [file for file in listing(directory, uid)[1] if file.log == log]


def stamp_after(newest: str, now: float) -> str:
    """A time for the next name: `now`, or if the clock is not past `newest`, a second after that."""
    stamp = datetime.fromtimestamp(int(now), UTC).strftime(_STAMP)
    if newest < stamp:
        return stamp
    last = datetime.strptime(newest, _STAMP).replace(tzinfo=UTC).timestamp()
    return datetime.fromtimestamp(last + 1, UTC).strftime(_STAMP)
