"""What a daemon has in the kernel: the kernel's list is of the whole host, so it goes by the process."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from tests.service.inside import run

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
    left = {kind: ids & _all(kind) for kind, ids in objects.items()}
    return {kind: ids for kind, ids in left.items() if ids}


def _all(kind: str) -> set[int]:
    done = run("bpftool", "--json", kind, "list")
    return {int(each["id"]) for each in json.loads(done.out or "[]")}
