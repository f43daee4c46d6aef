"""netmonctl rdma, and RDMA in its lists, over the real bus and service, with the devices of a snapshot."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netmond.model import NOBODY_UID, Feature, FeatureState, Rdma
from tests.bus import snapshots
from tests.bus.conftest import Host
from tests.bus.rdma import ADAPTER, CAROL, ETHERNET, SOFT, rdma, with_rdma
from tests.bus.snapshots import ALICE
from tests.bus.terminal import Terminal
from tests.bus.test_ctl_log import netmonctl


@pytest.fixture
def devices(host: Host) -> Host:
    """The service of a machine with three RDMA devices."""
    host.monitor.snapshot = with_rdma(snapshots.small())
    return host


def shown(host: Host, *words: str, uid: int = 0) -> list[str]:
    """The lines that a command prints."""
    code, out, error = netmonctl(host, *words, uid=uid)
    assert (code, error) == (0, "")
    return out.splitlines()


def rows(host: Host, *words: str, uid: int = 0) -> list[dict[str, Any]]:
    """The same for programs."""
    return list(json.loads("\n".join(shown(host, *words, "--json=short", uid=uid))))


def test_ports(devices: Host) -> None:
    """One line each, with a verdict; figures that a device does not count are missing, not zero."""
    header, adapter, ethernet, soft, *rest = shown(devices, "rdma")

    assert header.split()[:5] == ["PORT", "STATE", "LINK", "SPEED", "NETDEV"]
    assert adapter.split()[:5] == [f"{ADAPTER}/1", "active", "InfiniBand", "100", "Gb/s"]
    assert ethernet.split()[0] == f"{ETHERNET}/1"
    assert soft.split() == f"{SOFT}/1 down Ethernet - veth7 - - - - - - - down".split()
    assert rest == [
        "",
        f"{ETHERNET}/1 lossy: out_of_sequence 0.5/s in the last 0.8 s; look at drops and PFC of the switch "
        "ports on the way, and at the cable",
        f"{SOFT}/1 down: the port is down; look at the cable, and whether the interface is up", "",
        "3 ports listed.",
    ]  # fmt: skip


def test_rows_are_netmonds(devices: Host) -> None:
    """--json gives what org.netmond1(5) says, and nothing of ours."""
    assert [row["device"] for row in rows(devices, "rdma")] == [ADAPTER, ETHERNET, SOFT]
    assert "verdict" not in rows(devices, "rdma")[0]
    assert {row["counter"]: row["total"] for row in rows(devices, "rdma", "-d", f"{ETHERNET}/1")} == {
        "port_xmit_data": 10_000, "port_rcv_data": 20_000, "np_cnp_sent": 19, "out_of_sequence": 22,
        "made_up_by_a_driver": 28,
    }  # fmt: skip
    (port,) = rows(devices, "rdma", "--nccl", "-d", ADAPTER)
    assert (port["device"], port["port"], port["verdict"], port["interval"]) == (ADAPTER, 1, "healthy", 0.75)


def test_everybody_may_see_ports(devices: Host) -> None:
    """They belong to nobody."""
    assert shown(devices, "rdma", uid=ALICE) == shown(devices, "rdma")
    assert shown(devices, "rdma", "--nccl", uid=ALICE) == shown(devices, "rdma", "--nccl")


@pytest.mark.parametrize("device", ["mlx5_9", f"{ADAPTER}/2", "x\x1b[2Jy"])
@pytest.mark.parametrize("view", [[], ["--nccl"], ["--qp"]])
def test_no_such_port(devices: Host, device: str, view: list[str]) -> None:
    """Exit code 5, and a line that cannot steer the terminal."""
    code, out, error = netmonctl(devices, "rdma", *view, "-d", device)

    assert (code, out) == (5, "")
    assert error.rstrip("\n").isprintable()


@pytest.mark.parametrize("view", [[], ["--nccl"]])
def test_no_device(host: Host, view: list[str]) -> None:
    """A machine without RDMA is in order: a line says so. A device that is named has to be there."""
    assert shown(host, "rdma", *view) == ["No RDMA device on this machine."]
    assert rows(host, "rdma", *view) == []
    assert netmonctl(host, "rdma", *view, "-d", ADAPTER)[0] == 5

    off = Feature(name="rdma", state=FeatureState.OFF, reason="no RDMA device")
    host.monitor.snapshot = replace(snapshots.small(), features=(off,))
    assert shown(host, "rdma", *view) == ["No RDMA device on this machine."]

    off = replace(off, reason="switched off in netmond.toml")
    host.monitor.snapshot = replace(snapshots.small(), features=(off,))
    assert shown(host, "rdma", *view) == ["No RDMA port to show: switched off in netmond.toml."]


def test_hostile_names(host: Host) -> None:
    """A device may be called what its driver likes; no terminal acts upon it, and no column moves."""
    found = rdma()
    ports = tuple(replace(port, device=f"{port.device}\x1b[2J\n", netdev="\x9b2J") for port in found.ports)
    host.monitor.snapshot = replace(snapshots.small(), rdma=replace(found, ports=ports))

    views: tuple[list[str], ...] = ([], ["--nccl", "-v"], ["-d", f"{ADAPTER}\x1b[2J\n"])
    for view in views:
        lines = shown(host, "rdma", *view)
        assert all(line.isprintable() for line in lines)
        assert any(f"{ADAPTER}\\x1b[2J\\x0a/1" in line for line in lines)


def test_queue_pairs(devices: Host) -> None:
    """Everyone's for root, one's own for others; an owner whom nobody knows is called so."""
    everyone = {row["queue_pair"]: row for row in rows(devices, "rdma", "--qp")}
    lines = shown(devices, "rdma", "--qp")
    _, out, error = netmonctl(devices, "rdma", "--qp", "--json=short", uid=ALICE)

    assert everyone.keys() == {0x11, 0x12, 1, 0x81}
    assert "user" not in everyone[0x81]
    (unknown,) = [line.split() for line in lines if line.startswith(ADAPTER)]
    assert unknown[:6] == [f"{ADAPTER}/1", "129", "145", "RC", "RTR", "unknown"]
    assert [row["queue_pair"] for row in json.loads(out)] == [0x11]
    assert error.startswith("Showing own figures only")
    assert [row["queue_pair"] for row in rows(devices, "rdma", "--qp", "-d", f"{ADAPTER}/1")] == [0x81]
    assert [row["queue_pair"] for row in rows(devices, "rdma", "--qp", "-u", str(ALICE))] == [0x11]


def test_users_beside_ip(devices: Host) -> None:
    """Columns of RDMA, a row for those who have nothing else, and one for what nobody can be named for."""
    header, *lines = shown(devices, "users")

    assert "RDMA IN" in header
    assert "TOTAL" in header
    assert {line.split()[1] for line in lines[:-2]} >= {str(CAROL), "-"}
    assert [line.split()[:2] for line in lines if line.startswith("unknown ")] == [["unknown", "-"]]
    assert rows(devices, "users", "--sort=uid")[0]["uid"] == NOBODY_UID
    assert any(line.startswith("RDMA rate: in") for line in shown(devices, "user", str(ALICE)))


def test_without_rdma_tables_stay_as_they_are(host: Host) -> None:
    """No column and no line of it."""
    for words in (["users"], ["flows"], ["user", str(ALICE)]):
        assert not any("RDMA" in line or "OPCODE" in line for line in shown(host, *words))


def test_flows(devices: Host) -> None:
    """Of RDMA with opcode and queue pair; chosen by what they carry."""
    header, *lines = shown(devices, "flows", "--traffic-type", "roce_v2", "--kind", "roce", "--no-legend")
    both = [header, *lines]

    assert all(line.startswith("roce_v2") for line in both)
    assert any(" RC_RDMA_WRITE_ONLY " in line for line in both)
    assert {row["traffic_type"] for row in rows(devices, "flows", "--traffic-type=roce_v1")} == {"roce_v1"}
    assert "OPCODE" not in shown(devices, "flows", "--traffic-type=ip")[0]


def test_live(devices: Host) -> None:
    """--watch shows what changes; a device that goes away is no error."""
    command = (sys.executable, "-m", "netmonctl", "rdma", "--nccl", "--watch=0.1")
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": devices.bus.address, "TERM": "vt100"}
    with Terminal(*command, environment=environment) as terminal:
        terminal.read_until(f"{ADAPTER}/1 healthy")
        found = rdma()
        faulty = replace(found.ports[0], totals=np.array([1, 1, 1, 1, 2000], np.uint64))
        devices.monitor.snapshot = replace(snapshots.small(), rdma=replace(found, ports=(faulty,)))
        terminal.read_until(f"{ADAPTER}/1 faulty: symbol_error counted 2,000")
        devices.monitor.snapshot = replace(snapshots.small(), rdma=Rdma())
        terminal.read_until("No RDMA device on this machine")
