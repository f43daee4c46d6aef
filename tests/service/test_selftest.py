"""`netmonctl selftest` against the installed service: its counters are right, and it stays as it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import ctl, ctl_json, main_pid, rows, run
from tests.service.talk import DEVICE, Far


@pytest.fixture(autouse=True)
def _machine(installed: None, far: Far) -> Iterator[None]:
    """netmond runs, and has noticed all interfaces there are; afterwards all is as it was before."""
    eventually(
        lambda: any(row["name"] == DEVICE and row["monitored"] for row in rows("Interfaces")),
        "the uplink is monitored",
    )
    before = state()
    yield
    eventually(lambda: state() == before, "all is as it was")


def state() -> dict[str, Any]:
    """What a test changes for a while."""
    return {
        "service": main_pid(),
        "targets": [row["address"] for row in rows("Targets")],
        "interfaces": [(row["name"], row["monitored"], row["hook"]) for row in rows("Interfaces")],
        "addresses": run("ip", "-brief", "address").out,
        "routes": run("ip", "route", "show", "table", "all").out,
        "processes": run("pgrep", "--full", "netmonctl.selftest", check=False).out,
    }


@pytest.mark.parametrize("attach", ["auto", "xdp-generic"])
def test_every_counter_is_right(attach: str) -> None:
    """Of the service in its sandbox."""
    lines = {line["check"]: line for line in ctl_json("selftest", "--attach", attach)}

    assert len(lines) == 33
    # In a container netmond has the host's numbers of processes; in a virtual machine all can be told.
    contained = (
        {"process", "unit"} if run("systemd-detect-virt", "--container", check=False).code == 0 else set()
    )
    assert {name for name, line in lines.items() if line["result"] != "ok"} == contained


def test_for_people() -> None:
    """As a table, with a verdict."""
    said = ctl("selftest")

    assert said.err == ""
    assert said.out.splitlines()[0].split() == [
        "CHECK",
        "RESULT",
        "IN",
        "(PACKETS/BYTES)",
        "OUT",
        "(PACKETS/BYTES)",
    ]
    assert said.out.splitlines()[-1].endswith(": every counter is right.")


def test_users_of_the_test_are_like_others() -> None:
    """What they have sent is in the totals, under their numbers."""
    ctl("selftest")

    shown = {row["uid"]: row for row in ctl_json("users")}
    assert {65520, 65521} <= shown.keys()
    assert shown[65520]["out_bytes"] == shown[65521]["in_bytes"] > 600_000


@pytest.mark.usefixtures("people")
def test_not_for_everybody() -> None:
    """It makes namespaces: even who may see and change everything needs root."""
    said = ctl("selftest", user="erin", check=False)

    assert said.code == 4
    assert said.err == "netmonctl: selftest makes a network namespace: run it as root, with sudo\n"


def test_interrupted() -> None:
    """By the service manager, as a timer's unit might be: everything is taken away."""
    words = ["--quiet", "--collect", "--wait", "--property=RuntimeMaxSec=1s", "--property=TimeoutStopSec=60"]

    run("systemd-run", *words, "netmonctl", "selftest", check=False)


def test_json_is_documented() -> None:
    """Keys as the manual has them."""
    (line,) = [line for line in json.loads(ctl("selftest", "--json").out) if line["check"] == "flow udp 4"]

    assert line.keys() == {"check", "result", "expected", "counted"}
    assert line["counted"].keys() == {"in_packets", "in_bytes", "out_packets", "out_bytes"}
