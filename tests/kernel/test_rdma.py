"""RDMA in the whole daemon: devices of a recorded tree, packets of RoCE, and processes of two users."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from netmond.model import NOBODY_UID
from tests.kernel.agent import Agent
from tests.kernel.capture import NOTHING, Figures, send_frames
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.rdma_kernel import QUEUE_PAIRS
from tests.kernel.roce_frames import Ends, Kind
from tests.kernel.running import Row, counted
from tests.unit.rdma_tree import RdmaTree

_RDMA_KERNEL = ("-m", "tests.kernel.rdma_kernel")
_SERVICES = ("rxe0", 1, 1, 0, "GSI", "RTS", 0, "ib_core")


@dataclass(slots=True)
class User:
    """Somebody with a process and a connected queue pair."""

    uid: int
    agent: Agent
    own: int
    remote: int

    def queue_pair(self) -> tuple[Any, ...]:
        """As RDMA netlink tells it."""
        return "rxe0", 1, self.own, self.remote, "RC", "RTS", self.agent.pid, ""


class Host:
    """A near end with soft-RoCE."""

    def __init__(self, scene: Scene, directory: Path, **config: Any) -> None:
        self.scene, self.tree = scene, RdmaTree(directory)
        device = scene.link.near_device
        self.tree.rxe("rxe0", netdev=device)
        (self.tree.sys / "class/net" / device / "ifindex").write_text(f"{scene.near.index(device)}\n")
        self.tell()
        self.netmond = scene.daemon(
            cgroup=None, program=_RDMA_KERNEL, around=self._with_devices, config=config
        )
        scene.machine.bpffs(self.netmond.run / "bpf")

    def _with_devices(self, argv: list[str]) -> list[str]:
        """A mount namespace in which the kernel's own tree is replaced by the recorded one."""
        mount = 'mount --bind "$0" /sys/class && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(self.tree.sys / "class"), *argv]

    def user(self, uid: int, own: int, remote: int) -> User:
        return User(uid, self.scene.user(uid), own, remote)

    def tell(self, *queue_pairs: tuple[Any, ...]) -> None:
        """Lets RDMA netlink tell these from now on, and the kernel's own one."""
        path = self.tree.sys / "class" / QUEUE_PAIRS.name
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps([_SERVICES, *queue_pairs]))
        draft.replace(path)

    def know(self, *users: User) -> None:
        """Lets the daemon know the queue pairs of these, and no others."""
        self.tell(*(user.queue_pair() for user in users))
        numbers = {1, *(user.own for user in users)}
        eventually(lambda: self.queue_pairs().keys() == numbers, f"queue pairs {numbers} are known")

    def receive(self, qpn: int, count: int) -> Figures:
        """So many writes to a queue pair here; what that is."""
        return self._pass(self._ends, qpn, count, inward=True)

    def send(self, qpn: int, count: int) -> Figures:
        """So many writes to a queue pair at the far end."""
        ends = self._ends
        back = replace(
            ends,
            source=ends.destination,
            destination=ends.source,
            source_mac=ends.destination_mac,
            destination_mac=ends.source_mac,
        )
        return self._pass(back, qpn, count, inward=False)

    @property
    def _ends(self) -> Ends:
        link = self.scene.link
        return Ends(
            source=link.address(4, far=True),
            destination=link.address(4),
            source_mac=link.mac(far=True),
            destination_mac=link.mac(),
        )

    def _pass(self, ends: Ends, qpn: int, count: int, *, inward: bool) -> Figures:
        link, kind = self.scene.link, Kind(queue_pair=qpn)
        space, device = (link.far, link.far_device) if inward else (link.near, link.near_device)
        send_frames(space, device, [ends.frame(2, kind)] * count)
        figures = (count, count * ends.size(2, kind))
        return Figures(*figures, 0, 0) if inward else Figures(0, 0, *figures)

    def user_totals(self) -> dict[int, Figures]:
        """What users have transferred by RDMA."""
        names = [f"rdma_{name}" for name in Figures._fields]
        return {row["uid"]: Figures(*(row[name] for name in names)) for row in self.netmond.rows("Users")}

    def has_counted(self, expected: dict[int, Figures]) -> None:
        """Waits until users' totals are these; before that some may wait for a look at queue pairs."""
        eventually(lambda: expected.items() <= self.user_totals().items(), f"{expected}")

    def queue_pairs(self) -> dict[int, Row]:
        return {row["queue_pair"]: row for row in self.netmond.peek("QueuePairs")}


@pytest.fixture(scope="module")
def host(shared: Scene, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """For all tests here; each has users and numbers of its own."""
    host = Host(shared, tmp_path_factory.mktemp("devices"))
    host.netmond.start()
    return host


def test_two_users(host: Host) -> None:
    """Each has what came to the own queue pair, and what went to the one it is connected with. Flows have
    process and unit. The kernel's own queue pair is root's."""
    alice, bob = host.user(USER, 0x11, 0x12), host.user(USER + 1, 0x12, 0x13)
    host.know(alice, bob)
    expected = {
        alice.uid: host.receive(0x11, 3) + host.send(0x12, 5),
        bob.uid: host.receive(0x12, 2) + host.send(0x13, 7),
    }
    host.has_counted(expected)

    assert host.netmond.feature("rdma") == ("on", "")
    found, unit = host.queue_pairs(), host.scene.unit.name
    for user in (alice, bob):
        row = found[user.own]
        assert (row["uid"], row["pid"], row["unit"]) == (user.uid, user.agent.pid, unit)
        assert (row["device"], row["remote_queue_pair"], row["source"]) == ("rxe0", user.remote, "wire")
        assert counted(row) == expected[user.uid]
        flows = host.netmond.peek("Flows", kind="roce", user=str(user.uid))
        assert {(row["pid"], row["unit"]) for row in flows} == {(user.agent.pid, unit)}
        assert {row["queue_pair"] for row in flows} == {user.own, user.remote}
    assert (found[1]["uid"], found[1]["process"]) == (0, "ib_core")


def test_what_is_nobodys(host: Host) -> None:
    """Queue pairs that nobody tells of, or that several users are connected with, are a row of their own."""
    alice, bob = host.user(USER + 2, 0x21, 0x29), host.user(USER + 3, 0x22, 0x29)
    host.know(alice, bob)
    before = host.user_totals().get(NOBODY_UID, NOTHING)
    unknown = host.receive(0x99, 3) + host.send(0x29, 5)

    host.has_counted({alice.uid: host.receive(0x21, 2), NOBODY_UID: before + unknown})


def test_a_queue_pair_that_is_gone(host: Host) -> None:
    """What it did stays its user's, who goes on to be shown."""
    alice = host.user(USER + 5, 0x41, 0x42)
    host.know(alice)
    received = host.receive(0x41, 3)
    host.has_counted({alice.uid: received})
    host.know()

    assert host.user_totals()[alice.uid] == received
    (flow,) = (row for row in host.netmond.peek("Flows", kind="roce") if row["queue_pair"] == 0x41)
    assert flow["uid"] == alice.uid


def test_a_device_that_vanishes(host: Host) -> None:
    """Then RDMA is off, and what was counted is still there."""
    alice = host.user(USER + 6, 0x51, 0x52)
    host.know(alice)
    received = host.receive(0x51, 3)
    host.has_counted({alice.uid: received})
    host.tree.remove("rxe0")

    eventually(lambda: host.netmond.feature("rdma") == ("off", "no RDMA device"), "RDMA is off")
    assert host.user_totals()[alice.uid] == received


@pytest.mark.parametrize(
    "changed",
    [pytest.param({}, id="same build"), pytest.param({"interfaces.forwarded": 1024}, id="another")],
)
def test_over_a_restart(scene: Scene, tmp_path: Path, changed: dict[str, int]) -> None:
    """Totals go on after SIGKILL; what passes meanwhile is not lost, and named when a daemon is back."""
    host = Host(scene, tmp_path, **{"daemon.keep_counting": "always"})
    host.netmond.start()
    alice, bob = host.user(USER, 0x11, 0x12), host.user(USER + 1, 0x12, 0x13)
    host.know(alice, bob)
    before = host.receive(0x11, 3)
    host.has_counted({alice.uid: before})
    host.netmond.stop(signal.SIGKILL)
    meanwhile, bobs = host.receive(0x11, 4), host.send(0x13, 5)
    host.netmond.configure(changed)
    host.netmond.start()

    host.has_counted({alice.uid: before + meanwhile, bob.uid: bobs})
    assert NOBODY_UID not in host.user_totals()


def test_without_a_device(scene: Scene) -> None:
    """As on most machines: a clean off. No thread runs for it."""
    with scene.netmond(cgroup=None) as netmond:
        assert netmond.feature("rdma") == ("off", "no RDMA device")
        for path in Path(f"/proc/{netmond.pid}/task").glob("*/comm"):
            with suppress(OSError):  # it has just ended
                assert "rdma" not in path.read_text()
