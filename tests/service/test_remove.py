"""Removing keeps what is the users' and the administrator's; purging leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import answers, apt, busctl, ctl, install, main_pid, run, show, systemctl
from tests.service.programs import Objects, alive, held_by
from tests.service.talk import Talker

_STATE = Path("/var/lib/netmond")
_LOGS = Path("/var/log/netmond")
_CONFIGURATION = Path("/etc/netmond")
#: Where apt keeps archives, and systemd what it knows of the unit that runs these tests.
_OTHERS = ("/var/cache/apt", "/var/lib/apt", "/run/systemd", "/run/log", "/var/log/journal")
_PINS = Path("/sys/fs/bpf/netmond")


@pytest.fixture(scope="module")
def removed(installed: None, people: None, far: object) -> Objects:
    """The packages are removed, but not purged; what the daemon had in the kernel."""
    talker = Talker("erin")
    talker.exchange(23, 101)
    talker.close()
    objects = held_by(main_pid())
    apt("remove", "netmond", "netmonctl")
    return objects


@pytest.fixture(scope="module")
def purged(removed: Objects) -> str:
    """The packages are purged; what apt said."""
    return apt("purge", "netmond", "netmonctl")


def left() -> list[str]:
    """Files by its name."""
    found = run("find", "/etc", "/usr", "/var", "/run", "-iname", "*netmon*", check=False).out.splitlines()
    return [path for path in found if not path.startswith(_OTHERS)]


def activatable() -> str:
    """What the bus can have started."""
    return busctl("list", "--activatable", "--no-legend").out


def test_service_is_gone(removed: Objects) -> None:
    """No unit, no process, no name on the bus, and nothing that a message could start."""
    assert show("LoadState") == "not-found"
    assert run("pgrep", "-u", "netmond", check=False).out == ""
    assert not answers()
    eventually(lambda: "org.netmond1" not in activatable(), "the bus has read its directory again")


def test_programs_are_unloaded(removed: Objects) -> None:
    """Nothing of it is left in the kernel, no pin either."""
    eventually(lambda: not alive(removed), "the kernel has freed what it had")
    assert not _PINS.exists()


def test_data_is_kept(removed: Objects) -> None:
    """Logs, state and configuration survive: the package may come back."""
    assert list(_LOGS.rglob("*.log"))
    assert list(_STATE.iterdir())
    assert (_CONFIGURATION / "netmond.toml").is_file()
    assert run("getent", "passwd", "netmond").code == 0


def test_purge_leaves_nothing(purged: str) -> None:
    """Neither files nor directories, and no warning about one that is not empty."""
    for path in (_STATE, _LOGS, _CONFIGURATION, _PINS):
        assert not path.exists(), path
    assert "not empty" not in purged
    # systemd removes a unit's own /var/tmp in the background.
    eventually(lambda: left() == [], "nothing has its name")
    assert systemctl("--failed", "--no-legend").out == ""


def test_comes_back_as_new(purged: str) -> None:
    """An installation after a purge is a first one."""
    install()

    eventually(answers, "netmond is on the bus")
    assert ctl("status").code == 0
    assert "erin" not in ctl("users", "--no-legend").out
