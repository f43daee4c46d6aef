"""netmond and the real polkitd: our actions, their owner, rules, restarts, and a prompt on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from netmond.bus import names
from netmond.model import FeatureState
from tests.bus.conftest import Start
from tests.bus.private import (
    DEADLINE,
    ROOT,
    Caller,
    CallError,
    FakeMonitor,
    LoopThread,
    PrivateBus,
    code,
)
from tests.bus.realpolkit import POLICY, RealPolkit
from tests.bus.snapshots import ALICE, BOB, small

OPTIONS = ("a{sv}",)
INTERACTIVE = 4
ACTIONS = ("org.netmond1.read-all", "org.netmond1.manage", "org.netmond1.capture")

#: The users games and news stand for alice and bob; root is the administrator who is asked for a password.
RULES = """
polkit.addAdminRule(function(action, subject) { return ["unix-user:root"]; });
polkit.addRule(function(action, subject) {
    if (action.id == "org.netmond1.read-all" && subject.user == "news") return polkit.Result.YES;
    if (action.id == "org.netmond1.manage" && subject.user == "news") return polkit.Result.NO;
});
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """The service on a bus of its own with the real polkitd."""

    bus: PrivateBus
    polkit: RealPolkit
    monitor: FakeMonitor
    authority_is_on: Callable[[], bool]


@pytest.fixture
def real(own_bus: PrivateBus, loop: LoopThread, start: Start) -> Iterator[Real]:
    polkit = RealPolkit(own_bus, RULES, POLICY.read_text())
    polkit.start()
    monitor = FakeMonitor(small())
    service = start(monitor, own_bus.address)
    yield Real(
        bus=own_bus,
        polkit=polkit,
        monitor=monitor,
        authority_is_on=lambda: service.authority.feature().state is FeatureState.ON,
    )
    polkit.remove()


@pytest.fixture
def people(real: Real) -> Iterator[dict[str, Caller]]:
    found = {"alice": Caller(real.bus.address, ALICE), "bob": Caller(real.bus.address, BOB)}
    yield found
    for caller in found.values():
        caller.close()


def denial(call: Callable[[], object]) -> str:
    """The text with which a call is denied."""
    with pytest.raises(CallError) as caught:
        call()
    assert code(caught.value) == "AccessDenied"
    return caught.value.text


def test_rules_decide(real: Real, people: dict[str, Caller]) -> None:
    """What a rule allows and forbids; for everything else authentication is needed."""
    assert people["bob"].call("ListUsers", OPTIONS, {})[1]["scope"] == "all"
    assert "polkit refuses org.netmond1.manage" in denial(lambda: people["bob"].call("Reload", OPTIONS, {}))

    assert people["alice"].call("ListUsers", OPTIONS, {})[1]["scope"] == "own"
    text = denial(lambda: people["alice"].call("Reload", OPTIONS, {}))
    assert "without authentication (org.netmond1.manage)" in text
    assert real.authority_is_on()


def test_nobody_to_ask(people: dict[str, Caller]) -> None:
    """An interactive call where no agent runs ends at once."""
    text = denial(lambda: people["alice"].call("Reload", OPTIONS, {}, flags=INTERACTIVE))

    assert "no polkit agent is there to ask" in text


def test_killed_and_started_again(real: Real, people: dict[str, Caller]) -> None:
    """While there is no polkit nobody is let in; when it is back, all is as before: netmond notices."""
    real.polkit.stop()
    assert people["bob"].call("ListUsers", OPTIONS, {})[1]["scope"] == "own"
    assert denial(lambda: people["bob"].call("GetTarget", ("s",), "192.0.2.7")).endswith(
        "polkit is not there"
    )
    assert not real.authority_is_on()

    real.polkit.start()
    assert people["bob"].call("ListUsers", OPTIONS, {})[1]["scope"] == "all"
    assert real.authority_is_on()


@pytest.mark.parametrize("action", ACTIONS)
def test_owner_may_ask_about_others(own_bus: PrivateBus, action: str) -> None:
    """The annotation lets one ordinary user, netmond, ask about its callers. Here that is games, alice."""
    polkit = RealPolkit(own_bus, RULES, POLICY.read_text().replace("unix-user:netmond", "unix-user:games"))
    polkit.start()
    bob = Caller(own_bus.address, BOB)

    def ask(uid: int) -> subprocess.CompletedProcess[str]:
        about = ["pkcheck", "--action-id", action, "--system-bus-name", bob.name]
        return subprocess.run(
            polkit.command("setpriv", f"--reuid={uid}", "--regid=60", "--clear-groups", *about),
            env=polkit.environment(), capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip

    try:
        owner, other = ask(ALICE), ask(1)
    finally:
        bob.close()
        polkit.remove()

    assert owner.returncode == {"org.netmond1.read-all": 0, "org.netmond1.manage": 1}.get(action, 2)
    assert other.returncode == 127
    assert "Only trusted callers" in other.stderr


def on_a_terminal(real: Real, *arguments: str) -> tuple[int, str]:
    """Run netmonctl as alice on a terminal of its own: exit code and everything the terminal showed."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "netmonctl", *arguments]
    process = subprocess.Popen(
        real.polkit.command(
            "setpriv", f"--reuid={ALICE}", "--regid=60", "--clear-groups", "setsid", "--ctty", *program
        ),
        env=real.polkit.environment() | {"TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the last process has closed its side
            break
    os.close(ours)
    return process.wait(DEADLINE), shown.decode()


def test_netmonctl_asks_on_the_terminal(real: Real) -> None:
    """A refused command starts the text agent, and succeeds when somebody has authenticated."""
    status, shown = on_a_terminal(real, "target", "add", "192.0.2.7")

    assert "AUTHENTICATING FOR org.netmond1.manage" in shown
    assert "Authentication is required to change targets, interfaces and settings of netmond." in shown
    assert status == 0, shown
    assert real.monitor.done == [("add", "192.0.2.7/32")]


def test_netmonctl_wrong_password(real: Real) -> None:
    """Exit code 4 and one line after the agent's."""
    real.polkit.authenticate(False)

    status, shown = on_a_terminal(real, "reload")

    assert status == 4
    assert "netmonctl: you may not change targets, interfaces" in shown.rstrip().splitlines()[-1]
    assert real.monitor.done == []


def test_netmonctl_does_not_ask(real: Real) -> None:
    """With --no-ask-password, and for what needs no password, there is no prompt."""
    status, shown = on_a_terminal(real, "reload", "--no-ask-password")
    assert (status, "AUTHENTICATING" in shown) == (4, False)

    status, shown = on_a_terminal(real, "users")
    assert (status, "AUTHENTICATING" in shown) == (0, False)


def test_netmonctl_watch_asks_once(real: Real) -> None:
    """The second picture does not prompt: without a session polkit keeps no authorisation, so it ends."""
    status, shown = on_a_terminal(real, "users", "--all", "--watch=0.1", "--json=short")

    assert shown.count("AUTHENTICATING FOR") == 1
    assert shown.count('"uid":5') == 1
    assert status == 4


def test_actions_are_those_netmond_asks_for(real: Real) -> None:
    """Every action is registered, and each has a message of its own for the prompt."""
    found = subprocess.run(
        real.polkit.command("pkaction", "--verbose"), env=real.polkit.environment(), capture_output=True,
        text=True, check=True, timeout=DEADLINE,
    ).stdout  # fmt: skip

    assert [line.rstrip(":") for line in found.splitlines() if line.startswith(names.BUS_NAME)] == sorted(
        ACTIONS
    )
    assert found.count("implicit any:      auth_admin\n") == 3
    assert found.count("implicit active:   auth_admin_keep\n") == 3
    assert len({line for line in found.splitlines() if "message:" in line}) == 3
