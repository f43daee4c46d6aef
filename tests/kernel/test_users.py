"""Users, processes and units: what they exchange is what a capture at the far end counts."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

import pytest

from tests.kernel import iperf
from tests.kernel.capture import Capture, Figures, Packet, figures, of_sockets
from tests.kernel.conftest import USER, Scene
from tests.kernel.machine import Machine
from tests.kernel.running import Netmond, counted, total

UDP_HEADERS = {4: 28, 6: 48}
IPV6_FRAGMENT = 44
COARSE = 0.1  # seconds: ticks of the kernel's coarse clock, some missed by a busy machine, and rounding
#: What iperf3 sends on a data stream beside the data: a cookie by TCP's client, a greeting in UDP.
COOKIE = {("tcp", False): 37, ("tcp", True): 0, ("udp", False): 4, ("udp", True): 4}


def check(found: Figures, packets: Sequence[Packet], here: frozenset[str]) -> None:
    """The figures are those of the packets, with any part of those that came when the socket had gone."""
    alive, late = of_sockets(packets, here)
    possible = {figures(alive, here)}
    for packet in late:
        possible |= {each + figures([packet], here) for each in possible}
    assert found in possible, (figures(alive, here), late)


def stream_payload(packets: Sequence[Packet], *, outgoing: bool, here: frozenset[str]) -> int:
    """Bytes carried by the busiest connection in one direction, retransmissions not counted twice."""
    streams: dict[tuple[int, int, int], dict[int, int]] = {}
    for number, packet in enumerate(packets):
        if (packet.source in here) == outgoing and packet.payload:
            key = packet.protocol, packet.source_port, packet.destination_port
            place = packet.sequence if packet.protocol == socket.IPPROTO_TCP else number
            streams.setdefault(key, {})[place] = packet.payload
    return max(sum(stream.values()) for stream in streams.values())


@pytest.mark.parametrize("reverse", [False, True], ids=["sends", "receives"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_iperf3(shared: Scene, netmond: Netmond, protocol: str, family: int, reverse: bool) -> None:
    """User, process and unit of an iperf3 get what the far end sees on the wire, to the packet."""
    here = shared.link.near_addresses
    unit = shared.machine.cgroup(f"{shared.slice.path}/iperf-{protocol}-{family}-{reverse}.service")
    before = netmond.user(USER)
    # So little that nothing is unsent when iperf3 closes, even if its other end had to wait for the CPU.
    flags = ["--bitrate=20M", *(["--udp", "--length=1200"] if protocol == "udp" else ["--window=256K"])]
    flags += ["--reverse"] if reverse else []

    done = iperf.run(
        shared.link, shared.near, shared.link.address(family, far=True), *flags, uid=USER, cgroup=unit
    )

    user = netmond.user(USER) - before
    (process,) = netmond.rows("Processes", pid=done.pid)
    (row,) = [row for row in netmond.rows("Units") if row["unit"] == unit.name]
    check(user, done.packets, here)
    assert counted(process) == user
    assert (process["process"], process["uid"], process["unit"]) == ("iperf3", USER, unit.name)
    assert counted(row) == user
    assert (row["slice"], row["cgroup"]) == (shared.slice.name, unit.path)
    payload = stream_payload(done.packets, outgoing=not reverse, here=here)
    assert payload == done.report["end"]["sum_sent"]["bytes"] + COOKIE[protocol, reverse]


@pytest.mark.parametrize("reverse", [False, True], ids=["sends", "receives"])
@pytest.mark.parametrize("family", [4, 6])
def test_segmentation_offload_is_undone(machine: Machine, family: int, reverse: bool) -> None:
    """With super-packets in the stack, the wire figures are still those of the segments on the wire,
    and the stack figures are less: fewer packets, fewer headers."""
    near, router, far = (machine.namespace(label) for label in ("near", "router", "far"))
    inner = machine.link(near, router, number=1, offload=True)
    outer = machine.link(router, far, number=2)
    router.sysctl({"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
    near.ip(f"route add default via {inner.address(4, far=True)}")
    near.ip(f"route add ::/0 via {inner.address(6, far=True)}")
    far.ip(f"route add default via {outer.address(4)}", f"route add ::/0 via {outer.address(6)}")
    unit = machine.cgroup(f"{machine.label}.slice/foo.service")
    scene = Scene(machine, near, far, inner, machine.cgroup(f"{machine.label}.slice"), unit)
    with scene.netmond() as netmond:
        flags = ["--time=1", "--bitrate=400M", "--window=512K", *(["--reverse"] if reverse else [])]
        done = iperf.run(outer, near, outer.address(family, far=True), *flags, uid=USER, cgroup=unit)
        (row,) = netmond.rows("Users")

    check(counted(row), done.packets, inner.near_addresses)
    direction = "in" if reverse else "out"
    merged = row[f"{direction}_packets"] - row[f"{direction}_stack_packets"]
    headers = 52 if family == 4 else 72
    assert merged > 1000
    assert row[f"{direction}_bytes"] - row[f"{direction}_stack_bytes"] == merged * headers


def test_udp_segmentation_is_undone(shared: Scene, netmond: Netmond) -> None:
    """One buffer sent with UDP_SEGMENT counts as the datagrams it becomes."""
    uid = 1235
    server, user = shared.server(), shared.user(uid)
    port = server.do("udp", name="sink", local=[shared.link.address(4, far=True), 0])
    shared.link.offload(True)

    user.do("udp", name="a", peer=[shared.link.address(4, far=True), port])
    user.do("send_segmented", name="a", size=23 * 1000 - 7, segment=1000)
    (row,) = [row for row in netmond.rows("Users") if row["uid"] == uid]
    shared.link.offload(False)

    assert (row["out_packets"], row["out_bytes"]) == (23, 23 * (1000 + 28) - 7)
    assert (row["out_stack_packets"], row["out_stack_bytes"]) == (1, 23 * 1000 - 7 + 28)


@pytest.mark.parametrize("family", [4, 6])
def test_23_datagrams_are_23(shared: Scene, netmond: Netmond, family: int) -> None:
    """23 datagrams answered by 23 are 23 packets each way, with the bytes of their IP and UDP headers."""
    uid = 1240 + family
    server, user = shared.server(), shared.user(uid)
    port = server.do("echo_server", local=[shared.link.address(family, far=True), 0])
    capture = Capture(shared.link)

    begin = time.time()
    user.do("udp", name="a", peer=[shared.link.address(family, far=True), port])
    user.do("exchange", name="a", count=23, size=101)
    end = time.time()

    expected = (23, 23 * (101 + UDP_HEADERS[family])) * 2
    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_UDP]
    assert figures(seen, shared.link.near_addresses) == expected
    assert netmond.user(uid) == expected
    (flow,) = netmond.flows(uid)
    assert counted(flow) == expected
    assert (flow["kind"], flow["protocol"], flow["family"]) == ("socket", "udp", family)
    assert (flow["remote"], flow["remote_port"]) == (shared.link.address(family, far=True), port)
    assert (flow["pid"], flow["process"], flow["unit"]) == (user.pid, "python3", shared.unit.name)
    assert flow["interface"] == shared.link.near_device
    assert begin - COARSE <= flow["first_seen"] <= flow["last_seen"] + COARSE <= end + 2 * COARSE


@pytest.mark.parametrize("raw", [False, True], ids=["ping socket", "raw socket"])
@pytest.mark.parametrize("family", [4, 6])
def test_23_pings_are_23(shared: Scene, netmond: Netmond, family: int, raw: bool) -> None:
    """23 echo requests and their replies, by an ordinary user and by one who may open raw sockets."""
    uid = 1250 + family + raw
    user = shared.user(uid, ambient=["net_raw"] if raw else [])

    user.do("ping", address=shared.link.address(family, far=True), count=23, size=57, raw=raw)

    assert netmond.user(uid) == (23, 23 * (57 + UDP_HEADERS[family])) * 2


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [1473, 4000, 65000])
def test_fragments_count_as_on_the_wire(shared: Scene, netmond: Netmond, family: int, size: int) -> None:
    """A datagram larger than the link's packets travels in fragments, each with headers of its own."""
    uid = 1260 + family
    before = netmond.user(uid)
    server, user = shared.server(), shared.user(uid)
    address = shared.link.address(family, far=True)
    port = server.do("echo_server", local=[address, 0])
    capture = Capture(shared.link)

    user.do("udp", name="a", peer=[address, port])
    user.do("exchange", name="a", count=7, size=size)

    seen = [packet for packet in capture.stop() if packet.protocol in (socket.IPPROTO_UDP, IPV6_FRAGMENT)]
    assert len(seen) >= 2 * 2 * 7
    assert netmond.user(uid) - before == figures(seen, shared.link.near_addresses)


@pytest.mark.parametrize("family", [4, 6])
def test_refused_connections(shared: Scene, netmond: Netmond, family: int) -> None:
    """23 connections that nobody takes: 23 SYN and 23 RST are the user's."""
    uid = 1280 + family
    user = shared.user(uid)
    capture = Capture(shared.link)

    refused = user.do("refused", peer=[shared.link.address(family, far=True), 9], count=23)

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    found = netmond.user(uid)
    assert found == figures(seen, shared.link.near_addresses)
    assert (refused, found.in_packets, found.out_packets) == (23, 23, 23)


def test_users_do_not_mix(shared: Scene, netmond: Netmond) -> None:
    """Two users of one unit, at the same time, each with figures of their own; the unit has both."""
    server = shared.server()
    unit = shared.machine.cgroup(f"{shared.slice.path}/both.service")
    one, other = (shared.user(uid, cgroup=unit) for uid in (1271, 1272))
    port = server.do("echo_server", local=[shared.link.address(4, far=True), 0])
    for agent in (one, other):
        agent.do("udp", name="a", peer=[shared.link.address(4, far=True), port])

    one.begin("exchange", name="a", count=1009, size=11)
    other.begin("exchange", name="a", count=1013, size=13)
    one.end()
    other.end()

    assert netmond.user(1271) == (1009, 1009 * 39) * 2
    assert netmond.user(1272) == (1013, 1013 * 41) * 2
    (row,) = [row for row in netmond.rows("Units") if row["unit"] == "both.service"]
    assert counted(row) == netmond.user(1271) + netmond.user(1272)
    assert row["flows"] == 2
    users, totals = netmond.peek("Users"), netmond.status()["totals"]
    assert counted(totals) == total(users)


def test_whole_machine(scene: Scene) -> None:
    """At the root of the hierarchy: every user of every namespace, wherever in the tree."""
    netmond = scene.netmond(cgroup=None)
    uid = 45000 + scene.machine.number
    server, user = scene.server(uid=uid + 500), scene.user(uid)
    port = server.do("echo_server", local=[scene.link.address(4, far=True), 0])

    user.do("udp", name="a", peer=[scene.link.address(4, far=True), port])
    user.do("exchange", name="a", count=23, size=101)

    expected = (23, 23 * 129) * 2
    assert netmond.user(uid) == expected
    assert netmond.user(uid + 500) == expected
    (flow,) = netmond.flows(uid + 500, kind="peer")
    assert flow["interface"] == ""  # of another namespace
    assert netmond.flows(uid)[0]["interface"] == scene.link.near_device
