"""Packets that the kernel drops: each with its reason, the function, and how far it had come."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.kernel.agent import Agent
from tests.kernel.capture import send_frames
from tests.kernel.conftest import Crossing, Scene
from tests.kernel.following import Following, Line, dropping, following
from tests.kernel.machine import Link

_OF_SOCKETS = {"tcp_v4_do_rcv", "tcp_v6_do_rcv", "udp_queue_rcv_skb", "udpv6_queue_rcv_skb"}

#: Ports of these tests alone, one for each: all network namespaces are seen. No kernel gives such ports away
#: by itself.
PORTS = range(65001, 65041)
_ports = iter(PORTS)


@dataclass(frozen=True, slots=True)
class Case:
    """A packet that is dropped on a link, from its near end to its far."""

    link: Link
    family: int
    port: int

    @property
    def peer(self) -> list[Any]:
        return [self.link.address(self.family, far=True), self.port]

    def send(self, size: int = 100, count: int = 1, **socket_: Any) -> None:
        """Datagrams from the near end."""
        with Agent(self.link.near) as client:
            client.do("udp", name="a", peer=socket_.pop("peer", self.peer), **socket_)
            client.do("send", name="a", size=size, count=count)

    def frame(self, segment: Any) -> None:
        """A packet made by hand."""
        ends = {"src": self.link.address(self.family), "dst": self.peer[0]}
        ip = IP(**ends) if self.family == 4 else IPv6(**ends)
        ether = Ether(src=self.link.mac(), dst=self.link.mac(far=True))
        send_frames(self.link.near, self.link.near_device, [bytes(ether / ip / segment)])


@pytest.fixture(scope="module")
def path(shared: Scene) -> Iterator[Following]:
    with following(shared.near, ports=list(PORTS)) as made:
        yield made


@pytest.fixture(scope="module")
def routed(shared_crossing: Crossing) -> Iterator[Following]:
    """On a router."""
    with following(shared_crossing.left.near, ports=list(PORTS)) as made:
        yield made


@pytest.fixture(params=[4, 6])
def case(request: pytest.FixtureRequest, shared: Scene) -> Case:
    return Case(shared.link, request.param, next(_ports))


@pytest.fixture(params=[4, 6])
def forwarded(request: pytest.FixtureRequest, shared_crossing: Crossing) -> Case:
    return Case(shared_crossing.left.reversed(), request.param, next(_ports))


def dropped(path: Following, port: int) -> tuple[Line, list[str]]:
    """The first drop of what was sent to a port, and the stages that packet had passed until then."""
    (drop, *_) = path.until(lambda: path.matching(event="drop", dport=port), f"a drop of {port}")
    before = [event["stage"] for event in path.journey(drop["journey"]) if event["time"] < drop["time"]]
    assert drop["stage"] == "kfree_skb"
    return drop, before


def names(drop: Line) -> tuple[str, str]:
    """Reason, and function without the place in it."""
    return drop["reason"], drop["function"].partition("+")[0]


def as_far_as_ip(stages: list[str]) -> bool:
    """Came in, and to no socket. Which stages between are seen differs between kernels."""
    return "netif_receive_skb" in stages and not _OF_SOCKETS & {*stages}


def version(family: int, ipv4: str, ipv6: str) -> str:
    return ipv4 if family == 4 else ipv6


def test_a_rule_of_nftables(path: Following, case: Case) -> None:
    with dropping(case.link.far, f"udp dport {case.port}"):
        case.send()
        drop, before = dropped(path, case.port)

    reason, function = names(drop)
    assert reason == "NETFILTER_DROP"
    assert function in ("nft_do_chain", "nf_hook_slow")  # since Linux 6.4, and before
    assert as_far_as_ip(before)
    assert drop["interface"] == case.link.far_device


def test_a_closed_port_of_udp(path: Following, case: Case) -> None:
    case.send()
    drop, before = dropped(path, case.port)

    assert names(drop) == ("NO_SOCKET", version(case.family, "__udp4_lib_rcv", "__udp6_lib_rcv"))
    assert as_far_as_ip(before)
    assert (drop["src"], drop["dst"]) == (case.link.address(case.family), case.peer[0])


def test_a_closed_port_of_tcp(path: Following, case: Case) -> None:
    """The segment is dropped, and answered with a reset, which the client is told of."""
    with Agent(case.link.near) as client:
        assert client.do("refused", peer=case.peer, count=1) == 1
    drop, before = dropped(path, case.port)
    received = path.until(lambda: path.matching(stage="tcp_receive_reset", sport=case.port), "a reset")
    (sent,) = path.matching(stage="tcp_send_reset", dport=case.port)

    assert names(drop) == ("NO_SOCKET", version(case.family, "tcp_v4_rcv", "tcp_v6_rcv"))
    assert (drop["flags"], drop["journey"]) == ("S", sent["journey"])
    assert [event["event"] for event in (sent, *received)] == ["reset", "reset"]
    assert path.journey(received[0]["journey"])[0]["flags"] == "R."
    assert before[0] == version(case.family, "ip_queue_xmit", "inet6_csk_xmit")
    assert before[1] == version(case.family, "ip_output", "ip6_output")


def test_a_full_buffer(path: Following, case: Case) -> None:
    """Of a socket that nobody reads: the packets before are in it."""
    smallest = [[socket.SOL_SOCKET, socket.SO_RCVBUF, 1]]
    with Agent(case.link.far) as server:
        server.do("udp", name="s", local=case.peer, options=smallest)
        case.send(size=1000, count=20)
        drop, before = dropped(path, case.port)

    assert names(drop) == (
        "SOCKET_RCVBUFF",
        version(case.family, "udp_queue_rcv_one_skb", "udpv6_queue_rcv_one_skb"),
    )
    assert before[-1] == version(case.family, "udp_queue_rcv_skb", "udpv6_queue_rcv_skb")
    assert len(path.matching(stage="sock_def_readable", dport=case.port)) > 0


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_wrong_checksum(path: Following, case: Case, protocol: str) -> None:
    case.frame({"udp": UDP, "tcp": TCP}[protocol](sport=7, dport=case.port, chksum=1))
    drop, before = dropped(path, case.port)

    functions = {"udp": ("__udp4_lib_rcv", "__udp6_lib_rcv"), "tcp": ("tcp_v4_rcv", "tcp_v6_rcv")}
    assert names(drop) == (f"{protocol.upper()}_CSUM", version(case.family, *functions[protocol]))
    assert as_far_as_ip(before)


def test_the_end_of_a_hop_limit(routed: Following, forwarded: Case, shared_crossing: Crossing) -> None:
    """On the router, which would have forwarded it."""
    level, option = (
        (socket.IPPROTO_IP, socket.IP_TTL)
        if forwarded.family == 4
        else (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS)
    )
    beyond = shared_crossing.right.address(forwarded.family, far=True)
    forwarded.send(peer=[beyond, forwarded.port], options=[[level, option, 1]])
    drop, before = dropped(routed, forwarded.port)

    assert names(drop) == ("IP_INHDR", version(forwarded.family, "ip_forward", "ip6_forward"))
    assert version(forwarded.family, "ip_rcv", "ipv6_rcv") in before


def test_no_route(routed: Following, forwarded: Case) -> None:
    away = ["203.0.113.1" if forwarded.family == 4 else "2001:db8::1", forwarded.port]
    forwarded.send(peer=away)
    drop, before = dropped(routed, forwarded.port)

    assert names(drop) == ("IP_INNOROUTES", version(forwarded.family, "ip_error", "ip6_pkt_discard"))
    assert version(forwarded.family, "ip_rcv", "ipv6_rcv") in before
    assert not {"ip_forward", "ip6_forward"} & {*before}
    assert drop["interface"] == forwarded.link.far_device
