"""netmonctl path with the real daemon: packets shown, followed, counted, and dropped for a reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.kernel.agent import Agent
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.running import OPTIONS, ROOT, Netmond

COUNT = 23
NETWORK = "10.23.1.0/24"  # a path is the whole machine's: others may have the same port


class Path:
    """netmonctl path in the background; when the block is left, `out` and `error` have all that it said."""

    out = error = ""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@contextmanager
def path(netmond: Netmond, *words: str) -> Iterator[Path]:
    """One whose programs are attached, until Ctrl-C."""
    made = Path()
    process = subprocess.Popen(
        [sys.executable, "-m", "netmonctl", "path", *words],
        cwd=ROOT,
        env=netmond.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: bool(netmond.call("ListSessions", OPTIONS, {})[0]), "the session has begun")
        yield made
        process.send_signal(signal.SIGINT)
        made.out, made.error = process.communicate(timeout=2 * DEADLINE)
        assert process.returncode == 0, made.error
    finally:
        process.kill()
        process.communicate()


def exchange(scene: Scene, port: int) -> int:
    """Datagrams of the user to the far end, and their echoes; the user's port."""
    user = scene.user(USER)
    local = int(user.do("udp", name="a", peer=[scene.link.address(4, far=True), port]))
    user.do("exchange", name="a", count=COUNT, size=101)
    return local


def test_table(scene: Scene) -> None:
    """Every datagram passes each stage once, out and in, and its user is known."""
    netmond = scene.netmond()
    port = scene.server().do("echo_server", local=[scene.link.address(4, far=True), 0])

    with path(netmond, "-p", str(port), "-i", NETWORK) as shown:
        local = exchange(scene, port)

    header, *rows = [line.split() for line in shown.out.splitlines()]
    assert header[:3] == ["KERNEL", "FUNCTION", "SRC"]
    near, far = scene.link.address(4), scene.link.address(4, far=True)
    ends = {"out": [near, far, str(local), str(port)], "in": [far, near, str(port), str(local)]}
    stages = {
        "out": ("__dev_queue_xmit", "net_dev_start_xmit"),
        "in": ("netif_receive_skb", "ip_rcv_finish", "udp_queue_rcv_skb", "sock_def_readable"),
    }
    for way, stage in ((way, stage) for way, names in stages.items() for stage in names):
        found = [row for row in rows if row[0] == stage and row[1:5] == ends[way]]
        assert len(found) == COUNT, (stage, shown.out)
    assert any(row[0] == "udp_queue_rcv_skb" and str(USER) in row for row in rows)
    assert f"{len(rows)} events in" in shown.error


def test_journeys(scene: Scene) -> None:
    """An echo on its way in is one journey from the device to the reader, in the order of its stages."""
    netmond = scene.netmond()
    port = scene.server().do("echo_server", local=[scene.link.address(4, far=True), 0])

    with path(netmond, "--follow", "--json", "-p", str(port), "-i", NETWORK) as followed:
        exchange(scene, port)

    ways = [
        [event["stage"] for event in line["events"]]
        for line in followed.lines
        if line["type"] == "journey" and line["events"][-1].get("dst") == scene.link.address(4)
    ]
    wanted = ["netif_receive_skb", "ip_rcv_finish", "udp_queue_rcv_skb", "sock_def_readable"]
    whole = [way for way in ways if [stage for stage in way if stage in wanted] == wanted]
    assert len(whole) == COUNT, ways


def test_drops(scene: Scene) -> None:
    """A datagram that nobody waits for: where, and why."""
    netmond = scene.netmond()
    address = scene.link.address(4)
    stranger = Agent(scene.far)

    with path(netmond, "--drops", "-i", address, "-p", "9") as shown:
        stranger.do("udp", name="a", local=[scene.link.address(4, far=True), 0])
        stranger.do("send", name="a", count=COUNT, size=101, to=[[address, 9]])

    drops = [line for line in shown.out.splitlines() if "drop: NO_SOCKET in " in line]
    assert len(drops) == COUNT, shown.out
    assert f"({COUNT} drops)" in shown.error


def test_figures(scene: Scene) -> None:
    """Each stage's packets and the times between them, once, when the time is over."""
    netmond = scene.netmond()
    port = scene.server().do("echo_server", local=[scene.link.address(4, far=True), 0])

    with path(netmond, "--stats", "--json", "-p", str(port), "-i", NETWORK) as told:
        exchange(scene, port)

    last = [line for line in told.lines if line["type"] == "stats"][-1]
    stages = {stage["stage"]: stage for stage in last["stages"]}
    both = 2 * COUNT  # they arrive at both ends
    assert stages["netif_receive_skb"]["packets"] == stages["udp_queue_rcv_skb"]["packets"] == both
    assert stages["udp_queue_rcv_skb"]["latency"]["count"] == both
    assert sum(count for _, count in stages["udp_queue_rcv_skb"]["latency"]["buckets"]) == both
