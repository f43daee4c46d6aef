"""polkit decides for ordinary users: rules, passwords on a terminal, and a polkit that is away or dies."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.client import INTERACTIVE, Caller, CallError
from tests.service.inside import described, main_pid, run, show, systemctl
from tests.service.matrix import FRESH, MANAGE, READ_ALL
from tests.service.people import TARGET, Person, Scene, forget
from tests.service.terminal import Terminal

RULES = Path("/etc/polkit-1/rules.d/00-netmond-test.rules")
PASSWORD = "toor-9-elephants"
ADD = ("/usr/bin/netmonctl", "target", "add", FRESH)


@pytest.fixture(scope="module", autouse=True)
def password() -> Iterator[None]:
    """root has a password: from before the accounts of the scene are made until they are gone."""
    shadow = Path("/etc/shadow").read_bytes()
    run("chpasswd", text=f"root:{PASSWORD}\n")
    yield
    Path("/etc/shadow").write_bytes(shadow)


@pytest.fixture(autouse=True)
def undisturbed(scene: Scene) -> Iterator[None]:
    """FRESH is no target before and after; netmond is the same process with the same answers throughout."""
    pid = main_pid()
    forget(scene.root, FRESH)
    yield
    systemctl("unmask", "--runtime", "polkit")
    systemctl("restart", "polkit")
    forget(scene.root, FRESH)
    assert main_pid() == pid
    assert outcome(scene.alice, MANAGE) == "denied"


def outcome(caller: Caller, action: str, flags: int = 0) -> str:
    """Try something that takes an action: "allowed" or "denied"; other errors are raised."""
    try:
        if action == MANAGE:
            caller.call("ResetTargets", ("as", "a{sv}"), [TARGET], {}, flags=flags)
        else:
            caller.call("GetTarget", ("s",), TARGET, flags=flags)
    except CallError as error:
        if error.name != "org.netmond1.Error.AccessDenied":
            raise
        return "denied"
    return "allowed"


@contextmanager
def rule(action: str, user: str) -> Iterator[None]:
    """polkit allows one action to one user, as soon as it has read its rules."""
    RULES.write_text(
        f"""polkit.addRule(function(action, subject) {{
            if (action.id == "{action}" && subject.user == "{user}") return polkit.Result.YES;
        }});"""
    )
    RULES.chmod(0o644)
    try:
        yield
    finally:
        RULES.unlink()


def trouble() -> str:
    """What the status says is wrong with polkit; empty for nothing."""
    (reason,) = (feature["reason"] for feature in described()["features"] if feature["name"] == "polkit")
    return str(reason)


def targets(root: Caller) -> set[str]:
    """What root watches."""
    return {row["address"] for row in root.call("ListTargets", ("a{sv}",), {})[0]}


# -- what polkit says without a person ------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, INTERACTIVE])
def test_denied_without_an_agent(scene: Scene, flags: int) -> None:
    """By default an ordinary user is asked for a password, which cannot be without an agent to ask."""
    with pytest.raises(CallError) as caught:
        scene.alice.call("AddTargets", ("as", "a{sv}"), [FRESH], {}, flags=flags)

    assert caught.value.name == "org.netmond1.Error.AccessDenied"
    assert MANAGE in caught.value.text
    assert "root" in caught.value.text
    assert "\n" not in caught.value.text


@pytest.mark.parametrize(("granted", "other"), [(MANAGE, READ_ALL), (READ_ALL, MANAGE)])
def test_rule_for_one_action_and_user(scene: Scene, granted: str, other: str) -> None:
    """A rule in /etc/polkit-1/rules.d allows what it says to whom it says, as long as it is there."""
    with rule(granted, "alice"):
        eventually(lambda: outcome(scene.alice, granted) == "allowed", "the rule is in force")

        assert outcome(scene.alice, other) == "denied"
        assert outcome(scene.bob, granted) == "denied"
        assert outcome(scene.bob, other) == "denied"

    eventually(lambda: outcome(scene.alice, granted) == "denied", "the rule is gone")


def test_rule_works_for_netmonctl(scene: Scene) -> None:
    """With read-all alice's lists are everybody's, and nothing more."""
    with rule(READ_ALL, "alice"):
        eventually(lambda: outcome(scene.alice, READ_ALL) == "allowed", "the rule is in force")

        shown = scene.people.alice.netmonctl("users", "--json=short")
        shown_bob = scene.people.bob.netmonctl("users", "--json=short")
        refused = scene.people.alice.netmonctl("target", "add", FRESH)

    assert '"bob"' in shown.stdout
    assert '"alice"' not in shown_bob.stdout
    assert (refused.returncode, MANAGE in refused.stderr) == (4, True)


def test_own_figures_never_need_it(scene: Scene) -> None:
    """A polkit that hangs keeps nobody from what is his own, and the rest is refused in a few seconds."""
    systemctl("start", "polkit")
    pid = int(show("MainPID", "polkit"))
    os.kill(pid, signal.SIGSTOP)
    try:
        rows, _ = scene.alice.call("ListUsers", ("a{sv}",), {"scope": ["s", "own"]})
        assert [row["user"] for row in rows] == ["alice"]
        assert scene.alice.call("GetUser", ("u", "a{sv}"), scene.people.alice.uid, {})["user"] == "alice"
        assert outcome(scene.root, MANAGE) == "allowed"
        assert outcome(scene.carol, MANAGE) == "allowed"
        assert outcome(scene.alice, MANAGE) == "denied"
        rows, meta = scene.alice.call("ListUsers", ("a{sv}",), {})
        assert meta["scope"] == "own"
    finally:
        os.kill(pid, signal.SIGCONT)


# -- polkit comes and goes ------------------------------------------------------------------------------


def test_absent(scene: Scene) -> None:
    """Masked and stopped: root and the group only, a message that says why, and status tells it, too."""
    systemctl("mask", "--runtime", "--now", "polkit")

    for person in (scene.people.alice, scene.people.bob):
        done = person.netmonctl("target", "add", FRESH)
        assert done.returncode == 4
        assert "polkit" in done.stderr
        assert "root and members of group netmond" in done.stderr
        assert done.stderr.count("\n") == 1
        assert person.netmonctl("users", "--own").returncode == 0
    assert outcome(scene.carol, MANAGE) == outcome(scene.root, READ_ALL) == "allowed"
    reason = eventually(trouble, "status tells that polkit is not there")
    assert "polkit" in reason

    systemctl("unmask", "--runtime", "polkit")
    with rule(MANAGE, "alice"):
        eventually(lambda: outcome(scene.alice, MANAGE) == "allowed", "polkit is back")


def test_nobody_else_is_polkit(scene: Scene) -> None:
    """Where polkit is absent, an ordinary user cannot take its name on the bus, and so not its place."""
    systemctl("mask", "--runtime", "--now", "polkit")

    with pytest.raises(CallError) as caught:
        scene.alice.call_bus("RequestName", ("s", "u"), "org.freedesktop.PolicyKit1", 4)

    assert caught.value.name == "org.freedesktop.DBus.Error.AccessDenied"


def test_restart_between_calls(scene: Scene) -> None:
    """`systemctl restart polkit` and a killed polkitd: the next call is decided as ever."""
    with rule(MANAGE, "alice"):
        eventually(lambda: outcome(scene.alice, MANAGE) == "allowed", "the rule is in force")
        systemctl("restart", "polkit")
        assert outcome(scene.alice, MANAGE) == "allowed"
        assert outcome(scene.bob, MANAGE) == "denied"
        os.kill(int(show("MainPID", "polkit")), signal.SIGKILL)
        eventually(lambda: show("ActiveState", "polkit") != "active", "polkit is dead")
        assert outcome(scene.alice, MANAGE) == "allowed"
        assert outcome(scene.bob, MANAGE) == "denied"


def test_killed_while_it_is_asked(scene: Scene) -> None:
    """polkitd dies with a question open: the caller gets an answer all the same, from the next polkitd."""
    with rule(MANAGE, "alice"):
        eventually(lambda: outcome(scene.alice, MANAGE) == "allowed", "the rule is in force")
        pid = int(show("MainPID", "polkit"))
        os.kill(pid, signal.SIGSTOP)
        with Terminal(scene.people.alice, *ADD) as terminal:
            eventually(lambda: _waits_for_polkit(scene), "the question is open")
            os.kill(pid, signal.SIGKILL)
            assert terminal.end() == 0, terminal.shown

    assert FRESH in targets(scene.root)


def _waits_for_polkit(scene: Scene) -> bool:
    """Whether netmonctl of alice is on the bus: it has nothing to do there but to wait."""
    names = scene.root.call_bus("ListNames")
    for name in names:
        try:
            uid = scene.root.call_bus("GetConnectionUnixUser", ("s",), name)
        except CallError:  # gone meanwhile
            continue
        if uid == scene.people.alice.uid and name != scene.alice.name:
            return True
    return False


# -- a person at a terminal -----------------------------------------------------------------------------


def ask(person: Person) -> Terminal:
    """netmonctl on a terminal, up to the question for a password, which will not be shown."""
    terminal = Terminal(person, *ADD)
    terminal.expect("Password:")
    eventually(lambda: not terminal.echoes(), "the terminal hides what is typed")
    return terminal


def agents() -> list[str]:
    """The text agents that run, by process id."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/comm") if _read(path) == "pkttyagent\n"]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process is gone
        return ""


def test_right_password(scene: Scene) -> None:
    """The agent names the action; with root's password the target is added, and nothing remains."""
    with ask(scene.people.alice) as terminal:
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown
        assert MANAGE in terminal.shown
        assert "Added 1 target." in terminal.shown
        assert PASSWORD not in terminal.shown
        assert terminal.echoes()

    assert FRESH in targets(scene.root)
    assert agents() == []


def test_password_is_not_kept(scene: Scene) -> None:
    """What a password allowed was one call: neither the next nor another connection of alice is allowed."""
    with ask(scene.people.alice) as terminal:
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown

    assert outcome(scene.alice, MANAGE) == "denied"
    assert scene.people.alice.netmonctl("target", "remove", FRESH).returncode == 4
    assert FRESH in targets(scene.root)


def test_wrong_password(scene: Scene) -> None:
    """Exit code 4, one line of netmonctl's own, nothing done; the terminal is as it was."""
    with ask(scene.people.alice) as terminal:
        terminal.type("guess\n")
        assert terminal.end() == 4, terminal.shown
        (line,) = re.findall("netmonctl: .*", terminal.shown)
        assert MANAGE in line
        assert "Traceback" not in terminal.shown
        assert terminal.echoes()

    assert FRESH not in targets(scene.root)
    assert agents() == []


def test_interrupted(scene: Scene) -> None:
    """Ctrl-C at the question: exit code 130, nothing is done, the terminal echoes, no agent is left."""
    with ask(scene.people.alice) as terminal:
        terminal.type("\x03")
        assert terminal.end() == 130, terminal.shown
        assert "Traceback" not in terminal.shown
        assert terminal.echoes()

    assert FRESH not in targets(scene.root)
    assert agents() == []
    assert outcome(scene.alice, MANAGE) == "denied"


def test_polkit_killed_at_the_question(scene: Scene) -> None:
    """polkitd dies while the person types: refused with an error, and the next attempt works."""
    with ask(scene.people.alice) as terminal:
        os.kill(int(show("MainPID", "polkit")), signal.SIGKILL)
        assert terminal.end() == 4, terminal.shown
        assert terminal.echoes()
    with ask(scene.people.alice) as terminal:
        terminal.type(f"{PASSWORD}\n")
        assert terminal.end() == 0, terminal.shown


def test_own_figures_ask_for_no_password(scene: Scene) -> None:
    """On a terminal, what everybody may see is shown at once, without a prompt."""
    for words in (["users"], ["flows", "--own"], ["user", "alice"], ["status"]):
        with Terminal(scene.people.alice, "/usr/bin/netmonctl", "--no-pager", *words) as terminal:
            assert terminal.end() == 0, terminal.shown
            assert "Password" not in terminal.shown


@pytest.mark.parametrize("redirected", ["</dev/null", "</dev/null >/dev/null 2>&1"])
def test_scripts_are_never_asked(scene: Scene, redirected: str) -> None:
    """Not on a terminal with both input and output, nobody is there to ask: refused at once, exit code 4."""
    with Terminal(
        scene.people.alice, "/bin/sh", "-c", f"{' '.join(ADD)} {redirected}; echo code=$?"
    ) as terminal:
        assert terminal.end() == 0
        assert "code=4" in terminal.shown
        assert "AUTHENTICATING" not in terminal.shown

    done = scene.people.alice.run(*ADD)
    assert (done.returncode, agents()) == (4, [])
