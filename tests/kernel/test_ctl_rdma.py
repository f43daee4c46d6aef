"""netmonctl rdma with the real daemon, over devices from a recorded tree; RoCE in its captures and flows."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netmonctl.frame_rdma import OPCODES
from tests.kernel.capture import send_frames
from tests.kernel.conftest import Scene
from tests.kernel.deadline import eventually
from tests.kernel.rdma_kernel import QUEUE_PAIRS
from tests.kernel.roce_frames import ACKNOWLEDGE, WRITE_ONLY, Ends, Kind
from tests.kernel.running import Netmond
from tests.kernel.test_ctl_capture import capturing, tshark
from tests.unit.rdma_tree import RdmaTree

ADAPTER = "mlx5_0"


@pytest.fixture
def tree(tmp_path: Path) -> RdmaTree:
    """An adapter with two ports of Ethernet, of which the second is down."""
    tree = RdmaTree(tmp_path)
    tree.mlx5(ADAPTER, ports=2, link_layer="Ethernet", netdevs=("eth7", ""))
    tree.state(ADAPTER, 2, state="1: DOWN", physical="3: Disabled")
    return tree


@pytest.fixture
def netmond(scene: Scene, tree: RdmaTree) -> Iterator[Netmond]:
    classes = tree.sys / "class"
    (classes / QUEUE_PAIRS.name).write_text("[]")

    def with_devices(argv: list[str]) -> list[str]:
        """A mount namespace in which the kernel's own tree is replaced by the recorded one."""
        mount = 'mount --bind "$0" /sys/class && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", mount, str(classes), *argv]

    with scene.daemon(
        cgroup=None, program=("-m", "tests.kernel.rdma_kernel"), around=with_devices
    ) as netmond:
        netmond.start()
        eventually(lambda: len(netmond.json("rdma")) == 2, "both ports are known")
        yield netmond


class Load:
    """Traffic of port 1 as long as it is entered: counters grow by `shares` of a million packets."""

    def __init__(self, tree: RdmaTree) -> None:
        self.shares: dict[str, int] = {}
        self._tree, self._end = tree, threading.Event()
        self._thread = threading.Thread(target=self._grow)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _grow(self) -> None:
        values = {"port_rcv_packets": 0, "port_xmit_packets": 0}
        while not self._end.wait(0.01):
            for name in values | self.shares:
                values[name] = values.get(name, 0) + self.shares.get(name, 1_000_000)
            self._tree.set(ADAPTER, 1, **values)


def test_verdicts(netmond: Netmond, tree: RdmaTree) -> None:
    """They follow the device's counters, and say which. When the device goes away, to ask for it is an
    error, to list all is not."""

    def reason() -> str:
        (port,) = netmond.json("rdma", "--nccl", "-d", f"{ADAPTER}/1")
        return f"{port['verdict']}: {port['reason']}"

    with Load(tree) as load:
        eventually(lambda: reason().startswith("healthy: no trouble"), "packets alone are no trouble")
        load.shares = {"np_ecn_marked_roce_packets": 5000}
        eventually(lambda: bool(re.match("congested: .* of packets marked", reason())), "marked packets")
        load.shares = {"packet_seq_err": 300}
        eventually(lambda: reason().startswith("lossy: packet_seq_err "), "lost packets")
        load.shares = {"symbol_error": 5}
        eventually(lambda: reason().startswith("faulty: symbol_error counted "), "errors of the line")

    said = netmond.ctl("rdma").out
    assert f"{ADAPTER}/2 down: the port is down, disabled; " in said
    assert f"{ADAPTER}/1 faulty: symbol_error counted " in said
    tree.remove(ADAPTER)
    eventually(lambda: not netmond.json("rdma"), "there is no device any more")

    assert netmond.ctl("rdma", "--nccl").out == "No RDMA device on this machine.\n"
    assert netmond.ctl("rdma", "-d", ADAPTER).code == 5


def test_capture_and_flows(scene: Scene, netmond: Netmond, tmp_path: Path) -> None:
    """Packets of both versions as lines, as tshark reads them, and as flows."""
    link = scene.link
    ends = Ends(
        source=link.address(6, far=True),
        destination=link.address(6),
        source_mac=link.mac(far=True),
        destination_mac=link.mac(),
    )
    write, ack = Kind(opcode=WRITE_ONLY, sequence=7), Kind(opcode=ACKNOWLEDGE, queue_pair=0x31, sequence=8)
    frames = [ends.frame(version, kind) for version in (1, 2) for kind in (write, ack)]
    file = tmp_path / "roce.pcapng"
    wanted = "ether proto 0x8915 or udp port 4791"
    with capturing(netmond, "-i", link.near_device, "-w", str(file), "-c", "4", wanted) as capture:
        send_frames(link.far, link.far_device, frames)
        _, error = capture.popen.communicate(timeout=60)
        assert capture.popen.returncode == 0, error

    lines = netmond.ctl("capture", "--read", str(file)).out.splitlines()
    for line, version, kind in zip(lines, (1, 1, 2, 2), (write, ack) * 2, strict=True):
        name = OPCODES[kind.opcode].replace("_", " ", 1)
        assert f": RoCEv{version} {name}, qp {kind.queue_pair:#x}, psn {kind.sequence}, pkey 0xffff" in line
    fields = ("-T", "fields", "-e", "infiniband.bth.opcode", "-e", "infiniband.bth.destqp")
    assert [[int(word, 0) for word in line.split()] for line in tshark("-r", str(file), *fields)] == [
        [kind.opcode, kind.queue_pair] for kind in (write, ack) * 2
    ]

    def told() -> set[tuple[Any, ...]]:
        rows = netmond.json("flows", "--kind", "roce")
        return {(row["traffic_type"], row["opcode"], row["queue_pair"], row["in_packets"]) for row in rows}

    expected = {
        (f"roce_v{version}", OPCODES[kind.opcode], kind.queue_pair, 1)
        for version in (1, 2)
        for kind in (write, ack)
    }
    eventually(lambda: told() == expected, "flows have the same")
