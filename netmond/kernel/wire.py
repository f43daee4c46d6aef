"""numpy dtypes that mirror bpf/types.h, field by field, padding included.

Host byte order; addresses are 16 bytes in network order, IPv4 mapped to ::ffff:a.b.c.d.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ADDRESS = np.dtype("V16")


def word_of(record: np.dtype[Any], *names: str) -> int:
    """The place of the u8 word in which a field begins, a name for each level."""
    offset = 0
    for name in names:
        assert record.fields is not None
        record, at, *_ = record.fields[name]
        offset += at
    return offset // 8


DIRECTION = np.dtype(
    [
        ("generation", "u4"),
        ("note", "u4"),
        ("bytes", "u8"),
        ("surplus", "u8"),
        ("packets", "u8"),
        ("last_seen", "u8"),
        ("srtt_us", "u4"),
        ("retransmits", "u4"),
        ("ifindex", "u4"),
        ("unused", "u4"),
        ("unused2", "u8"),
    ]
)

#: `note` of a slot's in direction
SLOT_RELEASED = 1
SLOT_FREE = 2

SLOT = np.dtype([("in", DIRECTION), ("out", DIRECTION)])

FLOW = np.dtype(
    [
        ("cookie", "u8"),
        ("cgroup", "u8"),
        ("netns", "u8"),
        ("first_seen", "u8"),
        ("local", ADDRESS),
        ("remote", ADDRESS),
        ("local_port", "u2"),
        ("remote_port", "u2"),
        ("protocol", "u1"),
        ("flags", "u1"),
        ("unused", "u2"),
        ("generation", "u4"),
        ("revision", "u4"),
        ("uid", "u4"),
        ("pid", "u4"),
        ("ifindex", "u4"),
        ("unused2", "u4"),
        ("comm", "S16"),
        ("unused3", "u8", (2,)),
    ]
)

FLOW_UNCONNECTED = 1
FLOW_ACCEPTED = 2
FLOW_OLDER = 4
FLOW_LISTENER = 8
FLOW_RELEASED = 16
FLOW_CONNECTED = 32
FLOW_CONTROL = 64
FLOW_RDMA = 128

TALLY = np.dtype(
    [
        ("in_bytes", "u8"),
        ("in_surplus", "u8"),
        ("in_packets", "u8"),
        ("out_bytes", "u8"),
        ("out_surplus", "u8"),
        ("out_packets", "u8"),
        ("first_seen", "u8"),
        ("last_seen", "u8"),
    ]
)

#: The words that netmond.accounts works with: bytes, surplus and packets, in and out.
_WORDS = [(way, name) for way in ("in", "out") for name in ("bytes", "surplus", "packets")]
SLOT_COUNTED = tuple(word_of(SLOT, way, name) for way, name in _WORDS)
TALLY_COUNTED = tuple(word_of(TALLY, f"{way}_{name}") for way, name in _WORDS)

PEER_KEY = np.dtype([("cookie", "u8"), ("remote", ADDRESS), ("remote_port", "u2"), ("unused", "u2", (3,))])

OVERFLOW_KEY = np.dtype([("uid", "u4"), ("ifindex", "u4"), ("cgroup", "u8")])

DETOUR_KEY = np.dtype([("home", "u4"), ("ifindex", "u4"), ("protocol", "u4"), ("unused", "u4")])

HELD_SOCKET = np.dtype(
    [("cookie", "u8"), ("started", "u8"), ("pid", "u4"), ("unused", "u4"), ("comm", "S16")]
)

TASK = np.dtype(
    [("cgroup", "u8"), ("tid", "u4"), ("pid", "u4"), ("uid", "u4"), ("unused", "u4"), ("comm", "S16")]
)

#: One packet of a user whose packets are logged. time: ns, CLOCK_MONOTONIC; bytes, packets: wire-true, of
#: what the stack handled as one; slot, generation: whose identity in the flow table is its socket's.
PACKET = np.dtype(
    [
        ("time", "u8"),
        ("source", ADDRESS),
        ("destination", ADDRESS),
        ("bytes", "u4"),
        ("uid", "u4"),
        ("slot", "u4"),
        ("generation", "u4"),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("packets", "u2"),
        ("protocol", "u1"),
        ("direction", "u1"),
    ]
)
PACKET_IN, PACKET_OUT = 0, 1

#: `slot` of a packet whose socket has none
NO_SLOT = 0xFFFFFFFF

#: In the place of a user
EVERYONE = 0xFFFFFFFF

#: Wire packets without a row in the log
GAP = np.dtype([("in_packets", "u8"), ("in_bytes", "u8"), ("out_packets", "u8"), ("out_bytes", "u8")])

#: What passes a stage on its way through the kernel. time: ns, CLOCK_MONOTONIC; packet, data: addresses of
#: the kernel's sk_buff (0: none) and its data; name: of the process if there is a pid, else of the
#: interface.
PATH_EVENT = np.dtype(
    [
        ("time", "u8"),
        ("packet", "u8"),
        ("data", "u8"),
        ("socket", "u8"),
        ("location", "u8"),
        ("source", ADDRESS),
        ("destination", ADDRESS),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("protocol", "u1"),
        ("flags", "u1"),
        ("stage", "u1"),
        ("event", "u1"),
        ("sequence", "u4"),
        ("acknowledgement", "u4"),
        ("length", "u4"),
        ("ifindex", "u4"),
        ("uid", "u4"),
        ("pid", "u4"),
        ("reason", "u4"),
        ("name", "S16"),
        ("id", "u2"),
        ("ttl", "u1"),
        ("linked", "u1"),
    ]
)
PATH_PASS, PATH_DROP, PATH_RETRANSMIT, PATH_RESET = range(4)

#: Room for stages, and for powers of two of ns
PATH_STAGES = 64
PATH_BUCKETS = 64

#: Of one stage and CPU. matched = in the ring + suppressed + lost.
PATH_COUNTERS = np.dtype(
    [
        ("matched", "u8"),
        ("bytes", "u8"),
        ("suppressed", "u8"),
        ("lost", "u8"),
        ("timed", "u8"),
        ("waited", "u8"),
        ("unused", "u8", (2,)),
    ]
)

#: Of one stage and CPU: packets that had waited 2^n ns or more since the stage before, less than twice that
PATH_LATENCY = np.dtype([("buckets", "u8", (PATH_BUCKETS,))])

PATH_DROP_KEY = np.dtype([("location", "u8"), ("reason", "u4"), ("stage", "u4")])

#: What differs between the variants of path.c, and what hooks hand over, in the order of the kernel's enums
PATH_VARIANT = ("stage", "event", "traits", "family", "protocol", "result")
PATH_HANDED = ("packet", "socket", "length", "reason", "location")

#: Bits of the constant `traits`
PATH_OUT = 1
PATH_BY_SOCKET = 2
PATH_AT_DATA = 4
PATH_CALL = 8
PATH_OWNED = 16
PATH_PAYLOAD = 32
PATH_LINKED = 64
PATH_ASIDE = 128
PATH_DONE = 256
PATH_TYPED = 512
PATH_CONTEXT = 1024
PATH_SHARED = 2048
PATH_CONNECTED = 4096

#: Stages that a hook can stand for, and hooks that several stages have in common, at most
PATH_SHARED_STAGES = 4
PATH_SHARED_HOOKS = 8

#: Of a user's packets, those the log does not have: no room in the ring, not drawn into the sample
UNLOGGED = np.dtype([("lost", GAP), ("skipped", GAP)])

#: What stands before a captured frame. time: ns, CLOCK_MONOTONIC; cgroup: 0: unknown; length: on the wire;
#: captured: bytes of it that follow; uid, slot, generation: whose it is, NO_USER and NO_SLOT: unknown;
#: link_type: LINK_*; doubtful: nobody has said yet whether its cgroup is wanted.
FRAME = np.dtype(
    [
        ("time", "u8"),
        ("cgroup", "u8"),
        ("length", "u4"),
        ("captured", "u4"),
        ("ifindex", "u4"),
        ("uid", "u4"),
        ("slot", "u4"),
        ("generation", "u4"),
        ("direction", "u1"),
        ("link_type", "u1"),
        ("doubtful", "u1"),
        ("unused", "u1", (5,)),
    ]
)

NO_USER = 0xFFFFFFFF
LINK_ETHERNET, LINK_RAW = 0, 1

#: What a capture did with the frames of an interface in one direction: seen is the sum of the next four.
TAPPED = np.dtype([(name, "u8") for name in ("seen", "filtered", "others", "captured", "dropped", "bytes")])
TAP = np.dtype([("in", TAPPED), ("out", TAPPED), ("link_type", "u8")])

FORWARDED_KEY = np.dtype(
    [
        ("source", ADDRESS),
        ("destination", ADDRESS),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("protocol", "u1"),
        ("unused", "u1", (3,)),
        ("ifindex", "u4"),
        ("unused2", "u4"),
    ]
)

#: Packets of RDMA over Ethernet; of version 1 the addresses are GIDs. ifindex: where they came in or left;
#: uid: of what left, whose queue pair sent it, NO_USER: unknown.
ROCE_KEY = np.dtype(
    [
        ("source", ADDRESS),
        ("destination", ADDRESS),
        ("queue_pair", "u4"),
        ("ifindex", "u4"),
        ("uid", "u4"),
        ("partition_key", "u2"),
        ("opcode", "u1"),
        ("version", "u1"),
        ("way", "u1"),
        ("unused", "u1", (7,)),
    ]
)
ROCE_V1, ROCE_V2 = 1, 2
ROCE_IN, ROCE_OUT, ROCE_FORWARDED = range(3)

#: sequence: of the last packet
ROCE_TALLY = np.dtype([("tally", TALLY), ("sequence", "u4"), ("unused", "u4")])

#: Order of the classes in PORT_DIRECTION; multicast repeats what the others hold.
CLASSES = ("ipv4", "ipv6", "arp", "other", "multicast")
EXCLUSIVE_CLASSES = len(CLASSES) - 1

AMOUNT = np.dtype([("packets", "u8"), ("bytes", "u8")])

#: Order of the parts in PORT_DIRECTION
PARTS = (
    "sockets",
    "kernel",
    "upper",
    "forwarded",
    "routed",
    "routed_kernel",
    "fragments",
    "routed_fragments",
    "rdma",
)
#: Each frame is in one of them.
EXCLUSIVE_PARTS = ("sockets", "kernel", "upper", "forwarded", "rdma")

PORT_DIRECTION = np.dtype(
    [
        ("stack_packets", "u8"),
        ("stack_bytes", "u8"),
        ("class", AMOUNT, (len(CLASSES),)),
        ("tagged", "u8"),
        ("once", AMOUNT),
        ("part", AMOUNT, (len(PARTS),)),
    ]
)

PORT_COUNTERS = np.dtype([("in", PORT_DIRECTION), ("out", PORT_DIRECTION)])

PORT = np.dtype(
    [
        ("index", "u4"),
        ("flags", "u2"),
        ("link_header", "u2"),
        ("master", "u4"),
        ("address", "u1", (6,)),
        ("unused", "u2"),
    ]
)

#: `index` of a port that is not monitored
NO_PLACE = 0xFFFFFFFF

PORT_LOOPBACK = 1
PORT_ECHO = 2
PORT_UPPER = 4
PORT_SHARED = 8
PORT_SLAVE = 16
PORT_BRIDGED = 32
PORT_TRUNK = 64

TARGET_COUNTERS = np.dtype(
    [("in_packets", "u8"), ("in_bytes", "u8"), ("out_packets", "u8"), ("out_bytes", "u8")]
)

#: Bits of a target filter, as a power of two
FILTER_BITS = 16

#: Places in the `settings` arrays
SETTING_EPOCH, SETTING_TARGETS4, SETTING_TARGETS6, SETTING_NETNS = range(4)
SETTINGS = 4

#: The loss ledgers, in the order of the kernel's enums: stable name and meaning.
SOCKET_LOSSES = (
    ("meter.no-slot-sockets", "sockets that found no free slot; raise [meter] slots"),
    ("meter.no-slot-packets", "packets of those sockets: counted per user and unit, not per flow"),
    ("meter.no-storage", "packets whose socket got no storage (memory): counted per user and unit"),
    ("meter.overflow-full", "packets beyond even that: counted under nobody"),
    ("meter.peers-full", "packets counted in their socket's row but no peer's; raise [meter] peers"),
    ("meter.no-socket", "packets that reached the meter without a socket: counted under nobody"),
    ("meter.no-peer", "packets with a damaged IP header, of raw sockets: counted in their socket's row"),
    ("meter.detours-full", "packets in the books of another interface than they passed"),
    ("meter.rdma", "packets that soft-RoCE sent: no socket's; counted where they passed an interface"),
)
#: Lines of the ledger that are no losses: what is counted elsewhere, so that the ledger adds up.
ELSEWHERE = frozenset({"meter.rdma"})
INTERFACE_LOSSES = (
    ("interfaces.forwarded-full", "forwarded packets missing among the flows; raise [interfaces] forwarded"),
    ("interfaces.malformed", "frames with a damaged IP header: counted as other"),
    ("interfaces.no-port", "packets that met an interface just taken off the list"),
    ("interfaces.roce-full", "RoCE packets missing among the flows; raise [interfaces] forwarded"),
)
