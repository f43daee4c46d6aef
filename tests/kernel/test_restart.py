"""Totals over a restart: of users, units, processes and targets, what they were and what came after."""

from __future__ import annotations

import signal

import pytest

from tests.kernel.agent import Agent
from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.running import Netmond, counted, total
from tests.kernel.test_degraded import in_mounts

OTHER = 1237
PEER = "10.23.1.2"


class Talk:
    """Two users of two units with a UDP socket each, which outlive every daemon."""

    def __init__(self, scene: Scene) -> None:
        self.unit = scene.machine.cgroup(f"{scene.slice.path}/bar.service")
        self._users = {USER: scene.user(), OTHER: scene.user(OTHER, cgroup=self.unit)}
        port = scene.server().do("echo_server", local=[PEER, 0])
        for user in self._users.values():
            user.do("udp", name="a", peer=[PEER, port])

    def exchange(self, uid: int, count: int) -> None:
        """So many datagrams of 101 bytes there and back."""
        self._users[uid].do("exchange", name="a", count=count, size=101)

    def agent(self, uid: int) -> Agent:
        return self._users[uid]


def echoes(count: int) -> Figures:
    return Figures(*(count, count * 129) * 2)


def unit(netmond: Netmond, name: str) -> Figures:
    (row,) = [row for row in netmond.rows("Units") if row["unit"] == name]
    return counted(row)


def test_everything_goes_on(scene: Scene) -> None:
    """Exactly, over two restarts, with sockets that stay open all the time: what is counted is what was sent
    while a daemon was running. Flows begin anew: they are those of this run."""
    netmond, talk = scene.netmond(config={"targets.addresses": [PEER]}), Talk(scene)
    netmond.add_targets("10.23.1.1")
    began = netmond.status()
    assert began["since"] == began["started"]
    since = {row["address"]: row["since"] for row in netmond.rows("Targets")}

    for number in (1, 2, 3):
        talk.exchange(USER, 23)
        talk.exchange(OTHER, 1009)
        assert netmond.user(USER) == echoes(23 * number)
        assert netmond.user(OTHER) == echoes(1009 * number)
        assert unit(netmond, scene.unit.name) == echoes(23 * number)
        assert unit(netmond, talk.unit.name) == echoes(1009 * number)
        # The process of an older socket is not known at once: what came before is in a row without.
        assert total(netmond.rows("Processes", user=str(USER))) == echoes(23 * number)
        assert netmond.target(PEER) == echoes(1032 * number)
        assert netmond.target("10.23.1.1") == echoes(1032 * number)
        (flow,) = netmond.flows(USER)
        assert counted(flow) == echoes(23)
        assert netmond.stop() == 0
        talk.exchange(USER, 7)  # nobody counts
        netmond.start()

    status = netmond.status()
    assert status["since"] == began["since"]
    assert status["started"] > began["started"]
    assert {row["address"]: row["since"] for row in netmond.rows("Targets")} == since
    lines = netmond.ctl("status").out.splitlines()
    assert [line.partition(": ")[0].strip() for line in lines[1:3]] == ["Since", "Counting"]
    assert lines[2].startswith("  Counting: since ")


def test_those_who_are_gone_stay_in_the_lists(scene: Scene) -> None:
    """A user and a unit without any socket after the restart have their totals, and no flow."""
    netmond, talk = scene.netmond(), Talk(scene)
    talk.exchange(OTHER, 23)
    talk.agent(OTHER).close()
    netmond.stop()
    netmond.start()

    (row,) = [row for row in netmond.rows("Users") if row["uid"] == OTHER]
    assert (counted(row), row["flows"], row["byte_rate"]) == (echoes(23), 0, 0.0)
    assert unit(netmond, talk.unit.name) == echoes(23)
    (own,) = netmond.rows("Units", user=str(OTHER))
    assert (own["unit"], own["cgroup"], counted(own)) == (talk.unit.name, talk.unit.path, echoes(23))


def test_sigkill_loses_what_was_not_saved(scene: Scene) -> None:
    """The next daemon goes on from what was saved last, here by a reload; nothing is doubled."""
    netmond, talk = scene.netmond(config={"targets.addresses": [PEER]}), Talk(scene)
    talk.exchange(USER, 1009)
    netmond.settle()
    assert netmond.ctl("reload").code == 0
    talk.exchange(USER, 2003)
    netmond.settle()

    netmond.stop(signal.SIGKILL)
    netmond.start()
    talk.exchange(USER, 23)

    assert netmond.user(USER) == echoes(1009 + 23)
    assert unit(netmond, scene.unit.name) == echoes(1009 + 23)
    assert netmond.target(PEER) == echoes(1009 + 23)


def test_target_changes_survive_sigkill(scene: Scene) -> None:
    """What was answered is on the disk: a target that was added is there, one reset counts from then, and
    one removed is gone."""
    netmond, talk = scene.netmond(), Talk(scene)
    netmond.add_targets(PEER, "10.23.1.1", "192.0.2.7")
    talk.exchange(USER, 1009)
    netmond.settle()
    netmond.call("ResetTargets", ("as", "a{sv}"), [PEER], {})
    netmond.call("RemoveTargets", ("as", "a{sv}"), ["192.0.2.7"], {})
    before = {row["address"]: row["since"] for row in netmond.peek("Targets")}

    netmond.stop(signal.SIGKILL)
    netmond.start()
    talk.exchange(USER, 23)

    assert netmond.target(PEER) == echoes(23)
    assert netmond.target("10.23.1.1") == echoes(1032)
    assert {row["address"]: row["since"] for row in netmond.peek("Targets")} == before


def test_another_boot(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the machine was booted all counting begins anew; targets added by hand are there."""
    netmond, talk = scene.netmond(config={"targets.addresses": [PEER]}), Talk(scene)
    netmond.add_targets("10.23.1.1")
    talk.exchange(USER, 1009)
    netmond.stop()

    monkeypatch.setenv("NETMOND_BOOT_ID", "7" * 32)
    netmond.start()
    assert netmond.rows("Users") == []
    talk.exchange(USER, 23)

    assert netmond.user(USER) == echoes(23)
    assert netmond.target(PEER) == echoes(23)
    assert netmond.target("10.23.1.1") == echoes(23)
    status = netmond.status()
    assert status["since"] == status["started"]


def test_a_damaged_file(scene: Scene) -> None:
    """The daemon starts, says so in one line, keeps the file and counts anew."""
    netmond, talk = scene.netmond(), Talk(scene)
    talk.exchange(USER, 1009)
    netmond.stop()
    file = netmond.state / "state.jsonl"
    file.write_text(file.read_text().replace("1009", "2009"))

    netmond.start()
    talk.exchange(USER, 23)

    assert netmond.user(USER) == echoes(23)
    assert sum("cannot use the saved totals" in line for line in netmond.log.splitlines()) == 1
    assert "2009" in (netmond.state / "state.unusable").read_text()


def test_the_journal_says_each_byte_once(scene: Scene) -> None:
    """A summary names what was exchanged in its run; the farewell what users had since counting began."""
    netmond, talk = scene.netmond(), Talk(scene)
    for _ in range(2):
        talk.exchange(USER, 23)
        assert netmond.stop() == 0
        netmond.start()

    each = f"User {USER} 2.9 KiB in, 2.9 KiB out in "
    said = netmond.log.splitlines()
    assert [line[: len(each)] for line in said if line.startswith("User ")] == [each, each]
    assert [line.partition(", users had ")[2] for line in said if "stops reporting" in line] == [
        "2.9 KiB in, 2.9 KiB out",
        "5.8 KiB in, 5.8 KiB out",
    ]


def test_a_full_disk(scene: Scene) -> None:
    """Costs what a restart would take up, which the ledger says; the daemon works on and ends in order."""
    state = scene.daemon().state
    full = f"mount -t tmpfs -o size=4k none {state}; head -c 4096 /dev/zero > {state}/fill"
    netmond = scene.netmond(around=in_mounts(full))
    assert netmond.loss("totals.not-saved") == 0

    netmond.add_targets(PEER)

    netmond.settle()
    assert netmond.loss("totals.not-saved") == 1
    assert "No space left on device; a restart now would begin with what was saved before" in netmond.log
    assert netmond.target(PEER) == echoes(0)
    assert netmond.stop() == 0
