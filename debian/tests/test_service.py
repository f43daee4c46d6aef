"""The service as installing the package has started it: what it counts, tells and refuses here."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

DATAGRAMS, SIZE = 23, 1000
HEADERS = 20 + 8  # IPv4, UDP

#: Sends datagrams to itself.
TRAFFIC = f"""
import socket
near, far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
far.bind(("127.0.0.1", 0))
near.connect(far.getsockname())
for _ in range({DATAGRAMS}):
    near.send(bytes({SIZE}))
    far.recv({SIZE})
"""


def run(*command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, user=user, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
    )


def figures(user: str) -> dict[str, Any]:
    """What netmonctl tells everybody about themselves."""
    done = run("netmonctl", "users", "--json", user=user)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return next((row for row in rows if row["user"] == user), {"in_packets": 0, "in_bytes": 0})


def eventually(condition: Callable[[], Any]) -> None:
    """Asks until the condition is met, half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def main_pid() -> str:
    return run("systemctl", "show", "--property=MainPID", "netmond").stdout


def test_runs() -> None:
    """It is active and enabled, and netmonctl reaches it."""
    assert run("systemctl", "is-active", "netmond").stdout == "active\n"
    assert run("systemctl", "is-enabled", "netmond").stdout == "enabled\n"
    assert run("netmonctl", "status").returncode == 0


def test_counts() -> None:
    """A user's datagrams are counted to the byte, and he may see it."""
    before = figures("nobody")
    run(sys.executable, "-c", TRAFFIC, user="nobody").check_returncode()

    eventually(lambda: figures("nobody")["in_packets"] >= before["in_packets"] + DATAGRAMS)

    after = figures("nobody")
    assert after["in_packets"] == before["in_packets"] + DATAGRAMS
    assert after["in_bytes"] == before["in_bytes"] + DATAGRAMS * (SIZE + HEADERS)


def test_refuses() -> None:
    """An ordinary user sees nobody else's figures and changes nothing."""
    assert run("netmonctl", "user", "root", user="nobody").returncode == 4
    assert run("netmonctl", "target", "add", "192.0.2.1", user="nobody").returncode == 4


def test_reloads() -> None:
    """systemctl reload has it read its configuration again."""
    assert run("systemctl", "reload", "netmond").returncode == 0


def test_killed() -> None:
    """After a kill it comes back by itself."""
    before = main_pid()
    run("systemctl", "kill", "--signal=KILL", "netmond").check_returncode()

    eventually(lambda: run("netmonctl", "status").returncode == 0)

    assert main_pid() != before
