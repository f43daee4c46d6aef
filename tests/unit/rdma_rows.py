"""Rows of RDMA ports, counters and queue pairs for tests, as org.netmond1(5) has them."""

from __future__ import annotations

from typing import Any

#: A port of an adapter under load.
PORT: dict[str, Any] = {
    "device": "mlx5_0", "port": 1, "link_layer": "Ethernet", "state": "active",
    "physical_state": "link-up", "speed": 100_000_000_000, "lid": 0, "netdev": "ens1f0np0",
    "node_guid": "b83f:d203:0012:3456", "firmware": "20.31.1014", "driver": "mlx5_core",
    "gids": [
        {"index": 0, "address": "fe80::ba3f:d2ff:fe12:3456", "type": "IB/RoCE v1", "netdev": "ens1f0np0"},
        {"index": 3, "address": "::ffff:192.0.2.7", "type": "RoCE v2", "netdev": "ens1f0np0"},
    ],
    "in_bytes": 1_319_413_953_331, "out_bytes": 998_877_665_544, "in_packets": 1_288_490_188,
    "out_packets": 975_466_470, "in_byte_rate": 9.3e9, "out_byte_rate": 8.1e9, "in_packet_rate": 401_333.0,
    "out_packet_rate": 380_000.0, "bytes": 2_318_291_618_875, "byte_rate": 1.74e10, "errors": 0,
}  # fmt: skip

#: Name to kind, unit, and a meaning such as netmond has.
_COUNTERS = {
    "port_rcv_data": ("data", "bytes", "received by the port, with headers but without link framing"),
    "port_xmit_data": ("data", "bytes", "sent by the port, with headers but without link framing"),
    "port_rcv_packets": ("packets", "packets", "received by the port, also faulty ones"),
    "port_xmit_packets": ("packets", "packets", "sent by the port, also faulty ones"),
    "packet_seq_err": ("retransmits", "events", "NAKs for lost packets received: they are sent again"),
    "out_of_sequence": ("order", "packets", "received out of sequence: one before it was lost"),
    "np_cnp_sent": ("congestion", "packets", "congestion notifications sent, as marked packets came in"),
    "np_ecn_marked_roce_packets": ("congestion", "packets", "received that a switch had marked"),
    "rp_cnp_handled": ("congestion", "packets", "congestion notifications received: sending slows down"),
    "port_xmit_wait": ("congestion", "ticks", "the port had data to send and could not"),
    "rnr_nak_retry_err": ("rnr", "events", "receivers that were not ready, and said so"),
    "local_ack_timeout_err": ("timeouts", "events", "acknowledgements that did not come in time"),
    "port_xmit_discards": ("discards", "packets", "not sent because the port was down or congested"),
    "port_rcv_errors": ("errors", "packets", "received with an error"),
    "req_cqe_error": ("errors", "events", "requests that ended in an error"),
    "symbol_error": ("link", "events", "minor errors on the line"),
    "link_downed": ("link", "events", "the link went down because it could not recover"),
    "rx_write_requests": ("requests", "requests", "writes received"),
}  # fmt: skip
_HARDWARE = {
    "packet_seq_err", "out_of_sequence", "np_cnp_sent", "np_ecn_marked_roce_packets", "rp_cnp_handled",
    "rnr_nak_retry_err", "local_ack_timeout_err", "req_cqe_error", "rx_write_requests",
}  # fmt: skip

NAMES = tuple(_COUNTERS)


def counter(name: str, total: int = 0, rate: float = 0.0, device: str = "mlx5_0") -> dict[str, Any]:
    """A counter of port 1 of a device; one without a name here is unknown to netmond, too."""
    kind, unit, meaning = _COUNTERS.get(name, ("other", "events", "not known to netmond"))
    return {
        "device": device, "port": 1, "group": "hw_counters" if name in _HARDWARE else "counters",
        "counter": name, "value": total // 4 if kind == "data" else total, "total": total, "rate": rate,
        "unit": unit, "kind": kind, "meaning": meaning,
    }  # fmt: skip


def counters(**moving: tuple[int, float]) -> list[dict[str, Any]]:
    """All of a port, in the order in which netmond has them; total and rate of those that move."""
    rows = [counter(name, *moving.get(name, (0, 0.0))) for name in _COUNTERS]
    return sorted(rows, key=lambda row: (row["group"], row["counter"]))


def loaded(**moving: tuple[int, float]) -> list[dict[str, Any]]:
    """The same under load."""
    load = {
        "port_rcv_data": (PORT["in_bytes"], PORT["in_byte_rate"]),
        "port_xmit_data": (PORT["out_bytes"], PORT["out_byte_rate"]),
        "port_rcv_packets": (PORT["in_packets"], PORT["in_packet_rate"]),
        "port_xmit_packets": (PORT["out_packets"], PORT["out_packet_rate"]),
    }
    return counters(**load | moving)


#: Of alice's program; of the kernel; of nobody who is known.
PAIRS: list[dict[str, Any]] = [
    {
        "device": "mlx5_0", "port": 1, "queue_pair": 274, "remote_queue_pair": 311, "type": "RC",
        "state": "RTS", "pid": 4211, "process": "python3", "uid": 1000, "user": "alice",
        "unit": "train.service", "source": "device", "in_packets": 1009, "in_bytes": 1_033_216,
        "out_packets": 997, "out_bytes": 1_020_928, "in_packet_rate": 10.0, "in_byte_rate": 10_240.0,
        "out_packet_rate": 9.0, "out_byte_rate": 9216.0, "bytes": 2_054_144, "byte_rate": 19_456.0,
    },
    {
        "device": "mlx5_0", "port": 1, "queue_pair": 1, "remote_queue_pair": 0, "type": "GSI",
        "state": "RTS", "pid": 0, "process": "ib_core", "uid": 0, "user": "root", "unit": "",
        "source": "", "in_packets": 0, "in_bytes": 0, "out_packets": 0, "out_bytes": 0,
        "in_packet_rate": 0.0, "in_byte_rate": 0.0, "out_packet_rate": 0.0, "out_byte_rate": 0.0,
        "bytes": 0, "byte_rate": 0.0,
    },
]  # fmt: skip
PAIRS.append({name: value for name, value in PAIRS[0].items() if name not in ("uid", "user")})
