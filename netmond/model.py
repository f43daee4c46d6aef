"""The vocabulary of netmond: immutable values that pass between its layers.

A `Snapshot` is what one tick of the collector produces and all that outputs, D-Bus and queries
ever see. Big tables stay numpy columns: nothing here builds a Python object per flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

Network = IPv4Network | IPv6Network

#: Columns of every counter array, in this order (uint64).
#: Plain ``*_packets``/``*_bytes`` are wire-true: IP packets as they cross the wire, segmentation
#: offload undone, counted from the IP header (no link layer). ``*_stack_*`` are what the network
#: stack itself handled: a GSO/GRO super-packet is one packet and repeats no headers.
#: Interface tables differ in one point: their bytes include the link-layer header (lo has none).
COUNTERS = (
    "in_packets",
    "in_bytes",
    "out_packets",
    "out_bytes",
    "in_stack_packets",
    "in_stack_bytes",
    "out_stack_packets",
    "out_stack_bytes",
)
IN_PACKETS, IN_BYTES, OUT_PACKETS, OUT_BYTES = range(4)

#: Columns of every rate array (float64, per second, over the last tick): the first four counters.
RATES = ("in_packet_rate", "in_byte_rate", "out_packet_rate", "out_byte_rate")

#: The user id of rows that belong to nobody (forwarded traffic): (uid_t) -1, see setreuid(2).
NOBODY_UID = 0xFFFFFFFF


class FlowKind(IntEnum):
    """Why a row is in the flow table. Rows are disjoint: their sum is the sum of everything."""

    SOCKET = 0  #: a connected socket; or what an unconnected one exchanged beyond its peer rows
    PEER = 1  #: one peer of an unconnected socket (UDP server, raw socket)
    FORWARDED = 2  #: passed through this machine, no socket here
    OVERFLOW = 3  #: everything of one user and cgroup that found no free slot; no addresses
    ROCE = 4  #: RDMA over Ethernet to or from this machine, as an interface saw it; no socket has it


class TrafficType(IntEnum):
    """What a flow carries, as other tools name it (``traffic_type``)."""

    IP = 0
    ROCE_V1 = 1  #: EtherType 0x8915: GRH and BTH (InfiniBand Architecture Specification 1, annex A16)
    ROCE_V2 = 2  #: UDP port 4791: BTH (annex A17)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Rows of one kind: key columns, counters and rates of equal length n.

    columns: name -> array of n values (numbers, numpy bytes, or object arrays of str)
    counters: uint64 (n, 8), columns as in COUNTERS, since the row began
    rates: float64 (n, 4), columns as in RATES
    """

    columns: Mapping[str, NDArray[Any]]
    counters: NDArray[np.uint64]
    rates: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.counters)

    @staticmethod
    def empty(**columns: NDArray[Any]) -> Table:
        """A table without rows whose columns have the given dtypes."""
        return Table(
            columns={name: column[:0] for name, column in columns.items()},
            counters=np.zeros((0, len(COUNTERS)), np.uint64),
            rates=np.zeros((0, len(RATES)), np.float64),
        )

    @staticmethod
    def one_row() -> Table:
        """A table of one row of zeroes, without key columns."""
        return Table(
            columns={}, counters=np.zeros((1, len(COUNTERS)), np.uint64), rates=np.zeros((1, len(RATES)))
        )


#: Why RDMA is off on most machines, which is as it shall be.
NO_RDMA_DEVICE = "no RDMA device"


class FeatureState(StrEnum):
    ON = "on"
    DEGRADED = "degraded"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One part of netmond and whether it works here. `reason` holds cause and remedy in one line."""

    name: str
    state: FeatureState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """One line of the loss ledger: how often something could not be counted or delivered.

    `name` is stable (``meter.no-slot``, ``output.csv.dropped``); `meaning` explains it in a sentence.
    """

    name: str
    count: int
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What netmond itself uses: CPU seconds since start, resident bytes, duration of the last tick."""

    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    tick_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceInfo:
    """A network interface of this machine, monitored or not.

    `kernel` holds /sys/class/net/<name>/statistics (rx_packets, rx_bytes, tx_packets, tx_bytes).
    `hook` is how it is monitored: ``tc``, ``tcx``, ``xdp``, ``xdp-generic``, or empty.
    `reason` says why monitoring is degraded or failed.
    """

    name: str
    index: int
    kind: str  #: ``physical``, ``loopback``, ``veth``, ``bridge``, ``vlan``, ``bond``, ``tun``, ...
    state: str  #: operstate: ``up``, ``down``, ``unknown``
    monitored: bool = False
    hook: str = ""
    reason: str = ""
    kernel: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketLog:
    """A user whose packets are logged one by one; NOBODY_UID stands for everyone not named.

    lost: what the log lacks because rows could not be delivered or written, in wire packets and bytes.
    """

    uid: int
    every: int  #: one of so many packets is logged, 1: all
    since: float  #: wall clock
    rows: int = 0
    lost_packets: int = 0
    lost_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A capture or path that somebody has started; of a path, packets are events."""

    number: int
    kind: str  #: capture or path
    uid: int  #: who started it
    since: float  #: wall clock
    until: float | None  #: when its time is up; None: never
    options: str  #: those that were given, as JSON
    description: str = "{}"  #: what the worker says it does, as JSON
    packets: int = 0
    bytes: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gid:
    """An address of an RDMA port: ``type`` is ``IB/RoCE v1`` or ``RoCE v2``, as sysfs says."""

    index: int
    address: str
    type: str = ""
    netdev: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RdmaPort:
    """A port of an RDMA device, and its k counters. A counter that the device lacks is absent.

    names: (group, name) of each: ``counters`` or ``hw_counters``, and its file there
    values: uint64 (k,), as the device says, in its own unit (data in words of 4 bytes)
    totals: uint64 (k,), grown by since netmond watches, wraps and resets allowed for, in the unit that
            rdma.catalogue gives (data in bytes)
    rates: float64 (k,), per second, of totals over the last interval
    """

    device: str
    port: int
    link_layer: str  #: ``InfiniBand`` or ``Ethernet``
    state: str  #: ``active``, ``down``, ``init``, ``armed``
    physical_state: str = ""  #: ``link-up``, ``disabled``, ``polling``...
    speed: int = 0  #: bits/s, 0: unknown
    lid: int = 0  #: local identifier, of InfiniBand
    ifindex: int = 0  #: its network interface, 0: none
    netdev: str = ""
    node_guid: str = ""
    firmware: str = ""
    driver: str = ""
    gids: tuple[Gid, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    values: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    totals: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    rates: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def _no_queue_pairs() -> Table:
    numbers, texts = np.zeros(0, np.uint32), np.zeros(0, object)
    return Table.empty(
        device=texts,
        port=numbers,
        qpn=numbers,
        remote_qpn=numbers,
        type=texts,
        state=texts,
        pid=numbers,
        comm=np.zeros(0, "S16"),
        uid=numbers,
        unit=texts,
        source=texts,
    )


def _no_rdma_users() -> Table:
    return Table.empty(uid=np.zeros(0, np.uint32), queue_pairs=np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rdma:
    """RDMA on this machine at one moment.

    queue_pairs: device object(str), port u4, qpn u4, remote_qpn u4 (0: none), type object(str) (``RC``,
                 ``UD``...), state object(str) (``RTS``...), pid u4 (0: the kernel's, or unknown), comm S16
                 (of a kernel user its module), uid u4 (NOBODY_UID: unknown), unit object(str), source
                 object(str): where its counters are from: ``wire`` (its packets at the interface),
                 ``device`` (its own hardware counter), empty: none
    users:       uid u4 (NOBODY_UID: what nobody can be named for), queue_pairs u4 (open now); counters since
                 netmond watches: they stay when queue pairs go
    """

    time: float = 0.0  #: wall clock of the reading, 0: there was none
    interval: float = 0.0  #: seconds the rates of ports were taken over
    ports: tuple[RdmaPort, ...] = ()
    queue_pairs: Table = field(default_factory=_no_queue_pairs)
    users: Table = field(default_factory=_no_rdma_users)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growth:
    """What an interface's counters grew by, between one reading of them and another."""

    kernel: NDArray[np.int64]  #: see balance.KERNEL
    queue: NDArray[np.int64]  #: drops, packets and bytes waiting, see kernel.queues
    port: NDArray[np.int64]  #: words of kernel.wire.PORT_COUNTERS


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """All that was counted of one interface since its books began. balance.balance() makes books of it.

    Counters move while they are read: sockets' figures are of a moment between two readings of the others,
    at both ends. `low` and `high` are what the others grew by at least and at most.
    """

    since: float  #: wall clock at which the books began
    low: Growth
    high: Growth
    sockets: NDArray[np.uint64] | None  #: model.COUNTERS of sockets; None: there is no meter
    whole: bool  #: the meter counts all sockets of the machine
    link_header: int  #: bytes of each frame, 0: none that counts
    hook: str  #: as in InterfaceInfo
    upper: tuple[str, ...] = ()  #: names of the interfaces that stand on it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Everything known after one tick.

    Tables and their key columns (beside counters and rates):

    users       uid u4, flows u4 (open flows now)
    units       unit object(str), slice object(str), cgroup object(str), flows u4
    processes   pid u4, comm S16, uid u4, unit object(str), unit_index i4 (row in `units`), flows u4
    flows       id u8 (unique while the daemon runs), kind u1 (FlowKind), protocol u1 (IANA number),
                traffic u1 (TrafficType; of RoCE also opcode u1, qpn u4: destination queue pair in this
                direction, pkey u2, psn u4: the last one; of IP zeroes),
                local V16 and remote V16 (IPv6 or IPv4-mapped, network order), local_port u2,
                remote_port u2, ifindex u4 (0 = another network namespace or unknown), uid u4,
                pid u4 (0 = unknown), comm S16, unit_index i4 (row in `unit_names`, -1 = none),
                first_seen f8, last_seen f8 (Unix seconds), srtt_us u4, retransmits u4,
                ended b1 (this is the row's last appearance)
    interfaces  ifindex u4 + class counters: u8 columns ``<dir>_<class>_packets|bytes`` with dir in|out
                and class ipv4|ipv6|arp|other|multicast (multicast overlaps the others)
    targets     address object(str): ``192.0.2.1`` or ``2001:db8::/32``, since f8
    host        one row: each packet of the machine once, whatever interfaces it passed

    An IPv4 address in a V16 column is ``::ffff:a.b.c.d``. All zeroes and port 0 mean "any".
    For targets ``in`` is what was sent *to* the target, ``out`` what came *from* it.
    """

    tick: int  #: number of ticks since start
    time: float  #: wall clock, Unix seconds
    read: int = 0  #: ns, monotonic: what sockets did until then is in it, and little that they did after
    interval: float  #: seconds the rates were taken over
    since: float  #: wall clock at which counting began: totals of users, units and processes go on over a
    #: restart of the daemon until the next boot; interfaces count from when they are monitored
    users: Table
    units: Table
    processes: Table
    flows: Table
    interfaces: Table
    targets: Table
    started: float = 0.0  #: wall clock at which this daemon started
    unit_names: tuple[str, ...] = ()
    links: Mapping[int, InterfaceInfo] = field(default_factory=dict)  #: by ifindex, all interfaces
    host: Table = field(default_factory=Table.one_row)
    books: Mapping[int, Evidence] = field(default_factory=dict)  #: by ifindex, monitored interfaces
    features: tuple[Feature, ...] = ()
    losses: tuple[Loss, ...] = ()
    cost: Cost = field(default_factory=Cost)
    rdma: Rdma = field(default_factory=Rdma)
