"""The addresses and prefixes whose traffic is counted."""

from __future__ import annotations

from ipaddress import ip_network

import numpy as np
import pytest

from netmond.errors import AlreadyExists, KernelError, LimitExceeded, NoSuchTarget
from netmond.model import Network, Table
from netmond.targets import Targets
from tests.unit.fakes import Hooks, moment, rows

HOST, NET, V6 = (ip_network(text) for text in ("192.0.2.1", "198.51.100.0/24", "2001:db8::/32"))
OTHER = ip_network("203.0.113.7")


class Bench:
    """Targets over arrays."""

    def __init__(self, *, limit: int = 8, capacity: int = 8) -> None:
        self.hooks = Hooks(targets=capacity)
        self.targets = Targets(self.hooks, limit)

    def traffic(self, network: Network, size: int) -> None:
        """A packet to the target and half as many bytes from it, as the programs count."""
        place = self.hooks.targets[network]
        counters = self.hooks.target_counters.array
        for name, value in (
            ("in_packets", 1),
            ("in_bytes", size),
            ("out_packets", 1),
            ("out_bytes", size // 2),
        ):
            counters[name][place] += np.uint64(value)

    def table(self, seconds: float = 1.0) -> Table:
        return self.targets.table(moment(100.0, seconds))


def test_figures_of_targets() -> None:
    """Rows in the order of being added, written as people write them; stack figures equal the wire's."""
    bench = Bench()
    bench.targets.add([HOST, NET], 10.0)
    bench.targets.add([V6], 20.0)
    for network, size in ((HOST, 100), (V6, 3000), (HOST, 20)):
        bench.traffic(network, size)

    table = bench.table()

    assert rows(table, "address", "since", "in_packets", "in_bytes", "out_packets", "out_bytes") == [
        ("192.0.2.1", 10.0, 2, 120, 2, 60),
        ("198.51.100.0/24", 10.0, 0, 0, 0, 0),
        ("2001:db8::/32", 20.0, 1, 3000, 1, 1500),
    ]
    assert table.counters[:, 4:].tolist() == table.counters[:, :4].tolist()


def test_rates() -> None:
    """Over the last interval, per second; the first tick's are from when the target was added."""
    bench = Bench()
    bench.targets.add([HOST], 10.0)
    bench.traffic(HOST, 100)
    assert rows(bench.table(), "in_byte_rate") == [(100.0,)]
    bench.traffic(HOST, 23)

    assert rows(bench.table(2.0), "in_byte_rate", "in_packet_rate", "out_byte_rate") == [(11.5, 0.5, 5.5)]


def test_between_two_ticks() -> None:
    """In between counters are those of now, rates those of the last tick; the next tick misses nothing."""
    bench = Bench()
    bench.targets.add([HOST], 10.0)
    bench.traffic(HOST, 100)
    bench.table()
    bench.traffic(HOST, 46)
    bench.targets.add([NET], 10.0)

    assert rows(bench.targets.current(), "in_bytes", "in_byte_rate") == [(146, 100.0), (0, 0.0)]
    assert rows(bench.table(), "in_bytes", "in_byte_rate") == [(146, 46.0), (0, 0.0)]


def test_a_target_counts_from_when_it_was_added() -> None:
    """A place used before brings nothing along: neither figures nor rates."""
    bench = Bench(limit=1)
    bench.targets.add([HOST], 10.0)
    bench.traffic(HOST, 100)
    bench.table()
    bench.targets.remove([HOST])
    bench.targets.add([NET], 20.0)
    bench.traffic(NET, 7)

    assert rows(bench.table(), "address", "since", "in_bytes", "in_byte_rate") == [
        ("198.51.100.0/24", 20.0, 7, 7.0)
    ]


def test_adding_a_removed_target_again() -> None:
    """It begins at zero like any other."""
    bench = Bench()
    bench.targets.add([HOST], 10.0)
    bench.traffic(HOST, 100)
    bench.table()
    bench.targets.remove([HOST])
    bench.targets.add([HOST], 20.0)

    assert rows(bench.table(), "since", "in_bytes", "in_byte_rate") == [(20.0, 0, 0.0)]


def test_reset() -> None:
    """Figures, rates and `since` begin again, of the named targets only, which keep their order."""
    bench = Bench()
    bench.targets.add([HOST, NET], 10.0)
    bench.traffic(HOST, 100)
    bench.traffic(NET, 200)
    bench.table()
    bench.targets.reset([HOST], 30.0)
    bench.traffic(HOST, 7)

    assert rows(bench.table(), "address", "since", "in_bytes", "in_byte_rate") == [
        ("192.0.2.1", 30.0, 7, 7.0),
        ("198.51.100.0/24", 10.0, 200, 0.0),
    ]


def test_restored_figures_go_on() -> None:
    """A target counts from where an earlier run left it, and since when that began; rates are of now."""
    bench = Bench()
    bench.targets.add([HOST, NET], 10.0)
    bench.targets.restore(HOST, 3.5, np.array([7, 1009, 11, 2003, 0, 0, 0, 0], np.uint64))
    assert rows(bench.targets.current(), "since", "in_bytes", "out_bytes") == [
        (3.5, 1009, 2003),
        (10.0, 0, 0),
    ]
    bench.traffic(HOST, 100)

    assert rows(
        bench.table(), "since", "in_packets", "in_bytes", "out_packets", "out_bytes", "in_byte_rate"
    ) == [
        (3.5, 8, 1109, 12, 2053, 100.0),
        (10.0, 0, 0, 0, 0, 0.0),
    ]


def test_resetting_a_restored_target() -> None:
    """Nothing of the earlier figures is left, also for the next target at its place."""
    bench = Bench(limit=1)
    bench.targets.add([HOST], 10.0)
    bench.targets.restore(HOST, 3.5, np.full(8, 1009, np.uint64))
    bench.table()
    bench.targets.reset([HOST], 20.0)
    assert rows(bench.table(), "since", "in_bytes", "in_byte_rate") == [(20.0, 0, 0.0)]
    bench.targets.restore(HOST, 3.5, np.full(8, 1009, np.uint64))
    bench.targets.remove([HOST])
    bench.targets.add([NET], 30.0)

    assert rows(bench.table(), "since", "in_bytes", "in_byte_rate") == [(30.0, 0, 0.0)]


def test_what_the_programs_are_told() -> None:
    """Every change is announced once it is complete, with how many targets of either family there are."""
    bench = Bench()
    bench.targets.add([HOST, NET, V6], 10.0)
    bench.targets.remove([HOST])

    assert bench.hooks.announced == [(2, 1), (1, 1)]
    assert set(bench.hooks.targets) == {NET, V6}
    assert len(set(bench.hooks.targets.values())) == 2


def test_naming_a_target_twice_in_one_call() -> None:
    """It is added once and removed once."""
    bench = Bench(limit=1)
    bench.targets.add([HOST, HOST], 10.0)
    assert len(bench.targets) == 1

    bench.targets.remove([HOST, HOST])

    assert len(bench.targets) == 0
    bench.targets.add([NET], 10.0)


class TestAllOrNothing:
    """A call that fails changes nothing."""

    @staticmethod
    def bench() -> Bench:
        bench = Bench(limit=3)
        bench.targets.add([HOST, NET], 10.0)
        bench.traffic(HOST, 100)
        return bench

    def unchanged(self, bench: Bench) -> None:
        assert rows(bench.table(), "address", "since", "in_bytes") == [
            ("192.0.2.1", 10.0, 100),
            ("198.51.100.0/24", 10.0, 0),
        ]
        assert set(bench.hooks.targets) == {HOST, NET}
        bench.targets.add([V6], 20.0)  # a place is still free

    def test_one_that_exists(self) -> None:
        """Adding it again is refused by name, with all that came along."""
        bench = self.bench()
        with pytest.raises(AlreadyExists, match=r"192\.0\.2\.1 is a target already"):
            bench.targets.add([V6, HOST], 20.0)

        self.unchanged(bench)

    def test_too_many(self) -> None:
        """The limit is named, how many are in use, and the setting to raise."""
        bench = self.bench()
        with pytest.raises(LimitExceeded, match=r"at most 3 targets, 2 in use.*\[targets\] limit"):
            bench.targets.add([V6, OTHER], 20.0)

        self.unchanged(bench)

    def test_one_that_the_kernel_refuses(self) -> None:
        """Those already entered are taken back, and the programs told."""
        bench = self.bench()
        bench.hooks.refuse.add(OTHER)
        with pytest.raises(KernelError):
            bench.targets.add([OTHER], 20.0)

        assert bench.hooks.announced[-1] == (2, 0)
        self.unchanged(bench)

    def test_the_second_is_refused(self) -> None:
        """Also when the first of the call was entered."""
        bench = Bench(limit=4)
        bench.targets.add([HOST, NET], 10.0)
        bench.traffic(HOST, 100)
        bench.hooks.refuse.add(OTHER)
        with pytest.raises(KernelError):
            bench.targets.add([V6, OTHER], 20.0)

        assert V6 not in bench.targets
        self.unchanged(bench)

    def test_removing_one_that_is_none(self) -> None:
        """The error says which, and where to look."""
        bench = self.bench()
        with pytest.raises(NoSuchTarget, match=r"2001:db8::/32 is no target: see netmonctl target list"):
            bench.targets.remove([HOST, V6])

        self.unchanged(bench)

    def test_resetting_one_that_is_none(self) -> None:
        """The others keep their figures."""
        bench = self.bench()
        with pytest.raises(NoSuchTarget):
            bench.targets.reset([HOST, V6], 20.0)

        self.unchanged(bench)


def test_the_limit_is_never_more_than_the_kernel_has_room_for() -> None:
    """A limit raised by configuration after the tables were made does not write beyond them."""
    bench = Bench(limit=100, capacity=2)

    with pytest.raises(LimitExceeded, match="at most 2 targets"):
        bench.targets.add([HOST, NET, V6], 10.0)


def test_ten_thousand_targets() -> None:
    """All are added in one call, each with a place of its own."""
    bench = Bench(limit=10_007, capacity=10_112)
    networks = [ip_network((167_772_160 + number, 32)) for number in range(10_007)]
    bench.targets.add(networks, 10.0)
    bench.traffic(networks[-1], 100)

    assert len(set(bench.hooks.targets.values())) == 10_007
    assert rows(bench.table(), "address", "in_bytes")[-1] == ("10.0.39.22", 100)


def test_a_prefix_and_an_address_in_it() -> None:
    """Overlapping targets are different ones; the kernel counts a packet for the most specific."""
    bench = Bench()
    inside = ip_network("198.51.100.7")
    bench.targets.add([NET, inside, ip_network("198.51.100.0/25")], 10.0)
    bench.traffic(inside, 100)

    assert [row[0] for row in rows(bench.table(), "in_bytes")] == [0, 100, 0]
    assert list(bench.targets.since) == [NET, inside, ip_network("198.51.100.0/25")]


def test_no_targets() -> None:
    """An empty table."""
    assert rows(Bench().table(), "address", "since", "in_bytes") == []


# -- from one daemon to the next ----------------------------------------------------------------------------


def handed_over(bench: Bench, limit: int = 8) -> None:
    """Other Targets over the same tables, from what a file would hold."""
    kept = {name: array.copy() for name, array in bench.targets.checkpoint().items()}
    bench.targets = Targets(bench.hooks, limit)
    bench.targets.resume(kept)


def test_the_next_daemon_goes_on() -> None:
    """With the same targets in the same order, their figures, and what passed in between."""
    bench = Bench()
    bench.targets.add([HOST, NET], 10.0)
    bench.targets.add([V6], 20.0)
    bench.traffic(HOST, 1009)
    bench.targets.remove([NET])
    bench.table()
    bench.traffic(HOST, 101)

    handed_over(bench)

    assert bench.targets.since == {HOST: 10.0, V6: 20.0}
    bench.traffic(V6, 7)
    assert rows(bench.table(), "address", "since", "in_bytes", "in_packets", "in_byte_rate") == [
        ("192.0.2.1", 10.0, 1110, 2, 101.0),
        ("2001:db8::/32", 20.0, 7, 1, 7.0),
    ]
    assert bench.hooks.announced[-1] == (1, 1)


def test_the_next_daemon_uses_other_places() -> None:
    """Targets it adds do not get in the way of those it took over, and begin at zero."""
    bench = Bench(limit=3)
    bench.targets.add([HOST, NET], 10.0)
    for network in (HOST, NET):
        bench.traffic(network, 1009)
    bench.targets.remove([HOST])
    handed_over(bench, limit=3)

    bench.targets.add([HOST, V6], 30.0)

    assert len(set(bench.hooks.targets.values())) == 3
    assert rows(bench.table(), "address", "in_bytes") == [
        ("198.51.100.0/24", 1009),
        ("192.0.2.1", 0),
        ("2001:db8::/32", 0),
    ]
    with pytest.raises(LimitExceeded):
        bench.targets.add([OTHER], 30.0)


def test_changes_after_the_last_checkpoint() -> None:
    """What was added is not counted, what was removed is counted again: as the checkpoint says."""
    bench = Bench()
    bench.targets.add([HOST, NET], 10.0)
    kept = {name: array.copy() for name, array in bench.targets.checkpoint().items()}
    bench.targets.remove([HOST])
    bench.targets.add([V6], 20.0)

    bench.targets = Targets(bench.hooks, 8)
    bench.targets.resume(kept)

    assert set(bench.hooks.targets) == {HOST, NET}
    assert len(set(bench.hooks.targets.values())) == 2
    bench.traffic(HOST, 13)
    assert rows(bench.table(), "address", "in_bytes") == [("192.0.2.1", 13), ("198.51.100.0/24", 0)]


def test_no_target_is_handed_over() -> None:
    """An empty checkpoint is one, too."""
    bench = Bench()

    handed_over(bench)

    assert len(bench.targets) == 0
    bench.targets.add([HOST], 10.0)


def test_a_reset_target_is_handed_over() -> None:
    """It has what came after the reset, also what an earlier run had brought is gone."""
    bench = Bench()
    bench.targets.add([HOST], 10.0)
    bench.targets.restore(HOST, 3.5, np.full(8, 1009, np.uint64))
    bench.traffic(HOST, 100)
    handed_over(bench)
    assert rows(bench.table(), "since", "in_bytes") == [(3.5, 1109)]

    bench.targets.reset([HOST], 20.0)
    bench.traffic(HOST, 13)
    handed_over(bench)

    assert rows(bench.table(), "since", "in_bytes") == [(20.0, 13)]
