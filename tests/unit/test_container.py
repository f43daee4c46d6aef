"""The container image's entry point: a system bus if there is none, then netmond in its place."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).parents[2] / "packaging/container/entrypoint"

#: Says who it is, what it was told, and its pid.
_STAND_IN = '#!/bin/sh\necho "${0##*/} $* $$"\n'
#: /run of its own, prepared by $1; then the entry point, in a process whose pid it says first.
_IN_A_CONTAINER = 'mount -t tmpfs tmpfs /run; eval "$1"; shift; echo "started $$"; exec "$@"'


def run(directory: Path, prepare: str) -> list[list[str]]:
    """What the entry point runs, as words, if /run has been prepared like that."""
    for name in ("dbus-daemon", "netmond"):
        stand_in = directory / name
        stand_in.write_text(_STAND_IN)
        stand_in.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", _IN_A_CONTAINER, "sh", prepare, str(ENTRYPOINT), "-i", "eth0"],
        env={**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for a /run of its own")


@pytest.mark.parametrize("prepare", [":", "mkdir /run/dbus && touch /run/dbus/system_bus_socket"])
def test_bus_of_its_own(tmp_path: Path, prepare: str) -> None:
    """Without the host's bus it starts one, also where a stopped container has left a socket. netmond takes
    the place of the entry point, so that it gets the signals, with the arguments."""
    started, bus, netmond = run(tmp_path, prepare)

    assert bus[0] == "dbus-daemon"
    assert "--fork" in bus
    assert netmond == ["netmond", "-i", "eth0", started[1]]


@pytest.mark.parametrize("mounted", ["/run/dbus", "/run/dbus/system_bus_socket"])
def test_bus_of_the_host(tmp_path: Path, mounted: str) -> None:
    """If the host's bus is mounted, the directory or the socket alone, netmond uses that."""
    prepare = f"mkdir /run/dbus; touch /run/dbus/system_bus_socket; mount --bind {mounted} {mounted}"
    started, netmond = run(tmp_path, prepare)

    assert netmond == ["netmond", "-i", "eth0", started[1]]
