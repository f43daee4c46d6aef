"""Who may read a file or directory of ours: its mode, and one user more in its access control list (acl(5)).

A daemon that is not root cannot give files away, but may say who reads its own.
"""

from __future__ import annotations

import errno
import os
from functools import lru_cache

import posix1e


def set_access(fd: int, mode: int, reader: int | None = None) -> None:
    """Give exactly the access of `mode`, and what the group has to the user `reader`, too.

    Nobody else's entry stays. Root needs none. Where the file system has no access control lists, the mode
    is all there is (`is_open_to` tells). OSError if it is not ours.
    """
    owner, group, others = (_letters(mode >> shift & 7) for shift in (6, 3, 0))
    user, mask = (f"u:{reader}:{group},", f"m::{group},") if reader else ("", "")
    wanted = posix1e.ACL(text=f"u::{owner},{user}g::{group},{mask}o::{others}")
    try:
        if posix1e.ACL(fd=fd) != wanted:
            wanted.applyto(fd)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        os.fchmod(fd, mode)


def is_open_to(fd: int, reader: int) -> bool:
    """Whether the user may read: root always, another if the access control list has an entry."""
    if reader == 0:
        return True
    try:
        entries = list(posix1e.ACL(fd=fd))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return False
    return any(entry.tag_type == posix1e.ACL_USER and entry.qualifier == reader for entry in entries)


@lru_cache(maxsize=8)
def _letters(bits: int) -> str:
    return "".join(letter if bits & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
