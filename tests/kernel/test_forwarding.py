"""Forwarded traffic: no user's, but in interfaces, targets and flows."""

from __future__ import annotations

import socket

import pytest

from tests.kernel import iperf
from tests.kernel.agent import Agent
from tests.kernel.capture import Figures, figures
from tests.kernel.conftest import USER, Crossing
from tests.kernel.running import counted, total


def out_of(figures_: Figures) -> Figures:
    """A forwarded flow has one direction: out."""
    return Figures(0, 0, figures_.out_packets, figures_.out_bytes)


@pytest.mark.parametrize("family", [4, 6])
def test_forwarded_flow(crossing: Crossing, family: int) -> None:
    """One row for each direction, with addresses, ports and the interface it leaves by; nobody's traffic."""
    netmond = crossing.netmond(cgroup=None)
    left, right = crossing.left.address(family, far=True), crossing.right.address(family, far=True)
    server = Agent(crossing.right.far)
    client = Agent(crossing.left.far, uid=1299)
    port = server.do("echo_server", local=[right, 0])
    local = client.do("udp", name="a", peer=[right, port])

    client.do("exchange", name="a", count=23, size=101)

    size = 23 * (101 + (28 if family == 4 else 48))
    rows = {row["interface"]: row for row in netmond.rows("Flows", kind="forwarded", port=port)}
    assert set(rows) == {crossing.left.near_device, crossing.right.near_device}
    there, back = rows[crossing.right.near_device], rows[crossing.left.near_device]
    ends = ("local", "local_port", "remote", "remote_port")
    assert [there[name] for name in ends] == [left, local, right, port]
    assert [back[name] for name in ends] == [right, port, left, local]
    for row in (there, back):
        assert counted(row) == (0, 0, 23, size)
        assert (row["protocol"], row["family"]) == ("udp", family)
        assert "uid" not in row
        assert "user" not in row
    # The only users are those at the two ends, whose sockets the whole machine's meter sees, too.
    assert netmond.user(1299) == (23, size) * 2
    for device in (crossing.left.near_device, crossing.right.near_device):
        row = netmond.interface(device)
        name = f"ipv{family}_bytes"
        assert row["classes"][f"in_{name}"] == row["classes"][f"out_{name}"] == size + 23 * 14


def test_no_user_below_the_meter(crossing: Crossing) -> None:
    """A router that has no sockets of its own has no users, however much it forwards."""
    netmond = crossing.netmond()

    crossing.exchange(4, count=1009, size=101)

    assert netmond.rows("Users") == []
    assert netmond.rows("Units") == []
    assert total(netmond.rows("Flows", kind="forwarded")) == (0, 0, 2018, 2018 * 129)


def test_filters_match_either_side(crossing: Crossing) -> None:
    """`peer` and `port` find a forwarded flow by any of its two ends."""
    netmond = crossing.netmond()

    crossing.exchange(4, count=3, size=101)

    for link in (crossing.left, crossing.right):
        assert len(netmond.rows("Flows", peer=link.address(4, far=True))) == 2
    assert netmond.rows("Flows", peer="192.0.2.0/24") == []


@pytest.mark.parametrize("family", [4, 6])
def test_forwarded_tcp_with_offload(crossing: Crossing, family: int) -> None:
    """Super-packets that pass are counted as the segments they become on the next link."""
    crossing.left.far.run("ethtool", "-K", crossing.left.far_device, "tso", "on", "gso", "on")
    netmond = crossing.netmond()

    done = iperf.run(
        crossing.right,
        crossing.left.far,
        crossing.right.address(family, far=True),
        "--bitrate=200M",
        "--window=512K",
        uid=USER,
        cgroup=None,
    )

    rows = netmond.rows("Flows", kind="forwarded", protocol="tcp", interface=crossing.right.near_device)
    assert total(rows) == out_of(figures(done.packets, {crossing.left.address(family, far=True)}))
    assert sum(row["out_stack_packets"] for row in rows) < sum(row["out_packets"] for row in rows) / 2
    ports = {packet.destination_port for packet in done.packets if packet.protocol == socket.IPPROTO_TCP}
    assert {row["remote_port"] for row in rows} <= ports


def test_own_and_forwarded_traffic(crossing: Crossing) -> None:
    """What the router itself sends on the same links is its user's, and no forwarded flow."""
    netmond = crossing.netmond()
    unit = crossing.machine.cgroup(f"{crossing.slice.path}/own.service")
    server, user = Agent(crossing.right.far), Agent(crossing.right.near, uid=USER, cgroup=unit)
    port = server.do("echo_server", local=[crossing.right.address(4, far=True), 0])
    user.do("udp", name="a", peer=[crossing.right.address(4, far=True), port])

    crossing.exchange(4, count=23, size=101)
    user.do("exchange", name="a", count=29, size=101)

    assert netmond.user(USER) == (29, 29 * 129) * 2
    assert total(netmond.rows("Flows", kind="forwarded")) == (0, 0, 46, 46 * 129)


def test_more_forwarded_flows_than_room(crossing: Crossing) -> None:
    """When the table is full the ledger counts the packets that are in no row; targets and interfaces
    have them all."""
    netmond = crossing.netmond(config={"interfaces.forwarded": 64})
    server, client = Agent(crossing.right.far), Agent(crossing.left.far)
    address = crossing.right.address(4, far=True)
    netmond.add_targets(address)
    port = server.do("echo_server", local=[address, 0])

    client.do("many", prefix="m", count=100, peer=[address, port], exchanges=3, size=101)

    rows = netmond.rows("Flows", kind="forwarded")
    missing = netmond.loss("interfaces.forwarded-full")
    assert len(rows) <= 64
    assert missing > 0
    assert total(rows).out_packets + missing == 600
    assert netmond.target(address) == (300, 300 * 129) * 2


def test_bridged_traffic(bridged: Crossing) -> None:
    """What a bridge passes on is forwarded, too: counted once, though it passes two of its ports."""
    links = bridged.left, bridged.right
    netmond = bridged.netmond(interfaces=["br0", *(link.near_device for link in links)])
    netmond.add_targets("10.77.0.2")
    server, client = Agent(bridged.right.far), Agent(bridged.left.far)
    port = server.do("echo_server", local=["10.77.0.2", 0])
    client.do("udp", name="a", peer=["10.77.0.2", port])

    client.do("exchange", name="a", count=23, size=101)

    assert netmond.target("10.77.0.2") == (23, 23 * 129) * 2
    rows = netmond.rows("Flows", kind="forwarded", port=port)
    assert [counted(row) for row in rows] == [(0, 0, 23, 23 * 129)] * 2
    assert {row["interface"] for row in rows} == {link.near_device for link in links}


def test_what_the_kernel_answers(crossing: Crossing) -> None:
    """Echo replies and resets of the router itself are nobody's, and not forwarded either."""
    netmond = crossing.netmond()
    client = Agent(crossing.left.far)
    for family in (4, 6):
        client.do("ping", address=crossing.left.address(family), count=23, size=57)
        client.do("refused", peer=[crossing.left.address(family), 9], count=29)

    classes = netmond.interface(crossing.left.near_device)["classes"]
    assert classes["in_ipv4_packets"] == classes["out_ipv4_packets"] == 52
    assert classes["in_ipv6_packets"] == classes["out_ipv6_packets"] == 52
    assert netmond.rows("Users") == netmond.rows("Flows") == []
