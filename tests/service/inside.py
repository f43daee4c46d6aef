"""What tests do inside the machine again and again: run commands, ask systemd, ask netmond over D-Bus."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.deadline import eventually

PATIENCE = 120.0 * float(os.environ.get("NETMOND_SLOWNESS", "1"))  #: seconds for a command
UNIT = "netmond.service"
_HIDDEN_ANSWERS = "answers to new IPv6 connections (SYN-ACK) are no user's: that takes Linux 6.6"


@dataclass(frozen=True, slots=True)
class Output:
    """What a command left: exit status, standard output and standard error."""

    code: int
    out: str
    err: str


def run(*argv: str, user: str = "", text: str = "", check: bool = True) -> Output:
    """Runs a command, as root or a user; AssertionError with its output if it must succeed and does not."""
    words: list[str] = []
    if user:
        group = pwd.getpwnam(user).pw_gid
        words = ["setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", "--"]
    done = subprocess.run(
        [*words, *argv],
        input=text,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
    assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return Output(done.returncode, done.stdout, done.stderr)


def apt(*words: str) -> str:
    """apt-get without questions; what it said."""
    done = run("apt-get", "--yes", "-o=Dpkg::Use-Pty=0", *words)
    return done.out + done.err


def install(*words: str) -> str:
    """What an administrator does with the two packages under test; extra words are options of apt-get."""
    debs = sorted(str(deb) for deb in Path("/opt/apt").glob("netmon*.deb"))
    return apt("install", *words, *debs)


# -- the service manager -----------------------------------------------------------------------------------


def systemctl(*words: str, check: bool = True) -> Output:
    return run("systemctl", "--no-pager", *words, check=check)


def show(name: str, unit: str = UNIT) -> str:
    """A property of a unit."""
    return systemctl("show", f"--property={name}", "--value", unit).out.strip()


def is_active() -> bool:
    return show("ActiveState") == "active"


def main_pid() -> int:
    """The pid of the daemon, 0 if there is none."""
    return int(show("MainPID"))


def restart() -> int:
    """Restarts the service and returns the new pid; earlier restarts do not count against its limit."""
    systemctl("reset-failed", UNIT, check=False)
    systemctl("restart", UNIT)
    return main_pid()


# -- netmond on the bus ------------------------------------------------------------------------------------


def busctl(*words: str, user: str = "", check: bool = True) -> Output:
    patience = f"--timeout={PATIENCE / 2:.0f}"
    return run("busctl", "--system", "--json=short", patience, *words, user=user, check=check)


def call(member: str, signature: str = "", *arguments: str, user: str = "") -> Any:
    """A method of the manager; its results as plain values: a list, or the value if there is only one."""
    words = ["org.netmond1", "/org/netmond1", "org.netmond1.Manager", member]
    done = busctl("call", *words, *([signature] if signature else []), *arguments, user=user)
    results = [_plain(value) for value in json.loads(done.out)["data"]] if done.out.strip() else []
    return results[0] if len(results) == 1 else results


def rows(what: str, *, user: str = "") -> list[dict[str, Any]]:
    """All rows of a list such as Users, as a user sees them."""
    found, _ = call(f"List{what}", "a{sv}", "1", "limit", "u", "0", user=user)
    return list(found)


def described() -> dict[str, Any]:
    """The whole status."""
    return dict(json.loads(call("Describe")))


def complaints() -> dict[str, str]:
    """Features that do not work, or not in full, and why; without what the meter lacks before 6.6, and RDMA
    where there is no device for it."""
    found = {each["name"]: each["reason"] for each in described()["features"] if each["state"] != "on"}
    if found.get("rdma") == "no RDMA device":
        del found["rdma"]
    major, minor = map(int, os.uname().release.split(".")[:2])
    if (major, minor) < (6, 6):
        assert found.pop("meter") == _HIDDEN_ANSWERS
    return found


def answers() -> bool:
    """Whether netmond is on the bus; does not start it."""
    words = ["org.netmond1", "/org/netmond1", "org.freedesktop.DBus.Peer", "Ping"]
    return busctl("--auto-start=no", "call", *words, check=False).code == 0


def next_tick() -> None:
    """Waits until everything that has happened so far is in the figures."""
    seen = int(described()["tick"])
    eventually(lambda: int(described()["tick"]) > seen, "the next tick")


def ctl(*words: str, user: str = "", check: bool = True) -> Output:
    """netmonctl."""
    return run("netmonctl", *words, user=user, check=check)


def ctl_json(*words: str, user: str = "") -> Any:
    return json.loads(ctl(*words, "--json=short", user=user).out)


def sync_journal() -> None:
    """Waits until journald, which reads at its own pace, has written all that it was sent so far."""
    run("journalctl", "--sync")


def moment() -> str:
    """Now, for journal(f"--since={...}"): whatever was said before comes with an earlier time.

    A cursor would lose the first entry if it stands at one that other options leave out (systemd 252).
    """
    sync_journal()
    return f"@{time.time():.6f}"


def journal(*words: str) -> list[dict[str, Any]]:
    """Entries of the journal, oldest first, as journalctl -o json has them: all that was said so far."""
    sync_journal()
    done = run("journalctl", "--no-pager", "--output=json", *words)
    return [json.loads(line) for line in done.out.splitlines()]


def _plain(value: Any) -> Any:
    """Without the types that busctl writes beside the value of each variant."""
    if isinstance(value, dict):
        if value.keys() == {"type", "data"}:
            return _plain(value["data"])
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
