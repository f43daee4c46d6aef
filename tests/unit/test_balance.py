"""Balancing books: what the driver counted, explained by what was counted elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.balance import KERNEL, LINES, Amount, balance
from netmond.kernel import wire
from netmond.model import Evidence, Growth

ETHERNET, TAG = 14, 4
NOTHING = Amount(0, 0)
count = st.integers(0, 10_000)


def growth(
    *,
    rx: tuple[int, int] = (0, 0),
    tx: tuple[int, int] = (0, 0),
    tx_dropped: int = 0,
    queue: tuple[int, int, int] = (0, 0, 0),
    **sides: dict[str, Any],
) -> Growth:
    """sides: `inward` and `outward`, see `side`."""
    port = np.zeros(1, wire.PORT_COUNTERS)
    for name, given_ in sides.items():
        one = port["in" if name == "inward" else "out"]
        one["stack_packets"], one["stack_bytes"] = given_["stack"]
        one["class"]["packets"][:, 0], one["class"]["bytes"][:, 0] = given_["wire"]
        one["tagged"] = given_["tagged"]
        for part, amount in given_["parts"].items():
            one["part"][:, wire.PARTS.index(part)] = amount
    return Growth(
        kernel=np.array([*rx, *tx, tx_dropped], np.int64),
        queue=np.array(queue, np.int64),
        port=port.view(np.int64),
    )


def side(*, tagged: int = 0, more_wire: tuple[int, int] = (0, 0), **parts: Any) -> dict[str, Any]:
    """What the interface counted of parts (packets, bytes from the IP header on); frames have an Ethernet
    header. more_wire: what they are on the wire beyond that."""
    exclusive = [parts.get(name, (0, 0)) for name in wire.EXCLUSIVE_PARTS]
    packets = sum(amount[0] for amount in exclusive)
    size = sum(amount[1] for amount in exclusive) + ETHERNET * packets
    return {
        "stack": (packets, size),
        "wire": (packets + more_wire[0], size + more_wire[1]),
        "tagged": tagged,
        "parts": parts,
    }


def evidence(low: Growth, high: Growth | None = None, **changes: Any) -> Evidence:
    """Of counters at rest, unless `high` is another than `low`; sockets: (in, out) stack amounts."""
    counted = np.zeros(8, np.uint64)
    inward, outward = changes.pop("sockets", ((0, 0), (0, 0)))
    counted[[4, 5]], counted[[6, 7]] = inward, outward
    base = Evidence(
        since=0.0,
        low=low,
        high=high or low,
        sockets=counted,
        whole=True,
        link_header=ETHERNET,
        hook="tcx",
    )
    return replace(base, **changes)


def lines(evidence: Evidence, direction: str) -> dict[str, Amount]:
    return {line.name: line.amount for line in balance(evidence, direction)}


@given(st.lists(count, min_size=10, max_size=10))
def test_everything_has_its_line(numbers: list[int]) -> None:
    """Whatever a frame is, it is in one line; the sum is what the driver counted, and nothing is left."""
    users, system, upper, forwarded, rdma, *sizes = numbers
    parts: dict[str, Any] = {
        name: (packets, packets * (40 + size))
        for name, packets, size in zip(
            ("sockets", "kernel", "upper", "forwarded", "rdma"),
            (users, system, upper, forwarded, rdma),
            sizes,
            strict=True,
        )
    }
    sent = side(**parts)
    found = lines(
        evidence(growth(tx=sent["stack"], outward=sent), sockets=((0, 0), parts["sockets"])), "out"
    )

    assert found["kernel"] == sent["stack"]
    assert found["users"] == parts["sockets"]
    for line, part in (("system", "kernel"), *((name, name) for name in ("upper", "forwarded", "rdma"))):
        assert found.get(line, NOTHING) == parts[part]
    assert found.get("link", NOTHING) == (0, ETHERNET * sum(numbers[:5]))
    assert found["unattributed"] == NOTHING


@given(st.lists(st.tuples(count, st.integers(0, 10_000_000)), min_size=8, max_size=8))
def test_lines_always_add_up(amounts: list[tuple[int, int]]) -> None:
    """Also if the counters contradict each other: then the rest is in `unattributed`."""
    kernel, sockets, *parts, more = amounts
    by_name: dict[str, Any] = dict(zip(wire.PARTS, parts, strict=False))
    received = side(more_wire=more, **by_name)
    found = balance(evidence(growth(rx=kernel, inward=received), sockets=(sockets, (0, 0))), "in")

    total, *others, wire_ = found
    assert total.name == "kernel"
    assert wire_.name == "wire"
    assert total.amount == tuple(map(sum, zip(*(line.amount for line in others), strict=True)))
    order = [LINES.index(line.name) for line in found]
    assert order == sorted(order)


def test_what_was_routed_is_noted_where_it_left() -> None:
    """On the way in a packet for a socket looks like one to be routed, until it leaves elsewhere."""
    received = side(
        sockets=(30, 3000), kernel=(7, 700), routed=(20, 2000), routed_kernel=(5, 500), forwarded=(2, 200)
    )
    found = lines(
        evidence(growth(rx=received["stack"], inward=received), sockets=((10, 1000), (0, 0))), "in"
    )

    assert found["forwarded"] == (20 + 5 + 2, 2000 + 500 + 200)
    assert (found["users"], found["system"], found["unattributed"]) == ((10, 1000), (2, 200), NOTHING)


def test_datagrams_in_pieces() -> None:
    """Sockets know the whole; what the pieces are beyond it is a line, but not that of routed ones."""
    received = side(sockets=(9, 9000), routed=(3, 3000), fragments=(6, 120), routed_fragments=(2, 40))
    found = lines(evidence(growth(rx=received["stack"], inward=received), sockets=((2, 5920), (0, 0))), "in")

    assert (found["fragments"], found["unattributed"]) == ((4, 80), NOTHING)


@pytest.mark.parametrize("share", [0, 3, 9], ids=["none", "some", "all"])
def test_segments_that_the_driver_counts_one_by_one(share: int) -> None:
    """Of 9 segments beyond the super-packets, with headers of 66 bytes, the driver may count any number."""
    sent = side(more_wire=(9, 9 * 66), sockets=(2, 13_000))
    packets, size = sent["stack"]
    found = lines(
        evidence(
            growth(tx=(packets + share, size + share * 66), outward=sent), sockets=((0, 0), (2, 13_000))
        ),
        "out",
    )

    assert found.get("segments", NOTHING) == (share, share * 66)
    assert found["unattributed"] == NOTHING
    assert found["wire"] == (11, size + 9 * 66)


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_what_drivers_count_of_headers(headers: bool, tags: bool, direction: str) -> None:
    """With or without link headers, with or without tags that are beside the frame."""
    frames = side(tagged=50, upper=(50, 5000), sockets=(7, 700))
    frames["stack"] = (57, frames["stack"][1] + (TAG * 50 if direction == "in" else 0))
    size = 5700 + (57 * ETHERNET if headers else 0) + (50 * TAG if tags else 0)
    given_ = (
        growth(rx=(57, size), inward=frames) if direction == "in" else growth(tx=(57, size), outward=frames)
    )
    found = lines(evidence(given_, sockets=((7, 700), (7, 700))), direction)

    assert found["kernel"] == (57, size)
    assert found["unattributed"] == NOTHING


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("tags", [True, False])
def test_tagged_frames_that_were_merged(headers: bool, tags: bool) -> None:
    """The driver counted 22 frames, with or without link headers and tags; the stack made them two."""
    repeated = 66 + TAG
    merged = side(tagged=2, more_wire=(20, 20 * repeated), upper=(2, 30_000))
    merged["stack"] = (2, merged["stack"][1] + 2 * TAG)
    merged["wire"] = (22, merged["wire"][1] + 2 * TAG)
    size = merged["wire"][1] - (0 if headers else 22 * ETHERNET) - (0 if tags else 22 * TAG)
    found = lines(evidence(growth(rx=(22, size), inward=merged)), "in")

    assert found["kernel"] == (22, size)
    assert found["unattributed"] == NOTHING


def test_a_queue() -> None:
    """What it dropped and what it holds left the sockets and did not reach the driver."""
    sent = side(sockets=(100, 100_000))
    found = lines(
        evidence(
            growth(tx=(60, 60_840), queue=(30, 10, 10_140), outward=sent), sockets=((0, 0), (100, 100_000))
        ),
        "out",
    )

    assert found["dropped"] == (-30, -30 * 1014)
    assert found["queued"] == (-10, -10_140)
    assert found["unattributed"] == NOTHING


def test_no_more_is_dropped_than_was_dropped() -> None:
    """A gap beyond what queue and driver say they dropped is unattributed."""
    sent = side(sockets=(100, 100_000))
    found = lines(
        evidence(
            growth(tx=(60, 60_840), tx_dropped=3, queue=(30, 0, 0), outward=sent),
            sockets=((0, 0), (100, 100_000)),
        ),
        "out",
    )

    assert found["dropped"][0] == -33
    assert found["unattributed"][0] == -7


def test_packets_that_no_socket_took() -> None:
    """The interface handed them up, and nobody counted them."""
    received = side(sockets=(12, 1200))
    found = lines(evidence(growth(rx=received["stack"], inward=received), sockets=((9, 900), (0, 0))), "in")

    assert found["unattributed"] == (3, 300)


def test_counters_in_motion() -> None:
    """Between two readings sockets' figures are whatever was in between: no error. Outside, by how much."""
    less, more = (side(sockets=(packets, 100 * packets)) for packets in (90, 110))
    given_ = growth(rx=less["stack"], inward=less), growth(rx=more["stack"], inward=more)

    for counted, rest in ((90, 0), (101, 0), (110, 0), (85, 5), (113, -3)):
        found = lines(evidence(*given_, sockets=((counted, 100 * counted), (0, 0))), "in")
        assert found["unattributed"] == (rest, 100 * rest)


def test_a_meter_of_a_part_of_the_machine() -> None:
    """What sockets it does not know sent has a line of its own."""
    sent = side(sockets=(12, 1200))
    given_ = growth(tx=sent["stack"], outward=sent)
    found = lines(evidence(given_, sockets=((0, 0), (9, 900)), whole=False), "out")

    assert (found["users"], found["unmetered"], found["unattributed"]) == ((9, 900), (3, 300), NOTHING)


def test_no_meter() -> None:
    """Then what is for sockets is known from the interface only, and the line says so."""
    sent = side(sockets=(12, 1200))
    found = balance(evidence(growth(tx=sent["stack"], outward=sent), sockets=((0, 0), (0, 0))), "out")
    without = balance(replace(evidence(growth(tx=sent["stack"], outward=sent)), sockets=None), "out")

    assert found[1].layer == "sockets"
    assert (without[1].name, without[1].layer, without[1].amount) == ("users", "tc", (12, 1200))


def test_native_xdp_sees_frames_before_they_are_merged() -> None:
    """So there sockets' figures are those of the wire."""
    received = side(sockets=(12, 18_000))
    counted = np.array([12, 18_000, 0, 0, 1, 17_500, 0, 0], np.uint64)
    given_ = replace(evidence(growth(rx=received["stack"], inward=received)), sockets=counted, hook="xdp")
    found = {line.name: line for line in balance(given_, "in")}

    assert found["unattributed"].amount == NOTHING
    assert found["link"].layer == "xdp"


def test_native_xdp_sees_pieces_before_they_are_put_together() -> None:
    """Sockets' figures of the wire count each piece: what they are beyond the whole needs no line."""
    received = side(sockets=(18, 22_000), fragments=(13, 536))
    counted = np.array([18, 22_000, 0, 0, 5, 21_464, 0, 0], np.uint64)
    given_ = replace(evidence(growth(rx=received["stack"], inward=received)), sockets=counted, hook="xdp")
    found = {line.name: line.amount for line in balance(given_, "in")}

    assert (found["users"], found["unattributed"]) == ((18, 22_000), NOTHING)
    assert "fragments" not in found


def test_kernel_counters() -> None:
    """Those of one direction stand side by side, packets first."""
    assert KERNEL[:4] == ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
