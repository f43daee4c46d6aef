"""From the meter's records to users, units, processes and flows: sockets that come, count and go."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netmond.kernel import wire
from netmond.model import FlowKind, Table
from tests.unit.fakes import SECOND, WALL_AHEAD, address, rows
from tests.unit.metering import ALICE, BOB, IDLE, PATHS, Bench, by_user, rows_that
from tests.unit.sockets import HOME


class TestSockets:
    """One row for each socket, and the sums above it."""

    def test_a_new_socket(self) -> None:
        """A slot just claimed becomes a flow with its identity, and counts for user, unit and process."""
        bench = Bench()
        socket = bench.kernel.open(ALICE, cgroup=1, pid=77, comm=b"curl")
        bench.kernel.send(socket, 101)
        bench.kernel.receive(socket, 211)

        usage = bench.tick()
        flows = usage.flows.table()

        assert rows(flows, "kind", "protocol", "uid", "pid", "comm", "local_port", "remote_port") == [
            (FlowKind.SOCKET, 6, ALICE, 77, b"curl", 41_001, 443)
        ]
        assert rows(flows, "in_bytes", "in_packets", "out_bytes", "out_packets") == [(211, 1, 101, 1)]
        assert flows.columns["local"].tobytes() == address("192.0.2.1").tobytes()
        assert flows.columns["remote"].tobytes() == address("203.0.113.7").tobytes()
        assert rows(flows, "first_seen", "last_seen", "ended") == [
            (WALL_AHEAD + 100, WALL_AHEAD + 100, False)
        ]
        assert rows(usage.users, "uid", "flows", "in_bytes") == [(ALICE, 1, 211)]
        assert rows(usage.units, "unit", "slice", "cgroup", "out_bytes") == [
            ("web.service", "system.slice", PATHS[1], 101)
        ]
        assert rows(usage.processes, "pid", "comm", "uid", "unit", "in_bytes") == [
            (77, b"curl", ALICE, "web.service", 211)
        ]
        assert [bench.meter.owners.unit_names[index] for index in flows.columns["unit_index"]] == [
            "web.service"
        ]

    def test_growth_is_counted_once(self) -> None:
        """Totals go on, rates are those of the last interval."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.tick()
        for _ in range(23):
            bench.kernel.send(socket, 11)

        usage = bench.tick(2.0)

        names = ("out_bytes", "out_packets", "out_byte_rate", "out_packet_rate")
        assert rows(usage.flows.table(), *names) == [(354, 24, 126.5, 11.5)]
        assert rows(usage.users, *names) == [(354, 24, 126.5, 11.5)]
        assert rows(bench.tick().users, *names) == [(354, 24, 0.0, 0.0)]

    def test_wire_and_stack_figures(self) -> None:
        """A segmented super-packet is one for the stack, many on the wire, each with headers."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 60_040, segments=41, headers=40)

        table = bench.tick().users

        assert rows(table, "out_packets", "out_bytes", "out_stack_packets", "out_stack_bytes") == [
            (41, 60_040 + 40 * 40, 1, 60_040)
        ]

    def test_packet_words_that_wrap(self) -> None:
        """The 32-bit halves of the packet word overflow, totals of 64 bits go on."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 0)
        side = bench.kernel.slots.array[0]["out"]
        side["packets"] = np.uint64(0xFFFFFFFE | 0xFFFFFFF0 << 32)
        bench.tick()
        for _ in range(3):
            bench.kernel.send(socket, 0, segments=11, headers=0)

        table = bench.tick().users

        assert rows(table, "out_stack_packets", "out_packets") == [(0xFFFFFFFE + 3, 0xFFFFFFF0 + 33)]

    def test_tcp_figures(self) -> None:
        """Round trip time and retransmits come from the record of the inward direction."""
        bench = Bench()
        bench.kernel.receive(bench.kernel.open())
        bench.kernel.slots.array[0]["in"]["srtt_us"] = 1709
        bench.kernel.slots.array[0]["in"]["retransmits"] = 5

        assert rows(bench.flows(), "srtt_us", "retransmits") == [(1709, 5)]

    def test_sockets_of_one_user(self) -> None:
        """Users, units and processes are sums over sockets; the number of open flows stands beside."""
        bench = Bench()
        for uid, cgroup, pid, size in (
            (ALICE, 1, 7, 100),
            (ALICE, 2, 8, 20),
            (BOB, 2, 9, 3),
            (ALICE, 1, 7, 5000),
        ):
            bench.kernel.send(bench.kernel.open(uid, cgroup=cgroup, pid=pid), size)

        usage = bench.tick()

        assert sorted(rows(usage.users, "uid", "flows", "out_bytes")) == [(ALICE, 3, 5120), (BOB, 1, 3)]
        assert sorted(rows(usage.units, "unit", "flows", "out_bytes")) == [
            ("session-3.scope", 2, 23),
            ("web.service", 2, 5100),
        ]
        assert sorted(rows(usage.processes, "pid", "uid", "flows", "out_bytes")) == [
            (7, ALICE, 2, 5100),
            (8, ALICE, 1, 20),
            (9, BOB, 1, 3),
        ]

    def test_more_than_one_piece(self) -> None:
        """Five thousand sockets are accounted for in pieces, and none is forgotten between two of them."""
        bench = Bench(slots=8192)
        sizes = range(1, 5010)
        for size in sizes:
            bench.kernel.send(bench.kernel.open(size % 7), size)

        usage = bench.tick()

        assert len(usage.flows.table()) == 5009
        assert by_user(usage.users) == {
            uid: sum(size for size in sizes if size % 7 == uid) for uid in range(7)
        }

    def test_only_slots_in_use_are_mapped(self) -> None:
        """The mapped part grows by blocks when slots beyond the last block are claimed, and not before."""
        bench = Bench(slots=4099)
        bench.tick()
        assert bench.kernel.slots.fronts == [1024]

        for _ in range(1031):
            bench.kernel.send(bench.kernel.open(), 3)

        assert bench.users() == {ALICE: 3 * 1031}
        assert max(bench.kernel.slots.fronts) == 3072

    def test_all_slots_in_use(self) -> None:
        """The last slot counts too, where the capacity is no multiple of a block."""
        bench = Bench(slots=1049)
        for _ in range(1049):
            bench.kernel.send(bench.kernel.open(), 3)

        assert bench.users() == {ALICE: 3 * 1049}
        assert max(bench.kernel.slots.fronts) == 1049

    def test_a_socket_elsewhere_has_no_interface(self) -> None:
        """An interface index of another network namespace, or of an unknown one, is hidden."""
        bench = Bench()
        for netns in (HOME, HOME + 1, 0):
            bench.kernel.send(bench.kernel.open(netns=netns))

        assert bench.flows().columns["ifindex"].tolist() == [3, 0, 0]

    def test_a_cgroup_that_nobody_knows(self) -> None:
        """A cgroup removed before its name was asked for has traffic all the same."""
        bench = Bench()
        bench.kernel.send(bench.kernel.open(cgroup=999), 101)

        assert rows(bench.tick().units, "unit", "slice", "cgroup", "out_bytes") == [("(gone)", "", "", 101)]

    def test_a_snapshot_stays_as_it_is(self) -> None:
        """What one tick returned does not change by the next."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        usage = bench.tick()
        flows = usage.flows.table()
        bench.kernel.send(socket, 1000)
        bench.kernel.send(bench.kernel.open(BOB))
        bench.tick()

        assert rows(flows, "uid", "out_bytes") == [(ALICE, 101)]
        assert rows(usage.users, "uid", "out_bytes") == [(ALICE, 101)]


class TestEnd:
    """A slot goes back only when its last figures are counted."""

    def test_a_closed_socket(self) -> None:
        """Closed and silent: cut off at one tick, shown as ended and given back at the next, then gone."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.tick()
        bench.kernel.close(socket)

        assert rows(bench.flows(), "out_bytes", "ended") == [(101, False)]
        assert bench.kernel.slots.array[0]["in"]["generation"] == 0
        assert bench.kernel.given_back == []
        assert rows(bench.flows(), "out_bytes", "ended") == [(101, True)]
        assert bench.kernel.given_back == [0]
        assert rows(bench.flows(), "out_bytes") == []

    def test_its_user_keeps_the_figures(self) -> None:
        """Retired sockets go on counting in the totals of user, unit and process, without open flows."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.kernel.close(socket)
        for _ in range(5):
            usage = bench.tick()

        assert rows(usage.users, "flows", "out_bytes") == [(0, 101)]
        assert rows(usage.units, "flows", "out_bytes") == [(0, 101)]
        assert rows(usage.processes, "flows", "out_bytes") == [(0, 101)]

    def test_a_closed_socket_that_still_speaks(self) -> None:
        """A closed connection that sends what it had queued keeps its slot until it is silent."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.kernel.close(socket)
        for _ in range(3):
            bench.kernel.send(socket, 7)
            assert rows(bench.flows(0.2), "ended") == [(False,)]
        bench.tick(0.2)

        assert rows(bench.flows(), "out_bytes", "ended") == [(122, True)]

    def test_a_packet_on_its_way_when_the_slot_is_cut_off(self) -> None:
        """What a CPU adds that had found the slot before it was cut off is in the last figures."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.kernel.close(socket)
        bench.tick()
        side = bench.kernel.slots.array[0]["out"]
        side["bytes"] += np.uint64(13)
        side["packets"] += np.uint64(1 | 1 << 32)

        usage = bench.tick()

        assert rows(usage.flows.table(), "out_bytes", "out_packets", "ended") == [(114, 2, True)]
        assert by_user(usage.users) == {ALICE: 114}

    def test_a_packet_after_the_cut(self) -> None:
        """A socket that speaks again after it was cut off gets another slot: nothing lost, nothing twice."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.kernel.close(socket)
        bench.tick()
        bench.kernel.send(socket, 13)

        usage = bench.tick()

        assert rows(usage.flows.table(), "out_bytes", "ended") == [(101, True), (13, False)]
        assert by_user(usage.users) == {ALICE: 114}
        assert len(set(usage.flows.table().columns["id"].tolist())) == 2

    def test_a_slot_that_another_user_takes_over(self) -> None:
        """A given back slot is another flow of another user: it begins at zero, with another id."""
        bench = Bench(slots=1)
        first = bench.kernel.open(ALICE, cgroup=1, pid=7)
        bench.kernel.send(first, 101)
        before = bench.flows()
        bench.kernel.close(first)
        bench.tick()
        bench.tick()
        bench.kernel.send(bench.kernel.open(BOB, cgroup=2, pid=9), 13)

        usage = bench.tick()
        flows = usage.flows.table()

        assert rows(flows, "uid", "pid", "out_bytes", "ended") == [(BOB, 9, 13, False)]
        assert flows.columns["id"].tolist() != before.columns["id"].tolist()
        assert by_user(usage.users) == {ALICE: 101, BOB: 13}
        assert rows(usage.units, "unit", "out_bytes") == [("web.service", 101), ("session-3.scope", 13)]

    def test_a_slot_that_changes_hands_between_two_ticks(self) -> None:
        """Given back and claimed within one interval: the successor's first bytes are the successor's."""
        bench = Bench(slots=1)
        first = bench.kernel.open(ALICE)
        bench.kernel.send(first, 10_007)
        bench.kernel.close(first)
        bench.tick()
        bench.tick()
        bench.tick()
        second = bench.kernel.open(BOB)
        bench.kernel.send(second, 20_011)

        assert bench.users() == {ALICE: 10_007, BOB: 20_011}

    def test_an_idle_socket_gives_its_slot_up(self) -> None:
        """Silent for the idle time, it loses the slot; when it speaks again it has a new one and goes on."""
        bench = Bench()
        socket = bench.kernel.open()
        bench.kernel.send(socket, 101)
        bench.tick()
        assert rows(bench.flows(IDLE - 2), "ended") == [(False,)]
        bench.tick(1.5)
        assert rows(bench.flows(), "ended") == [(True,)]

        bench.kernel.send(socket, 13)

        assert bench.users() == {ALICE: 114}
        assert bench.kernel.free == 15

    def test_silent_sockets_give_way_when_slots_are_scarce(self) -> None:
        """With seven of eight slots in use more than half a minute of silence is enough."""
        bench = Bench(slots=8)
        sockets = [bench.kernel.open() for _ in range(8)]
        for socket in sockets:
            bench.kernel.send(socket)
        bench.tick()
        bench.tick(20)
        assert not bench.flows().columns["ended"].any()
        bench.kernel.send(sockets[3])
        bench.tick(10)

        assert bench.flows().columns["ended"].tolist() == [True] * 3 + [False] + [True] * 4

    def test_slots_that_may_run_full_before_they_are_read_again(self) -> None:
        """With as many new sockets as in the last tick, each of which has its slot for two."""
        bench = Bench(slots=100)
        for _ in range(10):
            bench.kernel.send(bench.kernel.open())
        bench.tick(2.0)

        assert not bench.meter.may_fill(4.0)
        assert bench.meter.may_fill(4.2)
        bench.tick(2.0)
        assert not bench.meter.may_fill(3600.0)

    def test_slots_of_which_most_are_in_use(self) -> None:
        bench = Bench(slots=8)
        for _ in range(5):
            bench.kernel.send(bench.kernel.open())
        bench.tick()
        bench.tick()

        assert bench.meter.may_fill(0.0)

    def test_silent_sockets_may_stay_when_there_is_room(self) -> None:
        """Seven of eight is not yet scarce."""
        bench = Bench(slots=8)
        for _ in range(7):
            bench.kernel.send(bench.kernel.open())
        bench.tick()
        bench.tick(60)

        assert not bench.flows().columns["ended"].any()

    def test_low_slots_are_used_first(self) -> None:
        """Slots given back together are used again from the lowest: the front stays dense."""
        bench = Bench()
        for socket in [bench.kernel.open() for _ in range(5)]:
            bench.kernel.send(socket)
            bench.kernel.close(socket)
        for _ in range(3):
            bench.tick()
        assert bench.kernel.given_back == [4, 3, 2, 1, 0]

        bench.kernel.send(bench.kernel.open())

        assert bench.kernel.slots.array[0]["in"]["generation"] == 2


class TestAccept:
    """Sockets that change hands, and those whose process must be asked for."""

    def test_only_later_bytes_move_to_the_new_owner(self) -> None:
        """accept() by another user: what came before the last tick stays with the listener's user."""
        bench = Bench()
        child = bench.kernel.accept(bench.kernel.open(0))
        bench.kernel.receive(child, 101)
        assert bench.users() == {0: 101}
        bench.kernel.hand_over(child, ALICE)
        bench.kernel.send(child, 13)

        usage = bench.tick()

        assert by_user(usage.users) == {0: 101, ALICE: 13}
        assert rows(usage.users, "uid", "flows") == [(0, 0), (ALICE, 1)]
        assert rows(usage.flows.table(), "uid", "in_bytes", "out_bytes") == [(ALICE, 101, 13)]

    def test_the_flow_stays_the_same(self) -> None:
        """A new owner makes no new flow: the id stays."""
        bench = Bench()
        child = bench.kernel.accept(bench.kernel.open(0))
        bench.kernel.send(child)
        before = bench.flows().columns["id"].tolist()
        bench.kernel.hand_over(child, ALICE)
        bench.kernel.send(child)

        assert bench.flows().columns["id"].tolist() == before

    def test_whose_process_is_unknown(self) -> None:
        """Accepted sockets and those older than the meter, while they are open."""
        bench = Bench()
        accepted = bench.kernel.accept(bench.kernel.open())
        older = bench.kernel.open(flags=wire.FLOW_OLDER)
        plain = bench.kernel.open()
        closed = bench.kernel.open(flags=wire.FLOW_OLDER)
        for socket in (accepted, older, plain, closed):
            bench.kernel.send(socket)
        bench.kernel.close(closed)
        for _ in range(3):
            bench.tick()

        assert sorted(bench.meter.unknown().tolist()) == [accepted.cookie, older.cookie]

    def test_learning_a_process(self) -> None:
        """From then on its bytes count for the process; the earlier ones stay where they were."""
        bench = Bench()
        older = bench.kernel.open(flags=wire.FLOW_OLDER)
        bench.kernel.send(older, 101)
        assert rows(bench.tick().processes, "pid", "out_bytes") == [(0, 101)]
        bench.meter.learn({older.cookie: (4243, b"sshd"), 1: (5, b"nobody")})
        bench.kernel.send(older, 13)

        usage = bench.tick()

        assert rows(usage.processes, "pid", "comm", "uid", "out_bytes", "flows") == [
            (0, b"", ALICE, 101, 0),
            (4243, b"sshd", ALICE, 13, 1),
        ]
        assert rows(usage.flows.table(), "pid", "comm", "out_bytes") == [(4243, b"sshd", 114)]

    def test_learning_about_nobody(self) -> None:
        """Nothing found is nothing changed."""
        bench = Bench()
        bench.kernel.send(bench.kernel.open())
        bench.tick()
        bench.meter.learn({})
        bench.meter.learn({1: (7, b"gone")})

        assert rows(bench.flows(), "pid", "comm") == [(77, b"curl")]

    def test_a_learned_process_outlives_a_change_of_user(self) -> None:
        """The kernel side only ever knows the listener's process: what was learned since is better."""
        bench = Bench()
        child = bench.kernel.accept(bench.kernel.open(0, pid=11, comm=b"sshd"))
        bench.kernel.send(child)
        bench.tick()
        bench.meter.learn({child.cookie: (4243, b"sshd-session")})
        bench.kernel.hand_over(child, ALICE)
        bench.kernel.send(child)

        assert rows(bench.flows(), "uid", "pid", "comm") == [(ALICE, 4243, b"sshd-session")]


def lasting(table: Table) -> dict[str, list[Any]]:
    """The columns of the rows that the next tick has too."""
    return without_ended(rows_that(table, ended=False))


def without_ended(table: Table) -> dict[str, list[Any]]:
    return {name: column.tolist() for name, column in table.columns.items() if name != "ended"}


@pytest.mark.parametrize("change", ["nothing", "traffic", "open", "close", "accept", "learn", "idle"])
def test_remembered_columns_are_the_right_ones(change: str) -> None:
    """Columns kept from the tick before are those that a meter finds anew, whatever happened."""
    bench = Bench()
    sockets = [
        bench.kernel.open(pid=pid, flags=wire.FLOW_OLDER * (pid == 11)) for pid in (5, 6, 7, 8, 9, 11)
    ]
    child = bench.kernel.accept(sockets[0])
    for socket in (*sockets, child):
        bench.kernel.send(socket)
    for _ in range(3):
        bench.tick()

    for _ in range(5):
        if change == "traffic":
            bench.kernel.send(sockets[1], 17)
        elif change == "open":
            bench.kernel.send(bench.kernel.open(BOB, pid=21, cgroup=2), 5)
        elif change == "close":
            bench.kernel.close(sockets.pop(0))
        elif change == "accept":
            bench.kernel.hand_over(child, child.uid + 2)
            bench.kernel.send(child)
        elif change == "learn":
            bench.meter.learn({sockets[-1].cookie: (4243, b"found")})
        elif change == "idle":
            bench.kernel.now += IDLE / 3
        kept = bench.flows()
        bench.meter._same = False
        fresh = bench.flows(0.0)

        assert lasting(kept) == without_ended(fresh)


def test_time_of_the_kernel_becomes_wall_time() -> None:
    """A row's times are Unix seconds of the moments the kernel noted, not of the tick."""
    bench = Bench()
    socket = bench.kernel.open()
    bench.kernel.send(socket)
    bench.tick(2.0)
    bench.kernel.send(socket)
    bench.kernel.now += 0.25

    assert rows(bench.flows(), "first_seen", "last_seen") == [(WALL_AHEAD + 100, WALL_AHEAD + 102)]
    assert bench.kernel.slots.array[0]["out"]["last_seen"] == 102 * SECOND
