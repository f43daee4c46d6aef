"""RDMA over Ethernet at the interfaces: what is RDMA's and what is a user's, each packet counted once."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import Any

import pytest

from netmond.model import NOBODY_UID
from tests.kernel.capture import Figures, send_frames
from tests.kernel.conftest import USER, Crossing, Scene
from tests.kernel.ledger import interfaces
from tests.kernel.machine import Link
from tests.kernel.roce_frames import ACKNOWLEDGE, PORT, Ends, Kind
from tests.kernel.running import Netmond, Row, counted, total
from tests.kernel.test_books import NOTHING, Audit, closed
from tests.kernel.test_ledger import check_interfaces
from tests.kernel.test_survival import changed, lasting

WRITE = Kind(sequence=0xFFFFFF)
ANSWER = Kind(opcode=ACKNOWLEDGE, queue_pair=0x12, partition_key=0x8001, sequence=7, payload=4)
NAMES = {WRITE: "RC_RDMA_WRITE_ONLY", ANSWER: "RC_ACKNOWLEDGE"}
WAYS = [(1, 6), (2, 4), (2, 6)]  # version and address family
FLOOD = 20_000


def incoming(link: Link, family: int = 4) -> Ends:
    """From the far end to the near one."""
    return Ends(
        source=link.address(family, far=True),
        destination=link.address(family),
        source_mac=link.mac(far=True),
        destination_mac=link.mac(),
    )


def back(ends: Ends) -> Ends:
    """The other way."""
    return replace(
        ends,
        source=ends.destination,
        destination=ends.source,
        source_mac=ends.destination_mac,
        destination_mac=ends.source_mac,
    )


def frames(ends: Ends, version: int, count: int) -> list[bytes]:
    """So many of both kinds."""
    return [ends.frame(version, kind) for kind in NAMES for _ in range(count)]


def shown(row: Row) -> tuple[Any, ...]:
    """What a row of RoCE tells, in the order of `expected`."""
    names = "traffic_type", "opcode", "queue_pair", "partition_key", "sequence", "local", "remote"
    return *(row[name] for name in names), *counted(row)


def expected(ends: Ends, version: int, count: int, *, inward: bool) -> list[tuple[Any, ...]]:
    """The rows of frames() of here."""
    rows: list[tuple[Any, ...]] = []
    for kind, name in NAMES.items():
        figures = (count, count * ends.size(version, kind))
        local, remote = (ends.destination, ends.source) if inward else (ends.source, ends.destination)
        said = f"roce_v{version}", name, kind.queue_pair, kind.partition_key, kind.sequence
        rows.append((*said, local, remote, *(figures + NOTHING if inward else NOTHING + figures)))
    return rows


def of_roce(netmond: Netmond, **options: object) -> list[tuple[Any, ...]]:
    """Its rows, whatever they are; not those of the kernel's answers."""
    return sorted(shown(row) for row in netmond.rows("Flows", **options) if row["traffic_type"] != "ip")


@pytest.mark.parametrize("attach", ["tc", "xdp-generic"])
def test_to_and_from_here(scene: Scene, attach: str) -> None:
    """A row for each opcode and direction, with what the headers say, and nobody's; the interface's books
    have its packets in a line of their own. Also in a VLAN that has no interface."""
    netmond, link = scene.netmond(config={"interfaces.attach": attach}, cgroup=None), scene.link
    audit = Audit(netmond, scene.near, link.near_device)
    wanted = []
    for version, family in WAYS:
        ends = incoming(link, family)
        send_frames(scene.far, link.far_device, frames(ends, version, 2))
        send_frames(scene.far, link.far_device, frames(replace(ends, vlan=23), version, 1))
        send_frames(scene.near, link.near_device, frames(back(ends), version, 2))
        wanted += expected(ends, version, 3, inward=True) + expected(back(ends), version, 2, inward=False)

    rows = netmond.rows("Flows", kind="roce")
    assert sorted(map(shown, rows)) == sorted(wanted)
    assert {row["interface"] for row in rows} == {link.near_device}
    assert not any("uid" in row for row in rows)
    assert netmond.rows("Flows", kind="forwarded") == []
    books = audit.grown()
    assert closed(books)
    assert (books["in"]["rdma"][0], books["out"]["rdma"][0]) == (18, 12)


@pytest.mark.interface_kind("vlan")
def test_a_vlan(scene: Scene) -> None:
    """In one whose interface is monitored, too: counted once, at the lower one; both books are closed."""
    link = scene.link
    for space, device, number in ((scene.near, link.near_device, 1), (scene.far, link.far_device, 2)):
        space.ip(
            f"link add link {device} name v23 type vlan id 23",
            f"addr add 10.99.0.{number}/24 dev v23",
            "link set v23 up",
        )
    netmond = scene.netmond(cgroup=None, interfaces=[link.near_device, "v23"])
    audits = {device: Audit(netmond, scene.near, device) for device in (link.near_device, "v23")}
    ends = replace(incoming(link), source="10.99.0.2", destination="10.99.0.1", vlan=23)

    send_frames(scene.far, link.far_device, frames(ends, 2, 3))

    rows = netmond.rows("Flows", kind="roce")
    assert sorted(map(shown, rows)) == sorted(expected(ends, 2, 3, inward=True))
    assert {row["interface"] for row in rows} == {link.near_device}
    books = {device: audit.grown() for device, audit in audits.items()}
    assert all(closed(book) for book in books.values())
    assert books["v23"]["in"]["rdma"][0] == books[link.near_device]["in"]["upper"][0] == 6


def test_routed(crossing: Crossing) -> None:
    """What passes through is forwarded where it leaves, and nothing of it has come here."""
    netmond = crossing.netmond(cgroup=None)
    left, right = crossing.left, crossing.right
    audits = [Audit(netmond, link.near, link.near_device) for link in (left, right)]
    wanted = []
    for family in (4, 6):
        ends = replace(incoming(left, family), destination=right.address(family, far=True))
        send_frames(left.far, left.far_device, frames(ends, 2, 3))
        wanted += expected(ends, 2, 3, inward=False)

    assert netmond.rows("Flows", kind="roce") == []
    assert of_roce(netmond, kind="forwarded", interface=right.near_device) == sorted(wanted)
    assert of_roce(netmond, interface=left.near_device) == []
    books = [audit.grown() for audit in audits]
    assert all(closed(book) for book in books)
    assert books[0]["in"]["forwarded"] == books[1]["out"]["forwarded"]


def test_bridged(bridged: Crossing) -> None:
    """What a bridge passes on from port to port likewise, version 1, too."""
    left, right = bridged.left, bridged.right
    netmond = bridged.netmond(cgroup=None, interfaces=["br0", left.near_device, right.near_device])
    second = Ends(
        source="10.77.0.1",
        destination="10.77.0.2",
        source_mac=left.mac(far=True),
        destination_mac=right.mac(far=True),
    )
    first = replace(second, source="fe80::1", destination="fe80::2")
    send_frames(right.far, right.far_device, [back(first).first(WRITE)])  # so the bridge knows where
    audits = [Audit(netmond, link.near, link.near_device) for link in (left, right)]

    send_frames(left.far, left.far_device, frames(first, 1, 3) + frames(second, 2, 3))

    assert of_roce(netmond, interface=right.near_device) == sorted(
        expected(first, 1, 3, inward=False) + expected(second, 2, 3, inward=False)
    )
    assert netmond.rows("Flows", kind="roce") == []
    assert all(closed(audit.grown()) for audit in audits)


def test_an_ordinary_program_on_that_port(scene: Scene) -> None:
    """Its datagrams are its user's, in both directions, whether or not they look like RoCE: zeroes do, if
    there is room for the header and its CRC."""
    netmond, link = scene.netmond(cgroup=None), scene.link
    audit = Audit(netmond, scene.near, link.near_device)
    user, caller, server = scene.user(), scene.server(), scene.server()
    here = user.do("echo_server", local=[link.address(4), PORT])
    there = server.do("echo_server", local=[link.address(4, far=True), PORT])
    user.do("udp", name="out", peer=[link.address(4, far=True), there])
    caller.do("udp", name="in", peer=[link.address(4), here])

    for size in (15, 16, 101):
        user.do("exchange", name="out", count=23, size=size)
        caller.do("exchange", name="in", count=7, size=size)

    assert of_roce(netmond) == []
    assert netmond.user(USER) == Figures(*(90, 30 * (15 + 16 + 101 + 3 * 28)) * 2)
    books = audit.grown()
    assert closed(books)
    assert "rdma" not in books["in"].keys() | books["out"].keys()


def test_a_socket_of_the_kernel(scene: Scene) -> None:
    """One that takes packets itself, as that of soft-RoCE does, and here that of a tunnel, is nobody's."""
    scene.near.ip("link add vx type vxlan id 7 dstport 4791 local 10.23.1.1", "link set vx up")
    netmond, link = scene.netmond(cgroup=None), scene.link
    audit = Audit(netmond, scene.near, link.near_device)

    send_frames(scene.far, link.far_device, frames(incoming(link), 2, 3))

    rows = netmond.rows("Flows", kind="roce")
    assert sorted(map(shown, rows)) == sorted(expected(incoming(link), 2, 3, inward=True))
    books = audit.grown()
    assert closed(books)
    assert books["in"]["rdma"] == (6, sum(row["in_bytes"] for row in rows))


def test_more_flows_than_room(scene: Scene) -> None:
    """When the table is full the ledger counts the packets that are in no row; interfaces have them all."""
    netmond, link = scene.netmond(config={"interfaces.forwarded": 64}), scene.link
    kinds = [Kind(queue_pair=number) for number in range(100)]

    send_frames(
        scene.far, link.far_device, [incoming(link).second(kind) for kind in kinds for _ in range(3)]
    )

    rows = netmond.rows("Flows", kind="roce")
    missing = netmond.loss("interfaces.roce-full")
    assert len(rows) <= 64
    assert missing > 0
    assert total(rows).in_packets + missing == 300
    assert netmond.interface(link.near_device)["classes"]["in_ipv4_packets"] == 300


def test_flood(scene: Scene) -> None:
    """As fast as it comes, from many queue pairs: each packet is in its row or in the ledger."""
    link = scene.link
    with interfaces(scene.near, forwarded=64) as ledger:
        ledger.put_on(link.near_device)
        some = [incoming(link).second(Kind(queue_pair=number)) for number in range(200)]

        send_frames(scene.far, link.far_device, some * (FLOOD // len(some)))

        account = ledger.read()
    check_interfaces(account)
    assert account.counted["in ipv4"] == FLOOD
    assert account.counted["roce"] + account.lost["roce-full"] == FLOOD
    assert min(account.counted["roce"], account.lost["roce-full"]) > 0


def test_it_goes_on(scene: Scene) -> None:
    """Over SIGKILL and a start: rows and figures are what they were and what came after, once."""
    netmond, link = lasting(scene), scene.link
    netmond.start()
    ends = incoming(link)
    send_frames(scene.far, link.far_device, frames(ends, 2, 3))
    before = ids(netmond)

    netmond.stop(signal.SIGKILL)
    send_frames(scene.far, link.far_device, frames(ends, 2, 4))
    netmond.start()
    send_frames(scene.far, link.far_device, frames(ends, 2, 5))

    assert ids(netmond) == before
    assert of_roce(netmond) == sorted(expected(ends, 2, 12, inward=True))


def ids(netmond: Netmond) -> set[int]:
    return {row["id"] for row in netmond.rows("Flows", kind="roce")}


def test_another_build(scene: Scene) -> None:
    """An upgrade to programs with other records amidst: flows begin anew, the totals have every packet."""
    netmond, link = lasting(scene), scene.link
    netmond.start()
    ends = incoming(link)
    send_frames(scene.far, link.far_device, frames(ends, 2, 3))
    netmond.settle()

    netmond.stop(signal.SIGKILL)
    send_frames(scene.far, link.far_device, frames(ends, 2, 4))
    netmond.source = changed(scene.machine.directory / "newer")
    netmond.start()
    send_frames(scene.far, link.far_device, frames(ends, 2, 5))

    (row,) = [row for row in netmond.rows("Users") if row["uid"] == NOBODY_UID]
    assert (row["rdma_in_packets"], row["rdma_out_packets"]) == (2 * 12, 0)
    assert of_roce(netmond) == sorted(expected(ends, 2, 5, inward=True))
