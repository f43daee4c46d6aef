"""One tick becomes one immutable Snapshot, of whichever parts work."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import numpy as np

from netmond.collector import Clock, Collector, Sockets, Traffic
from netmond.config import InterfacesConfig
from netmond.interfaces import Interfaces
from netmond.kernel import wire
from netmond.kernel.devices import Device
from netmond.ledger import Ledger
from netmond.model import COUNTERS, Feature, FeatureState, FlowKind, InterfaceInfo, Loss
from netmond.ports import Ports
from netmond.roce import Roce
from netmond.targets import Targets
from tests.unit.fakes import SECOND, WALL_AHEAD, Hooks, address, rows
from tests.unit.metering import ALICE, Bench

_ETH = Device(
    info=InterfaceInfo(name="eth0", index=2, kind="physical", state="up"), link_header=14, loopback=False
)
_TARGET = ip_network("192.0.2.1")


class Attached:
    hook = "tcx"

    def close(self) -> None:
        pass


class Machine:
    """All parts over arrays, and a clock that the test turns."""

    def __init__(self, **more: Any) -> None:
        self.bench = Bench()
        self.hooks = Hooks()
        self.socket_losses = np.zeros(len(wire.SOCKET_LOSSES), np.uint64)
        self.interface_losses = np.zeros(len(wire.INTERFACE_LOSSES), np.uint64)
        self.ports = Ports(self.hooks)
        self.targets = Targets(self.hooks, 8)
        self.interfaces = Interfaces(
            InterfacesConfig(monitor=("eth0",), attach="auto", forwarded=8),
            ports=self.ports,
            attach=lambda ifindex, mode: Attached(),
            devices=lambda: {2: _ETH},
        )
        self.collector = Collector(
            sockets=Sockets(meter=self.bench.meter, ledger=Ledger(wire.SOCKET_LOSSES, self.socket_losses)),
            traffic=Traffic(
                interfaces=self.interfaces,
                ports=self.ports,
                roce=Roce(self.hooks.roce),
                targets=self.targets,
                ledger=Ledger(wire.INTERFACE_LOSSES, self.interface_losses),
            ),
            clock=self.clock,
            **more,
        )

    @property
    def clock(self) -> Clock:
        kernel = self.bench.kernel
        return Clock(monotonic_ns=lambda: round(kernel.now * SECOND), wall=lambda: WALL_AHEAD + kernel.now)

    def to_target(self, size: int) -> None:
        counters = self.hooks.target_counters.array
        counters["in_bytes"][self.hooks.targets[_TARGET]] += np.uint64(size)

    def forward(self) -> None:
        tally = self.hooks.forwarded.at(source=address("192.0.2.9"), protocol=6, ifindex=2)
        assert tally is not None
        tally["in_bytes"] += np.uint64(1009)
        tally["last_seen"] = round(self.bench.kernel.now * SECOND)


def test_a_tick() -> None:
    """Time, number and interval of the tick, and the tables of all parts in one."""
    machine = Machine()
    machine.targets.add([_TARGET], WALL_AHEAD)
    machine.bench.kernel.now += 3
    machine.bench.kernel.send(machine.bench.kernel.open(), 101)
    machine.forward()
    machine.to_target(7)

    snapshot = machine.collector.tick()

    assert (snapshot.tick, snapshot.time, snapshot.interval) == (1, WALL_AHEAD + 103, 3.0)
    assert snapshot.since == WALL_AHEAD + 100
    assert rows(snapshot.users, "uid", "out_bytes") == [(ALICE, 101)]
    assert rows(snapshot.flows, "kind", "in_bytes", "out_bytes") == [
        (FlowKind.SOCKET, 0, 101),
        (FlowKind.FORWARDED, 1009, 0),
    ]
    assert rows(snapshot.targets, "address", "in_bytes") == [("192.0.2.1", 7)]
    assert rows(snapshot.interfaces, "ifindex") == [(2,)]
    assert snapshot.links[2].monitored
    assert machine.collector.snapshot is snapshot
    assert snapshot.cost.resident_bytes > 1 << 20


def test_books_and_the_total_of_the_host() -> None:
    """Books begin with the first tick after the interface is monitored; sockets' figures are in them."""
    machine = Machine()
    assert not machine.collector.tick().books  # in which its monitoring begins
    bench, place = machine.bench, machine.hooks.ports[2][0]
    machine.collector.tick()
    bench.kernel.now += 1
    bench.kernel.send(bench.kernel.open(), 101)
    bench.kernel.slots.array["out"]["ifindex"][bench.kernel.slots.array["out"]["bytes"] == 101] = 2
    side = machine.hooks.port_counters.array[place : place + 1]["out"]
    side["once"]["packets"], side["once"]["bytes"] = 1, 115

    snapshot = machine.collector.tick()

    assert set(snapshot.books) == {2}
    assert snapshot.books[2].since == WALL_AHEAD + 100
    assert snapshot.books[2].sockets is not None
    assert snapshot.books[2].sockets.tolist() == [0, 0, 1, 101, 0, 0, 1, 101]
    assert rows(snapshot.host, "out_packets", "out_bytes", "out_byte_rate") == [(1, 115, 115.0)]


def test_forwarded_traffic_is_no_users() -> None:
    """It is in the flows, and in nobody's figures."""
    machine = Machine()
    machine.forward()

    snapshot = machine.collector.tick()

    assert len(snapshot.flows) == 1
    assert len(snapshot.users) == len(snapshot.units) == len(snapshot.processes) == 0


def test_before_the_first_tick() -> None:
    """There is a snapshot from the start: number 0, over no time."""
    machine = Machine()

    assert machine.collector.snapshot.tick == 0
    assert machine.collector.snapshot.interval == 0.0


def test_refresh_accounts_nothing() -> None:
    """What was just added is shown, with the counters of now; rates, time and everybody's figures wait."""
    machine = Machine()
    machine.bench.kernel.now += 1
    before = machine.collector.tick()
    machine.bench.kernel.now += 0.5
    machine.targets.add([_TARGET], WALL_AHEAD + 101)
    machine.to_target(23)
    machine.bench.kernel.send(machine.bench.kernel.open(), 101)
    machine.collector.refresh()
    between = machine.collector.snapshot

    assert rows(between.targets, "in_bytes", "in_byte_rate") == [(23, 0.0)]
    assert (between.tick, between.time, between.users) == (before.tick, before.time, before.users)
    assert len(before.targets) == 0

    machine.bench.kernel.now += 0.5
    after = machine.collector.tick()

    assert rows(after.targets, "in_bytes", "in_byte_rate") == [(23, 23.0)]
    assert rows(after.users, "out_bytes", "out_byte_rate") == [(101, 101.0)]
    assert after.interval == 1.0


def test_the_loss_ledger() -> None:
    """Every counter of both programs under its name, in order, then those of the other parts; but what is
    counted elsewhere and so not lost."""
    other = Loss(name="output.csv.dropped", count=5, meaning="rows")
    machine = Machine(losses=lambda: (other,))
    machine.socket_losses[0] = 3
    machine.socket_losses[[name for name, _ in wire.SOCKET_LOSSES].index("meter.rdma")] = 11
    machine.interface_losses[1] = 7

    losses = machine.collector.tick().losses

    assert [loss.name for loss in losses] == [
        *(name for name, _ in wire.SOCKET_LOSSES if name != "meter.rdma"),
        *(name for name, _ in wire.INTERFACE_LOSSES),
        "output.csv.dropped",
    ]
    assert {loss.name: loss.count for loss in losses if loss.count} == {
        "meter.no-slot-sockets": 3,
        "interfaces.malformed": 7,
        "output.csv.dropped": 5,
    }


def test_features_are_asked_for_at_each_tick() -> None:
    """What other parts say of themselves is as of the tick."""
    states = iter([FeatureState.ON, FeatureState.DEGRADED])
    machine = Machine(features=lambda: (Feature(name="bus", state=next(states)),))

    assert machine.collector.snapshot.features[0].state is FeatureState.ON
    assert machine.collector.tick().features[0].state is FeatureState.DEGRADED


def test_nothing_works() -> None:
    """A machine that can load no program has empty tables with all their columns, and its interfaces."""
    full, empty = Machine().collector.tick(), Collector(sockets=None, traffic=None).tick()

    for name in ("users", "units", "processes", "flows", "interfaces", "targets"):
        table = getattr(empty, name)
        assert len(table) == 0
        assert table.counters.shape == (0, len(COUNTERS))
        assert {key: column.dtype for key, column in table.columns.items()} == {
            key: column.dtype for key, column in getattr(full, name).columns.items()
        }
    assert "lo" in {info.name for info in empty.links.values()}
    assert empty.losses == ()


def test_counting_may_have_begun_before_the_daemon() -> None:
    """Two moments: of the totals, and of this run. Without being told of others, both are now."""
    machine = Machine()
    later = Collector(sockets=None, traffic=None, clock=machine.clock, started=WALL_AHEAD + 99, since=7.5)

    assert machine.collector.snapshot.started == machine.collector.snapshot.since == WALL_AHEAD + 100
    assert (later.tick().started, later.snapshot.since) == (WALL_AHEAD + 99, 7.5)


def test_wall_clock_steps_do_not_matter() -> None:
    """Rates are taken over the monotonic clock: a clock that is set back makes none negative."""
    machine = Machine()
    wall = iter([5000.0, 4000.0, 3000.0])
    collector = Collector(
        sockets=Sockets(meter=machine.bench.meter, ledger=Ledger(wire.SOCKET_LOSSES, machine.socket_losses)),
        traffic=None,
        clock=Clock(monotonic_ns=machine.clock.monotonic_ns, wall=lambda: next(wall)),
    )
    machine.bench.kernel.send(machine.bench.kernel.open(), 101)
    machine.bench.kernel.now += 0.5

    snapshot = collector.tick()

    assert (snapshot.interval, snapshot.since, snapshot.time) == (0.5, 5000.0, 3000.0)
    assert rows(snapshot.users, "out_byte_rate") == [(202.0,)]
