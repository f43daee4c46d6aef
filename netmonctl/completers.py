"""Live values for shell completion. A daemon that is not there completes nothing, silently."""

from __future__ import annotations

from typing import Any

from netmonctl.errors import CtlError

#: A person waits for the Tab key: rather no values than late ones.
TIMEOUT = 1.0


def _values(what: str, key: str, prefix: str) -> list[str]:
    from netmonctl.client import connect

    try:
        with connect(timeout=TIMEOUT) as client:
            rows = client.listing(what, {"limit": 1000}).rows
    except CtlError:
        return []
    values = {str(row.get(key, "")) for row in rows}
    return sorted(value for value in values if value and value.startswith(prefix) and value.isprintable())


def targets(prefix: str, **_: Any) -> list[str]:
    """Addresses that are targets now."""
    return _values("Targets", "address", prefix)


def users(prefix: str, **_: Any) -> list[str]:
    """Users with figures that the caller may see."""
    return _values("Users", "user", prefix)


def units(prefix: str, **_: Any) -> list[str]:
    """Units with figures that the caller may see."""
    return _values("Units", "unit", prefix)


def interfaces(prefix: str, **_: Any) -> list[str]:
    """Interfaces of this machine."""
    return _values("Interfaces", "name", prefix)


def files(prefix: str, **_: Any) -> list[str]:
    """Names of files and, ending in a slash, of directories."""
    from glob import escape, glob
    from os.path import isdir

    return [f"{name}/" if isdir(name) else name for name in sorted(glob(f"{escape(prefix)}*"))]
