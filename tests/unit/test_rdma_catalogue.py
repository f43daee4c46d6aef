"""What is known of RDMA counters."""

from __future__ import annotations

import pytest

from netmond.rdma.catalogue import KINDS, factors, is_counter, look_up
from tests.unit.rdma_tree import COUNTERS, MLX5, MLX5_ROCE, RXE


@pytest.mark.parametrize("name", sorted({*COUNTERS, *MLX5, *MLX5_ROCE, *RXE}))
def test_known_counters(name: str) -> None:
    """Every counter of mlx5 and soft-RoCE has a kind, a unit and a meaning of one line."""
    counter = look_up(name)

    assert counter.kind in KINDS
    assert counter.unit in ("bytes", "packets", "messages", "ticks", "events")
    assert 0 < len(counter.meaning) < 100
    assert counter != look_up("of somebody")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("port_rcv_data", "data"),
        ("port_xmit_packets", "packets"),
        ("multicast_rcv_packets", "multicast"),
        ("packet_seq_err", "retransmits"),
        ("out_of_sequence", "order"),
        ("np_cnp_sent", "congestion"),
        ("port_xmit_wait", "congestion"),
        ("rnr_nak_retry_err", "rnr"),
        ("local_ack_timeout_err", "timeouts"),
        ("port_rcv_errors", "errors"),
        ("port_xmit_discards", "discards"),
        ("link_downed", "link"),
        ("rx_write_requests", "requests"),
        ("req_cqe_flush_error", "other"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    """What a counter tells of: the flushed ones, which grow whenever a program ends, of nothing bad."""
    assert look_up(name).kind == kind


def test_unknown() -> None:
    """A counter of a driver that nobody has described is events, of no kind."""
    assert look_up("of_somebody")[:2] == ("other", "events")


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("rx_pkts", True),
        ("of_somebody", True),
        ("lifespan", False),
        ("active_qps", False),
        ("watermark_mrs", False),
    ],
)
def test_what_is_no_counter(name: str, is_one: bool) -> None:
    """How long values are kept, and how many objects there are or were at most: bnxt_re tells that, too."""
    assert is_counter(name) is is_one


def test_other_ports() -> None:
    """A port that stands for one of a virtual machine counts the same, under names of its own."""
    assert look_up("vport_out_of_sequence") == look_up("out_of_sequence")


def test_factors() -> None:
    """Only data of port counters is in words; bytes of drivers are bytes."""
    names = [
        ("counters", "port_xmit_data"),
        ("counters", "port_rcv_data"),
        ("hw_counters", "tx_bytes"),
        ("", "x"),
    ]

    assert factors(names).tolist() == [4, 4, 1, 1]
