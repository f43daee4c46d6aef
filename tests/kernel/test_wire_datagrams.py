"""UDP under what the stack does to datagrams: many sent and received in one buffer, and one in many pieces.

As in test_wire_true.py, the witness is a capture at the far end of the link.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

from tests.kernel.agent import Agent
from tests.kernel.capture import Capture, figures, send_frames
from tests.kernel.conftest import Scene
from tests.kernel.machine import Link
from tests.kernel.running import Netmond, counted
from tests.kernel.shape import MTU, narrow_route, shape
from tests.kernel.test_wire_true import NO_OPERATION, PADDING, Options, of_port, row_of

_users = itertools.count(1500)
DATAGRAMS = (socket.IPPROTO_UDP, 44)  # and fragments of IPv6
UDP_GRO = 104  # linux/udp.h
NARROW = 1300


#: A buffer, and the size of the datagrams that the kernel makes of it.
BUFFERS = {"whole": (23 * 1000, 1000), "with a rest": (23 * 1000 - 7, 1000), "tiny": (61, 1), "one": (7, 7)}


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "to a peer"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", BUFFERS)
def test_sent_in_one_buffer(
    shared: Scene, netmond: Netmond, server: Agent, name: str, family: int, connected: bool
) -> None:
    """UDP_SEGMENT: one buffer counts as the datagrams on the wire, for the user and in its row."""
    uid, address, (size, segment) = next(_users), shared.link.address(family, far=True), BUFFERS[name]
    port = server.do("udp", name="sink", local=[address, 0])
    with shape(shared.link, offload=True), shared.user(uid) as user:
        capture = Capture(shared.link)
        if connected:
            user.do("udp", name="a", peer=[address, port])
            user.do("send_segmented", name="a", size=size, segment=segment)
        else:
            user.do("udp", name="a", local=[shared.link.address(family), 0])
            user.do("send_segmented", name="a", size=size, segment=segment, to=[address, port])
        expected = figures(of_port(port, capture.stop()), shared.link.near_addresses)
        row = row_of(netmond, uid)
        (flow,) = [flow for flow in netmond.flows(uid) if flow["out_packets"]]

    assert expected.out_packets == -(-size // segment)
    assert counted(row) == expected
    assert row["out_stack_packets"] == 1
    assert (counted(flow), flow["kind"]) == (expected, "socket" if connected else "peer")


@pytest.mark.parametrize("family", [4, 6])
def test_received_in_one_buffer(shared: Scene, netmond: Netmond, server: Agent, family: int) -> None:
    """UDP_GRO: datagrams that the stack has merged, for a receiver who wants that, count as what came."""
    uid, address, size = next(_users), shared.link.address(family), 23 * 1000 - 7
    with shape(shared.link, offload=True), shared.user(uid) as user:
        port = user.do("udp", name="a", local=[address, 0], options=[[socket.IPPROTO_UDP, UDP_GRO, 1]])
        server.do("udp", name="a", peer=[address, port])
        capture = Capture(shared.link)
        user.begin("answer", name="a", size=size, back=False)
        server.do("send_segmented", name="a", size=size, segment=1000)
        user.end()
        expected = figures(of_port(port, capture.stop()), shared.link.near_addresses)
        row = row_of(netmond, uid)

    assert counted(row) == expected
    assert (row["in_packets"], row["in_stack_packets"]) == (23, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """What large datagrams have to get through. options: of the user's socket, by family."""

    mtu: int = MTU
    narrow_route: bool = False
    learned: bool = False  # by an ICMP message from the path
    options: dict[int, Options]


NONE: dict[int, Options] = {4: [], 6: []}
PATHS = {
    "MTU 1280": Path(mtu=1280, options=NONE),
    "MTU 9000": Path(mtu=9000, options=NONE),
    "IPv4 options, IPv6 hop-by-hop header": Path(options={4: NO_OPERATION, 6: PADDING[:1]}),
    "IPv6 destination options": Path(options={4: [], 6: PADDING[1:]}),
    "narrow route": Path(narrow_route=True, options=NONE),
    "narrow path": Path(learned=True, options=NONE),
}


@contextmanager
def conditions(link: Link, family: int, path: Path) -> Iterator[None]:
    """A row's link and routes."""
    with ExitStack() as stack:
        stack.enter_context(shape(link, offload=False, mtu=path.mtu))
        if path.narrow_route:
            stack.enter_context(narrow_route(link, family, NARROW))
        if path.learned:
            stack.callback(link.near.run, "ip", f"-{family}", "route", "flush", "cache")
        yield


def too_big(link: Link, family: int, near_port: int, far_port: int) -> bytes:
    """What a router says of a datagram it cannot pass on (RFC 1191, RFC 8201)."""
    here, there = link.address(family), link.address(family, far=True)
    ether, udp = Ether(src=link.mac(far=True), dst=link.mac()), UDP(sport=near_port, dport=far_port)
    if family == 4:
        said = ICMP(type=3, code=4, nexthopmtu=NARROW) / IP(src=here, dst=there, flags="DF") / udp
        return bytes(ether / IP(src=there, dst=here) / said)
    return bytes(
        ether / IPv6(src=there, dst=here) / ICMPv6PacketTooBig(mtu=NARROW) / IPv6(src=here, dst=there) / udp
    )


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", PATHS)
def test_in_pieces(shared: Scene, netmond: Netmond, server: Agent, name: str, family: int) -> None:
    """Datagrams that IP cuts in pieces on their way out, and puts together on their way in."""
    uid, path, link = next(_users), PATHS[name], shared.link
    address = link.address(family, far=True)
    port = server.do("echo_server", local=[address, 0])
    with conditions(link, family, path), shared.user(uid, ambient=["net_raw"]) as user:
        if path.learned:
            other = user.do("udp", name="other", peer=[address, port])  # it has an error pending then
            send_frames(link.far, link.far_device, [too_big(link, family, other, port)])
        capture = Capture(link)
        user.do("udp", name="a", peer=[address, port], options=path.options[family])
        for size in (1201, 1253, 1401, 2557, 20_011):
            user.do("exchange", name="a", count=3, size=size)
        packets = [packet for packet in capture.stop() if packet.protocol in DATAGRAMS]
        found = counted(row_of(netmond, uid))

    sent = [packet.size for packet in packets if packet.source in link.near_addresses]
    assert found == figures(packets, link.near_addresses)
    assert len(sent) > 15
    assert max(sent) <= (NARROW if path.narrow_route or path.learned else path.mtu)
