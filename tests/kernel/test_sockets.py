"""Whose a socket is: older than the daemon, accepted by somebody else, connected anew, in a container."""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest

from tests.kernel.agent import Agent
from tests.kernel.capture import NOTHING, Capture, figures, of_sockets
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond, Row, counted, total

DATAGRAM = 101 + 28


@pytest.fixture
def port(shared: Scene) -> int:
    """An echo server at the far end."""
    return int(shared.server().do("echo_server", local=["10.23.1.2", 0]))


def processes(netmond: Netmond, uid: int) -> dict[int, Row]:
    """The rows of a user's processes by pid, after settling."""
    return {row["pid"]: row for row in netmond.rows("Processes", user=str(uid))}


def test_older_than_the_daemon(scene: Scene) -> None:
    """Sockets that were open before the daemon: their user from the first packet, their process as soon as
    it was looked up, and from then on what they do is that process's."""
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="u", peer=["10.23.1.2", port])
    user.do("tcp", name="t", peer=["10.23.1.2", port])
    user.do("udp", name="server", local=["10.23.1.1", 0])
    for name in ("u", "t"):
        user.do("exchange", name=name, count=7)
    netmond = scene.netmond()

    user.do("exchange", name="u", count=23, size=101)
    assert netmond.user(USER) == (23, 23 * DATAGRAM) * 2
    user.do("exchange", name="t", count=23, size=101)
    user.do("send", name="server", to=[["10.23.1.2", port]])
    user.do("drain", name="server", count=1)
    eventually(lambda: {row["pid"] for row in netmond.flows(USER)} == {user.pid}, "the process is known")

    before = processes(netmond, USER)
    assert total(before.values()) == netmond.user(USER)
    user.do("exchange", name="u", count=29, size=101)
    after = processes(netmond, USER)
    known = counted(before[user.pid]) if user.pid in before else NOTHING
    assert counted(after[user.pid]) - known == (29, 29 * DATAGRAM) * 2
    assert after[user.pid]["process"] == "python3"
    assert total(after.values()) == netmond.user(USER)
    assert len(netmond.flows(USER, protocol="udp", kind="socket")) == 2


def test_older_listener(scene: Scene) -> None:
    """A server that listened before the daemon came: the connections it accepts have rows of their own."""
    server, client = scene.user(), scene.server()
    port = server.do("echo_server", local=["10.23.1.1", 0])
    netmond = scene.netmond()
    capture = Capture(scene.link)

    for name in ("a", "b", "c"):
        local = client.do("tcp", name=name, peer=["10.23.1.1", port])
        client.do("exchange", name=name, count=23, size=101)

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    assert netmond.user(USER) == figures(seen, scene.link.near_addresses)
    rows = netmond.flows(USER, protocol="tcp")
    assert total(rows) == netmond.user(USER)
    connections = {row["remote_port"]: row for row in rows if row["remote"]}
    assert len(connections) == 3
    assert connections[local]["remote"] == "10.23.1.2"
    assert connections[local]["local_port"] == port
    eventually(
        lambda: {row["pid"] for row in netmond.flows(USER) if row["remote"]} == {server.pid},
        "the process is known",
    )


@pytest.mark.parametrize("family", [4, 6])
def test_server(shared: Scene, netmond: Netmond, family: int) -> None:
    """A server's connections, each with its peer; the listener has a row for the handshakes."""
    uid = 1300 + family
    server, client = shared.user(uid), shared.server()
    address = shared.link.address(family)
    port = server.do("echo_server", local=[address, 0])
    capture = Capture(shared.link)

    for number in range(7):
        client.do("tcp", name=f"c{number}", peer=[address, port])
        client.do("exchange", name=f"c{number}", count=23, size=101 + number)

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    assert netmond.user(uid) == figures(seen, shared.link.near_addresses)
    rows = netmond.flows(uid)
    assert total(rows) == netmond.user(uid)
    for row in rows:
        if row["remote"]:
            of_row = [p for p in seen if row["remote_port"] in (p.source_port, p.destination_port)]
            assert counted(row) == figures(of_row[3:], shared.link.near_addresses)  # without the handshake
            assert (row["remote"], row["srtt_us"] > 0) == (shared.link.address(family, far=True), True)
    eventually(lambda: {row["pid"] for row in netmond.flows(uid)} == {server.pid}, "the process is known")


def test_ipv4_on_a_dual_stack_socket(shared: Scene, netmond: Netmond) -> None:
    """A server on :: shows IPv4 peers as IPv4."""
    uid = 1310
    server, client = shared.user(uid), shared.server()
    port = server.do("listen", name="l", local=["::", 0])
    client.begin("tcp", name="a", peer=["10.23.1.1", port])
    server.do("accept", name="a", listener="l")
    client.end()

    client.begin("exchange", name="a", size=101)
    server.do("answer", name="a", size=101)
    client.end()

    (row,) = [row for row in netmond.flows(uid) if row["remote"]]
    assert (row["family"], row["local"], row["remote"]) == (4, "10.23.1.1", "10.23.1.2")


def test_accepted_by_another_user(shared: Scene, netmond: Netmond) -> None:
    """root listens, a child that became somebody else accepts: what the connection carries from then on is
    that user's and that process's; the handshake was root's."""
    uid = 1320
    unit = shared.machine.cgroup(f"{shared.slice.path}/prefork.service")
    server, client = shared.user(0, cgroup=unit), shared.server()
    port = server.do("listen", name="l", local=["10.23.1.1", 0])
    child = server.do("fork", uid=uid)
    root = netmond.user(0)
    capture = Capture(shared.link)

    client.begin("tcp", name="a", peer=["10.23.1.1", port])
    server.do("accept", name="a", listener="l")
    client.end()
    for _ in range(23):
        client.begin("exchange", name="a", size=101)
        server.do("answer", name="a", size=101)
        client.end()

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    here = shared.link.near_addresses
    assert netmond.user(0) - root == figures(seen[:3], here)
    assert netmond.user(uid) == figures(seen[3:], here)
    eventually(lambda: [row["pid"] for row in netmond.flows(uid)] == [child], "the process is known")


def test_data_before_accept(shared: Scene, netmond: Netmond) -> None:
    """Data that arrives before anybody accepts is the listener's; from accept on it is the other user's;
    nothing is missing and nothing double."""
    uid = 1330
    unit = shared.machine.cgroup(f"{shared.slice.path}/late.service")
    server, client = shared.user(0, cgroup=unit), shared.server()
    port = server.do("listen", name="l", local=["10.23.1.1", 0])
    server.do("fork", uid=uid)
    root = netmond.user(0)
    here = shared.link.near_addresses
    capture = Capture(shared.link)
    client.do("tcp", name="a", peer=["10.23.1.1", port])
    client.do("send", name="a", size=1009)
    waiting = netmond.user(0) - root
    early = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    assert waiting == figures(early, here)
    assert netmond.user(uid) == NOTHING

    capture = Capture(shared.link)
    server.do("accept", name="a", listener="l")
    server.do("answer", name="a", size=1009)
    client.do("answer", name="a", size=1009, back=False)
    for _ in range(23):
        client.begin("answer", name="a", size=101, back=False)
        server.do("send", name="a", size=101)
        client.end()

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    assert netmond.user(0) - root == waiting
    assert netmond.user(uid) == figures(seen, here)


def test_reconnected_datagram_socket(shared: Scene, netmond: Netmond, port: int) -> None:
    """A connected UDP socket that connects to another peer gets a second row; the first keeps its figures
    until it goes."""
    uid = 1340
    user, other = shared.user(uid), shared.server()
    second = other.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    (first,) = netmond.flows(uid)

    user.do("connect", name="a", peer=["10.23.1.2", second])
    user.do("exchange", name="a", count=29, size=101)

    by_port = {row["remote_port"]: counted(row) for row in netmond.flows(uid)}
    assert by_port[second] == (29, 29 * DATAGRAM) * 2
    assert first["remote_port"] == port
    assert by_port.get(port, counted(first)) == counted(first) == (23, 23 * DATAGRAM) * 2
    assert netmond.user(uid) == (52, 52 * DATAGRAM) * 2
    eventually(lambda: len(netmond.flows(uid)) == 1, "the first row has gone")
    assert netmond.user(uid) == (52, 52 * DATAGRAM) * 2


def test_connected_after_a_while(shared: Scene, netmond: Netmond, port: int) -> None:
    """A UDP socket that first talks to several peers and then connects: peers before, a socket after."""
    uid = 1350
    user, other = shared.user(uid), shared.server()
    second = other.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", local=["10.23.1.1", 0])
    user.do("send", name="a", to=[["10.23.1.2", port], ["10.23.1.2", second]], count=7, size=101)
    user.do("drain", name="a", count=14)
    assert {row["remote_port"] for row in netmond.flows(uid, kind="peer")} == {port, second}

    user.do("connect", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    eventually(lambda: len(netmond.flows(uid)) == 1, "the rows of before have gone")
    (row,) = netmond.flows(uid)
    assert (row["kind"], row["remote_port"]) == ("socket", port)
    assert counted(row) == (23, 23 * DATAGRAM) * 2
    assert netmond.user(uid) == (37, 37 * DATAGRAM) * 2


def test_disconnected_datagram_socket(shared: Scene, netmond: Netmond, port: int) -> None:
    """A UDP socket that gives its connection up talks to anybody: that is not its old peer's."""
    uid = 1380
    user, other = shared.user(uid), shared.server()
    second = other.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    netmond.settle()

    user.do("disconnect", name="a")
    user.do("send", name="a", to=[["10.23.1.2", second]], count=29, size=101)
    user.do("drain", name="a", count=29)

    assert netmond.user(uid) == (52, 52 * DATAGRAM) * 2
    by_port = {row["remote_port"]: counted(row) for row in netmond.flows(uid) if row["remote"]}
    assert by_port[second] == (29, 29 * DATAGRAM) * 2
    assert by_port.get(port, (23, 23 * DATAGRAM) * 2) == (23, 23 * DATAGRAM) * 2


def test_dual_stack_datagram_server(shared: Scene, netmond: Netmond) -> None:
    """One socket on :: with peers of both families: each row has its peer's."""
    uid = 1381
    server, client = shared.user(uid), shared.server()
    port = server.do("echo_server", local=["::", 0])
    for family in (4, 6):
        client.do("udp", name=f"c{family}", peer=[shared.link.address(family), port])
        client.do("exchange", name=f"c{family}", count=23, size=101)

    rows = {row["family"]: row for row in netmond.flows(uid, kind="peer")}
    assert {family: row["remote"] for family, row in rows.items()} == {
        family: shared.link.address(family, far=True) for family in (4, 6)
    }
    assert counted(rows[4]) == (23, 23 * DATAGRAM) * 2
    assert counted(rows[6]) == (23, 23 * (DATAGRAM + 20)) * 2
    assert total(rows.values()) == netmond.user(uid)


@pytest.mark.parametrize("family", [4, 6])
def test_closed_with_data_under_way(shared: Scene, netmond: Netmond, family: int) -> None:
    """A connection that is closed before its data is through goes on without its process, for as long as
    the other side takes: all of it is still the user's."""
    uid = 1390 + family
    receiver, user = shared.server(), shared.user(uid)
    port = receiver.do("listen", name="l", local=[shared.link.address(family, far=True), 0], room=4096)
    capture = Capture(shared.link)
    user.do("tcp", name="a", peer=[shared.link.address(family, far=True), port], room=200_000)
    receiver.do("accept", name="a", listener="l")
    user.do("send", name="a", size=100_003)

    user.do("close", name="a")
    eventually(lambda: not netmond.flows(uid), "its slot was taken back")
    waiting = netmond.user(uid).out_bytes
    receiver.do("finish", name="a")

    seen = [packet for packet in capture.stop() if packet.protocol == socket.IPPROTO_TCP]
    alive, late = of_sockets(seen, shared.link.near_addresses)
    possible = {figures(alive + late[:some], shared.link.near_addresses) for some in range(len(late) + 1)}
    assert netmond.user(uid) in possible
    assert waiting < netmond.user(uid).out_bytes
    assert total(netmond.rows("Processes", user=str(uid))) == netmond.user(uid)
    assert len(netmond.rows("Processes", user=str(uid))) == 1


def test_rootless_container(shared: Scene, netmond: Netmond) -> None:
    """In a user namespace with a network of its own somebody calls himself root; here he is who he is."""
    uid = 1360
    unit = shared.machine.cgroup(f"{shared.slice.path}/container.scope")
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    user = Agent(shared.near, uid=uid, cgroup=unit, inside=inside)
    shared.near.ip(
        f"link add inner type veth peer name eth0 netns {user.pid}",
        "addr add 10.66.0.1/24 dev inner",
        "link set inner addrgenmode none up",
    )
    container = ["nsenter", f"--net=/proc/{user.pid}/ns/net", "ip"]
    for words in ("addr add 10.66.0.2/24 dev eth0", "link set eth0 addrgenmode none up"):
        shared.machine.start([*container, *words.split()]).wait()
    port = Agent(shared.near).do("echo_server", local=["10.66.0.1", 0])

    user.do("udp", name="a", peer=["10.66.0.1", port])
    user.do("exchange", name="a", count=23, size=101)

    assert netmond.user(uid) == (23, 23 * DATAGRAM) * 2
    (row,) = netmond.flows(uid)
    assert (row["unit"], row["pid"], row["interface"]) == ("container.scope", user.pid, "")


def test_unit_that_is_gone(shared: Scene, netmond: Netmond) -> None:
    """A cgroup that is removed keeps its name in the figures."""
    uid = 1370
    server = shared.server()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    unit = shared.machine.cgroup(f"{shared.slice.path}/short.service")
    user = shared.user(uid, cgroup=unit)
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    netmond.settle()

    user.close()

    def removed() -> bool:
        with suppress(OSError):  # its last process is still on its way out
            unit.directory.rmdir()
        return not unit.directory.exists()

    eventually(removed, "the cgroup is removed")

    (row,) = [row for row in netmond.rows("Units") if row["unit"] == "short.service"]
    assert counted(row) == (23, 23 * DATAGRAM) * 2
    assert row["cgroup"] == unit.path


def be_patient(netmond: Netmond) -> None:
    """From now on silent sockets keep their slots, while a test looks at them."""
    netmond.configure({"meter.idle": 3600})
    netmond.call("Reload", ("a{sv}",), {})


def test_silent_sockets_give_their_slot_up(scene: Scene) -> None:
    """After [meter] idle a silent socket has no row; when it speaks again it has a new one, and its user
    has all of it."""
    netmond = scene.netmond(config={"meter.idle": 1})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    eventually(lambda: not netmond.flows(USER), "the row has gone")
    be_patient(netmond)
    user.do("exchange", name="a", count=29, size=101)

    (row,) = netmond.flows(USER)
    assert counted(row) == (29, 29 * DATAGRAM) * 2
    assert (row["pid"], row["remote_port"]) == (user.pid, port)
    assert netmond.user(USER) == (52, 52 * DATAGRAM) * 2


def test_connection_that_was_silent_from_the_start(scene: Scene) -> None:
    """A connection accepted long before its first data, when its listener has given its slot up: it is the
    process's that accepted it, all the same."""
    netmond = scene.netmond(config={"meter.idle": 1})
    server, client = scene.user(0), scene.server()
    port = server.do("listen", name="l", local=["10.23.1.1", 0])
    child = server.do("fork", uid=USER)
    client.begin("tcp", name="a", peer=["10.23.1.1", port])
    server.do("accept", name="a", listener="l")
    client.end()
    eventually(lambda: not netmond.rows("Flows"), "the listener's row has gone")
    be_patient(netmond)

    client.begin("exchange", name="a", size=101)
    server.do("answer", name="a", size=101)
    client.end()

    (row,) = netmond.flows(USER)
    assert row["remote"] == "10.23.1.2"
    eventually(lambda: [row["pid"] for row in netmond.flows(USER)] == [child], "the process is known")
