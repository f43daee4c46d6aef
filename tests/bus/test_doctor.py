"""netmonctl doctor against the real service on a bus: who answers, who does not, and what polkit does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from netmonctl import __version__
from netmond.model import Feature, FeatureState, Loss
from tests.bus import snapshots
from tests.bus.conftest import Host
from tests.bus.private import DEADLINE, PrivateBus
from tests.bus.realpolkit import POLICY, RealPolkit

ROOT = Path(__file__).parents[2]

Checks = dict[str, dict[str, Any]]


def examine(bus: PrivateBus, around: Callable[..., list[str]] = lambda *argv: [*argv]) -> Checks:
    """All findings by section and name, as ``service.daemon``. around: changes the command line."""
    done = subprocess.run(
        around(sys.executable, "-m", "netmonctl", "doctor", "--json=short"),
        cwd=ROOT, env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["well"] else 1)
    return {f"{each['section']}.{each['name']}": each for each in found["checks"]}


def test_service(host: Host) -> None:
    """Features as the service tells them, the process that owns the name, the version it has."""
    off = Feature(name="meter", state=FeatureState.OFF, reason="cannot load sockets.c: no")
    host.monitor.snapshot = replace(snapshots.small(), features=(off,))

    found = examine(host.bus)

    assert found["service.daemon"]["cause"] == "answers, has read the counters 17 times"
    assert found["service.bus"]["state"] == found["service.bus-policy"]["state"] == "ok"
    assert f"pid {os.getpid()}" in found["service.service"]["details"]
    assert found["service.versions"]["state"] == "warning"
    assert found["service.versions"]["cause"] == f"netmond is 7.11.13, netmonctl {__version__}"
    features = {name: each for name, each in found.items() if each["section"] == "features"}
    assert features.keys() == {"features.meter"}
    assert features["features.meter"]["state"] == "off"
    assert features["features.meter"]["cause"] == "cannot load sockets.c: no"


def test_losses(host: Host) -> None:
    """Only those that are not zero, with their meaning."""
    losses = (Loss(name="a.b", count=0, meaning=""), Loss(name="c.d", count=23, meaning="lost packets"))
    host.monitor.snapshot = replace(snapshots.small(), losses=losses)

    found = examine(host.bus)["service.losses"]

    assert (found["state"], found["cause"]) == ("warning", "23 c.d: lost packets")
    assert found["details"] == ["23 c.d: lost packets"]


def test_nobody_on_the_bus(own_bus: PrivateBus) -> None:
    """The bus is well, netmond is not there, and asking has not started it."""
    found = examine(own_bus)

    assert found["service.bus"]["state"] == "ok"
    assert found["service.daemon"]["state"] == "failed"
    assert found["service.daemon"]["cause"] == "there is no org.netmond1 on the bus"
    assert found["features.meter"]["state"] == "off"
    assert found["service.losses"]["state"] == found["service.versions"]["state"] == "unknown"


def test_bus_that_is_gone(own_bus: PrivateBus) -> None:
    """What nobody can be asked about is unknown; only the bus itself has failed."""
    own_bus.stop()

    found = examine(own_bus)

    assert found["service.bus"]["state"] == "failed"
    assert "cannot reach the system bus" in found["service.bus"]["cause"]
    for name in ("service.daemon", "service.losses", "service.polkit", "features.meter"):
        assert (name, found[name]["state"]) == (name, "unknown")
    assert found["kernel.kernel"]["state"] != "unknown"


def test_without_polkit(host: Host) -> None:
    """Nobody has its name, and nothing can start it."""
    found = examine(host.bus)["service.polkit"]

    assert found["state"] == "warning"
    assert found["cause"].startswith("polkit is not installed: only root and members of group netmond")


def test_with_polkit(own_bus: PrivateBus) -> None:
    """The real polkitd answers; netmond's actions are where it looks for them."""
    polkit = RealPolkit(own_bus, "", POLICY.read_text())
    polkit.start()
    try:
        found = examine(own_bus, polkit.command)["service.polkit"]
    finally:
        polkit.remove()

    assert (found["state"], found["cause"]) == ("ok", "polkit answers and knows netmond's actions")
