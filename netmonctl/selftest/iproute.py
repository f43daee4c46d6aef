"""ip(8), which makes the cable and says what there is."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from netmonctl.errors import CtlError
from netmonctl.selftest.figures import Figures

#: Where it may be for users whose PATH has no sbin.
_PLACES = "/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT = 30.0


def _run(argv: list[str], lines: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{_PLACES}", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["ip", *argv], input=lines, capture_output=True, text=True, timeout=_TIMEOUT, env=environment,
            check=False, start_new_session=True,  # Ctrl-C is for us alone
        )  # fmt: skip
    except FileNotFoundError:
        raise CtlError("selftest needs the command ip, which is not installed; install iproute2") from None


def batch(*lines: str) -> None:
    """Carries out commands. CtlError: what the first that failed said."""
    done = _run(["-batch", "-"], "".join(f"{line}\n" for line in lines))
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CtlError(f"ip: {said[0]}")


def query(*words: str) -> list[dict[str, Any]]:
    """What it lists; nothing if there is nothing, or no such thing."""
    done = _run(["-json", *words])
    return [row for row in json.loads(done.stdout or "[]") if row] if done.returncode == 0 else []


def alias(device: str) -> str | None:
    """What a device says about itself (ifalias); None: there is none of that name."""
    rows = query("link", "show", "dev", device)
    return str(rows[0].get("ifalias", "")) if rows else None


def counters(device: str) -> Figures:
    """The kernel's own counters of a device."""
    rows = query("-stats", "link", "show", "dev", device)
    if not rows:
        raise CtlError(f"{device} has vanished during the test; run it again")
    rx, tx = rows[0]["stats64"]["rx"], rows[0]["stats64"]["tx"]
    return Figures(rx["packets"], rx["bytes"], tx["packets"], tx["bytes"])


def is_free(network: str) -> bool:
    """Whether nothing but a default route leads to a network or a part of it."""
    family = "-6" if ":" in network else "-4"
    routes = [
        *query(family, "route", "show", "table", "all", "match", network),
        *query(family, "route", "show", "table", "all", "root", network),
    ]
    return all(route.get("dst") == "default" for route in routes)
