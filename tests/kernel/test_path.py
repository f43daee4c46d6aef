"""Packets followed through the kernel: real traffic between namespaces, seen by a session's worker."""

from __future__ import annotations

import json
import os
import signal
from decimal import Decimal
from itertools import pairwise

import pytest

from tests.kernel.agent import Agent
from tests.kernel.capture import Capture
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.following import Following, Line, dropping, following
from tests.kernel.test_sessions import PATH, Client

#: Of these tests alone: all network namespaces are seen. No kernel gives such ports away by itself.
PORT = 65051

#: Tool E's functions, by family.
CLASSIC = {
    4: ["netif_receive_skb", "ip_rcv_finish", "tcp_v4_do_rcv", "tcp_queue_rcv", "sock_def_readable"],
    6: ["netif_receive_skb", "ip6_rcv_finish", "tcp_v6_do_rcv", "tcp_queue_rcv", "sock_def_readable"],
}


def nanoseconds(event: Line) -> int:
    return int(Decimal(event["time"]) * 10**9)


def stages(events: list[Line]) -> list[str]:
    return [event["stage"] for event in events]


def in_order(events: list[Line], *wanted: str) -> bool:
    """Whether these stages were passed in this order. Which others are seen differs between kernels."""
    return [stage for stage in stages(events) if stage in wanted] == list(wanted)


class Connection:
    """A client in the near namespace, a server in the far one."""

    def __init__(self, scene: Scene, family: int) -> None:
        self.client, self.server = Agent(scene.near), Agent(scene.far)
        self.address = scene.link.address(family, far=True)
        self.server.do("listen", name="l", local=[self.address, PORT])
        self.port: int = self.client.do("tcp", name="a", peer=[self.address, PORT])
        self.server.do("accept", name="b", listener="l")

    def exchange(self, count: int = 1) -> None:
        """Messages of 101 bytes there and back, one after the other."""
        self.server.begin("answer", name="b", size=101, count=count)
        self.client.do("exchange", name="a", size=101, count=count)
        self.server.end()

    def close(self) -> None:
        self.client.close()
        self.server.close()


def message_of(path: Following) -> Line:
    """The event with which the reader got the first message to the server."""
    (read, *_) = path.until(lambda: path.matching(stage="skb_copy_datagram_iter", dport=PORT), "a message")
    return read


@pytest.mark.parametrize("family", [4, 6])
def test_a_segment_from_the_sender_to_the_reader(scene: Scene, family: int) -> None:
    """One journey, through a cable into another namespace, with growing times, and who sent and read it."""
    connection = Connection(scene, family)
    with following(scene.far, ports=[PORT]) as path:
        connection.exchange()
        figures = path.stop()

    read = message_of(path)
    way = path.journey(read["journey"])
    assert set(CLASSIC[family]) < set(stages(way))
    assert in_order(way, "__dev_queue_xmit", "net_dev_start_xmit", "netif_receive_skb", "tcp_queue_rcv")
    *_, last = (event for event in way if event["stage"] != "tcp_sendmsg")  # a call may be over later
    assert last == read
    times = [nanoseconds(event) for event in way]
    assert times == sorted(times)
    since = [event.get("since_ns") for event in way]
    assert since == [None, *(after - before for before, after in pairwise(times))]
    assert {(event["src"], event["sport"], event["dst"], event["dport"]) for event in way} == {
        (scene.link.address(family), connection.port, connection.address, PORT)
    }
    assert {event["seq"] for event in way if "seq" in event} == {way[0]["seq"]}
    (sent,) = [event for event in way if event["stage"] == "tcp_sendmsg"]
    assert (sent["pid"], read["pid"]) == (connection.client.pid, connection.server.pid)
    assert {event["user"] for event in way if "user" in event} == {"root"}
    assert figures["packets"] == len(path.events)
    assert path.lines[-1] == {"type": "end", "reason": "stopped"}


@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_and_an_echo(scene: Scene, family: int) -> None:
    """Each one journey, out and in."""
    link = scene.machine.link(scene.near, scene.far, number=77)  # with addresses of its own
    address = link.address(family, far=True)
    with following(scene.near, addresses=[address], protocols=["udp", "icmp"]) as path:
        server, client = Agent(scene.far), Agent(scene.near)
        server.do("udp", name="s", local=[address, PORT])
        client.do("udp", name="a", peer=[address, PORT])
        client.do("send", name="a", size=101)
        server.do("drain", name="s", count=1)
        client.do("ping", address=address, count=1, size=64)
        path.stop()

    sent, queued, call = (
        ("ip_output", "udp_queue_rcv_skb", "udp_sendmsg")
        if family == 4
        else ("ip6_output", "udpv6_queue_rcv_skb", "udpv6_sendmsg")
    )
    (woken,) = path.matching(stage="sock_def_readable", dport=PORT)
    wire = ["__dev_queue_xmit", "net_dev_start_xmit", "netif_receive_skb"]
    way = path.journey(woken["journey"])
    assert call in stages(way)
    assert in_order(way, sent, *wire, queued, "sock_def_readable")
    protocol = "icmp" if family == 4 else "icmp6"
    asked, answered = path.matching(stage="netif_receive_skb", protocol=protocol)
    assert in_order(path.journey(asked["journey"]), sent, *wire)
    assert stages(path.journey(answered["journey"]))[-1] == "skb_copy_datagram_iter"
    assert not {"sport", "seq", "flags"} & asked.keys()


@pytest.mark.parametrize("family", [4, 6])
def test_what_is_dropped_is_sent_again(scene: Scene, family: int) -> None:
    """Each time a journey of its own, which names the first; told by the kernel, too."""
    connection = Connection(scene, family)
    with following(scene.near, ports=[PORT]) as path:
        with dropping(scene.far, f"tcp dport {PORT}"):
            connection.server.begin("answer", name="b", size=101)
            connection.client.begin("exchange", name="a", size=101)
            path.until(lambda: path.matching(event="retransmit"), "a retransmission")
        for agent in (connection.server, connection.client):
            agent.end()
        read = message_of(path)
        path.stop()

    (first, *_) = path.matching(event="drop", dport=PORT)
    assert first["reason"] == "NETFILTER_DROP"
    assert "first" not in first
    again = path.matching(event="retransmit")
    assert {event["seq"] for event in again} == {first["seq"]}
    assert {event["first"] for event in again} == {first["journey"]} == {read["first"]}
    journeys = [event["journey"] for event in again]
    assert len(set(journeys)) == len(journeys)
    assert read["journey"] == journeys[-1]


@pytest.mark.parametrize("family", [4, 6])
def test_drops_only(scene: Scene, family: int) -> None:
    """Nothing but what went wrong, and no program where packets pass."""
    connection = Connection(scene, family)
    with following(scene.near, ports=[PORT, PORT + 1], drops=True) as path:
        connection.exchange(23)
        assert connection.client.do("refused", peer=[connection.address, PORT + 1], count=1) == 1
        path.until(
            lambda: path.matching(event="drop") and path.matching(stage="tcp_receive_reset"), "a reset"
        )
        path.stop()

    assert {event["event"] for event in path.events} == {"drop", "reset"}
    assert {event["dport"] for event in path.matching(event="drop")} == {PORT + 1}
    on = {name for name, stage in path.stages.items() if stage["state"] != "off"}
    assert on == {"kfree_skb", "tcp_retransmit_skb", "tcp_send_reset", "tcp_receive_reset"}
    assert path.stages["ip_rcv"]["reason"]


@pytest.mark.parametrize("family", [4, 6])
def test_statistics_are_a_captures(scene: Scene, family: int) -> None:
    """Packets and bytes of a stage that all pass once, and times between stages for each."""
    capture = Capture(scene.link)
    with following(scene.near, ports=[PORT, PORT + 1], mode="stats", interval=3600) as path:
        connection = Connection(scene, family)
        connection.exchange(101)
        assert connection.client.do("refused", peer=[connection.address, PORT + 1], count=7) == 7
        connection.close()
        packets = capture.stop()
        path.stop()

    (statistics,) = path.of("stats")
    rows = {row["stage"]: row for row in statistics["stages"]}
    counted = len(packets), sum(packet.size for packet in packets)
    for stage in ("net_dev_start_xmit", "netif_receive_skb"):
        assert (rows[stage]["packets"], rows[stage]["bytes"], rows[stage]["suppressed"]) == (*counted, 0)
    latency = rows["net_dev_start_xmit"]["latency"]
    assert latency["count"] == sum(count for _, count in latency["buckets"]) == len(packets)
    assert (
        latency["buckets"][0][0] / 2 <= latency["p50_ns"] <= latency["p99_ns"] <= latency["buckets"][-1][0]
    )
    assert 0 < latency["mean_ns"] <= latency["buckets"][-1][0]
    closed = [row for row in statistics["drops"] if row["reason"] == "NO_SOCKET"]
    assert [row["packets"] for row in closed] == [7]
    assert closed[0]["function"].startswith("tcp_v4_rcv+" if family == 4 else "tcp_v6_rcv+")
    assert path.events == []


def spray(scene: Scene, count: int) -> None:
    """Datagrams to where nobody listens."""
    with Agent(scene.near) as client:
        server = Agent(scene.far)  # or a datagram is answered, and the next send() fails
        address = scene.link.address(4, far=True)
        server.do("udp", name="s", local=[address, PORT])
        client.do("udp", name="a", peer=[address, PORT])
        client.do("send", name="a", count=count, size=10)
        server.close()


def test_a_rate(scene: Scene) -> None:
    """delivered + suppressed + lost is all there was, at each stage."""
    sent, both = 5003, ("netif_receive_skb", "net_dev_start_xmit")
    with following(scene.near, ports=[PORT], rate=1000, stages=list(both)) as path:
        spray(scene, sent)
        figures = path.stop()

    last = path.of("suppressed")[-1]
    assert last["lost"] == 0
    for stage in both:
        assert 0 < last["stages"][stage] == sent - len(path.matching(stage=stage))
    assert (figures["packets"], figures["dropped"]) == (len(path.events), 2 * sent - len(path.events))


def test_a_full_ring(scene: Scene) -> None:
    """A worker that does not come to reading it: what was lost is counted."""
    sent = 40009
    with following(scene.near, ports=[PORT], rate=0, stages=["netif_receive_skb"]) as path:
        os.kill(path.pid, signal.SIGSTOP)
        try:
            spray(scene, sent)
        finally:
            os.kill(path.pid, signal.SIGCONT)
        path.stop()

    assert 0 < path.of("suppressed")[-1]["lost"] == sent - len(path.events)


def test_a_count(scene: Scene) -> None:
    """So many events, then the end."""
    with following(scene.near, ports=[PORT], count=23) as path:
        spray(scene, 101)
        report = path.end()

    assert (report["end"], report["figures"]["packets"]) == ("count", 23)
    assert len(path.events) == 23


def test_the_process_of_a_received_packet(scene: Scene) -> None:
    """Is known by the meter, through the daemon; those of others are not."""
    netmond = scene.netmond()
    with scene.server() as server, scene.user() as user:
        ports = []
        for family in (4, 6):
            address = scene.link.address(family, far=True)
            ports.append(server.do("echo_server", local=[address, 0]))
            user.do("udp", name=f"a{family}", peer=[address, ports[-1]])
            user.do("exchange", name=f"a{family}")  # the meter has seen the socket
        stages_ = ["udp_queue_rcv_skb", "udpv6_queue_rcv_skb"]
        addresses = [scene.link.address(family) for family in (4, 6)]  # others may have these ports, too
        client = Client(
            netmond, PATH, addresses=["as", addresses], ports=["aq", ports], stages=["as", stages_]
        )
        for family in (4, 6):
            user.do("exchange", name=f"a{family}", count=7)
        eventually(lambda: bool(client.row()["packets"] == 28), "both ends' packets are there")
        client.end()
        lines = list(map(json.loads, client.read().splitlines()))
        client.caller.close()

    events = [line for line in lines if line["type"] == "event"]
    for port in ports:
        here = [event for event in events if event["sport"] == port]
        assert {(event["pid"], event["process"], event["uid"]) for event in here} == {
            (user.pid, "python3", USER)
        }
    assert not {"pid", "process"} & {key for event in events if event["dport"] in ports for key in event}
