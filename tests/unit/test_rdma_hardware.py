"""What devices count by themselves, and what of it is left over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel.rdma_netlink import BoundCounter
from netmond.model import RdmaPort
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


def bound(number: int, **values: int) -> BoundCounter:
    return BoundCounter(device="mlx5_0", port=1, number=number, qpns=(17,), pid=0, values=values)


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
