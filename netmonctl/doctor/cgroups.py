"""The control groups that sockets are counted by: found where they are, see cgroups(7)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from netmonctl.doctor.facts import Facts
from netmonctl.doctor.finding import Finding, failed, ok, warning
from netmonctl.doctor.host import Host, text

MOUNTS = "/proc/self/mountinfo"

#: Before 5.15 a socket that one of these v1 controllers has marked no longer tells its v2 group.
_MARKING = {"net_cls", "net_prio"}
_MARKING_HARMLESS = (5, 15)

#: Space, tab, newline and backslash in proc_pid_mountinfo(5).
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A line of proc_pid_mountinfo(5): which part of a file system is where."""

    root: str
    point: str
    kind: str
    options: frozenset[str]


def mounts(host: Host) -> list[Mount]:
    """All mounts of this mount namespace."""
    found = []
    for line in text(host, MOUNTS).splitlines():
        before, _, after = line.partition(" - ")
        words, rest = before.split(" "), after.split(" ")
        if len(words) > 4 and len(rest) > 2:
            found.append(
                Mount(
                    root=_plain(words[3]),
                    point=_plain(words[4]),
                    kind=rest[0],
                    options=frozenset(rest[2].split(",")),
                )
            )
    return found


def _plain(escaped: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), escaped)


def cgroups(host: Host, facts: Facts) -> Finding:
    """unified, hybrid, v1 only, or none."""
    name = "cgroups"
    known = mounts(host)
    unified = next((mount for mount in known if mount.kind == "cgroup2"), None)
    old = [mount for mount in known if mount.kind == "cgroup"]
    if unified is None:
        layout = "only control groups of version 1 are mounted" if old else "no control groups are mounted"
        return failed(
            name,
            f"{layout}: sockets cannot be counted",
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )
    if unified.root != "/":
        return warning(
            name,
            f"{unified.point} shows only {unified.root}: this is a container with control groups of its own",
            "start the container with those of the host, as podman run --cgroupns host",
        )
    layout = f"unified at {unified.point}"
    if old:
        layout = f"hybrid: version 2 at {unified.point} beside version 1"
    marking = sorted(set().union(*(mount.options for mount in old)) & _MARKING)
    if marking and facts.kernel < _MARKING_HARMLESS:
        return warning(
            name,
            f"{layout}; before Linux 5.15 sockets of groups that use {' or '.join(marking)} have no unit",
            "boot with cgroup_no_v1=net_cls,net_prio",
        )
    return ok(name, layout)


CHECKS = {"cgroups": cgroups}
