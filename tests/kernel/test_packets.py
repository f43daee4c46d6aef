"""The packet log: what the meter counted of a user is in the ring or known to be missing, to the byte."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.compile import Compilation
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.programs import socket_unit
from netmond.kernel.ring import STRIDE, Ring
from netmond.kernel.tables import SocketTables
from tests.kernel.agent import Agent
from tests.kernel.capture import NOTHING, Capture, Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.iperf import run as iperf
from tests.kernel.ledger import PAGE_OF_SLOTS, Ledger, meter
from tests.kernel.shape import shape

NEAR, FAR = "10.23.1.1", "10.23.1.2"
SIX_NEAR, SIX_FAR = "fd23:0:0:1::1", "fd23:0:0:1::2"
SLOTS = 4096
PAGE = 4096  #: bytes of the smallest ring
LARGE = 1 << 23
HEADERS = 28  #: bytes of UDP over IPv4
UDP = 17

Rows = NDArray[Any]


class Log:
    """A ring that the kernel fills, and all that was read from it."""

    def __init__(self, ledger: Ledger, *, size: int, slots: int) -> None:
        tables = PacketLogTables.open(ledger.maps)
        assert tables is not None
        self.tables = tables
        self.descriptor = Ring.create(size)
        self.ring = Ring.open(self.descriptor)
        self._ledger, self._slots = ledger, slots
        self._sockets = SocketTables.open(ledger.maps, slots=slots, peers=1024, fresh=False)
        self._read: list[Rows] = []

    def take(self) -> Rows:
        """What is in the ring, which gets its room back."""
        rows = self.ring.read(LARGE).copy()
        self.ring.release()
        self._read.append(rows)
        return rows

    def rows(self) -> Rows:
        """All that was ever in the ring, once no packet is under way."""
        self._ledger.read()
        self.take()
        assert self.ring.waiting == 0
        return np.concatenate(self._read)

    @contextmanager
    def being_read(self) -> Iterator[None]:
        """Somebody reads all the time."""
        over = threading.Event()

        def read() -> None:
            while not over.is_set():
                self.take()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            over.set()
            reader.join()

    def missing(self, what: str, uid: int) -> Figures:
        """The kernel's figures of a user's `lost` or `skipped` packets."""
        users, missing = self.tables.unlogged()
        return sum((Figures(*row) for row in missing[what][users == uid].tolist()), NOTHING)

    def counted(self, uid: int) -> Figures:
        """What the meter has of a user, in slots and without."""
        identities = self._sockets.flows.take(np.arange(self._slots))
        slots = self._sockets.slots.front(self._slots)[identities["uid"] == uid]
        keys, values = self._sockets.overflow.read()
        without = values[keys["uid"] == uid]
        figures = []
        for side in ("in", "out"):
            records = [(slots[side], ""), (without, f"{side}_")]
            for fields, shift in ((("packets",), 32), (("bytes", "surplus"), 0)):
                words = [rows[prefix + field] >> shift for rows, prefix in records for field in fields]
                figures.append(sum(int(word.sum(dtype=np.uint64)) for word in words) % (1 << 64))
        return Figures(*figures)

    def check(self, *uids: int) -> Rows:
        """Rows and what is known to be missing are all there was, for each user."""
        rows = self.rows()
        for uid in uids:
            missing = self.missing("lost", uid) + self.missing("skipped", uid)
            assert logged(rows, uid) + missing == self.counted(uid), uid
        return rows


def logged(rows: Rows, uid: int) -> Figures:
    """The sums of a user's rows."""
    figures = []
    for direction in (wire.PACKET_IN, wire.PACKET_OUT):
        of_user = rows[(rows["uid"] == uid) & (rows["direction"] == direction)]
        figures += [int(of_user[name].sum(dtype=np.uint64)) for name in ("packets", "bytes")]
    return Figures(*figures)


@contextmanager
def packet_log(
    ledger: Ledger, *, size: int = LARGE, slots: int = SLOTS, every: int = 1, users: int = wire.EVERYONE
) -> Iterator[Log]:
    """Logs one in `every` packets, of everybody if nothing else is said."""
    log = Log(ledger, size=size, slots=slots)
    log.tables.set(users, every)
    log.tables.start(log.descriptor)
    yield log
    os.close(log.descriptor)


def text(address: np.void) -> str:
    found = IPv6Address(address.tobytes())
    return str(found.ipv4_mapped or found)


def ends(row: Any) -> tuple[str, int, str, int]:
    return text(row["source"]), row["source_port"], text(row["destination"]), row["destination_port"]


def sink(agent: Agent, address: str) -> list[Any]:
    """A UDP socket that never answers; where it is."""
    return [address, agent.do("udp", name="sink", local=[address, 0])]


def test_the_rows_are_the_packets(scene: Scene) -> None:
    """TCP and UDP both ways, servers and clients, pings, both families: each packet that tcpdump sees is a
    row with its addresses, ports, protocol and size, and there is no other."""
    with meter(scene.slice) as ledger, packet_log(ledger) as log:
        server, user, raw = scene.server(), scene.user(), scene.user(0)
        capture = Capture(scene.link)
        for ours, theirs in ((NEAR, FAR), (SIX_NEAR, SIX_FAR)):
            peer = [theirs, server.do("echo_server", local=[theirs, 0])]
            here = [ours, user.do("echo_server", local=[ours, 0])]
            for kind in ("udp", "tcp"):
                user.do(kind, name=kind, peer=peer)
                user.do("exchange", name=kind, count=23, size=101)
                server.do(kind, name=kind, peer=here)
                server.do("exchange", name=kind, count=7, size=1009)
            raw.do("ping", address=theirs, count=5, size=101, raw=True)
        rows = log.check(USER, 0)
        seen = capture.stop()

    expected = Counter((*packet[:2], *packet[3:5], packet.protocol, packet.size) for packet in seen)
    found = Counter(
        (text(row["source"]), text(row["destination"]), row["source_port"], row["destination_port"],
         row["protocol"], row["bytes"])
        for row in rows
    )  # fmt: skip
    assert found == expected
    assert set(rows["packets"].tolist()) == {1}
    inward = np.array([text(row["destination"]) in (NEAR, SIX_NEAR) for row in rows])
    assert ((rows["direction"] == wire.PACKET_IN) == inward).all()
    assert {row["uid"] for row in rows if row["protocol"] in (6, UDP)} == {USER}


def test_content_in_order(scene: Scene) -> None:
    """Ten thousand datagrams of many sizes through a ring that holds 56: they come out one by one, in order,
    with their time and their socket's slot."""
    count, burst = 10_007, 23
    with meter(scene.slice) as ledger, packet_log(ledger, size=PAGE) as log:
        user = scene.user()
        peer = sink(scene.server(), FAR)
        port = user.do("udp", name="a", peer=peer)
        began = time.monotonic_ns()
        for start in range(0, count, burst):
            user.do("climb", name="a", count=min(burst, count - start), largest=1400, start=start)
            log.take()
        rows = log.check(USER)
        ended = time.monotonic_ns()

    assert rows["bytes"].tolist() == [HEADERS + number % 1401 for number in range(count)]
    assert np.all(np.diff(rows["time"].astype(np.int64)) > 0)
    assert began < rows["time"][0] < rows["time"][-1] < ended
    assert {ends(row) for row in rows} == {(NEAR, port, *peer)}
    for name, value in (("uid", USER), ("protocol", UDP), ("direction", wire.PACKET_OUT), ("packets", 1)):
        assert (rows[name] == value).all(), name
    assert len(np.unique(rows[["slot", "generation"]])) == 1


def test_flood_through_a_small_ring(scene: Scene) -> None:
    """A sender faster than the reader: what comes out is in order and whole, and what is missing in between
    is what the kernel counted as lost."""
    count, sizes = 200_003, 1401
    with meter(scene.slice) as ledger, packet_log(ledger, size=1 << 14) as log:
        user = scene.user()
        user.do("udp", name="a", peer=sink(scene.server(), FAR))
        with log.being_read():
            user.do("climb", name="a", count=count, largest=sizes - 1)
        rows = log.check(USER)
        lost = log.missing("lost", USER)

    assert len(rows) + lost.out_packets == count
    assert len(rows) > 10 * (1 << 14) // STRIDE
    steps = np.diff(rows["bytes"].astype(np.int64), prepend=HEADERS - 1) % sizes
    steps[steps == 0] = sizes  # as many as there are sizes: a whole turn was lost
    before_the_last = int(steps.sum()) - len(rows)
    assert 0 <= before_the_last <= lost.out_packets


def test_nobody_reads(scene: Scene) -> None:
    """Floods both ways of three users with a ring of one page, hardly any slots and nobody who reads; later
    somebody does. Rows and losses are all there was, for each user."""
    users = [USER + number for number in range(3)]
    with (
        meter(scene.slice, slots=PAGE_OF_SLOTS) as ledger,
        packet_log(ledger, size=PAGE, slots=PAGE_OF_SLOTS) as log,
    ):
        ours, theirs = [scene.user(uid) for uid in users], [scene.server() for _ in users]
        fars, nears = (FAR, SIX_FAR, FAR), (NEAR, SIX_NEAR, NEAR)
        peers = [sink(agent, address) for agent, address in zip(theirs, fars, strict=True)]
        peers += [sink(agent, address) for agent, address in zip(ours, nears, strict=True)]
        senders = [*ours, *theirs]
        for agent, peer in zip(senders, peers, strict=True):
            for number in range(23):
                agent.do("udp", name=f"f{number}", peer=peer)

        def flood() -> None:
            for agent in senders:
                agent.begin("spray", prefix="f", senders=23, count=5009, size=23)
            for agent in senders:
                agent.end()

        flood()
        unread = log.check(*users)
        with log.being_read():
            flood()
        rows = log.check(*users)
        lost = [log.missing("lost", uid) for uid in users]

    assert len(unread) == PAGE // STRIDE
    assert len(rows) > 2 * len(unread)
    assert all(each.in_packets > 0 and each.out_packets > 0 for each in lost)
    assert set(rows["bytes"].tolist()) <= {HEADERS + 23, HEADERS + 20 + 23}
    assert set(rows["uid"].tolist()) <= set(users)
    assert {text(row["source"]) for row in rows} | {text(row["destination"]) for row in rows} <= {
        NEAR, FAR, SIX_NEAR, SIX_FAR,
    }  # fmt: skip
    assert wire.NO_SLOT in rows["slot"]


def test_super_packets_and_fragments(scene: Scene) -> None:
    """What the stack handles as one is one row with the packets and bytes of the wire."""
    with meter(scene.slice) as ledger, packet_log(ledger) as log:
        user, server = scene.user(), scene.server()
        user.do("udp", name="a", peer=sink(server, FAR))
        user.do("send", name="a", count=1, size=4000)
        (fragmented,) = log.check(USER)
        with shape(scene.link, offload=True):
            # No faster, or whoever captures at the far end may miss some.
            iperf(scene.link, scene.near, FAR, "--bitrate=400M", uid=USER, cgroup=scene.unit)
        rows = log.check(USER)

    assert (fragmented["packets"], fragmented["bytes"]) == (3, 4000 + 8 + 3 * 20)
    assert rows["packets"].max() > 10
    assert (rows["bytes"] <= 1500 * rows["packets"].astype(np.uint32)).all()


def test_sockets_without_storage(scene: Scene) -> None:
    """Packets that find no slot at all (optmem_max) are logged with what their headers say."""
    scene.near.sysctl({"net.core.optmem_max": "0"})
    with meter(scene.slice) as ledger, packet_log(ledger) as log:
        user = scene.user()
        peer = sink(scene.server(), FAR)
        port = user.do("udp", name="a", peer=peer)
        user.do("send", name="a", count=23, size=101)
        rows = log.check(USER)

    assert len(rows) == 23
    assert {ends(row) for row in rows} == {(NEAR, port, *peer)}
    assert set(rows["slot"].tolist()) == {wire.NO_SLOT}


class TestWhose:
    """Which users' packets are logged."""

    def test_chosen_users(self, scene: Scene) -> None:
        """One user by name, then everyone but one, then nobody: from the next packet on."""
        one, other = USER, USER + 1
        with meter(scene.slice) as ledger, packet_log(ledger, users=one) as log:
            agents = {uid: scene.user(uid) for uid in (one, other)}
            peer = sink(scene.server(), FAR)
            for agent in agents.values():
                agent.do("udp", name="a", peer=peer)

            def senders() -> list[int]:
                for agent in agents.values():
                    agent.do("send", name="a", count=3)
                return list(log.take()["uid"].tolist())

            assert senders() == [one] * 3
            log.tables.set(wire.EVERYONE, 1)
            assert sorted(senders()) == [one] * 3 + [other] * 3
            log.tables.set(other, 0)
            assert senders() == [one] * 3
            log.tables.set(wire.EVERYONE, 0)
            log.tables.remove(other)
            assert senders() == [one] * 3
            log.tables.remove(one)
            assert senders() == []
            log.check()
            assert log.missing("lost", one) == log.missing("skipped", other) == NOTHING

    def test_more_users_than_room(self, scene: Scene) -> None:
        """Where the table of what is missing is full, it is known of the others together."""
        users = [USER + number for number in range(3)]
        with meter(scene.slice, LOGGED_USERS=2) as ledger, packet_log(ledger, size=PAGE) as log:
            peer = sink(scene.server(), FAR)
            for uid in users:
                agent = scene.user(uid)
                agent.do("udp", name="a", peer=peer)
                agent.do("send", name="a", count=101)
            rows = log.rows()
            lost = [log.missing("lost", uid).out_packets for uid in (*users, wire.EVERYONE)]

        assert lost == [101 - len(rows), 0, 0, 202]

    def test_samples(self, scene: Scene) -> None:
        """One in ten: all others are counted as left out, whatever the rate was when they passed; and the
        sample has both directions of a conversation that goes to and fro."""
        count = 10_007
        with meter(scene.slice) as ledger, packet_log(ledger, every=10) as log:
            user, server = scene.user(), scene.server()
            user.do("udp", name="a", peer=[FAR, server.do("echo_server", local=[FAR, 0])])
            user.do("exchange", name="a", count=count, size=23)
            rows = log.check(USER)
            log.tables.set(wire.EVERYONE, 2)
            user.do("exchange", name="a", count=101, size=23)
            log.check(USER)
            log.tables.set(wire.EVERYONE, 1)
            user.do("exchange", name="a", count=101, size=23)
            more = len(log.check(USER)) - len(rows)
            assert log.missing("lost", USER) == NOTHING

        for direction in (wire.PACKET_IN, wire.PACKET_OUT):  # ± 6 standard deviations
            assert abs((rows["direction"] == direction).sum() - count / 10) < 6 * (count * 0.09) ** 0.5
        assert more > 202


class TestRings:
    """Where packets go."""

    def test_off(self, scene: Scene) -> None:
        """Without a ring nothing is logged and nothing is missing."""
        with meter(scene.slice) as ledger, packet_log(ledger) as log:
            user = scene.user()
            user.do("udp", name="a", peer=sink(scene.server(), FAR))
            user.do("send", name="a", count=3)
            log.tables.stop()
            user.do("send", name="a", count=5)
            log.tables.stop()
            rows = log.rows()

            assert len(rows) == 3
            assert log.counted(USER).out_packets == 8
            assert log.missing("lost", USER) == NOTHING

    def test_another_ring(self, scene: Scene) -> None:
        """It takes the place of the first amidst a flood: each packet is in one of the two."""
        with meter(scene.slice) as ledger, packet_log(ledger) as log:
            user = scene.user()
            user.do("udp", name="a", peer=sink(scene.server(), FAR))
            second = Ring.create(LARGE)
            user.begin("climb", name="a", count=50_021, largest=1400)
            log.tables.start(second)
            first = Ring.open(log.descriptor).read(LARGE)
            user.end()
            ledger.read()
            both = [log.take(), Ring.open(second).read(LARGE)]
            os.close(second)

            assert len(first) == len(both[0])  # none came after start() had returned
            sizes = np.concatenate(both)["bytes"].tolist()
            assert sizes == [HEADERS + number % 1401 for number in range(50_021)]

    def test_waiting_for_packets(self, scene: Scene) -> None:
        """The descriptor can be polled: the first packet wakes who waits on an empty ring."""
        with meter(scene.slice) as ledger, packet_log(ledger) as log:
            user = scene.user()
            user.do("udp", name="a", peer=sink(scene.server(), FAR))
            poll = select.poll()
            poll.register(log.descriptor, select.POLLIN)
            for _ in range(3):
                assert poll.poll(0) == []
                user.begin("send", name="a", count=1)
                assert poll.poll(20_000) == [(log.descriptor, select.POLLIN)]
                user.end()
                assert len(log.take()) == 1


def test_a_meter_that_cannot(scene: Scene) -> None:
    """Compiled without, as where kernel or BCC refuse it, there is a meter and no packet log."""
    unit = replace(socket_unit(slots=SLOTS, peers=16), extra=None)
    loaded = Compilation(unit).result()

    assert PacketLogTables.open(loaded.maps) is None
    assert loaded.programs.keys() >= {"meter_ingress", "meter_egress"}
    loaded.close()
