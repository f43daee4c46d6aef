"""Whatever happens to the service, the kernel goes on counting and nothing is lost; a stop means stop."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import UNIT, answers, ctl, main_pid, restart, run, show, systemctl
from tests.service.programs import alive, held_by
from tests.service.talk import NOTHING, Talker, echoed, of_users, total

pytestmark = pytest.mark.usefixtures("installed")

PINS = Path("/sys/fs/bpf/netmond")
RUN = Path("/run/netmond")
_DROP_IN = Path("/etc/netmond/netmond.d/test.toml")


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    systemctl("reset-failed", UNIT, check=False)
    yield
    if _DROP_IN.exists() or not answers():
        _DROP_IN.unlink(missing_ok=True)
        restart()


@pytest.fixture
def erin(talkers: dict[str, Talker]) -> Talker:
    talkers["erin"].exchange(1, 101)
    return talkers["erin"]


def counted() -> tuple[int, int, int, int]:
    return of_users().get("erin", NOTHING)


def generations() -> set[str]:
    """Builds of which something is pinned."""
    return {path.name for path in PINS.iterdir()} if PINS.is_dir() else set()


def test_while_it_is_away(erin: Talker) -> None:
    """After SIGKILL nobody is there for half a second: what passes then is counted, exactly, by the same
    programs, and the next daemon takes them up."""
    before, old = counted(), main_pid()
    programs, pinned = held_by(old)["prog"], generations()

    os.kill(old, signal.SIGKILL)
    erin.exchange(23, 101)

    eventually(lambda: main_pid() not in (0, old) and answers(), "the service is back")
    assert counted() == total(before, echoed(23, 101))
    assert held_by(main_pid())["prog"] == programs
    assert generations() == pinned


def test_over_a_restart(erin: Talker) -> None:
    """Traffic that does not wait for the restart is counted to the byte."""
    before = counted()
    restarting = subprocess.Popen(["systemctl", "restart", UNIT])

    sent = NOTHING
    while restarting.poll() is None:
        erin.exchange(7, 101)
        sent = total(sent, echoed(7, 101))

    assert restarting.returncode == 0
    assert sent > NOTHING
    assert counted() == total(before, sent)


def test_a_stop_is_a_stop(erin: Talker) -> None:
    """What passes while the service is stopped is not counted, and no program stays."""
    before, objects = counted(), held_by(main_pid())

    systemctl("stop", UNIT)

    eventually(lambda: not alive(objects), "the kernel has freed everything")
    assert generations() == set()
    assert not list(RUN.glob("*.checkpoint"))
    erin.exchange(23, 101)
    systemctl("start", UNIT)
    assert counted() == before


def test_an_orderly_end_is_a_stop() -> None:
    """As after `systemctl kill`: nobody starts the daemon again, so nothing is to count for it."""
    objects = held_by(main_pid())

    systemctl("kill", UNIT)

    eventually(lambda: show("ActiveState") == "inactive", "it has ended")
    eventually(lambda: not alive(objects), "the kernel has freed everything")
    systemctl("start", UNIT)


def test_counting_while_stopped(erin: Talker) -> None:
    """If the configuration says so, the kernel counts on while the service is stopped, until --detach."""
    _DROP_IN.parent.mkdir(exist_ok=True)
    _DROP_IN.write_text('[daemon]\nkeep_counting = "always"\n')
    restart()
    before, objects = counted(), held_by(main_pid())

    systemctl("stop", UNIT)
    erin.exchange(23, 101)
    systemctl("start", UNIT)

    assert counted() == total(before, echoed(23, 101))
    systemctl("stop", UNIT)
    assert alive(objects)
    run("netmond", "--detach")
    assert generations() == set()
    eventually(lambda: not alive(objects), "the kernel has freed everything")


def test_not_at_all(erin: Talker) -> None:
    """Without it nothing is pinned, as the status says; what there was before goes on."""
    before = counted()
    _DROP_IN.parent.mkdir(exist_ok=True)
    _DROP_IN.write_text('[daemon]\nkeep_counting = "never"\n')
    restart()

    assert generations() == set()
    assert counted() == before
    assert "switched off by [daemon] keep_counting" in ctl("status").out


def test_a_running_one_is_not_detached(erin: Talker) -> None:
    """--detach refuses, and changes nothing."""
    before, pinned = counted(), generations()

    refused = run("netmond", "--detach", check=False)

    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith("netmond: another netmond uses /run/netmond")
    assert generations() == pinned
    erin.exchange(23, 101)
    assert counted() == total(before, echoed(23, 101))


def _acted(old: int) -> bool:
    """Whether systemd has started another daemon than the old one, or given up."""
    return main_pid() not in (0, old) or show("ActiveState") == "failed"


@pytest.fixture
def long_memory() -> Iterator[None]:
    """The service manager gives up after so many starts in an hour: in a minute a slow machine has fewer."""
    drop_in = Path(f"/run/systemd/system/{UNIT}.d/test.conf")
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text("[Unit]\nStartLimitIntervalSec=1h\n")
    systemctl("daemon-reload")
    yield
    drop_in.unlink()
    systemctl("daemon-reload")


@pytest.mark.usefixtures("long_memory")
def test_crash_loop(erin: Talker) -> None:
    """When systemd gives up, the kernel goes on counting: the start by hand finds it all."""
    before = counted()
    for _ in range(11):
        old = main_pid()
        if not old:
            break
        os.kill(old, signal.SIGKILL)
        eventually(partial(_acted, old), "systemd has acted")
    assert show("ActiveState") == "failed"

    erin.exchange(23, 101)

    systemctl("reset-failed", UNIT)
    systemctl("start", UNIT)
    assert counted() == total(before, echoed(23, 101))
