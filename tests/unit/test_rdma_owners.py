"""From what a packet tells to the queue pair here, and its holder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from netmond.kernel.rdma_netlink import QueuePair
from netmond.model import NOBODY_UID
from netmond.rdma.owners import Directory, Holders
from netmond.rdma.register import Register
from tests.unit.rdma_packets import (
    ALICE,
    BOB,
    PROCESSES,
    between_the_same,
    census,
    packets,
    paths,
    queue_pair,
    tasks,
)

IN, OUT = False, True
ETH, VLAN = 2, 3
_AT = {"rxe0": {ETH}}


def who(found: Holders) -> list[int]:
    """The user behind each row."""
    return [int(uid) for uid in found.who["uid"]]


def test_what_comes_in() -> None:
    """It names the queue pair here."""
    directory = Directory(census(queue_pair(17, ALICE), queue_pair(18, BOB)), _AT)
    found = directory.find(packets((ETH, IN, 18), (ETH, IN, 17), (ETH, IN, 19)), 0.0)

    assert who(found) == [BOB, ALICE, NOBODY_UID]
    assert found.known.tolist() == [True, True, False]
    assert found.who["pid"].tolist() == [PROCESSES[BOB], PROCESSES[ALICE], 0]


def test_what_goes_out() -> None:
    """It names the queue pair at the other end: it is that of whoever is connected with it."""
    directory = Directory(census(queue_pair(17, ALICE, remote_qpn=18), queue_pair(18, BOB)), _AT)

    assert who(directory.find(packets((ETH, OUT, 18), (ETH, OUT, 17), (ETH, OUT, 0)), 0.0)) == [
        ALICE,
        NOBODY_UID,
        NOBODY_UID,
    ]


def test_services() -> None:
    """Queue pair 1 talks to queue pair 1: connection management is the kernel's."""
    directory = Directory(census(queue_pair(1, pid=0, kernel="ib_core", type="GSI")), _AT)

    assert who(directory.find(packets((ETH, IN, 1), (ETH, OUT, 1)), 0.0)) == [0, 0]


def test_several_of_one_user() -> None:
    """The user is known, the queue pair is not; process and unit are, if they are the same."""
    directory = Directory(
        census(queue_pair(17, ALICE, remote_qpn=9), queue_pair(18, ALICE, remote_qpn=9)), _AT
    )
    found = directory.find(packets((ETH, OUT, 9)), 0.0)

    assert (who(found), found.who["pid"].tolist(), found.who["id"].tolist()) == (
        [ALICE],
        [PROCESSES[ALICE]],
        [0],
    )


def test_several_users() -> None:
    """Nobody knows which of them it is, unless the packet had a socket; that goes before all else."""
    directory = Directory(
        census(queue_pair(17, ALICE, remote_qpn=9), queue_pair(18, BOB, remote_qpn=9)), _AT
    )
    nobodys = directory.find(packets((ETH, OUT, 9)), 0.0)
    bobs = directory.find(packets((ETH, OUT, 9), (ETH, OUT, 10), uid=BOB), 0.0)

    assert (who(nobodys), nobodys.known.tolist()) == ([NOBODY_UID], [True])
    assert (who(bobs), bobs.known.tolist()) == ([BOB, BOB], [True, False])
    assert bobs.who["pid"].tolist() == [PROCESSES[BOB], 0]


def test_devices() -> None:
    """A number is that of a device, found by the interface; at one that is no device's it may be any."""
    directory = Directory(
        census(
            queue_pair(17, ALICE, device="rxe0"),
            queue_pair(17, BOB, device="rxe1"),
            queue_pair(18, BOB, device="rxe1"),
        ),
        {"rxe0": {ETH}, "rxe1": {VLAN}},
    )

    found = directory.find(
        packets((ETH, IN, 17), (VLAN, IN, 17), (ETH, IN, 18), (4, IN, 17), (4, IN, 18)), 0.0
    )

    assert who(found) == [ALICE, BOB, NOBODY_UID, NOBODY_UID, BOB]


def test_one_that_is_gone() -> None:
    """It counts for packets of the time when it was there."""
    register = Register(tasks, paths)
    register.update([queue_pair(17, ALICE)], begun=round(1e9))
    directory = Directory(register.update([queue_pair(17, BOB)], begun=round(3e9)), _AT)

    rows = packets((ETH, IN, 17))
    assert who(directory.find(rows, 2.0)) == [NOBODY_UID], "either may have had it"
    assert who(directory.find(rows, 3.5)) == [BOB]


def test_answers() -> None:
    """Of a program too short for a look at its queue pair only the socket of what it sends tells. Answers
    are its user's, too, if nobody else sends there whose queue pair is as unknown."""
    directory = Directory(census(queue_pair(17, BOB, remote_qpn=9)), _AT)
    there = (ETH, OUT, 9), (ETH, OUT, 8), (ETH, IN, 18)

    alone = directory.find(between_the_same(packets(*there, uid=[BOB, ALICE, NOBODY_UID])), 0.0)
    assert (who(alone), alone.known.tolist()) == ([BOB, ALICE, ALICE], [True, False, False])
    two = directory.find(
        between_the_same(packets(*there, (ETH, OUT, 7), uid=[BOB, ALICE, NOBODY_UID, BOB])), 0.0
    )
    assert who(two) == [BOB, ALICE, NOBODY_UID, BOB]
    elsewhere = directory.find(packets(*there, uid=[BOB, ALICE, NOBODY_UID]), 0.0)
    assert who(elsewhere) == [BOB, ALICE, NOBODY_UID]


_NUMBERS = st.integers(0, 3)
_PAIRS = st.lists(
    st.builds(
        lambda device, qpn, remote, uid: queue_pair(qpn, uid, device=device, remote_qpn=remote),
        st.sampled_from(["rxe0", "rxe1"]), _NUMBERS, _NUMBERS, st.sampled_from([ALICE, BOB, NOBODY_UID]),
    ),
    unique_by=lambda pair: (pair.device, pair.qpn),
)  # fmt: skip
_ROWS = st.lists(
    st.tuples(st.sampled_from([ETH, VLAN, 4]), st.booleans(), _NUMBERS, st.sampled_from([ALICE, NOBODY_UID]))
)


def one_by_one(pairs: list[QueuePair], row: tuple[int, bool, int, int]) -> tuple[int, bool]:
    """User, and whether there is anybody, by the words of the rule."""
    ifindex, outgoing, number, uid = row
    devices = {ETH: {"rxe0"}, VLAN: {"rxe1"}}.get(ifindex, {"rxe0", "rxe1"})
    of = {pair.pid: uid for uid in (ALICE, BOB, NOBODY_UID) for pair in [queue_pair(0, uid)]}
    users = [
        of[pair.pid]
        for pair in pairs
        if pair.device in devices
        and number
        and (pair.remote_qpn if outgoing else pair.qpn) == number
        and (uid == NOBODY_UID or of[pair.pid] in (uid, NOBODY_UID))
    ]
    known = users[0] if len(set(users)) == 1 else NOBODY_UID
    return (uid if uid != NOBODY_UID else known), bool(users)


@given(_PAIRS, _ROWS)
def test_as_one_by_one(pairs: list[QueuePair], rows: list[tuple[int, bool, int, int]]) -> None:
    """All rows at once are what each is by itself."""
    directory = Directory(census(*pairs), {"rxe0": {ETH}, "rxe1": {VLAN}})
    found = directory.find(packets(*(row[:3] for row in rows), uid=[row[3] for row in rows]), 0.0)

    assert list(zip(who(found), found.known.tolist(), strict=True)) == [
        one_by_one(pairs, row) for row in rows
    ]
