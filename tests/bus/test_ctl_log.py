"""netmonctl log against the real service: files come over the bus, and are followed."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netmond.model import PacketLog
from tests.bus.conftest import Host, Start
from tests.bus.private import DEADLINE, ROOT, PrivateBus, unavailable
from tests.bus.snapshots import ALICE, BOB

GAMES = pwd.getpwuid(ALICE).pw_name


def row(number: int) -> str:
    return f"in,100,192.0.2.7,192.0.2.1,1700000000.5,{100 * number},0,1,443,{number},tcp,a.service,7,curl\n"


@pytest.fixture
def logs(host: Host, tmp_path: Path) -> Path:
    """A directory in which alice and bob have logs; its path is nobody's to read."""
    host.monitor.log_directory = tmp_path
    for uid in (ALICE, BOB):
        (tmp_path / f"{uid}.log").write_text(row(1))
    tmp_path.chmod(0o700)
    return tmp_path


def how(address: str, uid: int) -> dict[str, Any]:
    """What makes subprocess run netmonctl as a user, without a terminal."""
    if os.geteuid() != 0:
        unavailable("calling as other users needs root")
    environment = {"PATH": "/usr/bin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": address, "LANG": "C.UTF-8"}
    who = {"user": uid, "group": uid, "extra_groups": []}
    return {"env": environment | {"PYTHONPATH": str(ROOT)}, "text": True, "stdin": subprocess.DEVNULL, **who}


def netmonctl(host: Host, *words: str, uid: int = 0) -> tuple[int, str, str]:
    """Exit code, standard output and error of a command."""
    command = [sys.executable, "-m", "netmonctl", *words]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE, **how(host.bus.address, uid))
    return done.returncode, done.stdout, done.stderr


def test_on_and_off(host: Host) -> None:
    """What is asked reaches the daemon, and what it says comes back."""
    assert netmonctl(host, "log", "on", GAMES, "77", "--every=3") == (
        0, f"Logging one of 3 packets of {GAMES}, 77.\n", "",
    )  # fmt: skip
    assert netmonctl(host, "log", "off", "77")[0] == 0
    assert host.monitor.logs == {ALICE: PacketLog(uid=ALICE, every=3, since=1800.5)}
    code, text, _ = netmonctl(host, "log", "--no-legend")
    assert (code, text.split()[:4]) == (0, [GAMES, str(ALICE), "sample", "3"])
    assert netmonctl(host, "log", "off", "77") == (5, "", "netmonctl: packets of user 77 are not logged\n")


def test_not_for_everybody(host: Host) -> None:
    """Not even of one's own packets; the refusal says what it takes."""
    code, text, error = netmonctl(host, "log", "on", uid=ALICE)

    assert (code, text, error.count("\n")) == (4, "", 1)
    assert "org.netmond1.manage" in error
    assert netmonctl(host, "log", "--json=short", uid=ALICE)[:2] == (0, "[]\n")


def test_own_log(host: Host, logs: Path) -> None:
    """Read by somebody who cannot reach the file; others' are refused, and what is not there is told."""
    code, text, _ = netmonctl(host, "log", "tail", "--no-follow", "--json", uid=ALICE)
    assert (code, json.loads(text)["total_in"]) == (0, 100)
    assert netmonctl(host, "log", "tail", "-u", str(BOB), uid=ALICE)[0] == 4
    assert netmonctl(host, "log", "tail", "-u", str(BOB), "--no-follow")[0] == 0
    assert netmonctl(host, "log", "tail", "-u", "77") == (5, "", "netmonctl: user 77 has no log yet\n")


class Following:
    """A netmonctl that follows alice's log as herself, in JSON."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "netmonctl", "log", "tail", "--json"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how(address, ALICE)
        )

    def next(self) -> int:
        """The number of the next row."""
        assert self._process.stdout is not None
        return int(json.loads(self._process.stdout.readline())["local_port"])

    def leave(self) -> int:
        """Read nothing more: the exit code."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        code = self._process.wait(DEADLINE)
        self._process.stderr.close()
        return code

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C: the exit code, and what was written to standard error."""
        self._process.send_signal(signal.SIGINT)
        _, error = self._process.communicate(timeout=DEADLINE)
        return self._process.returncode, error


def test_follows_over_rotation(host: Host, logs: Path) -> None:
    """Rows as they come, those of the next file, too, which takes one more call."""
    path = logs / f"{ALICE}.log"
    following = Following(host.bus.address)
    assert following.next() == 1

    with path.open("a") as file:
        file.write(row(2))
    assert following.next() == 2
    path.rename(logs / "aside")
    path.write_text(row(3) + row(4)[:9])
    assert following.next() == 3
    os.truncate(logs / "aside", 0)
    (logs / "aside").unlink()
    with path.open("a") as file:
        file.write(row(4)[9:])
    assert following.next() == 4

    assert following.interrupt() == (130, "")


def test_ends_with_its_reader(host: Host, logs: Path) -> None:
    """As in ``netmonctl log tail | head -1``: it does not wait for a row that tells it."""
    following = Following(host.bus.address)
    assert following.next() == 1

    assert following.leave() == 0


def test_follows_over_a_restart(own_bus: PrivateBus, start: Start, host: Host, logs: Path) -> None:
    """Neither netmond nor the bus need be there for rows to come; afterwards the next file is found."""
    path = logs / f"{ALICE}.log"
    start(host.monitor, own_bus.address)
    following = Following(own_bus.address)
    assert following.next() == 1

    own_bus.stop()
    with path.open("a") as file:
        file.write(row(2))
    assert following.next() == 2
    path.rename(logs / "aside")
    own_bus.start()
    path.write_text(row(3))
    assert following.next() == 3

    assert following.interrupt()[0] == 130
