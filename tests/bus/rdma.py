"""RDMA in snapshots made by hand: devices, queue pairs of known and unknown owners, and their RoCE flows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netmond.model import NOBODY_UID, FlowKind, Gid, Rdma, RdmaPort, Snapshot, Table, TrafficType
from tests.bus.snapshots import ALICE, BOB, addresses, numbers, table, texts

#: Somebody who uses RDMA and nothing else: user proxy of every Debian.
CAROL = 13

ADAPTER, ETHERNET, SOFT = "mlx5_0", "mlx5_1", "rxe0"


def port(device: str, counters: dict[tuple[str, str], tuple[int, int, float]], **more: Any) -> RdmaPort:
    """Port 1 of a device. counters: (group, name) -> value, total, rate."""
    values, totals, rates = zip(*counters.values(), strict=True) if counters else ((), (), ())
    return RdmaPort(
        device=device,
        port=1,
        names=tuple(counters),
        values=np.array(values, np.uint64),
        totals=np.array(totals, np.uint64),
        rates=np.array(rates, float),
        **more,
    )


def rdma() -> Rdma:
    """An InfiniBand adapter, one of Ethernet on eth0, and soft-RoCE on veth7 that is down.

    Alice's figures are from the wire, carol's from the device, the kernel's queue pair has none. Of what
    nobody can be named for there is a queue pair, and more than that one exchanged.
    """
    data, hardware = "counters", "hw_counters"
    return Rdma(
        time=2004.5,
        interval=0.75,
        ports=(
            port(
                ADAPTER,
                {
                    (data, "port_xmit_data"): (250, 1000, 40.0),
                    (data, "port_rcv_data"): (500, 2000, 80.0),
                    (data, "port_xmit_packets"): (11, 7, 2.0),
                    (data, "port_rcv_packets"): (13, 5, 3.0),
                    (data, "symbol_error"): (17, 3, 0.0),
                },
                link_layer="InfiniBand",
                state="active",
                physical_state="link-up",
                speed=100_000_000_000,
                lid=194,
                node_guid="b83f:d203:0012:3456",
                firmware="20.31.1014",
                driver="mlx5_core",
                gids=(Gid(index=0, address="fe80::ba3f:d203:12:3456", type="IB/RoCE v1"),),
            ),
            port(
                ETHERNET,
                {
                    (data, "port_xmit_data"): (2500, 10_000, 400.0),
                    (data, "port_rcv_data"): (5000, 20_000, 800.0),
                    (hardware, "np_cnp_sent"): (19, 19, 1.5),
                    (hardware, "out_of_sequence"): (23, 22, 0.5),
                    (hardware, "made_up_by_a_driver"): (29, 28, 0.0),
                },
                link_layer="Ethernet",
                state="active",
                physical_state="link-up",
                speed=25_000_000_000,
                ifindex=2,
                netdev="eth0",
                node_guid="b83f:d203:0012:3457",
                firmware="20.31.1014",
                driver="mlx5_core",
                gids=(
                    Gid(index=0, address="fe80::ba3f:d2ff:fe12:3457", type="IB/RoCE v1", netdev="eth0"),
                    Gid(index=1, address="::ffff:10.0.0.1", type="RoCE v2", netdev="eth0"),
                ),
            ),
            port(SOFT, {}, link_layer="Ethernet", state="down", ifindex=3, netdev="veth7"),
        ),
        queue_pairs=queue_pairs(),
        users=table(
            [21, 27, 41],
            [1.5, 2.5, 0.0],
            uid=numbers("u4", ALICE, CAROL, NOBODY_UID),
            queue_pairs=numbers("u4", 1, 1, 1),
        ),
    )


def queue_pairs() -> Table:
    """One of alice, one of carol, the kernel's, and one whose owner is unknown."""
    return table(
        [20, 27, 0, 9],
        [1.5, 2.5, 0.0, 0.5],
        device=texts(ETHERNET, ETHERNET, ETHERNET, ADAPTER),
        port=numbers("u4", 1, 1, 1, 1),
        qpn=numbers("u4", 0x11, 0x12, 1, 0x81),
        remote_qpn=numbers("u4", 0x21, 0x22, 0, 0x91),
        type=texts("RC", "UC", "GSI", "RC"),
        state=texts("RTS", "RTS", "RTS", "RTR"),
        pid=numbers("u4", 103, 301, 0, 0),
        comm=np.array([b"ib_write_bw", b"nccl\xff", b"ib_core", b""], "S16"),
        uid=numbers("u4", ALICE, CAROL, 0, NOBODY_UID),
        unit=texts("ssh.scope", "train.service", "", ""),
        source=texts("wire", "device", "", ""),
    )


def roce_flows() -> Table:
    """Alice writes and is acknowledged (7, 8), bob's of version 1 (9), nobody's (10), one forwarded (11)."""
    mine, theirs = "10.0.0.1", "192.0.2.21"
    kind = FlowKind.ROCE
    two, one = TrafficType.ROCE_V2, TrafficType.ROCE_V1
    return table(
        [12, 8, 15, 6, 4],
        [1.5, 1.5, 0.0, 0.5, 0.0],
        id=numbers("u8", 7, 8, 9, 10, 11),
        kind=numbers("u1", kind, kind, kind, kind, FlowKind.FORWARDED),
        protocol=numbers("u1", 17, 17, 0, 17, 17),
        traffic=numbers("u1", two, two, one, two, two),
        opcode=numbers("u1", 0x0A, 0x11, 0x24, 0x1F, 0x81),
        qpn=numbers("u4", 0x21, 0x11, 0x31, 0x41, 1),
        pkey=numbers("u2", 0xFFFF, 0xFFFF, 0x8001, 0xFFFF, 0xFFFF),
        psn=numbers("u4", 1009, 1009, 77, 5, 0),
        local=addresses(mine, mine, "fe80::1", mine, "198.51.100.1"),
        local_port=numbers("u2", 0, 4791, 0, 0, 0),
        remote=addresses(theirs, theirs, "fe80::2", "192.0.2.22", "203.0.113.5"),
        remote_port=numbers("u2", 4791, 0, 0, 4791, 4791),
        ifindex=numbers("u4", 2, 2, 3, 2, 3),
        uid=numbers("u4", ALICE, ALICE, BOB, NOBODY_UID, NOBODY_UID),
        pid=numbers("u4", 103, 103, 0, 0, 0),
        comm=np.array([b"ib_write_bw", b"ib_write_bw", b"", b"", b""], "S16"),
        unit_index=numbers("i4", 1, 1, -1, -1, -1),
        first_seen=numbers("f8", 1007.5, 1008.5, 1009.5, 1010.5, 1011.5),
        last_seen=numbers("f8", 2007.5, 2008.5, 2009.5, 2010.5, 2011.5),
        srtt_us=numbers("u4", 0, 0, 0, 0, 0),
        retransmits=numbers("u4", 0, 0, 0, 0, 0),
        ended=np.array([False] * 5),
    )


def with_rdma(snapshot: Snapshot) -> Snapshot:
    """The snapshot with all of the above."""
    flows, more = snapshot.flows, roce_flows()
    return replace(
        snapshot,
        rdma=rdma(),
        flows=Table(
            columns={
                name: np.concatenate([column, more.columns[name]]) for name, column in flows.columns.items()
            },
            counters=np.concatenate([flows.counters, more.counters]),
            rates=np.concatenate([flows.rates, more.rates]),
        ),
    )
