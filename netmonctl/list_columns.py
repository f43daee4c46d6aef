"""The columns of users, units, processes, flows and interfaces, and of a user's peers. Pure."""

from __future__ import annotations

from dataclasses import replace

from netmonctl.calls import NOBODY_UID
from netmonctl.render import MISSING, Column, Row, Style, amount, endpoint, escape, number, speed, text


def _traffic(rates: int = 0) -> tuple[Column, ...]:
    """Totals, rates and packets; packets give way early, rates when `rates` says so."""
    return (
        amount("IN", "in_bytes"),
        amount("OUT", "out_bytes"),
        speed("IN RATE", "in_byte_rate", drop=rates),
        speed("OUT RATE", "out_byte_rate", drop=rates),
        number("IN PKTS", "in_packets", drop=9),
        number("OUT PKTS", "out_packets", drop=9),
    )


def _yes_no(value: str) -> tuple[str, ...]:
    return ("green",) if value == "yes" else ()


def _state_hue(value: str) -> tuple[str, ...]:
    return ("green",) if value == "up" else ("dim",)


def _side(title: str, side: str, drop: int = 0) -> Column:
    return Column(
        title=title,
        key=side,
        show=lambda row, _: escape(endpoint(str(row.get(side, "")), int(row.get(f"{side}_port", 0)))),
        drop=drop,
    )


def _rtt(row: Row, _: Style) -> str:
    value = row.get("srtt_us", 0)
    return f"{value / 1000:.1f} ms" if value else MISSING


def _rare(keys: tuple[str, ...], *columns: Column) -> tuple[Column, ...]:
    """For those who have RDMA, as these keys tell; the tables of others stay as they are."""
    return tuple(replace(column, rare=keys) for column in columns)


def _uid(row: Row, _: Style) -> str:
    return MISSING if row["uid"] == NOBODY_UID else str(row["uid"])


def _protocol(row: Row, _: Style) -> str:
    """Of RDMA its own name: what it is wrapped in says little."""
    carried = str(row.get("traffic_type", "ip"))
    return escape(str(row.get("protocol", "")) if carried == "ip" else carried) or MISSING


USERS = (
    text("USER", "user", shrink=8),
    replace(number("UID", "uid", drop=2), show=_uid),
    number("FLOWS", "flows", drop=3),
    *_traffic(),
    *_rare(
        ("queue_pairs", "rdma_in_bytes", "rdma_out_bytes"),
        number("QPS", "queue_pairs", drop=8),
        amount("RDMA IN", "rdma_in_bytes"),
        amount("RDMA OUT", "rdma_out_bytes"),
        speed("RDMA IN RATE", "rdma_in_byte_rate", drop=5),
        speed("RDMA OUT RATE", "rdma_out_byte_rate", drop=5),
        amount("TOTAL", "total_bytes", drop=6),
    ),
)
UNITS = (
    text("UNIT", "unit", shrink=16),
    text("SLICE", "slice", shrink=8, drop=10),
    number("FLOWS", "flows"),
    *_traffic(),
)
PROCESSES = (
    number("PID", "pid"),
    text("PROCESS", "process", shrink=8),
    text("USER", "user", shrink=8),
    text("UNIT", "unit", shrink=12, drop=3),
    number("FLOWS", "flows"),
    *_traffic(),
)
FLOWS = (
    Column(title="PROTO", key="protocol", show=_protocol),
    _side("LOCAL", "local", drop=1),
    _side("REMOTE", "remote"),
    *_rare(("opcode",), text("OPCODE", "opcode", shrink=12, drop=2), number("QP", "queue_pair", drop=2)),
    *_traffic(rates=3),
    text("USER", "user", shrink=4, drop=4),
    text("PROCESS", "process", shrink=8, drop=5),
    text("UNIT", "unit", shrink=12, drop=7),
    text("IF", "interface", drop=6),
    text("KIND", "kind", drop=8),
    Column(title="RTT", key="srtt_us", show=_rtt, right=True, drop=10),
    number("RETR", "retransmits", drop=10),
)
INTERFACES = (
    text("INTERFACE", "name"),
    text("KIND", "kind", drop=5),
    replace(text("STATE", "state", drop=4), hue=_state_hue),
    Column(
        title="MONITORED",
        key="monitored",
        show=lambda row, _: "yes" if row.get("monitored") else "no",
        hue=_yes_no,
    ),
    text("HOOK", "hook", drop=3),
    *_traffic(),
    amount("KERNEL RX", "kernel_rx_bytes", drop=10),
    amount("KERNEL TX", "kernel_tx_bytes", drop=10),
)

PEERS = (text("PEER", "address"), number("FLOWS", "flows"), *_traffic())
