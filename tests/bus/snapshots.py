"""Snapshots made by hand for tests: a small one whose every figure is known, and one of 100,000 flows."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import numpy as np

from netmond.kernel import wire
from netmond.model import (
    NOBODY_UID,
    Cost,
    Evidence,
    Feature,
    FeatureState,
    FlowKind,
    Growth,
    InterfaceInfo,
    Loss,
    Snapshot,
    Table,
)

#: Users of every Debian, games and news: a message bus turns away those it cannot look up.
ALICE, BOB = 5, 9

UNITS = ("app.service", "ssh.scope", "cron.service")


def counters(packets: int) -> list[int]:
    """Eight different counters that follow from one number."""
    return [
        packets,
        101 * packets,
        packets + 1,
        11 * packets,
        packets,
        97 * packets,
        packets + 1,
        7 * packets,
    ]


def address(text: str) -> bytes:
    """An address as the flow table holds it; empty for any."""
    if not text:
        return bytes(16)
    packed = ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def table(packets: Sequence[int], rates: Sequence[float] = (), **columns: Any) -> Table:
    """A table with `counters` of each number and one rate for all four of a row."""
    rows = len(packets)
    return Table(
        columns=columns,
        counters=np.array([counters(n) for n in packets], np.uint64).reshape(rows, 8),
        rates=np.array([[rate] * 4 for rate in (rates or [0.0] * rows)], float).reshape(rows, 4),
    )


def addresses(*texts: str) -> Any:
    return np.frombuffer(b"".join(map(address, texts)), "V16")


def texts(*values: str) -> Any:
    return np.array([*values, None], dtype=object)[:-1]


def numbers(kind: str, *values: float) -> Any:
    return np.array(values, kind)


def without_rdma(count: int) -> dict[str, Any]:
    """The columns that only RoCE has, for flows of IP."""
    kinds = {"traffic": "u1", "opcode": "u1", "qpn": "u4", "pkey": "u2", "psn": "u4"}
    return {name: np.zeros(count, kind) for name, kind in kinds.items()}


def flows() -> Table:
    """Two sockets and a peer row of alice, a socket and an overflow row of bob, a forwarded flow."""
    return table(
        [23, 7, 3, 31, 41, 5],
        [1.5, 0.0, 0.0, 2.5, 0.5, 0.0],
        id=numbers("u8", 1, 2, 3, 4, 5, 6),
        kind=numbers(
            "u1",
            FlowKind.SOCKET,
            FlowKind.SOCKET,
            FlowKind.PEER,
            FlowKind.SOCKET,
            FlowKind.FORWARDED,
            FlowKind.OVERFLOW,
        ),
        protocol=numbers("u1", 6, 6, 17, 6, 17, 0),
        **without_rdma(6),
        local=addresses("10.0.0.1", "2001:db8::1", "", "10.0.0.1", "198.51.100.1", ""),
        local_port=numbers("u2", 40001, 40003, 53, 40007, 4500, 0),
        remote=addresses("192.0.2.7", "2001:db8::7", "192.0.2.9", "192.0.2.7", "203.0.113.5", ""),
        remote_port=numbers("u2", 443, 22, 3333, 443, 4501, 0),
        ifindex=numbers("u4", 2, 2, 2, 2, 3, 0),
        uid=numbers("u4", ALICE, ALICE, ALICE, BOB, NOBODY_UID, BOB),
        pid=numbers("u4", 101, 103, 101, 201, 0, 0),
        comm=np.array([b"curl", b"ssh\xff", b"curl", b"wget", b"", b""], "S16"),
        unit_index=numbers("i4", 0, 1, 0, 0, -1, 2),
        first_seen=numbers("f8", 1000.5, 1001.5, 1002.5, 1003.5, 1004.5, 1005.5),
        last_seen=numbers("f8", 2000.5, 2001.5, 2002.5, 2003.5, 2004.5, 2005.5),
        srtt_us=numbers("u4", 1300, 1700, 0, 1900, 0, 0),
        retransmits=numbers("u4", 2, 0, 0, 3, 0, 0),
        ended=np.array([False, False, True, False, False, False]),
    )


def evidence() -> Evidence:
    """Books of eth0: of 5 packets that came in, 3 are users' and one is unexplained."""
    port = np.zeros(1, wire.PORT_COUNTERS)
    side = port["in"]
    side["stack_packets"], side["stack_bytes"] = 5, 570
    side["class"]["packets"][:, 0], side["class"]["bytes"][:, 0] = 5, 570
    for part, packets in (("sockets", 4), ("kernel", 1)):
        side["part"][:, wire.PARTS.index(part)] = packets, 100 * packets
    growth = Growth(
        kernel=np.array([5, 500, 0, 0, 0]),  # it counts no link headers
        queue=np.zeros(3, np.int64),
        port=port.view(np.int64),
    )
    sockets = np.array([3, 300, 0, 0, 3, 300, 0, 0], np.uint64)
    return Evidence(
        since=1700.5, low=growth, high=growth, sockets=sockets, whole=True, link_header=14, hook="tc"
    )


def small() -> Snapshot:
    """Alice (33 packets in), bob (36) and forwarded traffic (41); app.service serves both."""
    return Snapshot(
        tick=17,
        time=2005.0,
        interval=1.25,
        since=1000.25,
        started=1900.5,
        users=table([33, 36], [1.5, 2.5], uid=numbers("u4", ALICE, BOB), flows=numbers("u4", 3, 2)),
        units=table(
            [57, 7, 5],
            unit=texts(*UNITS),
            slice=texts("system.slice", "user.slice", "system.slice"),
            cgroup=texts("/system.slice/app.service", "/user.slice/ssh.scope", "/system.slice/cron.service"),
            flows=numbers("u4", 3, 1, 1),
        ),
        processes=table(
            [26, 7, 31, 5],
            pid=numbers("u4", 101, 103, 201, 0),
            comm=np.array([b"curl", b"ssh\xff", b"wget", b""], "S16"),
            uid=numbers("u4", ALICE, ALICE, BOB, BOB),
            unit=texts("app.service", "ssh.scope", "app.service", "cron.service"),
            flows=numbers("u4", 2, 1, 1, 1),
        ),
        flows=flows(),
        interfaces=table(
            [71],
            ifindex=numbers("u4", 2),
            in_ipv4_packets=numbers("u8", 61),
            in_ipv4_bytes=numbers("u8", 6100),
        ),
        targets=table([19], address=texts("192.0.2.7"), since=numbers("f8", 1500.5)),
        unit_names=UNITS,
        host=table([83], [3.5]),
        books={2: evidence()},
        links={
            1: InterfaceInfo(name="lo", index=1, kind="loopback", state="unknown"),
            2: InterfaceInfo(
                name="eth0",
                index=2,
                kind="physical",
                state="up",
                monitored=True,
                hook="tc",
                kernel={"rx_packets": 73},
            ),
            3: InterfaceInfo(name="veth7", index=3, kind="veth", state="up", reason="no tc here"),
        },
        features=(
            Feature(name="meter", state=FeatureState.ON),
            Feature(name="journal", state=FeatureState.OFF, reason="no journal; start systemd-journald"),
        ),
        losses=(Loss(name="meter.no-slot", count=13, meaning="flows without a slot"),),
        cost=Cost(cpu_seconds=1.5, resident_bytes=40_000_000, tick_seconds=0.003),
    )


def large(count: int = 100_000) -> Snapshot:
    """Many flows of 20 users with random figures, the same ones each time."""
    random = np.random.default_rng(7)
    high = np.iinfo(np.uint32).max
    octets = np.zeros((2, count, 16), np.uint8)
    octets[:, :, 10:12] = 0xFF
    octets[:, :, 12:] = random.integers(1, 255, (2, count, 4))
    base = small()
    columns = {
        "id": np.arange(count, dtype="u8"),
        "kind": random.integers(0, 2, count).astype("u1"),
        "protocol": random.choice([6, 17], count).astype("u1"),
        **without_rdma(count),
        "local": octets[0].reshape(-1).view("V16"),
        "remote": octets[1].reshape(-1).view("V16"),
        "local_port": random.integers(1, 65535, count).astype("u2"),
        "remote_port": random.integers(1, 65535, count).astype("u2"),
        "ifindex": random.integers(1, 4, count).astype("u4"),
        "uid": random.integers(20000, 20020, count).astype("u4"),
        "pid": random.integers(1, 30000, count).astype("u4"),
        "comm": random.choice([b"curl", b"sshd", b"iperf3"], count).astype("S16"),
        "unit_index": random.integers(-1, 3, count).astype("i4"),
        "first_seen": random.random(count),
        "last_seen": random.random(count),
        "srtt_us": random.integers(0, high, count).astype("u4"),
        "retransmits": random.integers(0, 9, count).astype("u4"),
        "ended": np.zeros(count, bool),
    }
    return Snapshot(
        tick=1,
        time=2.0,
        interval=1.0,
        since=0.5,
        users=base.users,
        units=base.units,
        processes=base.processes,
        flows=Table(
            columns=columns,
            counters=random.integers(0, 1 << 40, (count, 8)).astype(np.uint64),
            rates=random.random((count, 4)),
        ),
        interfaces=base.interfaces,
        targets=base.targets,
        unit_names=base.unit_names,
        links=base.links,
    )
