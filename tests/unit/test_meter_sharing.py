"""Rows that are not one socket's: peers of an unconnected one, what found no slot, merged processes."""

from __future__ import annotations

from collections.abc import Iterable

from netmond.meter import Meter
from netmond.model import FlowKind
from tests.unit.fakes import WALL_AHEAD, address, moment, rows
from tests.unit.metering import ALICE, BOB, IDLE, Bench, by_user, of_kind
from tests.unit.sockets import HOME, Kernel, Socket


class TestPeers:
    """An unconnected socket and whom it talks with."""

    def server(self, bench: Bench, peers: Iterable[int], size: int = 100) -> Socket:
        server = bench.kernel.open(unconnected=True)
        for peer in peers:
            bench.kernel.receive(server, size + peer, peer=peer)
        return server

    def test_a_row_for_each_peer(self) -> None:
        """Peers are flows with their socket's identity; the socket's own row has nothing left."""
        bench = Bench()
        self.server(bench, (1, 2, 3))

        flows = bench.flows()
        peers = of_kind(flows, FlowKind.PEER)

        assert rows(of_kind(flows, FlowKind.SOCKET), "in_bytes", "in_packets") == [(0, 0)]
        assert rows(peers, "uid", "pid", "comm", "protocol", "remote_port", "in_bytes") == [
            (ALICE, 77, b"curl", 17, 53, 100 + peer) for peer in (1, 2, 3)
        ]
        assert peers.columns["remote"].tobytes() == b"".join(
            address(f"198.51.100.{peer}").tobytes() for peer in (1, 2, 3)
        )
        assert rows(peers, "first_seen", "ended") == [(WALL_AHEAD + 100, False)] * 3

    def test_rows_are_disjoint(self) -> None:
        """At every tick the flow rows of a user add up to the user's figures."""
        bench = Bench(peers=5)
        server = self.server(bench, range(1, 8))
        for round_ in range(4):
            for peer in range(round_, 9):
                bench.kernel.send(server, 1000 + peer, peer=peer)
            usage = bench.tick()

            assert by_user(usage.flows.table()) == by_user(usage.users)
        assert bench.kernel.losses["meter.peers-full"] > 0

    def test_a_thousand_peers(self) -> None:
        """The user's total stays exact however many peers share one socket."""
        bench = Bench(peers=2048)
        server = bench.kernel.open(unconnected=True)
        for number in range(1009):
            tally = bench.kernel.peers.at(cookie=server.cookie, remote=address(f"2001:db8::{number + 1:x}"))
            assert tally is not None
            bench.kernel.receive(server, number, peer=1)
        usage = bench.tick()

        assert by_user(usage.users) == {ALICE: sum(range(1009))}
        assert len(of_kind(usage.flows.table(), FlowKind.PEER)) == 1010

    def test_a_silent_peer_leaves(self) -> None:
        """Silent for the idle time a peer's row ends, with its last figures, while the socket goes on."""
        bench = Bench()
        server = self.server(bench, (1, 2))
        bench.tick()
        bench.kernel.now += IDLE
        bench.kernel.receive(server, 7, peer=2)

        peers = of_kind(bench.flows(), FlowKind.PEER)

        assert rows(peers, "in_bytes", "ended") == [(101, True), (109, False)]
        assert rows(of_kind(bench.flows(), FlowKind.PEER), "in_bytes") == [(109,)]

    def test_the_last_packet_of_a_peer_that_leaves(self) -> None:
        """What comes between reading the table and taking the row out is in the row's last figures."""
        bench = Bench()
        server = self.server(bench, (1, 2))
        bench.tick()
        bench.kernel.now += IDLE
        bench.kernel.receive(server, 7, peer=2)
        bench.kernel.peers.before_take = lambda: bench.kernel.receive(server, 13, peer=1)

        assert rows(of_kind(bench.flows(), FlowKind.PEER), "in_bytes", "ended") == [
            (114, True),
            (109, False),
        ]

        bench.kernel.peers.before_take = lambda: None

        assert bench.users() == {ALICE: 101 + 102 + 7 + 13}

    def test_what_a_peer_took_along_does_not_come_back(self) -> None:
        """The bytes of a peer whose row has ended do not count again in the socket's row."""
        bench = Bench()
        server = self.server(bench, (1, 2))
        bench.tick()
        bench.kernel.now += IDLE
        bench.kernel.receive(server, 7, peer=2)
        bench.tick()

        flows = bench.flows()

        assert rows(of_kind(flows, FlowKind.SOCKET), "in_bytes") == [(0,)]

    def test_when_the_only_peer_leaves(self) -> None:
        """Nor do they when no peer is left at all."""
        bench = Bench()
        server = bench.kernel.open(unconnected=True)
        bench.kernel.peers.capacity = 1
        bench.kernel.receive(server, 101, peer=1)
        bench.tick()
        bench.kernel.now += IDLE
        bench.kernel.receive(server, 7, peer=2)

        ending, after = bench.flows(), bench.flows()

        assert rows(ending, "kind", "in_bytes", "ended") == [
            (FlowKind.SOCKET, 7, False),
            (FlowKind.PEER, 101, True),
        ]
        assert rows(after, "kind", "in_bytes", "ended") == [(FlowKind.SOCKET, 7, False)]

    def test_a_closed_server(self) -> None:
        """Peers end with their socket; the last rows add up to what it did; the kernel forgets them."""
        bench = Bench()
        server = self.server(bench, (1, 2, 3))
        bench.kernel.close(server)
        bench.tick()

        flows = bench.flows()

        assert rows(flows, "kind", "in_bytes", "ended") == [
            (FlowKind.SOCKET, 0, True),
            *[(FlowKind.PEER, 100 + peer, True) for peer in (1, 2, 3)],
        ]
        assert len(bench.kernel.peers) == 0
        assert bench.users() == {ALICE: 306}

    def test_peers_give_way_when_they_are_many(self) -> None:
        """With more than seven of eight rows in use half a minute of silence is enough."""
        bench = Bench(peers=8)
        server = self.server(bench, range(1, 9))
        bench.tick(20)
        assert not bench.flows().columns["ended"].any()
        bench.kernel.receive(server, 7, peer=5)
        bench.tick(10)

        assert len(bench.kernel.peers) == 1

    def test_a_server_that_was_silent(self) -> None:
        """When a server that lost its slot speaks again, rows of both slots and the peer are disjoint."""
        bench = Bench()
        server = self.server(bench, (1,))
        bench.tick()
        bench.tick(IDLE - 1)
        bench.kernel.receive(server, 7, peer=2)
        bench.tick()
        bench.tick(IDLE)  # the slot is cut off, and what the peers had is in their last rows
        bench.kernel.receive(server, 13, peer=1)

        usage = bench.tick()

        assert by_user(usage.users) == {ALICE: 101 + 7 + 13}
        assert rows(usage.flows.table(), "kind", "in_bytes") == [
            (FlowKind.SOCKET, 0),
            (FlowKind.SOCKET, 0),
            (FlowKind.PEER, 13),
        ]

    def test_peers_of_another_namespace(self) -> None:
        """A peer's row hides the interface as its socket's does."""
        bench = Bench()
        bench.kernel.receive(bench.kernel.open(unconnected=True, netns=HOME + 1), peer=1)

        assert bench.flows().columns["ifindex"].tolist() == [0, 0]

    def test_a_socket_that_connects(self) -> None:
        """connect() on a datagram socket ends the old rows and makes one of its own, for one peer."""
        bench = Bench()
        socket = self.server(bench, (1,))
        bench.tick()
        bench.kernel.reconnect(socket, unconnected=False)
        bench.kernel.send(socket, 13)
        bench.tick()

        usage = bench.tick()
        flows = usage.flows.table()

        assert rows(flows, "kind", "in_bytes", "out_bytes", "ended") == [
            (FlowKind.SOCKET, 0, 0, True),
            (FlowKind.SOCKET, 0, 13, False),
            (FlowKind.PEER, 101, 0, True),
        ]
        assert by_user(usage.users) == {ALICE: 114}


class TestOverflow:
    """More sockets than slots."""

    def test_users_and_units_stay_exact(self) -> None:
        """What finds no slot is one row for each user and cgroup; the sums above miss nothing."""
        bench = Bench(slots=2)
        for uid, cgroup, size in (
            (ALICE, 1, 1),
            (ALICE, 1, 20),
            (ALICE, 1, 300),
            (BOB, 2, 4000),
            (BOB, 2, 50_000),
        ):
            bench.kernel.send(bench.kernel.open(uid, cgroup=cgroup), size)

        usage = bench.tick()
        overflow = of_kind(usage.flows.table(), FlowKind.OVERFLOW)

        assert by_user(usage.users) == {ALICE: 321, BOB: 54_000}
        assert rows(usage.units, "unit", "out_bytes") == [("web.service", 321), ("session-3.scope", 54_000)]
        assert rows(overflow, "uid", "out_bytes", "out_packets", "pid", "local_port") == [
            (ALICE, 300, 1, 0, 0),
            (BOB, 54_000, 2, 0, 0),
        ]
        assert [bench.meter.owners.unit_names[row] for row in overflow.columns["unit_index"]] == [
            "web.service",
            "session-3.scope",
        ]
        assert bench.kernel.losses["meter.no-slot-sockets"] == 3

    def test_a_socket_gets_a_slot_when_one_is_free(self) -> None:
        """From the moment a slot is given back it counts there, and the overflow row stands still."""
        bench = Bench(slots=1)
        first, second = bench.kernel.open(ALICE), bench.kernel.open(BOB)
        bench.kernel.send(first, 101)
        bench.kernel.send(second, 7)
        bench.kernel.close(first)
        for _ in range(3):
            bench.tick()
        bench.kernel.send(second, 13)

        usage = bench.tick()

        assert rows(usage.flows.table(), "kind", "uid", "out_bytes", "out_byte_rate") == [
            (FlowKind.SOCKET, BOB, 13, 13.0),
            (FlowKind.OVERFLOW, BOB, 7, 0.0),
        ]
        assert by_user(usage.users) == {ALICE: 101, BOB: 20}


class TestManyProcesses:
    """Processes come and go without end; their rows do not."""

    def test_processes_without_a_socket_are_merged(self) -> None:
        """Beyond 8192 rows those that hold no socket become one for each user and unit; nothing is lost."""
        bench = Bench(slots=64)
        held = bench.kernel.open(ALICE, pid=4_000_037, comm=b"server")
        bench.kernel.send(held, 13)
        bench.tick()
        for start in range(0, 8221, 59):
            sockets = [
                bench.kernel.open((ALICE, BOB)[pid % 2], cgroup=1 + pid % 2, pid=pid)
                for pid in range(start, min(start + 59, 8221))
            ]
            for socket in sockets:
                bench.kernel.send(socket, 7)
                bench.kernel.close(socket)
            bench.kernel.send(held, 1)
            for _ in range(3):
                usage = bench.tick()

        processes = usage.processes
        sent = dict.fromkeys((ALICE, BOB), 0)
        for uid, size in rows(processes, "uid", "out_bytes"):
            sent[uid] += size
        assert len(processes) < 8192
        assert sent == by_user(usage.users)
        assert (4_000_037, b"server", 1, 153) in rows(processes, "pid", "comm", "flows", "out_bytes")
        assert {(0, b"", ALICE, "web.service"), (0, b"", BOB, "session-3.scope")} <= set(
            rows(processes, "pid", "comm", "uid", "unit")
        )

    def test_cgroups_without_a_socket_are_merged(self) -> None:
        """So are units beyond 8192: those without a socket become one that is gone; nothing is lost."""
        kernel = Kernel(slots=64)
        meter = Meter(
            kernel, paths=lambda ids: {id_: f"/job-{id_}.service" for id_ in ids}, netns=HOME, idle=IDLE
        )
        held = kernel.open(cgroup=1_000_003, pid=4243)
        kernel.send(held, 13)
        for start in range(0, 8221, 59):
            sockets = [kernel.open(cgroup=number) for number in range(start, min(start + 59, 8221))]
            for socket in sockets:
                kernel.send(socket, 7)
                kernel.close(socket)
            kernel.send(held, 1)
            for _ in range(3):
                kernel.now += 1
                usage = meter.tick(moment(kernel.now))
                meter.release()
                flows = usage.flows.table()

                assert {meter.owners.unit_names[row] for row in flows.columns["unit_index"]} <= {
                    f"job-{number}.service" for number in (1_000_003, *range(start, start + 59))
                }

        units = rows(usage.units, "unit", "cgroup", "flows", "out_bytes")
        assert len(units) < 8192
        assert sum(row[3] for row in units) == by_user(usage.users)[ALICE]
        assert ("job-1000003.service", "/job-1000003.service", 1, 153) in units
        assert ("(gone)", "") in [row[:2] for row in units]
        assert (4243, "job-1000003.service", 153) in rows(usage.processes, "pid", "unit", "out_bytes")

    def test_a_socket_stays_with_its_process(self) -> None:
        """After rows were merged and renumbered the next bytes still go to the process that sends them."""
        bench = Bench(slots=16_384)
        keep = {pid: bench.kernel.open(pid=pid) for pid in (1_000_003, 1_000_033)}
        bench.kernel.send(keep[1_000_003])
        gone = [bench.kernel.open(BOB, pid=pid) for pid in range(1, 8200)]
        for socket in gone:
            bench.kernel.send(socket)
            bench.kernel.close(socket)
        bench.kernel.send(keep[1_000_033])
        for _ in range(4):
            usage = bench.tick()
        assert len(usage.processes) == 3

        bench.kernel.send(keep[1_000_033], 13)

        assert sorted(rows(bench.tick().processes, "pid", "out_byte_rate")) == [
            (0, 0.0),
            (1_000_003, 0.0),
            (1_000_033, 13.0),
        ]
