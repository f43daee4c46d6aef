"""What the counters of RDMA devices mean: kind, unit, and a sentence for a person.

Port counters are PortCounters and PortCountersExtended (InfiniBand Architecture Specification, volume 1,
chapter 16), as Documentation/ABI/stable/sysfs-class-infiniband names them. Each driver names its hw_counters
(drivers/infiniband): hw/mlx5/counters.c, sw/rxe/rxe_hw_counters.c, hw/bnxt_re/hw_counters.c,
hw/efa/efa_verbs.c, hw/irdma/verbs.c. One that is not here is counted in events, and its kind is ``other``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Name = tuple[str, str]  #: of a counter: its group (``counters``, ``hw_counters``: directories) and its file

KINDS = (
    "data", "packets", "multicast", "retransmits", "order", "congestion", "rnr", "timeouts", "errors",
    "discards", "link", "requests", "other",
)  # fmt: skip


class Counter(NamedTuple):
    """What is known of a counter."""

    kind: str  #: one of `KINDS`
    unit: str  #: ``bytes``, ``packets``, ``messages``, ``ticks``, ``events``
    meaning: str  #: continues the counter's name: "out_of_sequence: arrived before ..."
    factor: int = 1  #: how many of the unit one of what the device counts is


#: Files among the counters that are none: for how long the kernel keeps values, and of bnxt_re how many
#: objects there are, or were at most.
_NO_COUNTER = re.compile(r"lifespan|(active|watermark)_\w+")
_WORDS = 4  # port counters count data in words of 32 bits
_UNKNOWN = Counter("other", "events", "not known to netmond: see the vendor's manual")


def _of(kind: str, unit: str, factor: int = 1, **meanings: str) -> dict[str, Counter]:
    return {name: Counter(kind, unit, meaning, factor) for name, meaning in meanings.items()}


_KNOWN: dict[str, Counter] = {
    # counters, of whichever device
    **_of(
        "data", "bytes", _WORDS,
        port_xmit_data="sent by the port, with RDMA's own headers; the device counts words of 4 bytes",
        port_rcv_data="received by the port, with RDMA's own headers; the device counts words of 4 bytes",
    ),
    **_of(
        "packets", "packets",
        port_xmit_packets="sent by the port, faulty ones too",
        port_rcv_packets="received by the port, faulty ones too",
        unicast_xmit_packets="sent to one receiver",
        unicast_rcv_packets="received, and meant for one receiver",
    ),
    **_of(
        "multicast", "packets",
        multicast_xmit_packets="sent to a multicast group",
        multicast_rcv_packets="received, and meant for a multicast group",
    ),
    **_of(
        "congestion", "ticks",
        port_xmit_wait="had data and could not send: the other end gave no credits, or lanes had to wait",
    ),
    **_of(
        "discards", "packets",
        port_xmit_discards="not sent, because the port was down or congested",
        port_xmit_constraint_errors="not sent: a filter, or not in the partition",
        port_rcv_constraint_errors="received and thrown away: a filter, or not in the partition",
        port_rcv_switch_relay_errors="received, and no way on for the switch",
        VL15_dropped="management packets received and dropped, for want of buffers",
    ),
    **_of(
        "errors", "packets",
        port_rcv_errors="received with a fault: checksum, length, or no room in the buffer",
        port_rcv_remote_physical_errors="received that had been marked as bad on the way",
    ),
    **_of(
        "link", "events",
        symbol_error="small faults on the line: look at cable, connector and transceiver",
        link_error_recovery="the link trained itself again after faults, and succeeded",
        link_downed="the link went down: training itself again failed, or the other end is off",
        local_link_integrity_errors="faults on the line came faster than the threshold allows",
        excessive_buffer_overrun_errors="the input buffer kept overflowing: flow control fails",
    ),
    # mlx5
    **_of(
        "requests", "messages",
        rx_write_requests="RDMA WRITE requests received",
        rx_read_requests="RDMA READ requests received",
        rx_atomic_requests="atomic requests received",
        rx_dct_connect="requests for dynamically connected transport received",
    ),
    **_of("order", "packets", out_of_sequence="received out of order: one before was lost or overtaken"),
    **_of(
        "retransmits", "packets",
        duplicate_request="requests received again: an answer was late or lost",
        packet_seq_err="the other end reported missing packets, which were sent again: loss on the way",
        implied_nak_seq_err="an answer came ahead of its turn, so that one was missing and asked for again",
        roce_adp_retrans="sent again by adaptive retransmission, before the timeout",
    ),
    **_of(
        "rnr", "packets",
        rnr_nak_retry_err="the other end had no receive buffer posted, and made us wait",
        out_of_buffer="dropped, because no receive buffer was posted here: the program is too slow",
        req_rnr_retries_exceeded="given up, as the other end never had a receive buffer",
    ),
    **_of(
        "timeouts", "events",
        local_ack_timeout_err="no answer came in time, so it was sent again: loss or heavy congestion",
        roce_adp_retrans_to="no answer came in time, in spite of adaptive retransmission",
        req_transport_retries_exceeded="given up after all retries: the connection is broken",
    ),
    **_of(
        "congestion", "packets",
        np_ecn_marked_roce_packets="received that a switch on the way had marked: congestion (ECN)",
        np_cnp_sent="congestion notifications (CNP) sent, which ask the other end to slow down",
        rp_cnp_handled="congestion notifications received, and slowed down for",
        rp_cnp_ignored="congestion notifications received and ignored",
        cc_rx_ce_pkts="received that a switch on the way had marked: congestion (ECN)",
        cc_rx_cnp_pkts="congestion notifications (CNP) received",
        cc_tx_cnp_pkts="congestion notifications (CNP) sent",
        roce_slow_restart_cnps="congestion notifications made by slow restart",
    ),
    **_of(
        "congestion", "events",
        roce_slow_restart="began again slowly after a pause",
        roce_slow_restart_trans="changed over to beginning slowly",
    ),
    **_of(
        "errors", "events",
        resp_local_length_error="received more than the receive buffer holds",
        resp_cqe_error="receives that ended with an error",
        req_cqe_error="requests that ended with an error",
        req_remote_invalid_request="requests that the other end found invalid",
        req_remote_access_errors="requests that the other end allowed no access for",
        resp_remote_access_errors="requests received that were allowed no access",
    ),
    **_of("errors", "packets", rx_icrc_encapsulated="received with a wrong checksum (ICRC)"),
    **_of(
        "other", "events",
        resp_cqe_flush_error="receives thrown away as a queue pair was closed: usual at a program's end",
        req_cqe_flush_error="requests thrown away as a queue pair was closed: usual at a program's end",
    ),
    **_of(
        "packets", "packets",
        rdma_tx_packets="RDMA packets sent", rdma_rx_packets="RDMA packets received",
    ),
    **_of("data", "bytes", rdma_tx_bytes="RDMA data sent", rdma_rx_bytes="RDMA data received"),
    # rxe
    **_of("packets", "packets", sent_pkts="sent", rcvd_pkts="received"),
    **_of("order", "packets", out_of_seq_request="requests received out of order: one before them was lost"),
    **_of(
        "retransmits", "packets",
        rcvd_seq_err="the other end reported missing packets, which were sent again",
        completer_retry_err="begun to send again what had no answer",
    ),
    **_of(
        "rnr", "packets",
        rcvd_rnr_err="the other end had no receive buffer posted, and made us wait",
        send_rnr_err="no receive buffer was posted here, and the other end was made to wait",
        retry_rnr_exceeded_err="given up, as the other end never had a receive buffer",
    ),
    **_of("timeouts", "events", retry_exceeded_err="given up after all retries: the connection is broken"),
    **_of("errors", "events", send_err="could not be handed to the network interface"),
    **_of("requests", "messages", rdma_sends="sent and acknowledged", rdma_recvs="received whole"),
    **_of("other", "events", ack_deferred="answers that waited for their turn"),
    # bnxt_re and efa
    **_of("packets", "packets", tx_pkts="sent", rx_pkts="received"),
    **_of("data", "bytes", tx_bytes="sent", rx_bytes="received"),
    **_of(
        "congestion", "packets",
        rx_ecn_marked_pkts="received that a switch on the way had marked: congestion (ECN)",
        tx_cnp_pkts="congestion notifications (CNP) sent, which ask the other end to slow down",
        rx_cnp_pkts="congestion notifications (CNP) received",
    ),
    **_of(
        "retransmits", "packets",
        seq_err_naks_rcvd="the other end reported missing packets, which were sent again",
        dup_req="requests received again: an answer was late or lost",
        retrans_pkts="sent again",
    ),
    **_of("retransmits", "bytes", retrans_bytes="sent again"),
    **_of("order", "packets", res_oos_drop_count="dropped because they came out of order"),
    **_of("order", "events", missing_resp="an answer was missing"),
    **_of(
        "rnr", "packets",
        rnr_naks_rcvd="the other end had no receive buffer posted, and made us wait",
        rx_out_of_buffer="dropped, because no receive buffer was posted here",
    ),
    **_of(
        "timeouts", "events",
        to_retransmits="no answer came in time, so it was sent again",
        max_retry_exceeded="given up after all retries: the connection is broken",
        retrans_timeout_events="no answer came in time, so it was sent again",
        unresponsive_remote_events="given up: the other end does not answer",
    ),
    **_of("errors", "packets", tx_roce_errors="not sent: a fault", rx_roce_errors="received with a fault"),
    **_of("errors", "events", unrecoverable_err="faults that ended a connection"),
    **_of(
        "discards", "packets",
        tx_roce_discards="not sent", rx_roce_discards="received and dropped",
        rx_drops="received and dropped",
    ),
    **_of(
        "requests", "messages",
        send_wrs="sends posted", recv_wrs="receives completed", rdma_read_wrs="reads posted",
        rdma_write_wrs="writes posted",
    ),
    # irdma
    **_of(
        "data", "bytes",
        ip4InOctets="received over IPv4", ip6InOctets="received over IPv6", ip4OutOctets="sent over IPv4",
        ip6OutOctets="sent over IPv6",
    ),
    **_of(
        "packets", "packets",
        ip4InPkts="received over IPv4", ip6InPkts="received over IPv6", ip4OutPkts="sent over IPv4",
        ip6OutPkts="sent over IPv6",
    ),
    **_of(
        "congestion", "packets",
        cnpSent="congestion notifications (CNP) sent",
        cnpHandled="congestion notifications received, and slowed down for",
        cnpIgnored="congestion notifications received and ignored",
        RxECNMrkd="received that a switch on the way had marked: congestion (ECN)",
    ),
}  # fmt: skip


def is_counter(name: str) -> bool:
    """Whether what is in a file of this name only grows."""
    return not _NO_COUNTER.fullmatch(name)


def look_up(name: str) -> Counter:
    """What is known of the counter in a file of this name, in whichever group."""
    return _KNOWN.get(name.removeprefix("vport_"), _UNKNOWN)  # vport_: of a port that stands for another one


def factors(names: Iterable[Name]) -> NDArray[np.uint64]:
    """How many of its unit one of each counter is: uint64 (k,)."""
    return np.array([look_up(name).factor for _, name in names], np.uint64)
