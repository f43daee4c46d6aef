"""RDMA in a tick: devices and queue pairs that are read elsewhere meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netmond.errors import KernelError
from netmond.flowrows import FlowRows
from netmond.kernel import rdma_netlink, wire
from netmond.kernel.rdma_netlink import QueuePair
from netmond.model import NOBODY_UID, FeatureState, FlowKind, InterfaceInfo, Rdma
from netmond.rdma import census
from netmond.rdma.attribution import Attribution
from netmond.rdma.census import CensusTaker
from netmond.rdma.monitor import RdmaMonitor
from netmond.rdma.register import Register
from netmond.rdma.sampler import Sampler
from netmond.roce import Roce
from tests.kernel.deadline import eventually
from tests.unit.fakes import Hash, moment, rows
from tests.unit.rdma_packets import ALICE, PROCESSES, paths, queue_pair, tasks
from tests.unit.rdma_tree import RdmaTree

ETH = 2


class Host:
    """A monitor over a tree of devices and over the kernel's table of RoCE."""

    def __init__(self, directory: Path) -> None:
        self.tree = RdmaTree(directory)
        self.queue_pairs: list[QueuePair] | None = []
        self.asked = 0
        self.table = Hash(wire.ROCE_KEY, wire.ROCE_TALLY, 8)
        self.now = 100.0
        self.sampler = Sampler(self.tree.root)
        self.census = CensusTaker(Register(tasks, paths), self._ask, pause=0.001)
        self.monitor = RdmaMonitor(
            Attribution(), sampler=self.sampler, census=self.census, roce=Roce(self.table)
        )
        self.links = {ETH: InterfaceInfo(name="eth0", index=ETH, kind="physical", state="up")}
        self.flows = FlowRows().table()

    def _ask(self) -> list[QueuePair]:
        self.asked += 1
        if self.queue_pairs is None:
            raise KernelError("not permitted")
        return self.queue_pairs

    def tick(self) -> Rdma:
        self.now += 1.0
        flows = FlowRows()
        self.monitor.look()
        rdma = self.monitor.tick(flows, moment(self.now), lambda: self.links)
        self.flows = flows.table()
        return rdma

    def receive(self, qpn: int, size: int) -> None:
        """A packet on the wire."""
        row = self.table.at(
            queue_pair=qpn, ifindex=ETH, uid=wire.NO_USER, version=wire.ROCE_V2, way=wire.ROCE_IN
        )
        assert row is not None
        tally = row["tally"]
        tally["in_packets"] += 1 << 32 | 1
        tally["in_bytes"] += size
        tally["last_seen"] = round(self.now * 1e9)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """On a kernel whose RDMA netlink knows no device."""
    monkeypatch.setattr(rdma_netlink, "devices", dict)
    host = Host(tmp_path)
    yield host
    host.monitor.close()


def until_open(host: Host, number: int) -> None:
    """Ticks until there are so many queue pairs, of devices that were read."""

    def there() -> bool:
        rdma = host.tick()
        return bool(rdma.ports) and len(rdma.queue_pairs) == number

    eventually(there)


def test_a_user(host: Host) -> None:
    """Ports, queue pairs with their users and what those transferred, and flows that are somebody's."""
    host.tree.rxe(netdev="eth0")
    host.queue_pairs = [queue_pair(17)]
    until_open(host, 1)
    host.receive(17, 100)
    rdma = host.tick()

    assert [(port.device, port.netdev) for port in rdma.ports] == [("rxe0", "eth0")]
    assert rdma.time > 0
    assert rows(rdma.queue_pairs, "qpn", "pid", "in_bytes") == [(17, PROCESSES[ALICE], 100)]
    assert rows(rdma.users, "uid", "in_packets", "in_bytes", "in_byte_rate") == [(ALICE, 1, 100, 100.0)]
    assert rows(host.flows, "kind", "uid", "in_bytes") == [(FlowKind.ROCE, ALICE, 100)]
    assert host.monitor.feature().state is FeatureState.ON
    assert rows(host.monitor.current().users, "uid", "in_bytes") == [(ALICE, 100)], "and between ticks"


def test_no_device(host: Host) -> None:
    """Off; the kernel is not asked for queue pairs, which would load a module. What passes is counted."""
    host.receive(17, 100)
    rdma = host.tick()

    assert (host.monitor.feature().state, host.monitor.feature().reason) == ("off", "no RDMA device")
    assert host.asked == 0
    assert (rdma.ports, len(rdma.queue_pairs)) == ((), 0)
    assert rows(rdma.users, "uid", "in_bytes") == [(NOBODY_UID, 100)]


def test_a_device_that_comes_and_goes(host: Host) -> None:
    """Queue pairs are looked at only as long as it is there."""
    host.tree.rxe()
    host.queue_pairs = [queue_pair(17)]
    until_open(host, 1)
    host.tree.remove("rxe0")
    eventually(lambda: not len(host.tick().queue_pairs))
    assert host.monitor.feature().state is FeatureState.OFF
    host.queue_pairs = [queue_pair(17), queue_pair(18)]
    host.tree.rxe()
    until_open(host, 2)

    assert host.monitor.feature().state is FeatureState.ON


def test_haste(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue pair that nobody knows is looked for at once, however long the next look is away."""
    monkeypatch.setattr(census, "_REST", 1e9)
    host.tree.rxe(netdev="eth0")
    until_open(host, 0)
    host.queue_pairs = [queue_pair(17)]
    host.receive(17, 100)

    assert eventually(lambda: rows(host.tick().users, "uid", "in_bytes")) == [(ALICE, 100)]


def test_refused(host: Host) -> None:
    """Without queue pairs nothing is anybody's; the reason is told, and what is known already stays."""
    host.tree.rxe()
    host.queue_pairs = [queue_pair(17)]
    until_open(host, 1)
    host.queue_pairs = None

    def degraded() -> bool:
        host.tick()
        return host.monitor.feature().state is FeatureState.DEGRADED

    eventually(degraded)
    assert host.monitor.feature().reason == "queue pairs are unknown: not permitted"
    assert len(host.tick().queue_pairs) == 1


def test_without_interfaces(host: Host) -> None:
    """Devices are read all the same."""
    host.tree.rxe()
    monitor = RdmaMonitor(Attribution(), sampler=host.sampler, census=host.census, roce=None)

    def ports() -> int:
        monitor.look()
        return len(monitor.tick(FlowRows(), moment(100.0), lambda: host.links).ports)

    assert eventually(ports) == 1
    assert "RDMA over Ethernet is not seen: interfaces are off" in monitor.feature().reason
