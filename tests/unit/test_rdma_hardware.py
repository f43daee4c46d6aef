"""What devices count by themselves, and what of it is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel.rdma_netlink import BoundCounter
from netmond.model import RdmaPort
from netmond.rdma import hardware
from netmond.rdma.hardware import BoundCounters, Remainders

_NAMES = ("port_rcv_packets", "port_rcv_data", "port_xmit_packets", "port_xmit_data")
_KEY = ("mlx5_0", 1)


def port(*totals: int, names: tuple[str, ...] = _NAMES, group: str = "counters") -> RdmaPort:
    """Totals of packets and bytes in, packets and bytes out."""
    return RdmaPort(
        device="mlx5_0",
        port=1,
        link_layer="InfiniBand",
        state="active",
        names=tuple((group, name) for name in names),
        totals=np.array(totals, np.uint64),
    )


def figures(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)


def test_what_nobody_has_claimed() -> None:
    """All that a port counts from the second reading on."""
    remainders = Remainders()

    assert remainders.update([port(9, 9, 9, 9)]).tolist() == [0, 0, 0, 0]
    assert remainders.update([port(10, 109, 11, 209)]).tolist() == [1, 100, 2, 200]
    assert remainders.update([port(10, 109, 11, 209)]).tolist() == [0, 0, 0, 0]


def test_what_is_somebodys_is_not_left_over() -> None:
    """Whichever of the two is known first."""
    remainders = Remainders()
    remainders.update([port(0, 0, 0, 0)])
    remainders.attribute(_KEY, figures(3, 300, 0, 0))

    assert remainders.update([port(2, 200, 1, 100)]).tolist() == [0, 0, 1, 100]
    assert remainders.update([port(3, 300, 1, 100)]).tolist() == [0, 0, 0, 0]
    assert remainders.update([port(4, 400, 1, 100)]).tolist() == [1, 100, 0, 0]


def test_soft_roce_counts_packets_only() -> None:
    """What stays within one device passes no interface: packets of unknown size."""
    remainders, names = Remainders(), ("rcvd_pkts", "sent_pkts")
    remainders.update([port(0, 0, names=names, group="hw_counters")])
    remainders.attribute(_KEY, figures(3, 300, 2, 200))

    left = remainders.update([port(4, 7, names=names, group="hw_counters")])
    assert left.tolist() == [1, 0, 5, 0]


def test_a_port_that_comes_back() -> None:
    """Its totals go on; if they do not, they began anew."""
    remainders = Remainders()
    remainders.update([port(5, 500, 0, 0)])
    assert remainders.update([]).tolist() == [0, 0, 0, 0]
    assert remainders.update([port(6, 600, 0, 0)]).tolist() == [1, 100, 0, 0]
    assert remainders.update([port(2, 200, 0, 0)]).tolist() == [2, 200, 0, 0]


def test_a_counter_that_could_not_be_read() -> None:
    """It goes on from where it was, and is not counted for a second time."""
    remainders = Remainders()
    remainders.update([port(0, 0, 0, 0)])
    assert remainders.update([port(5, 500, 6, 600)]).tolist() == [5, 500, 6, 600]
    assert remainders.update([port(7, 6, names=("port_rcv_packets", "port_xmit_packets"))]).tolist() == [
        2, 0, 0, 0,
    ]  # fmt: skip
    assert remainders.update([port(names=())]).tolist() == [0, 0, 0, 0]
    assert remainders.update([port(7, 700, 6, 600)]).tolist() == [0, 200, 0, 0]


def test_a_counter_that_stands_in_for_another() -> None:
    """It begins with what it shows: that was counted by the other one already."""
    remainders, both = Remainders(), ("rx_pkts", "port_rcv_packets")
    remainders.update([port(0, 0, names=both)])
    remainders.update([port(90, 100, names=both)])
    alone = [remainders.update([port(total, names=("rx_pkts",))]).tolist() for total in (95, 98)]

    assert alone == [[0, 0, 0, 0], [3, 0, 0, 0]]
    assert remainders.update([port(99, 109, names=both)]).tolist() == [0, 0, 0, 0]
    assert remainders.update([port(100, 110, names=both)]).tolist() == [1, 0, 0, 0]


def bound(number: int, pid: int = 0, **values: int) -> BoundCounter:
    return BoundCounter(device="mlx5_0", port=1, number=number, qpns=(17,), pid=pid, values=values)


def moved(counters: BoundCounters, *now: BoundCounter) -> list[tuple[int, Any]]:
    return [(counter.number, grown.tolist()) for counter, grown in counters.update(now)]


def test_bound_counters() -> None:
    """What is there at first came before; a new one counts from 0, as does one of a number given anew."""
    counters = BoundCounters()

    assert moved(counters, bound(1, rdma_rx_bytes=100, rx_write_requests=7)) == []
    assert moved(counters, bound(1, rdma_rx_bytes=150), bound(2, rdma_tx_packets=3)) == [
        (1, [0, 50, 0, 0]),
        (2, [0, 0, 3, 0]),
    ]
    assert moved(counters, bound(1, rdma_rx_bytes=20), bound(2, rdma_tx_packets=3)) == [(1, [0, 20, 0, 0])]


def test_bound_counters_that_could_not_be_read() -> None:
    """They go on, but of another process they count from 0."""
    counters = BoundCounters()
    moved(counters, bound(1, pid=4242, rdma_rx_bytes=100))
    assert moved(counters) == []
    assert moved(counters, bound(1, pid=4242, rdma_rx_bytes=150)) == [(1, [0, 50, 0, 0])]
    assert moved(counters, bound(1, pid=4243, rdma_rx_bytes=170)) == [(1, [0, 170, 0, 0])]


def test_a_number_that_was_given_to_another() -> None:
    """If one figure is less than before, all of them are new."""
    counters = BoundCounters()
    moved(counters, bound(1, rdma_rx_bytes=100, rdma_tx_bytes=5))

    assert moved(counters, bound(1, rdma_rx_bytes=20, rdma_tx_bytes=7)) == [(1, [0, 20, 0, 7])]


def test_counters_long_gone_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program may have one of its own."""
    monkeypatch.setattr(hardware, "_REMEMBERED", 2)
    counters = BoundCounters()
    for number in range(20):
        moved(counters, bound(number, rdma_rx_bytes=1))

    assert counters._before is not None
    assert len(counters._before) <= 4
