"""What passed the monitored interfaces: totals, classes, forwarded flows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.errors import KernelError, LimitExceeded
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.kernel.role import Role
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


def once(bench: Bench, ifindex: int, direction: str, packets: int, size: int) -> None:
    place = bench.hooks.ports[ifindex][0]
    side = bench.hooks.port_counters.array[place : place + 1][direction]["once"]
    side["packets"] += np.uint64(packets)
    side["bytes"] += np.uint64(size)


def test_the_total_of_the_host() -> None:
    """What all interfaces counted once, also those that are monitored no more; with rates."""
    bench = Bench()
    for ifindex in (ETH, WIFI):
        bench.open(ifindex)
        once(bench, ifindex, "in", 3, 300)
    assert bench.ports.host(moment(100.0)).counters.tolist() == [[6, 600, 0, 0, 6, 600, 0, 0]]

    bench.ports.close(ETH)
    once(bench, WIFI, "out", 5, 500)
    host = bench.ports.host(moment(102.0, 2.0))

    assert host.counters.tolist() == [[6, 600, 5, 500, 6, 600, 5, 500]]
    assert host.rates.tolist() == [[0, 0, 2.5, 250]]


def test_the_total_of_the_host_goes_on() -> None:
    """Over a restart with the same tables, and over one with others."""
    bench = Bench()
    bench.open(ETH)
    once(bench, ETH, "in", 3, 300)
    bench.ports.close(ETH)
    bench.open(WIFI)
    bench.ports.host(moment(100.0))
    same, other = Ports(bench.hooks), Bench()

    same.resume(bench.ports.checkpoint())
    other.ports.include(same)

    for ports in (same, other.ports):
        assert ports.host(moment(101.0)).counters[0, :2].tolist() == [3, 300]
        assert ports.host(moment(102.0)).rates.tolist() == [[0, 0, 0, 0]]


def test_roles() -> None:
    """The programs learn how interfaces stand on each other, when that changes, and of others they need."""
    bench = Bench()
    bench.open(ETH)
    master = Role(link_header=14, flags=wire.PORT_UPPER)
    port = Role(link_header=14, flags=wire.PORT_BRIDGED, master=WIFI, address=b"\2\0\0\0\0\7")

    bench.ports.arrange({ETH: port, WIFI: master})
    assert bench.hooks.roles == {
        ETH: (wire.PORT_BRIDGED, WIFI, b"\2\0\0\0\0\7"),
        WIFI: (wire.PORT_UPPER, 0, bytes(6)),
    }
    assert {ifindex: place for ifindex, (place, _, _) in bench.hooks.ports.items()} == {
        ETH: 0,
        WIFI: wire.NO_PLACE,
    }

    bench.hooks.refuse.add(ETH)  # nothing has changed, so nothing is said
    bench.ports.arrange({ETH: port, WIFI: master})
    bench.hooks.refuse.clear()
    bench.ports.arrange({ETH: Role(link_header=14)})

    assert bench.hooks.roles == {ETH: (0, 0, bytes(6))}


def test_words() -> None:
    """All that was counted of an interface since it is monitored, for the books."""
    bench = Bench()
    bench.open(ETH)
    bench.frame(ETH, "ipv4", 100)
    bench.ports.close(ETH)
    bench.open(ETH)
    bench.frame(ETH, "ipv4", 46)

    (words,) = bench.ports.words().values()

    assert words.view(wire.PORT_COUNTERS)["in"]["stack_bytes"].tolist() == [46]


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


def test_forwarded_flows_that_should_be_read_often() -> None:
    """From a quarter of the rows on."""
    bench = Bench(forwarded=8)
    for port in range(3):
        assert not bench.ports.crowded
        bench.forward(port=port, at=100.0)
        bench.forwarded(101.0)

    assert bench.ports.crowded


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


# -- from one daemon to the next ----------------------------------------------------------------------------


def handed_over(bench: Bench) -> None:
    """Other Ports over the same tables, from what a file would hold."""
    kept = {name: array.copy() for name, array in bench.ports.checkpoint().items()}
    bench.ports = Ports(bench.hooks)
    bench.ports.resume(kept)


def test_the_next_daemon_goes_on() -> None:
    """With the same interfaces at the same places, their figures, and what passed in between."""
    bench = Bench()
    for ifindex in (WIFI, ETH):
        bench.open(ifindex)
        bench.frame(ifindex, "ipv4", 1009)
    bench.ports.close(WIFI)
    bench.open(7)
    bench.frame(7, "arp", 42)
    bench.table()
    bench.frame(ETH, "ipv4", 101)

    handed_over(bench)

    assert list(bench.ports) == [ETH, 7]
    assert set(bench.hooks.ports) == {ETH, 7}
    bench.frame(7, "arp", 60)
    assert rows(bench.table(), "ifindex", "in_bytes", "in_packets", "in_byte_rate") == [
        (ETH, 1110, 2, 101.0),
        (7, 102, 2, 60.0),
    ]


def test_the_next_daemon_uses_other_places() -> None:
    """What it opens does not get in the way of what it took over, and begins at zero."""
    bench = Bench(ports=3)
    for ifindex in (ETH, WIFI):
        bench.open(ifindex)
        bench.frame(ifindex, "ipv4", 1009)
    bench.ports.close(ETH)
    handed_over(bench)

    bench.open(7)
    bench.open(9)

    assert len({place for place, *_ in bench.hooks.ports.values()}) == 3
    assert rows(bench.table(), "ifindex", "in_bytes") == [(WIFI, 1009), (7, 0), (9, 0)]
    with pytest.raises(LimitExceeded):
        bench.open(11)


def test_an_interface_opened_after_the_last_checkpoint() -> None:
    """Nobody knows of it any more: the programs stop counting for it until it is opened again."""
    bench = Bench()
    bench.open(ETH)
    kept = {name: array.copy() for name, array in bench.ports.checkpoint().items()}
    bench.open(WIFI)
    bench.frame(WIFI, "ipv4", 101)

    bench.ports = Ports(bench.hooks)
    bench.ports.resume(kept)

    assert set(bench.hooks.ports) == {ETH}
    bench.open(WIFI)
    assert rows(bench.table(), "ifindex", "in_bytes") == [(ETH, 0), (WIFI, 0)]


def test_no_interface_is_handed_over() -> None:
    """An empty checkpoint is one, too."""
    bench = Bench()

    handed_over(bench)

    assert list(bench.ports) == []
    bench.open(ETH)


def test_another_build_goes_on() -> None:
    """Its own figures are added to those of the one before, for interfaces that both have."""
    before, after = Bench(), Bench()
    for bench, ifindexes in ((before, (WIFI, ETH)), (after, (ETH, 7))):
        for ifindex in ifindexes:
            bench.open(ifindex)
            bench.frame(ifindex, "ipv4", 1009)
            bench.frame(ifindex, "arp", 42, direction="out")
    before.table()

    after.ports.include(before.ports)

    assert rows(after.ports.current(), "ifindex", "in_bytes", "in_ipv4_packets", "out_arp_bytes") == [
        (ETH, 2018, 2, 84),
        (7, 1009, 1, 42),
    ]
    assert rows(after.table(), "in_byte_rate") == [(1009.0,), (1009.0,)]


def test_forwarded_flows_go_on() -> None:
    """Their rows keep id and figures; one that was taken out meanwhile begins anew."""
    bench = Bench()
    for port in (1, 2):
        bench.forward(port=port, size=1009)
    before = bench.forwarded(101.0)
    kept = {name: array.copy() for name, array in bench.ports.checkpoint().items()}
    bench.forward(port=1, size=101, at=202.0)
    bench.forwarded(222.0)  # takes the other one out
    bench.forward(port=2, size=13, at=223.0)

    bench.ports = Ports(bench.hooks)
    bench.ports.resume(kept)
    after = bench.forwarded(224.0)

    assert sorted(ids(after).tolist()) == sorted(ids(before).tolist())
    assert sorted(rows(after, "local_port", "out_bytes", "out_packets", "out_byte_rate")) == [
        (1, 1110, 2, 101.0),
        (2, 13, 1, 13.0),
    ]


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
