"""What passed the monitored interfaces: totals, classes, forwarded flows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.errors import KernelError, LimitExceeded
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import FlowKind, Table
from netmond.ports import CLASS_COLUMNS, Ports
from tests.unit.fakes import SECOND, WALL_AHEAD, Hooks, address, moment, rows

ETH, WIFI = 2, 3


class Bench:
    """Ports over arrays."""

    def __init__(self, **sizes: int) -> None:
        self.hooks = Hooks(**sizes)
        self.ports = Ports(self.hooks)

    def open(self, ifindex: int) -> None:
        self.ports.open(ifindex, link_header=14, loopback=False)

    def frame(
        self, ifindex: int, class_: str, size: int, *, direction: str = "in", segments: int = 1
    ) -> None:
        """A frame as the programs count it: what segmentation repeats is 54 bytes a segment."""
        place = self.hooks.ports[ifindex][0]
        side = self.hooks.port_counters.array[place : place + 1][direction]
        side["stack_packets"] += np.uint64(1)
        side["stack_bytes"] += np.uint64(size)
        number = wire.CLASSES.index(class_)
        side["class"]["packets"][:, number] += np.uint64(segments)
        side["class"]["bytes"][:, number] += np.uint64(size + 54 * (segments - 1))

    def table(self, seconds: float = 1.0) -> Table:
        return self.ports.table(moment(100.0, seconds))

    def forward(
        self, *, port: int = 40_000, size: int = 100, at: float = 100.0, source: str = "192.0.2.1"
    ) -> None:
        tally = self.hooks.forwarded.at(
            source=address(source),
            destination=address("203.0.113.7"),
            source_port=port,
            destination_port=443,
            protocol=6,
            ifindex=ETH,
        )
        assert tally is not None
        tally["out_bytes"] += np.uint64(size)
        tally["out_packets"] += np.uint64(1 | 1 << 32)
        tally["last_seen"] = round(at * SECOND)
        if not tally["first_seen"]:
            tally["first_seen"] = tally["last_seen"]

    def forwarded(self, at: float) -> Table:
        flows = FlowRows()
        self.ports.add_forwarded(flows, moment(at))
        return flows.table()


def test_classes_and_their_sum() -> None:
    """Interface totals are the sum of the exclusive classes; multicast repeats what the others hold."""
    bench = Bench()
    bench.open(ETH)
    bench.frame(ETH, "ipv4", 1514)
    bench.frame(ETH, "ipv6", 200)
    bench.frame(ETH, "arp", 42)
    bench.frame(ETH, "other", 60)
    bench.frame(ETH, "ipv4", 20_000, direction="out", segments=14)
    place = bench.hooks.ports[ETH][0]
    bench.hooks.port_counters.array["in"]["class"]["packets"][place, wire.CLASSES.index("multicast")] = 2
    bench.hooks.port_counters.array["in"]["class"]["bytes"][place, wire.CLASSES.index("multicast")] = 242

    table = bench.table()

    assert rows(table, "ifindex", "in_packets", "in_bytes", "out_packets", "out_bytes") == [
        (ETH, 4, 1816, 14, 20_702)
    ]
    assert rows(table, "in_stack_packets", "in_stack_bytes", "out_stack_packets", "out_stack_bytes") == [
        (4, 1816, 1, 20_000)
    ]
    assert {name: column.tolist() for name, column in table.columns.items() if column.any()} == {
        "ifindex": [ETH],
        "in_ipv4_packets": [1],
        "in_ipv4_bytes": [1514],
        "in_ipv6_packets": [1],
        "in_ipv6_bytes": [200],
        "in_arp_packets": [1],
        "in_arp_bytes": [42],
        "in_other_packets": [1],
        "in_other_bytes": [60],
        "in_multicast_packets": [2],
        "in_multicast_bytes": [242],
        "out_ipv4_packets": [14],
        "out_ipv4_bytes": [20_702],
    }
    assert set(table.columns) == {"ifindex", *CLASS_COLUMNS}


def test_rates_are_of_the_last_interval() -> None:
    """Each interface's rates follow it, also when others come and go between two ticks."""
    bench = Bench()
    for ifindex in (ETH, WIFI):
        bench.open(ifindex)
        bench.frame(ifindex, "ipv4", 100)
    bench.table()
    bench.ports.close(ETH)
    bench.open(7)
    bench.frame(WIFI, "ipv4", 46)
    bench.frame(7, "ipv4", 22)

    assert rows(bench.table(2.0), "ifindex", "in_bytes", "in_byte_rate") == [
        (WIFI, 146, 23.0),
        (7, 22, 11.0),
    ]


def test_between_two_ticks() -> None:
    """In between counters are those of now, rates those of the last tick; the next tick misses nothing."""
    bench = Bench()
    bench.open(ETH)
    bench.frame(ETH, "ipv4", 100)
    bench.table()
    bench.frame(ETH, "ipv4", 46)
    bench.open(WIFI)

    names = ("ifindex", "in_bytes", "in_byte_rate")
    assert rows(bench.ports.current(), *names) == [(ETH, 146, 100.0), (WIFI, 0, 0.0)]
    assert rows(bench.table(), *names) == [(ETH, 146, 46.0), (WIFI, 0, 0.0)]


def test_a_port_opened_again_begins_at_zero() -> None:
    """The kernel's counters only ever grow: what an earlier holder of the place counted is the base."""
    bench = Bench(ports=1)
    bench.open(ETH)
    bench.frame(ETH, "ipv4", 1009)
    bench.table()
    bench.ports.close(ETH)
    bench.open(WIFI)
    bench.frame(WIFI, "ipv4", 13)

    assert rows(bench.table(), "ifindex", "in_bytes", "in_packets", "in_byte_rate") == [(WIFI, 13, 1, 13.0)]


def test_what_the_kernel_is_told() -> None:
    """The programs learn place, link-layer header and whether it is the loopback, and forget it again."""
    bench = Bench()
    bench.ports.open(1, link_header=14, loopback=True)
    bench.ports.open(9, link_header=0, loopback=False)
    assert bench.hooks.ports == {1: (0, 14, True), 9: (1, 0, False)}

    bench.ports.close(1)

    assert bench.hooks.ports == {9: (1, 0, False)}
    assert 1 not in bench.ports
    assert 9 in bench.ports


def test_too_many_interfaces() -> None:
    """One more than there are places for is refused, in words that name the limit; the rest goes on."""
    bench = Bench(ports=2)
    bench.open(ETH)
    bench.open(WIFI)

    with pytest.raises(LimitExceeded, match="at most 2 interfaces"):
        bench.open(9)

    assert bench.table().columns["ifindex"].tolist() == [ETH, WIFI]


def test_a_port_that_the_kernel_refuses() -> None:
    """It is not monitored and holds no place."""
    bench = Bench(ports=1)
    bench.hooks.refuse.add(ETH)

    with pytest.raises(KernelError):
        bench.open(ETH)

    assert ETH not in bench.ports
    bench.open(WIFI)
    assert bench.table().columns["ifindex"].tolist() == [WIFI]


def test_no_interface_at_all() -> None:
    """An empty table has all columns."""
    table = Bench().table()

    assert len(table) == 0
    assert set(table.columns) == {"ifindex", *CLASS_COLUMNS}


def test_a_forwarded_flow() -> None:
    """Forwarded traffic is nobody's; its two ends stand where other flows have local and remote."""
    bench = Bench()
    bench.forward(size=1009)

    table = bench.forwarded(101.0)

    assert rows(
        table, "kind", "protocol", "local_port", "remote_port", "ifindex", "uid", "pid", "unit_index"
    ) == [(FlowKind.FORWARDED, 6, 40_000, 443, ETH, 0xFFFFFFFF, 0, -1)]
    assert table.columns["local"].tobytes() == address("192.0.2.1").tobytes()
    assert table.columns["remote"].tobytes() == address("203.0.113.7").tobytes()
    assert rows(table, "out_bytes", "out_packets", "first_seen", "last_seen", "ended") == [
        (1009, 1, WALL_AHEAD + 100, WALL_AHEAD + 100, False)
    ]


def test_forwarded_flows_of_a_quiet_table_stay() -> None:
    """Two minutes of silence end a flow; its row appears a last time and leaves the kernel's table."""
    bench = Bench()
    bench.forward(port=1, at=100.0)
    bench.forward(port=2, at=150.0)
    assert bench.forwarded(219.0).columns["ended"].tolist() == [False, False]

    assert rows(bench.forwarded(221.0), "local_port", "ended") == [(1, True), (2, False)]
    assert rows(bench.forwarded(222.0), "local_port", "ended") == [(2, False)]
    assert len(bench.hooks.forwarded) == 1


def test_forwarded_flows_of_a_crowded_table_leave_sooner() -> None:
    """With more than seven of eight rows in use ten seconds are enough."""
    bench = Bench(forwarded=8)
    for port in range(8):
        bench.forward(port=port, at=100.0 + port)

    assert bench.forwarded(113.5).columns["ended"].tolist() == [True] * 4 + [False] * 4


def test_the_last_packet_of_a_forwarded_flow() -> None:
    """A packet between reading the table and taking the row out is in the last figures, rates included."""
    bench = Bench()
    bench.forward(size=101)
    bench.forwarded(101.0)
    bench.hooks.forwarded.before_take = lambda: bench.forward(size=13)

    assert rows(bench.forwarded(300.0), "out_bytes", "out_packets", "out_byte_rate", "ended") == [
        (114, 2, 13.0, True)
    ]


def test_a_forwarded_flow_that_comes_back() -> None:
    """After its end the same addresses and ports are a new row, from zero."""
    bench = Bench()
    bench.forward(size=101)
    bench.forwarded(300.0)
    bench.forward(size=13, at=301.0)

    assert rows(bench.forwarded(302.0), "out_bytes", "out_byte_rate", "ended") == [(13, 13.0, False)]


def ids(table: Table) -> NDArray[Any]:
    return table.columns["id"]


def test_ids_of_forwarded_flows() -> None:
    """Each flow has its own, which stays from tick to tick."""
    bench = Bench()
    for port in range(7):
        bench.forward(port=port)
    before = ids(bench.forwarded(101.0)).tolist()

    assert len(set(before)) == 7
    assert ids(bench.forwarded(102.0)).tolist() == before
