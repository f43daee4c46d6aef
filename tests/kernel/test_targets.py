"""Targets: addresses and prefixes; each packet counts once, the host's own and forwarded ones."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.bus.private import CallError
from tests.kernel.agent import Agent
from tests.kernel.capture import Capture, figures, send_frames
from tests.kernel.conftest import Crossing, Scene
from tests.kernel.running import Netmond, counted

HEADERS = {4: 28, 6: 48}
CHANGE = ("as", "a{sv}")
BOTH = ("10.23.1.2", "fd23:0:0:1::2")


@pytest.fixture(scope="module")
def daemon(shared: Scene) -> Netmond:
    """One for the module."""
    return shared.netmond()


@pytest.fixture
def netmond(daemon: Netmond) -> Iterator[Netmond]:
    """It, without targets."""
    yield daemon
    everything = [row["address"] for row in daemon.peek("Targets")]
    daemon.call("RemoveTargets", CHANGE, everything, {})


@pytest.fixture(scope="module")
def talk(shared: Scene) -> Agent:
    """A user with a socket `four` and one `six`, each connected to an echo server at the far end."""
    return talker(shared)


def talker(scene: Scene) -> Agent:
    server, user = scene.server(), scene.user()
    for family, name in ((4, "four"), (6, "six")):
        port = server.do("echo_server", local=[scene.link.address(family, far=True), 0])
        user.do("udp", name=name, peer=[scene.link.address(family, far=True), port])
    return user


def echoes(count: int, size: int, family: int) -> tuple[int, int, int, int]:
    """The figures of so many datagrams and their echoes."""
    return (count, count * (size + HEADERS[family])) * 2


def test_own_traffic(shared: Scene, netmond: Netmond, talk: Agent) -> None:
    """`in` is what was sent to a target, `out` what came from it, and a capture agrees; also if the
    target is this host itself."""
    netmond.add_targets(*BOTH, "10.23.1.1")
    capture = Capture(shared.link)

    talk.do("exchange", name="four", count=23, size=101)
    talk.do("send", name="four", count=7, size=3)
    talk.do("drain", name="four", count=7)
    talk.do("exchange", name="six", count=29, size=103)

    seen = capture.stop()
    for target in (*BOTH, "10.23.1.1"):
        concerned = [p for p in seen if target in (p.source, p.destination)]
        out = figures(concerned, {target})
        assert netmond.target(target) == out, target
    assert netmond.target(BOTH[1]) == echoes(29, 103, 6)


def test_directions_differ(shared: Scene, netmond: Netmond) -> None:
    """What only goes to a target is in its `in`, and what only comes from it in its `out`."""
    netmond.add_targets("10.23.1.2", "10.23.1.1")
    user, server = shared.user(), shared.server()
    port = server.do("udp", name="sink", local=["10.23.1.2", 0])

    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("send", name="a", count=23, size=101)

    assert netmond.target("10.23.1.2") == (23, 23 * 129, 0, 0)
    assert netmond.target("10.23.1.1") == (0, 0, 23, 23 * 129)


def test_added_while_traffic_runs(netmond: Netmond, talk: Agent) -> None:
    """A target counts from the moment it is added, nothing from before, and starts at zero when reset;
    once removed and added again it does not remember."""
    talk.do("exchange", name="four", count=23)
    netmond.add_targets("10.23.1.2")
    talk.do("exchange", name="four", count=29)
    assert netmond.target("10.23.1.2") == echoes(29, 100, 4)

    netmond.call("ResetTargets", CHANGE, ["10.23.1.2"], {})
    assert netmond.target("10.23.1.2") == (0, 0, 0, 0)
    talk.do("exchange", name="four", count=31)
    assert netmond.target("10.23.1.2") == echoes(31, 100, 4)

    netmond.call("RemoveTargets", CHANGE, ["10.23.1.2"], {})
    talk.do("exchange", name="four", count=37)
    assert netmond.rows("Targets") == []
    netmond.add_targets("10.23.1.2")
    talk.do("exchange", name="four", count=41)
    assert netmond.target("10.23.1.2") == echoes(41, 100, 4)


def test_added_under_load(netmond: Netmond, talk: Agent) -> None:
    """Adding and removing others while packets fly does not make a target miss or double any."""
    netmond.add_targets("10.23.1.2")

    talk.begin("exchange", name="four", count=20011, size=101)
    for number in range(1, 101):
        netmond.add_targets(f"198.51.100.{number}", f"10.23.1.{number + 100}", f"10.{number}.0.0/16")
        netmond.call("RemoveTargets", CHANGE, [f"10.{number}.0.0/16"], {})
    talk.end()

    assert netmond.target("10.23.1.2") == echoes(20011, 101, 4)


def test_most_specific_prefix(netmond: Netmond, talk: Agent) -> None:
    """Of overlapping prefixes only the most specific counts; when it goes, the next one takes over."""
    netmond.add_targets("10.0.0.0/8", "10.23.1.0/24", "10.23.1.2", "0.0.0.0/0", "fd23::/16", "::/0")

    talk.do("exchange", name="four", count=23)
    talk.do("exchange", name="six", count=29)
    netmond.call("RemoveTargets", CHANGE, ["10.23.1.2"], {})
    talk.do("exchange", name="four", count=31)

    # Both ends are in the network: each packet went to one address of it and came from another.
    assert netmond.target("10.23.1.0/24") == (
        23 + 2 * 31,
        (23 + 2 * 31) * 128,
        23 + 2 * 31,
        (23 + 2 * 31) * 128,
    )
    assert netmond.target("fd23::/16") == (58, 58 * 148) * 2
    for silent in ("10.0.0.0/8", "0.0.0.0/0", "::/0"):
        assert netmond.target(silent) == (0, 0, 0, 0)


def test_ethernet_padding_is_not_counted(shared: Scene, netmond: Netmond) -> None:
    """Small packets are padded on Ethernet; a target's bytes are those of its packets."""
    netmond.add_targets("192.0.2.7")
    packet = IP(src="192.0.2.7", dst="10.23.1.1") / UDP(sport=7, dport=9) / Raw(b"x")
    frame = bytes(Ether(src=shared.link.mac(far=True), dst=shared.link.mac()) / packet)

    send_frames(shared.far, shared.link.far_device, [frame + bytes(60 - len(frame))] * 23)

    assert netmond.target("192.0.2.7") == (0, 0, 23, 23 * 29)


def test_10_000_targets(shared: Scene, netmond: Netmond) -> None:
    """10,000 targets in one call, and among them each counts for itself."""
    shared.near.ip("route add 10.64.0.0/12 via 10.23.1.2", "route add fd64::/16 via fd23:0:0:1::2")
    four = [f"10.{64 + n // 4096}.{n // 16 % 256}.{n % 16 * 16}/28" for n in range(5003)]
    six = [f"fd64::{n:x}:0/112" for n in range(1, 4998)]
    (shared.machine.directory / "targets").write_text("\n".join([*four, *six]))

    begin = time.monotonic()
    said = netmond.ctl("target", "add", "--file", str(shared.machine.directory / "targets"))
    print(f"10,000 targets added in {time.monotonic() - begin:.2f} s")
    assert said.code == 0, said
    chosen = {four[0]: 2, four[2503]: 3, four[-1]: 5, six[0]: 7, six[2003]: 11, six[-1]: 13}
    user = shared.user()
    for number, (target, count) in enumerate(chosen.items()):
        address = target.partition("/")[0][:-1] + "7"
        user.do("udp", name=f"s{number}", peer=[address, 9])
        user.do("send", name=f"s{number}", count=count, size=101)

    rows = {row["address"]: counted(row) for row in netmond.rows("Targets")}
    assert len(rows) == 10_000
    found = {address: row.in_packets for address, row in rows.items() if any(row)}
    assert found == chosen
    assert rows[four[-1]] == (5, 5 * 129, 0, 0)
    assert rows[six[-1]] == (13, 13 * 149, 0, 0)


def test_many_addresses_in_turn(shared: Scene, netmond: Netmond) -> None:
    """More addresses than a CPU remembers, over and over, each a target or not: all right."""
    shared.near.ip("route replace 10.64.0.0/12 via 10.23.1.2")
    peers = [[f"10.64.{n // 250}.{n % 250 + 1}", 9] for n in range(3001)]
    user = shared.user()
    user.do("udp", name="a", local=["10.23.1.1", 0])
    netmond.add_targets(*(str(address) for address, _ in peers[::3]))

    for _ in range(5):
        user.do("send", name="a", to=peers, size=11)

    rows = netmond.rows("Targets")
    assert {counted(row) for row in rows} == {(5, 5 * 39, 0, 0)}
    assert len(rows) == 1001


@pytest.mark.parametrize(
    ("member", "addresses", "error"),
    [
        ("AddTargets", ["192.0.2.7", "198.51.100.7"], "AlreadyExists"),
        ("AddTargets", ["198.51.100.7", "198.51.100.7"], "InvalidArgs"),
        ("AddTargets", ["198.51.100.7", "198.51.100.7/24"], "InvalidArgs"),
        ("AddTargets", ["198.51.100.7", "198.51.100"], "InvalidArgs"),
        ("RemoveTargets", ["192.0.2.7", "198.51.100.7"], "NoSuchTarget"),
        ("ResetTargets", ["192.0.2.7", "198.51.100.7"], "NoSuchTarget"),
    ],
)
def test_all_or_nothing(
    shared: Scene, netmond: Netmond, member: str, addresses: list[str], error: str
) -> None:
    """One address that cannot be, and the call changes nothing, neither in the list nor in the kernel."""
    netmond.add_targets("192.0.2.7", "10.23.1.2")
    user, server = shared.user(), shared.server()
    port = server.do("udp", name="sink", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    before = netmond.rows("Targets", sort="address")

    with pytest.raises(CallError) as caught:
        netmond.call(member, CHANGE, addresses, {})

    assert caught.value.name == f"org.netmond1.Error.{error}"
    user.do("send", name="a", count=23)
    grown = netmond.rows("Targets", sort="address")
    assert {row["address"]: row["since"] for row in grown} == {
        row["address"]: row["since"] for row in before
    }
    assert {row["address"]: row["in_packets"] for row in before} == {"192.0.2.7": 0, "10.23.1.2": 0}
    assert {row["address"]: row["in_packets"] for row in grown} == {"192.0.2.7": 0, "10.23.1.2": 23}


@pytest.fixture(scope="module")
def router(shared_crossing: Crossing) -> Netmond:
    """A daemon that monitors neither of the router's links."""
    return shared_crossing.netmond(interfaces=["lo"])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("mode", ["auto", "xdp", "xdp-generic"])
@pytest.mark.parametrize("monitored", ["both", "in", "out"])
def test_forwarded_traffic(
    shared_crossing: Crossing, router: Netmond, family: int, mode: str, monitored: str
) -> None:
    """What passes through is counted once for each of its targets, though it passes two interfaces, and
    in the same way if only one of them is monitored, however."""
    crossing = shared_crossing
    devices = {"in": [crossing.left.near_device], "out": [crossing.right.near_device]}
    devices["both"] = [*devices["in"], *devices["out"]]
    source, destination = crossing.left.address(family, far=True), crossing.right.address(family, far=True)
    for device in devices[monitored]:
        router.call("MonitorInterface", ("s", "a{sv}"), device, {"attach": ["s", mode]})
    router.add_targets(source, destination)

    crossing.exchange(family, count=23, size=101)

    assert router.target(destination) == echoes(23, 101, family)
    assert router.target(source) == echoes(23, 101, family)
    router.call("RemoveTargets", CHANGE, [source, destination], {})
    for device in devices[monitored]:
        router.call("UnmonitorInterface", ("s", "a{sv}"), device, {})


@pytest.mark.parametrize("mode", ["auto", "xdp-generic"])
def test_loopback_counts_once(scene: Scene, mode: str) -> None:
    """What a host sends to itself leaves and comes in on lo, and is one packet."""
    interfaces = ["lo", scene.link.near_device]
    netmond = scene.netmond(interfaces=interfaces, config={"interface.lo.attach": mode})
    netmond.add_targets("127.0.0.0/8", "10.23.1.1")
    user = scene.user()
    for address in ("127.0.0.1", "10.23.1.1"):
        port = user.do("echo_server", local=[address, 0])
        user.do("udp", name="a", peer=[address, port])
        user.do("exchange", name="a", count=23, size=101)

    for target in ("127.0.0.0/8", "10.23.1.1"):
        assert netmond.target(target) == (46, 46 * 129) * 2


def test_remembered_over_a_restart(scene: Scene) -> None:
    """Targets added by hand are there again after a restart, beside those of the configuration."""
    netmond, talk = scene.netmond(config={"targets.addresses": ["10.23.1.2"]}), talker(scene)
    netmond.add_targets("fd23::/16", "192.0.2.7")
    netmond.call("RemoveTargets", CHANGE, ["192.0.2.7"], {})

    netmond.stop()
    netmond.start()

    assert [row["address"] for row in netmond.rows("Targets", sort="address")] == ["10.23.1.2", "fd23::/16"]
    talk.do("exchange", name="six", count=23)
    assert netmond.target("fd23::/16") == (46, 46 * 148) * 2
