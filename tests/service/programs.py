"""What a daemon has in the kernel: the kernel's list is of the whole host, so it goes by the process."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

Objects = dict[str, set[int]]


def held_by(pid: int) -> Objects:
    """Ids of the programs, links and maps that a process holds, from /proc/PID/fdinfo (proc(5))."""
    found: Objects = {"prog": set(), "link": set(), "map": set()}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # it has closed the file meanwhile
            for kind, number in re.findall(r"^(prog|link|map)_id:\s+(\d+)$", file.read_text(), re.MULTILINE):
                found[kind].add(int(number))
    return found


def alive(objects: Objects) -> Objects:
    """Those of some objects that the kernel still has."""
    left = {kind: set(filter(partial(_exists, kind), ids)) for kind, ids in objects.items()}
    return {kind: ids for kind, ids in left.items() if ids}


def _exists(kind: str, number: int) -> bool:
    """Asked for by its number: bpftool lists all there are on the host, and fails if one of somebody else's
    comes or goes meanwhile."""
    descriptor = getattr(ctypes.CDLL("libbpf.so.1"), f"bpf_{kind}_get_fd_by_id")(number)
    if descriptor < 0:
        assert descriptor == -errno.ENOENT, os.strerror(-descriptor)
        return False
    os.close(descriptor)
    return True
