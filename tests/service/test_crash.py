"""However the daemon ends it comes back, unless it was told to end: then nothing of it stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.inside import (
    UNIT,
    answers,
    apt,
    ctl,
    ctl_json,
    described,
    journal,
    main_pid,
    restart,
    run,
    show,
    systemctl,
)
from tests.service.programs import alive, held_by
from tests.service.talk import DEVICE, NOTHING, Talker, echoed, of_users, total

pytestmark = pytest.mark.usefixtures("installed")

_DROP_IN = Path(f"/run/systemd/system/{UNIT}.d/test.conf")


@pytest.fixture(scope="module", autouse=True)
def _bpftool(repository: None) -> None:
    apt("install", "--no-install-recommends", "bpftool", "iproute2")


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """Each test has its own count of failures; the service runs afterwards."""
    systemctl("reset-failed", UNIT, check=False)
    yield
    if not answers():
        restart()


def back(old: int) -> int:
    """Waits until another process than the old one serves; its pid. The watchdog alone takes 15 s."""

    def other() -> int:
        pid = main_pid()
        return pid if pid not in (0, old) and show("ActiveState") == "active" and answers() else 0

    return eventually(other, "the service is back", within=2 * DEADLINE)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_comes_back(
    talkers: dict[str, Talker], number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    """After a crash and after being killed; the new one has the programs, counts and targets of the old."""
    ctl("target", "add", "192.0.2.7")
    request.addfinalizer(lambda: ctl("target", "remove", "192.0.2.7", check=False))
    talkers["erin"].exchange(23, 101)
    counted = of_users()["erin"]
    old = main_pid()
    programs = held_by(old)["prog"]

    os.kill(old, number)

    assert held_by(back(old))["prog"] == programs
    assert show("NRestarts") == "1"
    assert of_users()["erin"] == counted
    assert [row["address"] for row in ctl_json("target", "list")] == ["192.0.2.7"]


def test_counts_again_after_a_crash(talkers: dict[str, Talker]) -> None:
    """To the byte, for sockets that were there before as well."""
    talkers["erin"].exchange(1, 101)
    old = main_pid()
    os.kill(old, signal.SIGKILL)
    back(old)
    before = of_users().get("erin", NOTHING)

    talkers["erin"].exchange(23, 101)

    assert of_users()["erin"] == total(before, echoed(23, 101))


def test_hang() -> None:
    """A daemon that no longer ticks is ended by the watchdog and started again."""
    _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    _DROP_IN.write_text("[Service]\nWatchdogSec=4\n")
    systemctl("daemon-reload")
    old = restart()
    try:
        os.kill(old, signal.SIGSTOP)

        back(old)
        said = [str(entry["MESSAGE"]) for entry in journal(f"--unit={UNIT}", "--lines=50")]
        assert [line for line in said if "Watchdog timeout" in line]
    finally:
        _DROP_IN.unlink()
        systemctl("daemon-reload")
        restart()


def test_restart_keeps_the_totals(talkers: dict[str, Talker]) -> None:
    """What users had before a restart they have after it, exactly, and counting goes on from there."""
    talkers["erin"].exchange(23, 101)
    talkers["frank"].exchange(29, 307)
    before, since = of_users(), described()["since"]

    restart()

    after = of_users()
    assert {name: after[name] for name in talkers} == {name: before[name] for name in talkers}
    assert described()["since"] == since
    talkers["erin"].exchange(31, 101)
    assert of_users()["erin"] == total(before["erin"], echoed(31, 101))


def test_stop_leaves_nothing(talkers: dict[str, Talker]) -> None:
    """No program, link or map of it in the kernel, no filter on the device, no process, no name."""
    talkers["erin"].exchange(1, 101)
    pid = main_pid()
    objects = held_by(pid)
    assert alive(objects)["prog"] == objects["prog"]

    systemctl("stop", UNIT)

    eventually(lambda: not alive(objects), "the kernel has freed what it had")
    for side in ("ingress", "egress"):
        assert run("tc", "filter", "show", "dev", DEVICE, side, check=False).out == ""
    assert run("bpftool", "cgroup", "show", "/sys/fs/cgroup").out == ""
    assert not Path(f"/proc/{pid}").exists()
    assert list(Path("/sys/fs/bpf/netmond").iterdir()) == []
    assert not answers()
    assert show("Result") == "success"
