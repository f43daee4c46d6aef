"""TCP under everything the stack does to packets on their way: a user's figures are those of the wire.

The witness is a tcpdump at the far end of the link, where nothing is merged or cut. Each row of the matrix
goes with segmentation offload off and on; in both cases a user must have exactly the packets and bytes of
that capture, both ways. The stack figures beside them (`out_stack_bytes` and so on) are what systemd's
IPAccounting= would say: it adds up the length of whatever passes the same hook, so that 64 KiB that leave in
45 segments are one packet with one header (systemd issue 34775).
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.kernel.agent import Agent
from tests.kernel.capture import Capture, Packet, figures
from tests.kernel.conftest import Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond, Row, counted
from tests.kernel.shape import MTU, shape
from tests.kernel.strangers import loss, vlan

_users = itertools.count(1400)
Options = list[list[Any]]

TIMESTAMPS, SACK = "net.ipv4.tcp_timestamps", "net.ipv4.tcp_sack"

#: Eight bytes of IPv4 options that do nothing (RFC 791); two headers of IPv6 with padding (RFC 8200 4.2).
NO_OPERATION: Options = [[socket.IPPROTO_IP, socket.IP_OPTIONS, "01" * 8]]
PADDING: Options = [
    [socket.IPPROTO_IPV6, option, "0000" + "010400000000"]
    for option in (socket.IPV6_HOPOPTS, socket.IPV6_DSTOPTS)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a TCP connection is made and used.

    without: sysctls that are off. segment: the most data in one, 0: what the MTU allows. size: bytes in each
    direction; by default so few segments that no queue on the way is too short for them.
    """

    without: Sequence[str] = ()
    segment: int = 0
    ip_options: bool = False
    mtu: int = MTU
    send: str = "send"
    largest: int = 1 << 16  # super-packets
    vlan: int = 0
    size: int = 200_003

    def options(self, family: int) -> Options:
        """Of the sockets at both ends."""
        small: Options = [[socket.IPPROTO_TCP, socket.TCP_MAXSEG, self.segment]] if self.segment else []
        return [*small, *({4: NO_OPERATION, 6: PADDING}[family] if self.ip_options else [])]

    def headers(self, family: int) -> int:
        """Bytes before the data in the user's segments."""
        ip = {4: 20, 6: 40}[family] + ({4: 8, 6: 16}[family] if self.ip_options else 0)
        return ip + 20 + (0 if TIMESTAMPS in self.without else 12)


WAYS = {
    "as it is": Way(),
    "no timestamps": Way(without=[TIMESTAMPS]),
    "no SACK": Way(without=[SACK]),
    "MSS 101": Way(segment=101, size=20_011),
    "MTU 1280": Way(mtu=1280),
    "MTU 9000": Way(mtu=9000),
    "IP options": Way(ip_options=True),
    "zero copy": Way(send="send_zerocopy"),
    "sendfile": Way(send="send_file"),
    "BIG TCP": Way(largest=180_000, mtu=9000, size=800_011),
    "VLAN": Way(vlan=23),
}


@contextmanager
def conditions(scene: Scene, way: Way, *, offload: bool) -> Iterator[None]:
    """A row's link and sysctls."""
    with ExitStack() as stack:
        stack.enter_context(shape(scene.link, offload=offload, mtu=way.mtu, largest=way.largest))
        if way.without:
            stack.callback(scene.near.sysctl, dict.fromkeys(way.without, "1"))
            scene.near.sysctl(dict.fromkeys(way.without, "0"))
        if way.vlan:
            stack.enter_context(vlan(scene.link, way.vlan))
        yield


def there_and_back(scene: Scene, server: Agent, user: Agent, family: int, way: Way) -> int:
    """One TCP connection: so many bytes from the user, then as many to it. It stays open, with nothing left
    to be said. Returns the server's port."""
    address, options = scene.link.address(family, far=True), way.options(family)
    port = server.do("listen", name="l", local=[address, 0], options=options)
    user.do("tcp", name="a", peer=[address, port], options=options)
    server.do("accept", name="a", listener="l")
    server.begin("answer", name="a", size=way.size)
    user.do(way.send, name="a", size=way.size)
    user.do("answer", name="a", size=way.size, back=False)
    server.end()
    for agent in (server, user):
        eventually(partial(arrived, agent), "all has arrived")
    return int(port)


def arrived(agent: Agent) -> bool:
    return bool(agent.do("unacknowledged", name="a") == 0)


def row_of(netmond: Netmond, uid: int) -> Row:
    (row,) = [row for row in netmond.rows("Users") if row["uid"] == uid]
    return row


def of_port(port: int, packets: Sequence[Packet]) -> list[Packet]:
    return [packet for packet in packets if port in (packet.source_port, packet.destination_port)]


def merged(row: Row, direction: str) -> int:
    """How many packets of the wire were no packets of their own in the stack."""
    return int(row[f"{direction}_packets"] - row[f"{direction}_stack_packets"])


@pytest.mark.parametrize("offload", [False, True], ids=["plain", "offload"])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("name", WAYS)
def test_both_directions(
    shared: Scene, netmond: Netmond, server: Agent, name: str, family: int, offload: bool
) -> None:
    """A connection that sends and receives: the user's figures are those of the segments on the wire."""
    way, uid = WAYS[name], next(_users)
    with conditions(shared, way, offload=offload), shared.user(uid, ambient=["net_raw"]) as user:
        capture = Capture(shared.link)
        port = there_and_back(shared, server, user, family, way)
        seen = of_port(port, capture.stop())
        row = row_of(netmond, uid)

    assert counted(row) == figures(seen, shared.link.near_addresses)
    assert {packet.vlan for packet in seen} == {way.vlan}
    sent = [packet for packet in seen if packet.payload and packet.destination_port == port]
    assert sum(packet.payload for packet in sent) >= way.size
    assert min(packet.size - packet.payload for packet in sent) == way.headers(family)
    assert way.segment or max(packet.size for packet in sent) == way.mtu
    assert not way.segment or max(packet.payload for packet in sent) < way.segment
    assert merged(row, "out") > 0  # TCP hands on more than a segment at a time, whatever the device says
    assert (merged(row, "in") > 0) == offload


@pytest.mark.parametrize("reverse", [False, True], ids=["sends", "receives"])
@pytest.mark.parametrize("family", [4, 6])
def test_retransmissions(shared: Scene, netmond: Netmond, server: Agent, family: int, reverse: bool) -> None:
    """What is sent again counts again: a sender's figures are what left, whether or not it arrived. What was
    lost on the way is nothing to its receiver. The witness is before the loss, or behind it, where packets
    must not be merged already."""
    uid, way, link = next(_users), Way(), shared.link
    space, device = (link.near, link.near_device) if reverse else (link.far, link.far_device)
    with shape(link, offload=not reverse), shared.user(uid) as user:
        capture = Capture(link.reversed() if reverse else link)
        with loss(space, device, one_in=11, seen=not reverse):
            port = there_and_back(shared, server, user, family, way)
        seen = of_port(port, capture.stop())
        again = (server if reverse else user).do("retransmissions", name="a")
        row = row_of(netmond, uid)

    assert counted(row) == figures(seen, link.near_addresses)
    assert again > 0
    sent = sum(packet.payload for packet in seen if packet.destination_port == port)
    assert (sent > way.size) != reverse
