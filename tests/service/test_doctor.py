"""netmonctl doctor on a machine with systemd: what it says of the service, and what its remedies do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import UNIT, answers, ctl, is_active, main_pid, restart, run, systemctl

pytestmark = pytest.mark.usefixtures("installed", "people")

Checks = dict[str, dict[str, Any]]

_WRONG = Path("/etc/netmond/netmond.d/wrong.toml")


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """The service runs afterwards as it did before."""
    yield
    _WRONG.unlink(missing_ok=True)
    systemctl("unmask", UNIT)
    systemctl("unmask", "--runtime", UNIT)
    systemctl("enable", UNIT)
    if not is_active():  # it may be just being started again, and answer before it is ready
        restart()
    eventually(answers, "netmond is on the bus")


def examine(user: str = "") -> Checks:
    """All findings by section and name, as ``service.daemon``."""
    done = ctl("doctor", "--json=short", user=user, check=False)
    assert done.err == ""
    found = json.loads(done.out)
    assert done.code == (0 if found["well"] else 1)
    return {f"{each['section']}.{each['name']}": each for each in found["checks"]}


def severe(found: Checks, severity: str) -> dict[str, str]:
    """The causes of all that is so severe."""
    return {name: each["cause"] for name, each in found.items() if each["severity"] == severity}


def follow(remedy: str) -> None:
    """Does what is said."""
    run("sh", "-c", remedy)


def test_running() -> None:
    """After apt install nothing has failed, and all that the package brings is found to be there."""
    found = examine()

    assert severe(found, "failed") == {}
    ours = (
        "service",
        "autostart",
        "daemon",
        "versions",
        "capabilities",
        "bus",
        "bus-policy",
        "activation",
        "polkit",
    )
    assert {name: found[f"service.{name}"]["state"] for name in ours} == dict.fromkeys(ours, "ok")
    directories = ("log-directory", "state-directory", "run-directory", "bpffs")
    assert {name: found[f"surroundings.{name}"]["state"] for name in directories} == dict.fromkeys(
        directories, "ok"
    )
    assert found["service.service"]["cause"] == "active (running)"
    assert found["service.service"]["details"][0].endswith(f"pid {main_pid()}")


def test_ordinary_user() -> None:
    """Sees no failure where there is none; what only root may look at is unknown, and says so."""
    root, user = examine(), examine("erin")

    assert severe(user, "failed") == {}
    hidden = severe(user, "unknown").items() - severe(root, "unknown").items()
    assert {cause for _, cause in hidden if "only root may look" not in cause} == set()
    assert user["service.capabilities"]["state"] == "ok"


def test_stopped() -> None:
    """Is a failure, with features that are off; the remedy starts it."""
    systemctl("stop", UNIT)

    found = examine()

    assert found["service.service"]["cause"] == f"{UNIT} is stopped"
    assert found["service.daemon"]["cause"] == "there is no org.netmond1 on the bus"
    assert {each["state"] for each in found.values() if each["section"] == "features"} == {"off"}
    assert found["service.capabilities"]["cause"] == "the unit gives all it needs"
    assert not answers()
    follow(found["service.service"]["remedy"])
    eventually(answers, "netmond is on the bus")
    assert severe(examine(), "failed") == {}


def test_disabled_and_masked() -> None:
    """One command from each state back to a service that runs."""
    systemctl("disable", "--now", UNIT)
    disabled = examine()
    assert disabled["service.autostart"]["state"] == "warning"
    follow(disabled["service.service"]["remedy"])
    eventually(answers, "netmond is on the bus")
    assert examine()["service.autostart"]["state"] == "ok"

    systemctl("mask", "--runtime", "--now", UNIT)
    masked = examine()["service.service"]
    assert masked["cause"] == f"{UNIT} is masked"
    follow(masked["remedy"])
    eventually(answers, "netmond is on the bus")


def test_failing() -> None:
    """Why it does not start is told in the daemon's own words, to those who may read the journal."""
    _WRONG.write_text("[daemon]\ninterval = 0\n")
    systemctl("restart", UNIT, check=False)

    def failure(user: str = "") -> str:
        found = examine(user)["service.service"]
        return str(found["cause"]) if found["state"] == "failed" else ""  # systemd tries again in between

    eventually(lambda: "daemon.interval = 0: must be" in failure(), "the doctor tells why")
    assert f"{UNIT} does not start: " in eventually(failure)
    told = eventually(lambda: failure("erin"))
    assert "daemon.interval" not in told
    assert "to read it takes root or group adm or systemd-journal" in told


def test_text() -> None:
    """What a person sees: a heading for each part, a line for each check, a last line that counts them."""
    lines = ctl("doctor", check=False).out.splitlines()

    assert {"Features", "Service", "Kernel", "Surroundings", "Interfaces"} <= set(lines)
    assert [line for line in lines if line.split()[1:3] == ["daemon", "ok"]]
    assert lines[-1].endswith("0 failed.")
