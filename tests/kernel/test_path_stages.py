"""The path's stages: each sees the packets that a capture shows, filtered in the kernel, all are counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from socket import IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP, IPOption
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from netmond.kernel import libbpf, wire
from netmond.path.stages import STAGES
from tests.kernel.agent import Agent
from tests.kernel.capture import Capture, Packet, send_frames
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.machine import Machine
from tests.kernel.path_session import NUMBERS, Session, session

_ICMP = {4: IPPROTO_ICMP, 6: IPPROTO_ICMPV6}
_PAGE = 4096
_RECORD = 8 + wire.PATH_EVENT.itemsize  # with the ring's header


@pytest.fixture
def scene(machine: Machine) -> Scene:
    """A scene whose addresses nobody else has: tracepoints see all network namespaces of this machine."""
    near, far = machine.namespace("near"), machine.namespace("far")
    link = machine.link(near, far, number=2 + os.getpid() % 250)
    cgroup = machine.cgroup(f"{machine.label}.slice")
    return Scene(machine=machine, near=near, far=far, link=link, slice=cgroup, unit=cgroup)


def address(text: str) -> np.void:
    """As the kernel writes it."""
    packed = IPv6Address(text if ":" in text else f"::ffff:{text}").packed
    return np.frombuffer(packed, wire.ADDRESS)[0]  # type: ignore[no-any-return]


def text(value: np.void) -> str:
    found = IPv6Address(value.tobytes())
    return str(found.ipv4_mapped or found)


def traffic(scene: Scene, client: Agent, family: int) -> None:
    """TCP, UDP and ICMP from near to far and back; connections stay open."""
    server = scene.server()
    far = scene.link.address(family, far=True)
    port = server.do("echo_server", local=[far, 0])
    client.do("tcp", name="tcp", peer=[far, port])
    client.do("exchange", name="tcp", count=5, size=1000)
    client.do("udp", name="udp", peer=[far, port])
    client.do("exchange", name="udp", count=3, size=500)
    client.do("ping", address=far, count=2, size=56)


@pytest.mark.parametrize("family", [4, 6])
def test_stages_see_what_a_capture_shows(scene: Scene, family: int) -> None:
    """Each stage of each protocol, out and in, counts the packets of the capture and tells what they are."""
    near = scene.link.address(family)
    capture = Capture(scene.link)
    with session(scene.near, addresses=(ip_network(near),)) as seen:
        client = scene.user()
        traffic(scene, client, family)
        packets = capture.stop()
        seen.events()

    out = [packet for packet in packets if packet.source == near]
    in_ = [packet for packet in packets if packet.destination == near]
    here, there = scene.link.near_device.encode(), scene.link.far_device.encode()
    own, its = {"source": address(near)}, {"destination": address(near)}

    def names(four: str, six: str) -> str:
        return four if family == 4 else six

    def of(packets: Iterable[Packet], protocol: int) -> list[Packet]:
        return [packet for packet in packets if packet.protocol == protocol]

    expected: list[tuple[str, dict[str, Any], list[Packet]]] = [
        (names("ip_queue_xmit", "inet6_csk_xmit"), own, of(out, IPPROTO_TCP)),
        (names("ip_output", "ip6_output"), own, out),
        ("__dev_queue_xmit", {"name": here}, out),
        ("net_dev_start_xmit", {"name": here}, out),
        ("netif_receive_skb", {"name": there}, out),
        ("net_dev_start_xmit", {"name": there}, in_),
        ("netif_receive_skb", {"name": here}, in_),
        (names("ip_rcv", "ipv6_rcv"), its, in_),
        (names("ip_rcv_finish", "ip6_rcv_finish"), its, in_),
        (names("ip_local_deliver", "ip6_input"), its, in_),
        (names("icmp_rcv", "icmpv6_rcv"), its, of(in_, _ICMP[family])),
        (names("tcp_v4_do_rcv", "tcp_v6_do_rcv"), its, of(in_, IPPROTO_TCP)),
        (names("udp_queue_rcv_skb", "udpv6_queue_rcv_skb"), its, of(in_, IPPROTO_UDP)),
        ("tcp_queue_rcv", its, [packet for packet in of(in_, IPPROTO_TCP) if packet.payload]),
    ]
    assert min(len(packets) for _, _, packets in expected) >= 2
    for stage, fields, packets in expected:
        events = seen.of(stage, **fields)
        assert told(events) == Counter(map(shown, packets)), (stage, fields)
    calls = seen.of("tcp_sendmsg", **own)
    assert len(calls) == 5
    assert set(zip(calls["uid"].tolist(), calls["pid"].tolist(), strict=True)) == {(USER, client.pid)}
    assert set(calls["length"].tolist()) == {1000}
    first = seen.of("tcp_queue_rcv", source=address(near))["sequence"]
    assert sorted(calls["sequence"].tolist()) == sorted(first.tolist())


def shown(packet: Packet) -> tuple[Any, ...]:
    """What an event has to say of a packet."""
    ends = packet.source, packet.source_port, packet.destination, packet.destination_port
    tcp = (packet.sequence, packet.acknowledgement, packet.flags) if packet.protocol == IPPROTO_TCP else ()
    return (*ends, packet.protocol, packet.size, *tcp)


def told(events: np.ndarray[Any, Any]) -> Counter[tuple[Any, ...]]:
    """The same of events."""
    found: Counter[tuple[Any, ...]] = Counter()
    for event in events:
        ends = text(event["source"]), int(event["source_port"]), text(event["destination"])
        rest = int(event["destination_port"]), int(event["protocol"]), int(event["length"])
        tcp = ("sequence", "acknowledgement", "flags") if event["protocol"] == IPPROTO_TCP else ()
        found[(*ends, *rest, *(int(event[name]) for name in tcp))] += 1
    return found


def test_a_packet_keeps_its_identity(scene: Scene) -> None:
    """One sk_buff from the IP layer over the cable into the peer's socket, whatever kind of hook sees it."""
    near, far = scene.link.address(4), scene.link.address(4, far=True)
    with session(scene.near, addresses=(ip_network(near),), protocols=("udp",)) as seen:
        sink = scene.server()
        port = sink.do("udp", name="sink", local=[far, 0])
        client = scene.user()
        client.do("udp", name="udp", peer=[far, port])
        client.do("send", name="udp", count=3, size=100)
        sink.do("drain", name="sink", count=3)
        events = seen.events()

    events = events[events["packet"] != 0]
    ways = {}
    for identifier in set(events["id"].tolist()):
        way = events[events["id"] == identifier]
        assert len(set(way["packet"].tolist())) == len(set(way["data"].tolist())) == 1
        assert (np.diff(way["time"].astype(np.int64)) >= 0).all()
        ways[identifier] = [STAGES[number].name for number in way["stage"]]
    # Netfilter is seen in our namespace only, functions of the kernel in the far one, too.
    functions = {each.stage.name for each in seen.path.stages if not str(each.hook).startswith("netfilter")}
    far_side = [name for name in ("ip_rcv", "ip_rcv_finish", "ip_local_deliver") if name in functions]
    expected = ["ip_output", "__dev_queue_xmit", "net_dev_start_xmit", "netif_receive_skb", *far_side]
    assert len(ways) == 3
    for way in ways.values():
        assert way == [*expected, "udp_queue_rcv_skb", "sock_def_readable"]


def test_filters(scene: Scene) -> None:
    """Sessions at the same time, each with another filter: every one sees just the packets it asks for."""
    near, far = scene.link.address(4), scene.link.address(4, far=True)
    near6 = scene.link.address(6)
    stage = "net_dev_start_xmit"
    ours = (ip_network(near), ip_network(near6))

    def on_port(number: int) -> Callable[[Packet], bool]:
        return lambda packet: number in (packet.source_port, packet.destination_port)

    def of(*protocols: int) -> Callable[[Packet], bool]:
        return lambda packet: packet.protocol in protocols

    def both(one: Callable[[Packet], bool], other: Callable[[Packet], bool]) -> Callable[[Packet], bool]:
        return lambda packet: one(packet) and other(packet)

    def from_here(packet: Packet) -> bool:
        return packet.source in (near, near6)

    def nothing(_: Packet) -> bool:
        return False

    with ExitStack() as stack:

        def watch(**options: Any) -> Session:
            return stack.enter_context(session(scene.near, stages=(stage,), **options))

        server = scene.server()
        port = server.do("echo_server", local=[far, 0])
        net4, net6 = ip_network(f"{near}/25", strict=False), ip_network(f"{near6}/63", strict=False)
        tcp, udp, icmp = of(IPPROTO_TCP), of(IPPROTO_UDP), of(IPPROTO_ICMP, IPPROTO_ICMPV6)
        named = ip_network(near6), ip_network(far)
        watched: list[tuple[Session, Callable[[Packet], bool]]] = [
            (watch(addresses=ours[:1]), lambda packet: near in packet[:2]),
            (watch(addresses=(net4,)), lambda packet: near in packet[:2]),
            (watch(addresses=(net6,)), lambda packet: near6 in packet[:2]),
            (watch(addresses=(ip_network("192.0.2.0/24"),)), nothing),
            (watch(addresses=named), lambda packet: {near6, far} & {*packet[:2]} != set()),
            (watch(addresses=ours, ports=(port,)), on_port(port)),
            (watch(addresses=ours, ports=(7, port)), on_port(port)),
            (watch(addresses=ours, protocols=("udp",), ports=(port,)), both(udp, on_port(port))),
            (watch(addresses=ours, protocols=("tcp", "udp")), of(IPPROTO_TCP, IPPROTO_UDP)),
            (watch(addresses=ours, protocols=("tcp",), users=(USER,)), both(tcp, from_here)),
            (watch(addresses=ours, protocols=("icmp",)), icmp),
            (watch(addresses=ours, users=(USER, USER + 1)), from_here),
            (watch(addresses=ours, users=(USER + 1,)), nothing),
        ]
        capture = Capture(scene.link)
        client = scene.user()
        client.do("tcp", name="tcp", peer=[far, port])
        client.do("exchange", name="tcp", count=2, size=100)
        client.do("udp", name="udp", peer=[far, port])
        client.do("exchange", name="udp", count=2, size=100)
        traffic(scene, client, 6)
        client.do("ping", address=far, count=1, size=56)
        packets = capture.stop()

        for number, (seen, wanted) in enumerate(watched):
            expected = Counter(shown(packet) for packet in packets if wanted(packet))
            assert told(seen.events()) == expected, number


def test_stages_that_cannot_match_are_off(scene: Scene) -> None:
    """What no wanted packet passes costs nothing."""
    wanted = {"protocols": ("udp",), "addresses": (ip_network("192.0.2.1"),)}
    with session(scene.near, **wanted) as seen:
        state = {each.stage.name: each.state for each in seen.path.stages}
    with session(scene.near, drops=True) as seen:
        drops = {each.stage.name for each in seen.path.stages if each.hook}

    assert {state[name] for name in ("tcp_v4_do_rcv", "tcp_sendmsg", "ip6_output", "icmp_rcv")} == {"off"}
    assert "off" not in {state[name] for name in ("ip_output", "udp_queue_rcv_skb", "netif_receive_skb")}
    assert drops == {"kfree_skb", "tcp_retransmit_skb", "tcp_send_reset", "tcp_receive_reset"}


def test_sessions_do_not_take_hooks_from_each_other(scene: Scene) -> None:
    """Netfilter gives no two BPF programs the same priority: the second session gets the next."""
    with session(scene.near) as one, session(scene.near) as other:
        found = [[(each.hook, each.state) for each in seen.path.stages] for seen in (one, other)]

    assert found[0] == found[1]
    assert "off" not in {state for _, state in found[0]}


def test_headers(scene: Scene) -> None:
    """Addresses and ports are found behind tags, options, extension headers; not in later fragments."""
    four = {"src": scene.link.address(4, far=True), "dst": scene.link.address(4)}
    six = {"src": scene.link.address(6, far=True), "dst": scene.link.address(6)}
    udp, padding = UDP(sport=1111, dport=2222), Raw(bytes(40))
    router_alert = [IPOption(b"\x94\x04\x00\x00")]
    packets: list[tuple[Any, int]] = [  # and whether ports can be found
        (IP(**four) / udp / padding, True),
        (IP(**four, options=router_alert) / udp / padding, True),
        (Dot1Q(vlan=5) / IP(**four) / udp / padding, True),
        (Dot1Q(vlan=5, prio=2) / Dot1Q(vlan=6) / IP(**four) / udp / padding, True),
        (Dot1Q(vlan=5, prio=3) / IPv6(**six) / udp / padding, True),
        (IP(**four, flags="MF") / udp / padding, True),
        (IP(**four, frag=5) / udp / padding, False),
        (IPv6(**six) / udp / padding, True),
        (IPv6(**six) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp / padding, True),
        (IPv6(**six) / IPv6ExtHdrRouting() / IPv6ExtHdrFragment(m=1) / udp / padding, True),
        (IPv6(**six) / IPv6ExtHdrFragment(offset=7) / udp / padding, False),
    ]  # fmt: skip
    ours = tuple(ip_network(ends["dst"]) for ends in (four, six))
    ether = Ether(dst=scene.link.mac(), src=scene.link.mac(far=True))
    frames = [bytes(ether / each) for each, _ in packets]
    wanted = {"addresses": ours, "protocols": ("udp",), "stages": ("netif_receive_skb",)}  # no answers
    with session(scene.near, **wanted) as seen:
        send_frames(scene.far, scene.link.far_device, frames)
        eventually(lambda: seen.count("netif_receive_skb") == len(frames), "all have arrived")
        events = seen.of("netif_receive_skb", name=scene.link.near_device.encode())

    for event, (packet, whole) in zip(events, packets, strict=True):
        ip = packet[IP] if IP in packet else packet[IPv6]
        ports = (int(event["source_port"]), int(event["destination_port"]))
        assert (text(event["source"]), text(event["destination"])) == (ip.src, ip.dst), packet.summary()
        assert ports == ((1111, 2222) if whole else (0, 0)), packet.summary()
        assert (event["protocol"], event["length"], event["ttl"]) == (IPPROTO_UDP, len(ip), 64), (
            packet.summary()
        )


@pytest.mark.parametrize("family", [4, 6])
def test_stages_that_have_a_hook_in_common(scene: Scene, family: int) -> None:
    """Each is told of its own protocol and family; what no wanted stage is for is not counted."""
    near = scene.link.address(family)
    own = "udp_queue_rcv_skb" if family == 4 else "udpv6_queue_rcv_skb"
    call = "udp_sendmsg" if family == 4 else "udpv6_sendmsg"
    with session(scene.near, addresses=(ip_network(near),), stages=(own, call)) as seen:
        traffic(scene, scene.user(), family)
        events = seen.events()

    assert set(events["protocol"].tolist()) == {IPPROTO_UDP}
    assert set(events["stage"].tolist()) == {NUMBERS[own], NUMBERS[call]}
    assert seen.path.counters()["matched"].sum() == len(events)


def test_ports_of_sockets_and_of_packets(scene: Scene) -> None:
    """A connection is found by either of its ports, where its socket tells them and where its packets do."""
    far = scene.link.address(4, far=True)
    port = scene.server().do("echo_server", local=[far, 0])
    client = scene.user()
    own = client.do("tcp", name="tcp", peer=[far, port])
    client.do("tcp", name="another", peer=[far, port])
    stages = {"tcp_sendmsg", "tcp_v4_do_rcv", "tcp_queue_rcv", "sock_def_readable", "skb_copy_datagram_iter"}
    for wanted, connections in ((own, 1), (port, 2)):
        with session(scene.near, ports=(wanted,), stages=tuple(stages)) as seen:
            for name in ("tcp", "another"):
                client.do("exchange", name=name, count=1, size=100)
            events = seen.events()
        ours = address(far)  # others on this machine may have the same ports
        events = events[(events["source"] == ours) | (events["destination"] == ours)]

        for stage in stages:
            told = events[events["stage"] == NUMBERS[stage]]
            ports = {*told["source_port"].tolist(), *told["destination_port"].tolist()}
            assert {own, port} <= ports, stage
            assert len(ports) == 1 + connections, stage


def flood(scene: Scene, count: int) -> None:
    """Datagrams to nobody who reads them."""
    far = scene.link.address(4, far=True)
    port = scene.server().do("udp", name="sink", local=[far, 0])
    client = scene.user()
    client.do("udp", name="udp", peer=[far, port])
    client.do("send", name="udp", count=count, size=10)


def test_the_rate_is_kept_and_the_rest_counted(scene: Scene) -> None:
    """What is above the rate is not told, but counted: nothing is missing, at any stage."""
    rate, count, cpus = 500, 20_000, os.cpu_count() or 1
    near, stages = scene.link.address(4), ("net_dev_start_xmit", "ip_output")
    with session(scene.near, addresses=(ip_network(near),), stages=stages, rate=rate) as seen:
        flood(scene, count)
        events = seen.events()
        for stage in stages:
            told = len(events[events["stage"] == NUMBERS[stage]])
            assert seen.count(stage) == count
            assert told + seen.count(stage, "suppressed") == count
            assert seen.count(stage, "lost") == 0
    seconds = (int(events["time"][-1]) - int(events["time"][0])) / 1e9

    assert 0.1 * rate <= len(events) <= (0.1 + seconds) * rate + 1 + cpus


def test_a_full_ring_loses_what_it_says(scene: Scene) -> None:
    """With a ring of one page and nobody who reads, what fits in is there and the rest is counted."""
    near, stage, count = scene.link.address(4), "net_dev_start_xmit", 500
    with session(scene.near, addresses=(ip_network(near),), stages=(stage,), buffer=_PAGE) as seen:
        flood(scene, count)
        eventually(lambda: seen.count(stage) == count, "all were seen")

        assert seen.count(stage, "lost") == count - (_PAGE - 1) // _RECORD
        assert len(seen.events()) == (_PAGE - 1) // _RECORD
        assert seen.count(stage, "suppressed") == 0


def test_statistics(scene: Scene) -> None:
    """Sums instead of events: packets, bytes, and the time between stages of every packet, however many."""
    near, count = scene.link.address(4), 5000
    with session(scene.near, addresses=(ip_network(near),), protocols=("udp",), stats=True, rate=1) as seen:
        flood(scene, count)
        eventually(lambda: seen.count("netif_receive_skb") == count, "all have arrived")
        latencies, counters = seen.path.latencies(), seen.path.counters()
        events = seen.events()

    assert not len(events)
    for stage in ("__dev_queue_xmit", "net_dev_start_xmit", "netif_receive_skb"):
        row = counters[NUMBERS[stage]]
        buckets = latencies[NUMBERS[stage]]
        assert (row["matched"], row["bytes"], row["suppressed"], row["lost"]) == (count, count * 38, 0, 0)
        assert row["timed"] == buckets.sum() == count
        ends = np.exp2(np.arange(wire.PATH_BUCKETS))
        assert (buckets * ends).sum() <= row["waited"] < 2 * (buckets * ends).sum()
    assert counters["timed"][NUMBERS["ip_output"]] == 0


_CHILD = """
import signal
from pathlib import Path
from netmond.path.programs import Options, load
path = load(Options())
texts = [file.read_text() for file in Path("/proc/self/fdinfo").iterdir() if file.exists()]
lines = [line for text in texts for line in text.splitlines()]
print(*{line.split()[1] for line in lines if line.startswith("prog_id")}, flush=True)
signal.pause()
"""


def test_sigkill_takes_every_program_away(scene: Scene) -> None:
    """Nothing of a session outlives its process."""
    argv = scene.near.command([sys.executable, "-c", _CHILD])
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert child.stdout is not None
        programs = [int(number) for number in child.stdout.readline().split()]
        assert len(programs) > 20
        assert all(map(libbpf.program_name, programs))
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()

    eventually(lambda: not any(map(libbpf.program_name, programs)), "all programs are gone")
