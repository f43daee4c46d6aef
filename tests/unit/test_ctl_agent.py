"""How netmonctl comes to a password prompt: when it asks a second time, and polkit's text agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netmonctl import client as client_module
from netmonctl.agent import text_agent
from netmonctl.calls import Call, translated
from netmonctl.client import Client
from netmonctl.errors import CtlError, ExitCode, NotAllowed


class Guarded:
    """A netmond that takes a password for everything; `opens`: the person knows it."""

    def __init__(self, opens: bool = True) -> None:
        self.opens = opens
        self.calls: list[Call] = []

    def call(self, call: Call) -> list[Any]:
        self.calls.append(call)
        if call.interactive and self.opens:
            return [[]]
        raise NotAllowed("you may not")

    def close(self) -> None:
        pass


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happened to the text agent, which is replaced."""
    told: list[str] = []

    @contextmanager
    def agent() -> Iterator[None]:
        told.append("started")
        yield
        told.append("ended")

    monkeypatch.setattr(client_module, "text_agent", agent)
    return told


def interactive(guarded: Guarded) -> Client:
    client = Client(guarded)
    client.interactive = True
    return client


def test_asks_again_with_an_agent(agents: list[str]) -> None:
    """Refused, the same call is made once more while an agent runs, and may take a person's time."""
    guarded = Guarded()

    assert interactive(guarded).reload() == []

    first, second = guarded.calls
    assert not first.interactive
    assert second == replace(first, interactive=True)
    assert agents == ["started", "ended"]


def test_does_not_ask(agents: list[str]) -> None:
    """Not interactive: one call, no agent. That is the default, also for shell completion."""
    guarded = Guarded()

    with pytest.raises(NotAllowed) as caught:
        Client(guarded).reload()

    assert caught.value.code == ExitCode.NOT_ALLOWED
    assert len(guarded.calls) == 1
    assert agents == []


def test_what_is_repeated_asks_once(agents: list[str]) -> None:
    """--watch makes the same call again and again: nobody is asked a second time. Another call may ask."""
    guarded = Guarded()
    client = interactive(guarded)

    client.remove_targets(["192.0.2.1"])
    with pytest.raises(NotAllowed):
        client.remove_targets(["192.0.2.1"])
    client.remove_targets(["192.0.2.2"])

    assert [call.interactive for call in guarded.calls] == [False, True, False, False, True]


def test_wrong_password(agents: list[str]) -> None:
    """The second refusal is the answer, and the agent is ended."""
    with pytest.raises(NotAllowed):
        interactive(Guarded(opens=False)).reload()


def test_only_netmond_refuses_so() -> None:
    """Of other errors, and of the bus's refusals, no password makes anything else."""
    assert isinstance(translated("org.netmond1.Error.AccessDenied", "no"), NotAllowed)
    for name in ("org.freedesktop.DBus.Error.AccessDenied", "org.netmond1.Error.LimitExceeded"):
        assert not isinstance(translated(name, "no"), NotAllowed)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all there is to find programs in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("XDG_SESSION_ID", raising=False)
    return tmp_path


def install(tools: Path, script: str) -> None:
    """Make this Python program the agent."""
    program = tools / "pkttyagent"
    program.write_text(f"#!{sys.executable}\n{script.replace('{tools}', str(tools))}")
    program.chmod(0o755)


AGENT = """
import os, signal, sys

def end(*_):
    print("ended", file=log, flush=True)
    sys.exit()

log = open("{tools}/log", "w")
print(*sys.argv[1:], file=log, flush=True)
signal.signal(signal.SIGTERM, end)
os.close(int(sys.argv[2]))
signal.pause()
"""


@pytest.mark.parametrize(("session", "options"), [("", ""), ("3", " --fallback")])
def test_agent_runs_meanwhile(
    tools: Path, monkeypatch: pytest.MonkeyPatch, session: str, options: str
) -> None:
    """It is ready before the call and gone after it; a desktop's agent goes first where one may be."""
    if session:
        monkeypatch.setenv("XDG_SESSION_ID", session)
    install(tools, AGENT)

    with text_agent():
        (arguments,) = (tools / "log").read_text().splitlines()

    words = arguments.split()
    assert words[0] == "--notify-fd"
    assert words[1].isdecimal()
    assert arguments.endswith(f"{words[1]}{options}")
    assert (tools / "log").read_text().splitlines()[1:] == ["ended"]


def test_agent_ends_however_the_call_ends(tools: Path) -> None:
    """An error of the call is that of the block."""
    install(tools, AGENT)

    with pytest.raises(CtlError, match="no answer"), text_agent():
        raise CtlError("no answer")

    assert "ended" in (tools / "log").read_text()


def test_no_agent(tools: Path) -> None:
    """Without polkit's tools, or with an agent that fails, the call is made all the same."""
    before = len(os.listdir("/proc/self/fd"))

    with text_agent():
        pass
    install(tools, "raise SystemExit(1)")
    with text_agent():
        pass

    assert len(os.listdir("/proc/self/fd")) == before
