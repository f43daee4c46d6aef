"""Where netmond keeps what it writes and pins."""

from __future__ import annotations

from collections.abc import Callable

from netmonctl.doctor.cgroups import mounts
from netmonctl.doctor.facts import UNIT, Facts
from netmonctl.doctor.finding import Finding, failed, ok, warning
from netmonctl.doctor.host import Host, Space

LOGS, STATE, RUN = "/var/log/netmond", "/var/lib/netmond", "/run/netmond"

#: The file system, the directory of it that the unit shows its daemon, and where that looks for it.
BPFFS, PINS, OWN_PINS = "/sys/fs/bpf", "/sys/fs/bpf/netmond", "/run/netmond/bpf"
_PAUSE = "while netmond restarts nothing is counted"

#: Less than this of the bytes or inodes is little.
_SHARE = 0.05
_ENOUGH = 256 << 20  #: free bytes that are enough however large the file system is
_ENOUGH_INODES = 10_000


def _directory(name: str, path: str, loss: str, remedy: str) -> Callable[[Host, Facts], Finding]:
    """A check of the room that is left where a directory is. `loss`: what happens when there is none."""

    def check(host: Host, facts: Facts) -> Finding:
        if not host.exists(path):
            if facts.active:
                return warning(name, f"{path} is missing: {loss}", f"systemctl restart {UNIT}")
            return ok(name, f"{path} is not there; the service makes it when it starts")
        space = host.space(path)
        shown = f"{path}: {_share(space.free, space.size)} of the bytes are free"
        if space.inodes:
            shown += f", {_share(space.free_inodes, space.inodes)} of the inodes"
        if space.read_only:
            return failed(name, f"{path} is on a file system that is mounted read-only: {loss}", remedy)
        if not space.free or (space.inodes and not space.free_inodes):
            return failed(name, f"{shown}: {loss}", remedy)
        if _scarce(space):
            return warning(name, f"{shown}; soon {loss}", remedy)
        return ok(name, shown)

    return check


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.0f} %"


def _scarce(space: Space) -> bool:
    bytes_ = space.free < min(_SHARE * space.size, _ENOUGH)
    return bytes_ or (bool(space.inodes) and space.free_inodes < min(_SHARE * space.inodes, _ENOUGH_INODES))


def bpffs(host: Host, facts: Facts) -> Finding:
    """The file system in which programs and tables outlast the daemon."""
    name = "bpffs"
    mounted = {mount.point for mount in mounts(host) if mount.kind == "bpf"}
    if mounted & {OWN_PINS, PINS}:
        return ok(name, f"netmond has {' and '.join(sorted(mounted & {OWN_PINS, PINS}))}")
    if not facts.booted:
        return warning(
            name,
            f"there is no BPF file system at {OWN_PINS}: {_PAUSE}",
            f"mkdir -p {OWN_PINS} && mount -t bpf bpf {OWN_PINS}, then start netmond anew",
        )
    if BPFFS not in mounted:
        return warning(name, f"the BPF file system is not mounted: {_PAUSE}", f"mount -t bpf bpf {BPFFS}")
    if host.exists(PINS):
        return ok(name, f"netmond has {PINS}")
    if facts.active:
        return warning(name, f"mounted, but there is no {PINS}: {_PAUSE}", f"systemctl restart {UNIT}")
    return ok(name, f"mounted; the service makes {PINS} when it starts")


CHECKS = {
    "log-directory": _directory(
        "log-directory", LOGS, "rows of the CSV files are lost", f"make room: df -h {LOGS}; du -sh {LOGS}"
    ),
    "state-directory": _directory(
        "state-directory", STATE, "totals do not outlast a restart", f"make room: df -h {STATE}"
    ),
    "run-directory": _directory(
        "run-directory", RUN, "a restart loses what is counted meanwhile", f"make room: df -h {RUN}"
    ),
    "bpffs": bpffs,
}
