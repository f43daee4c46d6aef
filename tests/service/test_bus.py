"""The service and the bus: started by a message, and back after the bus itself was restarted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.inside import (
    UNIT,
    answers,
    busctl,
    ctl,
    described,
    is_active,
    restart,
    show,
    systemctl,
)
from tests.service.talk import Talker, echoed, of_users, total

pytestmark = pytest.mark.usefixtures("installed")

_DESCRIBE = ("call", "org.netmond1", "/org/netmond1", "org.netmond1.Manager", "Describe")


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """The service is enabled and runs."""
    yield
    if systemctl("is-enabled", UNIT, check=False).out != "enabled\n":
        systemctl("enable", UNIT)
    if not is_active():
        restart()
    eventually(answers, "netmond is on the bus")


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_message_starts_it(user: str) -> None:
    """Whoever asks a stopped service gets an answer: the bus has systemd start it."""
    systemctl("stop", UNIT)

    done = busctl(*_DESCRIBE, user=user)

    assert json.loads(json.loads(done.out)["data"][0])["version"]
    eventually(is_active, "the service manager knows, too")


def test_netmonctl_starts_nothing() -> None:
    """To look is not to change: netmonctl says that the service does not run, and how to start it."""
    systemctl("stop", UNIT)

    done = ctl("status", check=False)

    assert done.code == 3
    assert "systemctl start netmond" in done.err
    assert show("ActiveState") == "inactive"


def test_no_message_starts_a_disabled_service() -> None:
    """An administrator's `systemctl disable --now` is final: no user can undo it with a message."""
    systemctl("disable", "--now", UNIT)

    done = busctl(*_DESCRIBE, user="nobody", check=False)

    assert done.code != 0
    assert show("ActiveState") == "inactive"


def orderly() -> None:
    systemctl("restart", "dbus.service")


def killed() -> None:
    systemctl("kill", "--signal=SIGKILL", "dbus.service")
    systemctl("start", "dbus.service")


def back() -> None:
    """Waits until netmond has returned, for which it tries every 15 s at last."""
    eventually(answers, "netmond is back on the bus", within=2 * DEADLINE)


@pytest.mark.parametrize("end", [orderly, killed])
def test_back_on_a_new_bus(talkers: dict[str, Talker], end: Callable[[], None]) -> None:
    """When the bus is restarted the daemon comes back to it by itself, without losing or doubling what was
    counted before, meanwhile and afterwards."""
    before = of_users()
    since = described()["since"]
    talkers["erin"].exchange(23, 101)
    end()
    talkers["erin"].exchange(29, 101)

    back()
    talkers["erin"].exchange(31, 101)

    expected = total(before.get("erin", (0, 0, 0, 0)), echoed(23 + 29 + 31, 101))
    assert of_users()["erin"] == expected
    assert described()["since"] == since
    assert is_active()
    assert {each["name"]: each["state"] for each in described()["features"]}["bus"] == "on"


def test_signals_and_properties_after_a_new_bus() -> None:
    """All of it is there again: properties, log level, and what the service manager calls."""
    orderly()
    back()

    words = ["org.netmond1", "/org/netmond1", "org.netmond1.Manager"]
    assert json.loads(busctl("get-property", *words, "Version").out)["data"]
    # It goes by the service manager's place on the bus, which that comes back to at its own pace.
    level = eventually(lambda: systemctl("service-log-level", "netmond", check=False).out, "a level")
    assert level == "info\n"
    systemctl("reload", UNIT)
