"""A newer package replaces the running service; what the administrator and the users have is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import answers, apt, ctl_json, described, main_pid, rows, run, show, systemctl
from tests.service.programs import alive, held_by
from tests.service.talk import NOTHING, Figures, Talker, echoed, of_users, total

_CONFIGURATION = Path("/etc/netmond/netmond.toml")
_DEFAULT = "#addresses = []"
_CHANGE = 'addresses = ["192.0.2.99"]  # ours'


class Before:
    """The machine as it was when the upgrade began."""

    def __init__(self) -> None:
        self.version = str(described()["version"])
        self.pid = main_pid()
        self.objects = held_by(self.pid)
        self.users: dict[str, Figures] = of_users()
        self.sent = NOTHING  #: by erin, while the upgrade was going on
        self.uids = {row["uid"] for row in rows("Users")}
        logs = eventually(lambda: list(Path("/var/log/netmond").rglob("*.log")), "users have logs")
        self.csv = {path: path.stat().st_size for path in logs}


@pytest.fixture(scope="module")
def upgraded(installed: None, people: None, far: object) -> Before:
    """A changed configuration and some traffic, then the newer packages; how it was before."""
    _CONFIGURATION.write_text(_CONFIGURATION.read_text().replace(_DEFAULT, _CHANGE))
    systemctl("reload", "netmond")
    talker = Talker("erin")
    talker.exchange(23, 101)
    before = Before()
    with ThreadPoolExecutor() as thread:
        newer = sorted(str(deb) for deb in Path("/opt/newer").glob("netmon*.deb"))
        upgrading = thread.submit(apt, "install", *newer)
        while not upgrading.done():
            talker.exchange(7, 101)
            before.sent = total(before.sent, echoed(7, 101))
        upgrading.result()
    talker.close()
    eventually(answers, "netmond is on the bus")
    return before


def test_newer_version_runs(upgraded: Before) -> None:
    """The service was restarted by the upgrade; daemon and client are the newer ones."""
    version = described()["version"]

    assert version != upgraded.version
    assert "newer" in version
    assert main_pid() != upgraded.pid
    assert "newer" in run("netmonctl", "--version").out
    assert show("ActiveState") == "active"
    assert show("NRestarts") == "0"


def test_configuration_is_kept(upgraded: Before) -> None:
    """What the administrator has changed stays, and is in force."""
    assert _CHANGE in _CONFIGURATION.read_text()
    assert [row["address"] for row in rows("Targets")] == ["192.0.2.99"]


def test_counts_are_kept(upgraded: Before) -> None:
    """The users' totals go on, with what passed during the upgrade, to the byte: the newer programs took the
    older ones' place one by one, and what those had counted was read in their layout."""
    after = of_users()

    assert upgraded.users["erin"][0] >= 23
    assert upgraded.sent > NOTHING
    assert after["erin"] == total(upgraded.users["erin"], upgraded.sent)
    assert {row["uid"] for row in ctl_json("users")} >= upgraded.uids


def test_logs_are_kept(upgraded: Before) -> None:
    """The users' files are still there, and none has become shorter."""
    assert upgraded.csv
    for path, size in upgraded.csv.items():
        assert path.stat().st_size >= size


def test_old_programs_are_gone(upgraded: Before) -> None:
    """Nothing counts twice: the old programs and maps have left the kernel, the links run the new ones."""
    programs_and_maps = {kind: ids for kind, ids in upgraded.objects.items() if kind != "link"}
    eventually(lambda: not alive(programs_and_maps), "the kernel has freed what the old one had")
    # Beside them there is, for a moment, that of the search for the owners of older sockets.
    eventually(lambda: held_by(main_pid())["link"] == upgraded.objects["link"], "the links are the same")


def test_nothing_else_was_touched(upgraded: Before) -> None:
    """No file beside the changed configuration differs from the package, and no unit has failed."""
    assert run("dpkg", "--verify", "netmonctl", check=False).out == ""
    differing = run("dpkg", "--verify", "netmond", check=False).out.splitlines()
    assert [line.split()[-1] for line in differing] == [str(_CONFIGURATION)]
    assert systemctl("--failed", "--no-legend").out == ""
