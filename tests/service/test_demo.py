"""`make run` where systemd runs: what it shows are the figures of the installed service."""

from __future__ import annotations

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import main_pid, rows, run
from tests.service.talk import DEVICE

pytestmark = pytest.mark.usefixtures("installed", "far")


def state() -> tuple[object, ...]:
    """What the demonstration changes for a while."""
    return (
        main_pid(),
        [row["address"] for row in rows("Targets")],
        [(row["name"], row["monitored"], row["hook"]) for row in rows("Interfaces")],
        run("ip", "netns", "list").out,
    )


def test_shows_the_service_and_leaves_it_as_it_was() -> None:
    """Traffic of its own appears in the service's figures; then all is as it was before."""
    eventually(
        lambda: any(row["name"] == DEVICE and row["monitored"] for row in rows("Interfaces")),
        "the uplink is monitored",
    )
    before = state()

    shown = run("python3", "/opt/netmond/packaging/demo/run.py", "--service", "--seconds", "10").out

    assert "netmond.service is installed and runs." in shown
    assert "● meter" in shown
    assert "nobody  65534" in shown
    assert "198.51.100.2 " in shown
    eventually(lambda: state() == before, "all is as it was")
