"""Counters of RDMA are files of sysfs: here they are an interface's, which can be taken away."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netmond.errors import KernelError
from netmond.kernel import rdma_netlink
from netmond.rdma import sysfs
from tests.kernel.conftest import Scene
from tests.kernel.deadline import eventually
from tests.unit.rdma_tree import RdmaTree


class Device:
    """A device whose state and counters are those of an interface: lo, or one end of a cable."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self.near = scene.near
        self.mount = directory / "namespace"
        self.mount.mkdir()
        self.near.run("mount", "-t", "sysfs", "sysfs", str(self.mount))
        self.tree = RdmaTree(directory)
        self.devices = sysfs.Devices(str(self.tree.root), sysfs.Descriptors(100))
        self.now = 0.0

    def add(self, interface: str) -> None:
        self.tree.rxe(interface)
        port = self.tree.port(interface)
        files = {
            "state": "operstate",
            "phys_state": "operstate",
            "hw_counters/sent_pkts": "statistics/tx_packets",
        }
        for name, file in {**files, "hw_counters/rcvd_pkts": "speed"}.items():
            (port / name).unlink()
            (port / name).symlink_to(self.mount / "class/net" / interface / file)

    def read(self) -> list[dict[str, int]]:
        self.now += 1.0
        return [
            {name: value for (_, name), value in zip(each.names, each.values, strict=True)}
            for each in self.devices.read(self.now)
        ]

    def close(self) -> None:
        self.devices.close()
        subprocess.run(["umount", str(self.mount)], check=True)


@pytest.fixture
def device(scene: Scene, tmp_path: Path) -> Iterator[Device]:
    device = Device(scene, tmp_path)
    yield device
    device.close()


def test_counts_on(device: Device) -> None:
    """A file that stays open shows what the kernel counts now."""
    device.add("lo")
    (before,) = device.read()
    device.near.run("ping", "-q", "-c", "3", "-i", "0.01", "127.0.0.1")
    (after,) = device.read()

    assert after["sent_pkts"] - before["sent_pkts"] >= 6


def test_refused(device: Device) -> None:
    """A counter that the driver refuses (EINVAL: lo has no speed) is absent, and the others are there."""
    device.add("lo")

    (counters,) = device.read()

    assert "rcvd_pkts" not in counters
    assert "sent_pkts" in counters


def test_taken_away(device: Device) -> None:
    """A device that is taken away while its files are open has no reading (ENODEV); others have theirs.

    One that comes under the same name is read instead, from its own files."""
    device.near.ip(
        "link add gone0 type veth peer gone1",
        "link set gone0 up",
        "link set gone1 up",
        "address add 192.0.2.1/24 dev gone0",
    )

    def sent() -> bool:
        """A cable that has just been made carries nothing for a moment."""
        device.near.run("ping", "-q", "-c", "1", "-W", "0.01", "192.0.2.2", check=False)
        return device.near.statistics("gone0")["tx_packets"] > 0

    eventually(sent, "it has sent something")
    device.add("gone0")
    device.add("lo")
    (first, _) = device.read()
    device.near.ip("link del gone0")
    missing = device.read(), device.read()
    device.near.ip("link add gone0 type veth peer gone1")
    (again, _) = device.read()

    assert first["sent_pkts"] > 0
    assert [len(readings) for readings in missing] == [1, 1]
    assert again["sent_pkts"] == 0


def test_netlink() -> None:
    """This kernel tells its devices, or that it has no such family."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, rdma_netlink.FAMILY).close()
    except OSError as error:
        with pytest.raises(KernelError, match=os.strerror(error.errno or 0)):
            rdma_netlink.devices()
    else:
        assert rdma_netlink.devices().keys() == set(os.listdir("/sys/class/infiniband"))
