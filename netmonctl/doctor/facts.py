"""What several checks need to know, found out once: the kernel, the unit, what netmond says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from netmonctl.calls import MANAGER, NAME, PATH, Call
from netmonctl.doctor.host import Host
from netmonctl.errors import CtlError

UNIT = "netmond.service"

#: Properties of the unit, see org.freedesktop.systemd1(5).
_PROPERTIES = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts",
    "MainPID", "InvocationID", "NeedDaemonReload", "User", "AmbientCapabilities", "CapabilityBoundingSet",
    "LimitMEMLOCK", "ActiveEnterTimestamp", "SystemCallFilter",
)  # fmt: skip


#: What the checks need of netmond's description.
_KEYS = {"version", "tick", "features", "losses", "interfaces"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """kernel: major and minor version; (0, 0) if its release does not tell
    booted: systemd is PID 1; unit: its properties as systemctl shows them, empty if they cannot be had
    status: what netmond describes itself as; None: `silence` says why
    pid: the daemon's, 0 if there is none or it cannot be found out
    bus: why there is no system bus, empty if there is one
    """

    kernel: tuple[int, int]
    booted: bool = False
    unit: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, Any] | None = None
    silence: str = ""
    pid: int = 0
    bus: str = ""

    def systemctl(self, words: str, otherwise: str = "") -> str:
        """What to type where systemd is in charge, and where it is not."""
        return f"systemctl {words}" if self.booted else otherwise

    @property
    def active(self) -> bool:
        """The unit runs, with the directories that it has then."""
        return self.unit.get("ActiveState") in ("active", "reloading")

    @property
    def restarts(self) -> int:
        """How often systemd had to start it again."""
        return int(self.unit.get("NRestarts") or 0)

    @property
    def starting(self) -> bool:
        """For the first time, so that it may yet succeed."""
        return self.unit.get("SubState", "").startswith("start") and not self.restarts

    @property
    def stopped(self) -> bool:
        """netmond certainly does not run, or at least serves nobody: its name has no owner on the bus."""
        return self.status is None and not self.bus and not self.pid


def to_bus(member: str, *names: str) -> Call:
    """A call of the bus itself."""
    interface = "org.freedesktop.DBus"
    types = ("s",) * len(names)
    return Call("/org/freedesktop/DBus", interface, member, types, names, destination=interface)


def gather(host: Host) -> Facts:
    """Asks for everything once. Never fails."""
    booted, unit = _systemd(host)
    pid = int(unit.get("MainPID") or 0)
    kernel = _version(host.release)
    try:
        host.call(to_bus("GetId"))
    except CtlError as error:
        bus = str(error).partition("; see:")[0]  # that is for those who asked netmond something
        return Facts(kernel=kernel, booted=booted, unit=unit, silence=bus, pid=pid, bus=bus)
    status, silence = _describe(host)
    return Facts(
        kernel=kernel,
        booted=booted,
        unit=unit,
        status=status,
        silence=silence,
        pid=_owner(host) or pid,
    )


def _describe(host: Host) -> tuple[dict[str, Any] | None, str]:
    """netmond's description of itself, or why there is none."""
    try:
        status: dict[str, Any] = json.loads(host.call(Call(PATH, MANAGER, "Describe"))[0])
    except (CtlError, ValueError) as error:
        return None, str(error)
    if missing := _KEYS - status.keys():
        return None, f"says nothing of its {', '.join(sorted(missing))}: it is too old or too new"
    return status, ""


def _version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _systemd(host: Host) -> tuple[bool, dict[str, str]]:
    """Whether it is in charge here, see sd_booted(3), and what it knows of our unit."""
    with suppress(OSError):
        if host.exists("/run/systemd/system"):
            shown = host.run("systemctl", "show", UNIT, f"--property={','.join(_PROPERTIES)}")
            pairs = (line.partition("=") for line in shown.out.splitlines())
            return True, {name: value for name, _, value in pairs}
    return False, {}


def _owner(host: Host) -> int:
    """Pid of whoever owns the name on the bus, 0 for nobody: netmond also where no unit was started."""
    try:
        return int(host.call(to_bus("GetConnectionUnixProcessID", NAME))[0])
    except CtlError:
        return 0
