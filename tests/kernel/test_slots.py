"""More sockets than slots, sockets that live a moment, sockets with a thousand peers: totals stay exact."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from tests.kernel.capture import NOTHING, Capture, Figures, figures, of_sockets
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond, counted, total

SLOTS, SOCKETS = 64, 500
EXCHANGE = 101 + 28
SYN = 2
ENDS = ("10.23.1.1", "10.23.1.2")
OPTIONS = ("a{sv}",)


def unit_figures(netmond: Netmond, name: str) -> Figures:
    """A unit's totals, after settling."""
    return total(row for row in netmond.rows("Units") if row["unit"] == name)


def test_more_sockets_than_slots(scene: Scene) -> None:
    """500 sockets on 64 slots: users and units are exact, the rest of the detail is one row, and status says
    how many sockets had to go without."""
    netmond = scene.netmond(config={"meter.slots": SLOTS})
    server, user = scene.server(), scene.user()
    peer = [ENDS[1], server.do("echo_server", local=[ENDS[1], 0])]

    user.do("many", prefix="m", count=SOCKETS, peer=peer, exchanges=3, size=101)

    expected = (3 * SOCKETS, 3 * SOCKETS * EXCHANGE) * 2
    assert netmond.user(USER) == expected
    assert unit_figures(netmond, scene.unit.name) == expected
    rows = netmond.flows(USER)
    assert total(rows) == expected
    (overflow,) = [row for row in rows if row["kind"] == "overflow"]
    missing = SOCKETS - SLOTS
    assert counted(overflow) == (3 * missing, 3 * missing * EXCHANGE) * 2
    assert [overflow[name] for name in ("unit", "local", "remote", "pid")] == [scene.unit.name, "", "", 0]
    assert len(rows) == SLOTS + 1
    assert netmond.loss("meter.no-slot-sockets") == missing
    assert netmond.loss("meter.no-slot-packets") == 6 * missing
    assert "meter.no-slot-sockets" in netmond.ctl("status").out


def test_slots_are_used_again(scene: Scene) -> None:
    """When sockets close their slots serve others: those that went without, and new ones."""
    netmond = scene.netmond(config={"meter.slots": SLOTS})
    server, user = scene.server(), scene.user()
    address = scene.link.address(4, far=True)
    peer = [address, server.do("echo_server", local=[address, 0])]
    user.do("many", prefix="m", count=SLOTS + 1, peer=peer, exchanges=1, size=101)
    last = f"m{SLOTS}"
    assert {row["kind"] for row in netmond.flows(USER)} == {"socket", "overflow"}

    user.do("close", name="m0")
    eventually(lambda: len(netmond.flows(USER, kind="socket")) == SLOTS - 1, "the slot is free")
    user.do("exchange", name=last, count=23, size=101)

    (row,) = [row for row in netmond.flows(USER, kind="socket") if row["in_packets"] == 23]
    assert counted(row) == (23, 23 * EXCHANGE) * 2
    user.do("close_all")
    eventually(lambda: not netmond.flows(USER, kind="socket"), "all slots are free")
    lost = netmond.loss("meter.no-slot-sockets")
    user.do("many", prefix="n", count=SLOTS, peer=peer, exchanges=1, size=101)
    assert len(netmond.flows(USER, kind="socket")) == SLOTS
    assert netmond.loss("meter.no-slot-sockets") == lost
    exchanges = SLOTS + 1 + 23 + SLOTS
    assert netmond.user(USER) == (exchanges, exchanges * EXCHANGE) * 2


def test_tcp_beyond_the_slots(scene: Scene) -> None:
    """Connections, too, from SYN to the last acknowledgement: at both ends, with hardly any slots."""
    netmond = scene.netmond(config={"meter.slots": 7})
    server, user = scene.server(), scene.user()
    address = scene.link.address(4, far=True)
    port = server.do("echo_server", local=[address, 0])
    capture = Capture(scene.link)

    for number in range(101):
        user.do("tcp", name=f"t{number}", peer=[address, port])
        user.do("exchange", name=f"t{number}", size=101)
    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]

    assert netmond.user(USER) == figures(seen, scene.link.near_addresses)
    assert total(netmond.flows(USER)) == netmond.user(USER)
    assert netmond.loss("meter.no-slot-sockets") == 94


def test_accepted_connections_beyond_the_slots(scene: Scene) -> None:
    """A server whose listener found no slot: what its connections exchange is its user's all the same."""
    netmond = scene.netmond(config={"meter.slots": 1})
    server = scene.user()
    address = scene.link.address(4)
    server.do("udp", name="greedy", peer=[scene.link.address(4, far=True), 9])
    server.do("send", name="greedy", size=101)  # takes the only slot
    port = server.do("echo_server", local=[address, 0])
    client = scene.server()
    capture = Capture(scene.link)

    for number in range(23):
        client.do("tcp", name=f"t{number}", peer=[address, port])
        client.do("exchange", name=f"t{number}", size=101)
    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]

    assert netmond.user(USER) == figures(seen, scene.link.near_addresses) + Figures(0, 0, 1, EXCHANGE)


def test_10_000_short_connections(scene: Scene) -> None:
    """All are counted to the packet, with fewer slots than connections; a second round finds the daemon as
    big as the first left it: slots, descriptors, memory."""
    netmond = scene.netmond(config={"meter.slots": 8192})
    server, user = scene.server(), scene.user()
    address = scene.link.address(4, far=True)
    port = server.do("short_server", local=[address, 0])
    expected, sizes = NOTHING, []
    for _ in range(2):
        capture = Capture(scene.link)

        user.do("storm", peer=[address, port], count=10_000, size=23)

        seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
        alive, late = of_sockets(seen, scene.link.near_addresses)
        assert sum(packet.flags == SYN for packet in seen) == 10_000
        assert late == []  # the server closes first, so TIME_WAIT is its
        expected = expected + figures(alive, scene.link.near_addresses)
        assert netmond.user(USER) == expected
        (process,) = netmond.rows("Processes", pid=user.pid)
        assert counted(process) == expected
        assert netmond.loss("meter.no-slot-sockets") == 0
        eventually(lambda: not netmond.flows(USER), "all slots were given back")
        sizes.append((netmond.descriptors(), netmond.resident()))

    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] - sizes[0][1] < 1 << 20
    assert netmond.peek("Processes", pid=user.pid)[0]["flows"] == 0


@pytest.mark.parametrize("family", [4, 6])
def test_a_thousand_peers(scene: Scene, family: int) -> None:
    """One unconnected UDP socket: its user's total is exact, each peer has a row, the rows are the total."""
    netmond = scene.netmond()
    server, client = scene.user(), scene.server()
    address = scene.link.address(family)
    network, route = ("10.99", "10.99.0.0/16") if family == 4 else ("fd99:", "fd99::/64")
    scene.far.ip(f"route add local {route} dev lo")
    via = scene.link.address(family, far=True)
    scene.near.ip(f"route add {route} via {via}")
    port = server.do("echo_server", local=[address, 0])

    client.do("from_many", count=1000, peer=[address, port], network=network, exchanges=3, size=101)

    size = 101 + (28 if family == 4 else 48)
    expected = (3000, 3000 * size) * 2
    assert netmond.user(USER) == expected
    rows = netmond.flows(USER)
    peers = [row for row in rows if row["kind"] == "peer"]
    assert len({row["remote"] for row in peers}) == len(peers) == 1000
    assert {counted(row) for row in peers} == {Figures(3, 3 * size, 3, 3 * size)}
    assert {(row["local"], row["local_port"], row["pid"]) for row in peers} == {(address, port, server.pid)}
    assert total(rows) == expected
    detail = netmond.json("user", str(USER), "-n", "0")
    assert len(detail["peers"]) == 1000


def test_more_peers_than_room(scene: Scene) -> None:
    """Peers without a row of their own are in their socket's; the ledger counts their packets."""
    netmond = scene.netmond(config={"meter.peers": 64})
    server, client = scene.user(), scene.server()
    scene.far.ip("route add local 10.99.0.0/16 dev lo")
    scene.near.ip("route add 10.99.0.0/16 via 10.23.1.2")
    port = server.do("echo_server", local=["10.23.1.1", 0])

    client.do("from_many", count=200, peer=["10.23.1.1", port], network="10.99", exchanges=3, size=101)

    expected = (600, 600 * EXCHANGE) * 2
    assert netmond.user(USER) == expected
    rows = netmond.flows(USER)
    assert total(rows) == expected
    (own,) = [row for row in rows if row["kind"] == "socket"]
    assert len(rows) <= 65
    assert own["in_packets"] + own["out_packets"] == netmond.loss("meter.peers-full") > 0


def test_daemon_that_does_not_get_to_it(scene: Scene) -> None:
    """While the daemon is held up no slot comes back: detail is lost, and counted, but no byte."""
    netmond = scene.netmond(config={"meter.slots": SLOTS})
    server, user = scene.server(), scene.user()
    port = server.do("short_server", local=[ENDS[1], 0])
    capture = Capture(scene.link)

    os.kill(netmond.pid, signal.SIGSTOP)
    user.do("storm", peer=[ENDS[1], port], count=1009, size=101)
    os.kill(netmond.pid, signal.SIGCONT)

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    assert netmond.user(USER) == figures(seen, scene.link.near_addresses)
    assert netmond.loss("meter.no-slot-sockets") == 1009 - SLOTS
    eventually(lambda: not netmond.flows(USER, kind="socket"), "all slots are free again")


def test_rows_add_up_at_every_moment(scene: Scene) -> None:
    """Amidst traffic of every kind - peers, sockets, overflow - the rows of a tick add up to its total."""
    netmond = scene.netmond(config={"meter.slots": 23, "meter.peers": 29})
    servers = [scene.user(), scene.server()]
    clients = [scene.server(), scene.user()]
    for server, client, address in zip(servers, clients, ENDS, strict=True):
        port = server.do("echo_server", local=[address, 0])
        for number in range(31):
            client.do("udp", name=f"c{number}", peer=[address, port])
        client.begin("take_turns", prefix="c", count=31, turns=500, size=101)

    ticks: set[int] = set()
    while len(ticks) < 17:
        users, meta = netmond.call("ListUsers", OPTIONS, {})
        flows, later = netmond.call("ListFlows", OPTIONS, {"limit": ["u", 0], "user": ["s", str(USER)]})
        if meta["tick"] == later["tick"]:
            assert total(flows) == total(users)
            ticks.add(meta["tick"])

    for client in clients:
        client.end()
    assert netmond.user(USER) == (31000, 31000 * EXCHANGE) * 2
    assert {row["kind"] for row in netmond.peek("Flows")} == {"socket", "peer", "overflow"}


def test_closed_server_forgets_its_peers(scene: Scene) -> None:
    """When the socket closes, its rows go, its peers' too, and the totals stay."""
    netmond = scene.netmond()
    server, client = scene.user(), scene.server()
    port = server.do("echo_server", local=["10.23.1.1", 0])
    for number in range(23):
        client.do("udp", name=f"c{number}", peer=["10.23.1.1", port])
        client.do("exchange", name=f"c{number}", count=3, size=101)
    assert len(netmond.flows(USER, kind="peer")) == 23

    server.close()

    eventually(lambda: not netmond.flows(USER), "no row is left")
    assert netmond.user(USER) == (69, 69 * EXCHANGE) * 2
