"""From a cgroup path to the systemd unit and slice it stands for (systemd docs/CGROUP_DELEGATION.md)."""

from __future__ import annotations

_UNIT_SUFFIXES = (".service", ".scope", ".socket", ".mount", ".swap")

#: For sockets whose cgroup was removed before anyone asked for its name.
GONE = "(gone)"


def unit_of(path: str) -> tuple[str, str]:
    """Unit and slice of a cgroup.

    The unit is the first component below the slices; under a user manager that is followed by the
    user's own unit: ``user@1000.service/app.service``. A cgroup outside any unit
    stands for itself: its path.
    The slice is the last one passed, ``-.slice`` for the root. Names keep systemd's escapes: systemctl and
    journalctl want them so.
    """
    slice_ = "-.slice"
    units: list[str] = []
    for part in filter(None, path.split("/")):
        name = part[1:] if part.startswith("_") else part  # systemd's own escape of reserved names
        if name.endswith(".slice"):
            if not units:
                slice_ = name
        elif name.endswith(_UNIT_SUFFIXES):
            if not units or (len(units) == 1 and units[0].startswith("user@")):
                units.append(name)
        elif units and not units[0].startswith("user@"):
            break  # a sub-cgroup the unit was delegated
    unit = "/".join(units) if units else path
    return unit, slice_
