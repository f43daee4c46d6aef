"""Which interfaces the sockets' packets passed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.passages import Passages, pass_ours
from tests.unit.fakes import Hash

TCP, ICMP = 6, 1
#: in packets, in bytes, out packets, out bytes; the second half as the stack counts
DELTA = [3, 300, 5, 500, 3, 300, 5, 500]


def deltas(*rows: list[int]) -> NDArray[np.uint64]:
    return np.array(rows, np.uint64)


def ways(*pairs: tuple[int, int]) -> NDArray[np.uint64]:
    """Interfaces of sockets, in and out."""
    return np.array(pairs, np.uint64)


def totals(passages: Passages) -> dict[int, list[Any]]:
    return {index: row[:4].tolist() for index, row in passages.totals.items()}


def test_each_direction_has_its_way() -> None:
    """What comes in by one interface and leaves by another is counted at both, once."""
    passages = Passages()
    passages.add_sockets(deltas(DELTA, DELTA), ways((2, 3), (2, 2)), np.array([TCP, TCP]))

    assert totals(passages) == {2: [6, 600, 5, 500], 3: [0, 0, 5, 500]}


def test_copies_of_what_is_the_kernels() -> None:
    """Echo replies that a socket received are the kernel's in the books; requests it sent are its own."""
    passages = Passages()
    passages.add_sockets(deltas(DELTA), ways((2, 2)), np.array([ICMP]))

    assert totals(passages) == {2: [0, 0, 5, 500]}


def test_no_way_yet() -> None:
    """A direction in which nothing has passed has no interface."""
    passages = Passages()
    passages.add_sockets(deltas([0, 0, 5, 500, 0, 0, 5, 500]), ways((0, 2)), np.array([TCP]))

    assert totals(passages) == {2: [0, 0, 5, 500]}


def test_whose_interfaces() -> None:
    """Only those of sockets in our own namespace are ours, and not of those that serve all namespaces."""
    netns, flags = np.array([7, 8, 7]), np.array([0, 0, wire.FLOW_CONTROL], np.uint8)

    assert pass_ours(netns, flags, 7).tolist() == [True, False, False]


def test_detours_move_from_one_to_the_other() -> None:
    """What slots count at one interface and passed another, tick by tick; of ICMP only what was sent."""
    passages, detours = Passages(), Hash(wire.DETOUR_KEY, wire.TALLY, 4)
    passages.add(deltas([10, 1000, 10, 1000, 10, 1000, 10, 1000]), np.array([2]), np.array([2]))
    for protocol in (TCP, ICMP):
        tally = detours.at(home=2, ifindex=3, protocol=protocol)
        assert tally is not None
        tally["in_bytes"], tally["in_packets"] = 100, 1 | 1 << 32
        tally["out_bytes"], tally["out_packets"] = 200, 2 | 2 << 32

    passages.move(detours)
    assert totals(passages) == {2: [9, 900, 6, 600], 3: [1, 100, 4, 400]}

    passages.move(detours)
    assert totals(passages) == {2: [9, 900, 6, 600], 3: [1, 100, 4, 400]}
