"""Packets on their way through Debian's own kernel: the functions that tracers are used to, seen by kprobes
from inside the sandbox, and counted like a capture at the same time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.capture import Packet
from tests.kernel.deadline import eventually
from tests.service.inside import answers, ctl, restart, run, systemctl
from tests.service.talk import FAR, NEAR, Far, Talker
from tests.vm.watching import events, no_session, packets, told, watching, witness

pytestmark = pytest.mark.usefixtures("installed", "far")

_DROP_IN = Path("/run/systemd/system/netmond.service.d/10-kprobes.conf")
_PARANOID = "kernel.perf_event_paranoid"
_COUNT, _SIZE = 20, 1000

#: The functions, by what there is of a segment that comes in: all of them, or those with data.
_ALL = ("netif_receive_skb", "ip_rcv_finish", "tcp_v4_do_rcv")
_DATA = ("tcp_queue_rcv", "sock_def_readable")
_OUT = ("__dev_queue_xmit", "net_dev_start_xmit")


def stages(*words: str) -> dict[str, dict[str, Any]]:
    """What netmonctl path says about each stage."""
    found = json.loads(ctl("path", "-d", "--json=short", *words).out)
    return {stage["stage"]: stage for stage in found}


@pytest.fixture
def kprobes(installed: None) -> Iterator[None]:
    """The administrator allows them, as netmonctl(1) says."""
    before = run("sysctl", "-n", _PARANOID).out.strip()
    run("sysctl", "-w", f"{_PARANOID}=2")
    _DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    _DROP_IN.write_text("[Service]\nSystemCallFilter=perf_event_open\n")
    systemctl("daemon-reload")
    restart()
    eventually(answers, "netmond is on the bus")
    yield
    _DROP_IN.unlink()
    run("sysctl", "-w", f"{_PARANOID}={before}")
    systemctl("daemon-reload")
    restart()
    eventually(answers, "netmond is on the bus")


def seen_and_captured(
    talker: Talker, directory: Path, *words: str
) -> tuple[list[dict[str, Any]], list[Packet]]:
    """Events of a TCP connection from its first segment on, and what passed the uplink meanwhile."""
    argv = ["netmonctl", "path", "--json", "--rate", "0", "-i", FAR, "-p", str(Far.PORT), *words]
    with witness(directory) as file, watching(*argv, out=directory / "path", begun=told):
        talker.do("tcp", name="t", peer=[FAR, Far.PORT])
        talker.do("exchange", name="t", count=_COUNT, size=_SIZE)
    eventually(no_session, "the session is over")
    return events(directory / "path"), [packet for packet in packets(file) if packet.protocol == 6]


def agree(seen: list[dict[str, Any]], captured: list[Packet]) -> None:
    """Each segment of the capture was seen at each stage that it had to pass, once."""
    ways = {
        stage: Counter(event["seq"] for event in seen if event["stage"] == stage and event["dst"] == to)
        for to, names in ((NEAR, _ALL + _DATA), (FAR, _OUT))
        for stage in names
    }
    came = Counter(packet.sequence for packet in captured if packet.destination == NEAR)
    with_data = Counter(p.sequence for p in captured if p.destination == NEAR and p.payload)
    left = Counter(packet.sequence for packet in captured if packet.destination == FAR)
    assert came.total() > with_data.total() >= _COUNT
    assert ways["netif_receive_skb"] == ways["ip_rcv_finish"] == ways["tcp_v4_do_rcv"] == came
    assert ways["tcp_queue_rcv"] == with_data
    assert ways["sock_def_readable"].total() == with_data.total()
    assert ways["__dev_queue_xmit"] == ways["net_dev_start_xmit"] == left


def test_by_kprobes(kprobes: None, talkers: dict[str, Talker], tmp_path: Path) -> None:
    """Four of the five are functions that a kprobe is put on; the first is a tracepoint on every kernel, for
    frames do not pass the function of that name."""
    wanted = [f"kprobe:{name}" for name in ("ip_rcv_finish", "tcp_v4_do_rcv", *_DATA)]
    words = ["--stages", ",".join([*wanted, "netif_receive_skb", *_OUT])]
    found = stages(*words)
    # The compiler has built ip_rcv_finish into its caller: what it goes on to is seen instead.
    assert [found[name]["hook"] for name in (*_ALL, *_DATA)] == [
        "raw_tracepoint:netif_receive_skb",
        "kprobe:ip_local_deliver",
        "kprobe:tcp_v4_do_rcv",
        "kprobe:tcp_queue_rcv",
        "kprobe:sock_def_readable",
    ]
    assert found["ip_rcv_finish"]["state"] == "replaced"

    agree(*seen_and_captured(talkers["erin"], tmp_path, *words))


def test_as_installed(talkers: dict[str, Talker], tmp_path: Path) -> None:
    """Debian's kernel does not allow kprobes: the functions are seen by other hooks, and it is said why."""
    found = stages("-v")
    for name in (*_ALL, *_DATA, *_OUT, "tcp_sendmsg", "udp_queue_rcv_skb", "icmp_rcv", "kfree_skb"):
        assert found[name]["state"] != "off", found[name]
    assert not any(str(stage["hook"]).startswith("kprobe:") for stage in found.values())

    agree(*seen_and_captured(talkers["erin"], tmp_path))


def test_drop(talkers: dict[str, Talker], tmp_path: Path) -> None:
    """A datagram for a closed port is named with its reason and the function that dropped it."""
    argv = ["netmonctl", "path", "--drops", "--json", "-i", FAR, "-p", "9"]
    with watching(*argv, out=tmp_path / "path", begun=told):
        talkers["erin"].do("udp", name="closed", local=[NEAR, 0])
        talkers["erin"].do("send", name="closed", count=_COUNT, size=100, to=[[FAR, 9]])
    drops = [event for event in events(tmp_path / "path") if event.get("reason") == "NO_SOCKET"]
    assert len(drops) == _COUNT
    assert all("udp" in event["function"] for event in drops)
