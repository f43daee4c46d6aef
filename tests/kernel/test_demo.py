"""What `make run` shows and leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually

ROOT = Path(__file__).resolve().parents[2]


def leftovers(pid: int) -> set[str]:
    """What a demonstration of that process id has left: namespace, interface, directory, processes."""
    namespaces = subprocess.run(["ip", "netns", "list"], text=True, capture_output=True, check=True).stdout
    processes = subprocess.run(
        ["pgrep", "-af", f"netmond-run-{pid}-"], text=True, capture_output=True, check=False
    ).stdout
    found = {line.split()[0] for line in namespaces.splitlines()} & {f"netmond-demo-{pid}"}
    found |= set(os.listdir("/sys/class/net")) & {f"nmdemo{pid % 100000}"}
    found |= {str(path) for path in Path(tempfile.gettempdir()).glob(f"netmond-run-{pid}-*")}
    return found | {f"process {line}" for line in processes.splitlines()}


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "packaging/demo/run.py", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_shows_traffic_and_ends_by_itself() -> None:
    """Status with the main features on, users and flows with bytes; afterwards nothing of it is left."""
    process = start("--seconds", "5")
    output, _ = process.communicate(timeout=60)

    for feature in ("meter", "targets", "interfaces", "bus"):
        assert f"● {feature}" in output
    assert "users listed." in output
    assert "flows listed" in output
    if "This machine is idle." in output:
        assert "nobody  65534" in output
        assert "[2001:db8:77::2]:5353" in output
        assert "198.51.100.2 " in output
    assert leftovers(process.pid) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number: signal.Signals) -> None:
    """Ctrl-C, or being told to end: everything is taken away, and no traceback is shown."""
    process = start()
    assert process.stdout is not None
    shown = [process.stdout.readline()]
    while "users listed." not in shown[-1]:
        shown.append(process.stdout.readline())
        assert shown[-1], "".join(shown)

    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "everything of ours is taken away" in rest
    assert "Traceback" not in "".join(shown) + rest
    assert leftovers(process.pid) == set()


def test_killed() -> None:
    """SIGKILL leaves no process and no program; the next start removes the namespace and the files."""
    process = start()
    assert process.stdout is not None
    while "users listed." not in process.stdout.readline():
        pass

    process.kill()
    process.communicate(timeout=30)
    eventually(lambda: not any(one.startswith("process") for one in leftovers(process.pid)))
    start("--seconds", "1").communicate(timeout=60)

    # An interface goes a moment after the namespace at its other end.
    eventually(lambda: not leftovers(process.pid), "nothing is left")
