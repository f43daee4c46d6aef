"""Captures and paths through the daemon: what they are given, and that nothing of them stays behind."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.bus.private import CallError
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.machine import Namespace
from tests.kernel.running import OPTIONS, Netmond
from tests.kernel.test_lifecycle import OLDER_KERNEL, alive, bpf_objects

PCAPNG = b"\x0a\x0d\x0d\x0a"
MEMBERS = CAPTURE, PATH = "StartCapture", "StartPath"


class Client:
    """Somebody who has started a session, in a process of his own."""

    def __init__(self, netmond: Netmond, member: str = CAPTURE, **options: Any) -> None:
        self._netmond = netmond
        self.caller = netmond.connect()
        given = {"interfaces": ["as", ["lo"]]} if member == CAPTURE else {}
        try:
            answer = self.caller.call(member, OPTIONS, {**given, **options})
        except CallError:
            self.caller.close()
            raise
        self.number, self.stream, self._progress = answer

    def row(self) -> dict[str, Any]:
        (row,) = [row for row in self._netmond.peek("Sessions") if row["session"] == self.number]
        return row

    def end(self) -> None:
        self.caller.call("StopSession", ("t", "a{sv}"), self.number, {})

    def read(self) -> bytes:
        """Its stream, to the end."""
        with open(self.caller.take(self.stream), "rb") as file:
            return file.read()

    def reports(self) -> list[dict[str, Any]]:
        """Its progress, to the end."""
        with open(self.caller.take(self._progress), "rb") as file:
            return list(map(json.loads, file))


def worker(netmond: Netmond) -> int:
    """The process of the only session."""
    (pid,) = workers(netmond.pid)
    return pid


def workers(daemon: int) -> list[int]:
    found = []
    for pid in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            if {"netmond.frames", "netmond.path", "tests.kernel.older_worker"} & {*words}:
                found.append(int(pid))
    return found


def attachments(pid: int) -> dict[str, set[int]]:
    """Programs and links of a process; its maps may be the daemon's, too."""
    objects = bpf_objects(pid)
    assert objects["prog"]
    return {kind: objects[kind] for kind in ("prog", "link") if objects[kind]}


def running(pid: int) -> bool:
    """Not gone, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def netmond(shared: Scene) -> Netmond:
    """One for all tests that do not end it."""
    return shared.netmond(config={"sessions.user_limit": 8})


@pytest.fixture
def mortal(scene: Scene) -> Netmond:
    """One to be ended."""
    return scene.netmond()


def exchange(scene: Scene, count: int) -> int:
    """Datagrams of USER's there and back over the link; the server's port."""
    with scene.server() as server, scene.user() as user:
        port = server.do("echo_server", local=["10.23.1.2", 0])
        user.do("udp", name="a", peer=["10.23.1.2", port])
        user.do("exchange", name="a", count=count, size=101)
    return int(port)


def captured(netmond: Netmond, scene: Scene) -> bytes:
    """What a capture of an exchange of seven datagrams streams."""
    device = scene.link.near_device
    client = Client(netmond, interfaces=["as", [device]], filter=["s", "udp"], users=["au", [USER]])
    exchange(scene, 7)
    eventually(lambda: int(client.row()["packets"]) == 14, "all frames are there")
    client.end()
    data = client.read()
    client.caller.close()
    assert data.startswith(PCAPNG)
    return data


def test_a_capture_knows_owners(mortal: Netmond, scene: Scene) -> None:
    """The meter's maps reach the worker: also those that an earlier daemon has left."""
    mortal.stop()
    scene.machine.bpffs(mortal.run / "bpf")
    mortal.configure({"daemon.keep_counting": "always"})
    for _ in range(2):  # the second goes on with what the first has pinned
        mortal.start()
        assert len(re.findall(rb"uid=%d .*?pid=\d" % USER, captured(mortal, scene))) == 14
        mortal.stop()


def test_without_the_meter(scene: Scene) -> None:
    """Frames still belong to users; processes are not known."""
    netmond = scene.netmond(config={"meter.enabled": False})

    data = captured(netmond, scene)

    assert len(re.findall(rb"uid=%d" % USER, data)) == 14
    assert not re.search(rb"pid=\d", data)


def gone(objects: dict[str, set[int]], pid: int) -> bool:
    """Neither programs and links nor the process are there any more."""
    return not alive(objects) and not running(pid)


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize(
    ("victim", "end"),
    [("worker", None), ("client", None), ("stream", "closed"), ("session", "stopped")],
)
def test_nothing_stays_in_the_kernel(netmond: Netmond, member: str, victim: str, end: str | None) -> None:
    """Whoever is killed, and whoever ends in order."""
    netmond.settle()
    failures = netmond.loss("sessions.failed")
    client = Client(netmond, member)
    pid = worker(netmond)
    objects = attachments(pid)
    assert alive(objects) == objects

    if victim == "worker":
        os.kill(pid, signal.SIGKILL)
    elif victim == "client":
        client.caller.kill()
    elif victim == "stream":
        os.close(client.caller.take(client.stream))
    else:
        client.end()
        client.read()

    eventually(lambda: gone(objects, pid), "nothing is left of it")
    eventually(lambda: netmond.peek("Sessions") == [], "no session is left")
    netmond.settle()
    assert netmond.loss("sessions.failed") - failures == (victim == "worker")
    assert netmond.feature(member.removeprefix("Start").lower()) == ("on", "")
    if victim != "client":
        assert [report["end"] for report in client.reports() if "end" in report] == ([end] if end else [])
        client.caller.close()


def test_the_daemon_ends(mortal: Netmond) -> None:
    """Killed or in order: its sessions end with it, and say so; the next one starts."""
    for number in (signal.SIGKILL, signal.SIGTERM):
        clients = [Client(mortal, member) for member in MEMBERS]
        left = [(attachments(pid), pid) for pid in workers(mortal.pid)]
        mortal.stop(number)
        for objects, pid in left:
            eventually(lambda: gone(objects, pid), "nothing is left of it")  # noqa: B023
        for client in clients:
            assert client.reports()[-1]["end"] == "daemon"
            client.caller.kill()
        mortal.start()


def test_the_daemon_is_killed_while_one_starts(mortal: Netmond) -> None:
    """Its worker goes, too, in the middle of a compile."""
    client = mortal.connect()
    client.burst(1, 0, CAPTURE, OPTIONS, {"interfaces": ["as", ["lo"]]})
    pid = eventually(lambda: workers(mortal.pid), "the worker is there")[0]
    mortal.stop(signal.SIGKILL)
    eventually(lambda: not running(pid), "its process has ended")
    client.kill()


def test_what_is_wrong(netmond: Netmond) -> None:
    """The worker's errors arrive as they are, and are nobody's failure."""
    netmond.settle()
    failures = netmond.loss("sessions.failed")
    with pytest.raises(CallError, match="no interface"):
        Client(netmond, interfaces=["as", ["nowhere"]])
    with pytest.raises(CallError, match=r"org\.netmond1\.Error\.InvalidArgs: .*filter"):
        Client(netmond, filter=["s", "no such thing"])
    eventually(lambda: workers(netmond.pid) == [], "no worker is left")
    netmond.settle()
    assert netmond.feature("capture") == ("on", "")
    assert netmond.loss("sessions.failed") == failures


def test_several_at_once(netmond: Netmond, shared: Scene) -> None:
    """Each has its own frames, and what one does is nothing to the others."""
    device = shared.link.near_device
    clients = [
        Client(netmond, interfaces=["as", [device]], filter=["s", f"udp and {which}"])
        for which in ("less 1", "less 9000", "less 1", "less 9000")
    ]
    os.kill(workers(netmond.pid)[0], signal.SIGKILL)
    exchange(shared, 5)
    eventually(lambda: [row["packets"] for row in netmond.peek("Sessions")] == [10, 0, 10])
    for client in clients:
        client.caller.kill()
    eventually(lambda: netmond.peek("Sessions") == [])


# -- before Linux 6.6 ------------------------------------------------------------------------------------


def filters(space: Namespace, device: str) -> int:
    """How many of a capture's are in clsact."""
    show = ("tc", "filter", "show", "dev", device)
    said = "".join(space.run(*show, side, check=False) for side in ("ingress", "egress"))
    return len(re.findall(r"pref \d+ .* capture_\w+:", said))


@pytest.fixture
def older(scene: Scene) -> Iterator[tuple[Netmond, Client, Client]]:
    """A daemon on such a kernel, with two captures."""
    netmond = scene.netmond(program=OLDER_KERNEL)
    device = scene.link.near_device
    one, other = (Client(netmond, interfaces=["as", [device]]) for _ in range(2))
    assert filters(scene.near, device) == 4
    yield netmond, one, other
    for client in (one, other):
        client.caller.kill()


def test_filters_of_a_killed_worker(scene: Scene, older: tuple[Netmond, Client, Client]) -> None:
    """The daemon removes them, and leaves those of others alone."""
    netmond, *_ = older
    os.kill(workers(netmond.pid)[0], signal.SIGKILL)
    eventually(lambda: filters(scene.near, scene.link.near_device) == 2, "only the other's are left")
    os.kill(workers(netmond.pid)[0], signal.SIGTERM)  # which is not for it
    assert len(netmond.peek("Sessions")) == 1


def test_filters_when_all_are_killed(scene: Scene, older: tuple[Netmond, Client, Client]) -> None:
    """The next daemon removes them."""
    netmond, *_ = older
    pids = workers(netmond.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # or they would remove them now
    netmond.stop(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert filters(scene.near, scene.link.near_device) == 4

    netmond.start()

    assert filters(scene.near, scene.link.near_device) == 0
