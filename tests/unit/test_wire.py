"""The layouts shared with the kernel: pinned byte by byte, and compared with bpf/types.h."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond.kernel import wire
from netmond.kernel.programs import MAX_PORTS

LAYOUTS: dict[str, np.dtype[Any]] = {
    "direction": wire.DIRECTION,
    "slot": wire.SLOT,
    "flow": wire.FLOW,
    "tally": wire.TALLY,
    "peer_key": wire.PEER_KEY,
    "overflow_key": wire.OVERFLOW_KEY,
    "detour_key": wire.DETOUR_KEY,
    "held_socket": wire.HELD_SOCKET,
    "task": wire.TASK,
    "logged_packet": wire.PACKET,
    "gap": wire.GAP,
    "unlogged": wire.UNLOGGED,
    "captured_frame": wire.FRAME,
    "tapped": wire.TAPPED,
    "tap": wire.TAP,
    "path_event": wire.PATH_EVENT,
    "path_counters": wire.PATH_COUNTERS,
    "path_latency": wire.PATH_LATENCY,
    "path_drop_key": wire.PATH_DROP_KEY,
    "forwarded_key": wire.FORWARDED_KEY,
    "roce_key": wire.ROCE_KEY,
    "roce_tally": wire.ROCE_TALLY,
    "amount": wire.AMOUNT,
    "port_direction": wire.PORT_DIRECTION,
    "port_counters": wire.PORT_COUNTERS,
    "port": wire.PORT,
    "target_counters": wire.TARGET_COUNTERS,
}
#: Socket storage, which user space never sees, and the keys of the tries: see test_kernel_edges.py.
KERNEL_ONLY = {"owner", "target4_key", "target6_key"}

_LOCAL = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"  # ::ffff:192.0.2.1
_REMOTE = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07"  # 2001:db8::7

_TAPPED = (
    b"\x0e\x00\x00\x00\x00\x00\x00\x00"  # seen: 14
    b"\x02\x00\x00\x00\x00\x00\x00\x00"  # filtered: 2
    b"\x03\x00\x00\x00\x00\x00\x00\x00"  # others: 3
    b"\x04\x00\x00\x00\x00\x00\x00\x00"  # captured: 4
    b"\x05\x00\x00\x00\x00\x00\x00\x00"  # dropped: 5
    b"\x90\x01\x00\x00\x00\x00\x00\x00"  # bytes: 400
)
_TALLY = (
    b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # in_bytes: 1009
    b"\x28\x00\x00\x00\x00\x00\x00\x00"  # in_surplus: 40
    b"\x05\x00\x00\x00\x07\x00\x00\x00"  # in_packets: 5 of the stack, 7 on the wire
    b"\xd3\x07\x00\x00\x00\x00\x00\x00"  # out_bytes: 2003
    b"\x50\x00\x00\x00\x00\x00\x00\x00"  # out_surplus: 80
    b"\x0b\x00\x00\x00\x0d\x00\x00\x00"  # out_packets: 11 of the stack, 13 on the wire
    b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # first_seen: 1 s
    b"\x00\x94\x35\x77\x00\x00\x00\x00"  # last_seen: 2 s
)
_OF_TALLY = {
    "in_bytes": 1009,
    "in_surplus": 40,
    "in_packets": 5 | 7 << 32,
    "out_bytes": 2003,
    "out_surplus": 80,
    "out_packets": 11 | 13 << 32,
    "first_seen": 1_000_000_000,
    "last_seen": 2_000_000_000,
}
_DIRECTION = (
    b"\x03\x00\x00\x00"  # generation: 3
    b"\x01\x00\x00\x00"  # note: SLOT_RELEASED
    b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # bytes: 1009
    b"\x28\x00\x00\x00\x00\x00\x00\x00"  # surplus: 40
    b"\x05\x00\x00\x00\x07\x00\x00\x00"  # packets: 5 of the stack, 7 on the wire
    b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # last_seen: 1 s
    b"\xad\x06\x00\x00"  # srtt_us: 1709
    b"\x17\x00\x00\x00"  # retransmits: 23
    b"\x02\x00\x00\x00"  # ifindex: 2
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # unused, unused2
)
_FLOW = (
    b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # cookie: 1009
    b"\xd3\x07\x00\x00\x00\x00\x00\x00"  # cgroup: 2003
    b"\x01\x00\x00\xf0\x00\x00\x00\x00"  # netns: 4026531841
    b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # first_seen: 1 s
    + _LOCAL  # local
    + _REMOTE  # remote
    + b"\x39\x30"  # local_port: 12345
    b"\xbb\x01"  # remote_port: 443
    b"\x06"  # protocol: TCP
    b"\x0a"  # flags: FLOW_ACCEPTED | FLOW_LISTENER
    b"\x00\x00"  # unused
    b"\x03\x00\x00\x00"  # generation: 3
    b"\x05\x00\x00\x00"  # revision: 5
    b"\xd2\x04\x00\x00"  # uid: 1234
    b"\x93\x10\x00\x00"  # pid: 4243
    b"\x02\x00\x00\x00"  # ifindex: 2
    b"\x00\x00\x00\x00"  # unused2
    b"curl\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # comm
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # unused3
)
_PORT_DIRECTION = (
    b"\x0b\x00\x00\x00\x00\x00\x00\x00"  # stack_packets: 11
    b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # stack_bytes: 1009
    b"\x02\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_IPV4].packets: 2
    b"\xca\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_IPV4].bytes: 202
    b"\x03\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_IPV6].packets: 3
    b"\x2f\x01\x00\x00\x00\x00\x00\x00"  # class[CLASS_IPV6].bytes: 303
    b"\x05\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_ARP].packets: 5
    b"\xf9\x01\x00\x00\x00\x00\x00\x00"  # class[CLASS_ARP].bytes: 505
    b"\x07\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_OTHER].packets: 7
    b"\xc3\x02\x00\x00\x00\x00\x00\x00"  # class[CLASS_OTHER].bytes: 707
    b"\x0d\x00\x00\x00\x00\x00\x00\x00"  # class[CLASS_MULTICAST].packets: 13
    b"\x21\x05\x00\x00\x00\x00\x00\x00"  # class[CLASS_MULTICAST].bytes: 1313
    b"\x11\x00\x00\x00\x00\x00\x00\x00"  # tagged: 17
    b"\x13\x00\x00\x00\x00\x00\x00\x00"  # once.packets: 19
    b"\x83\x07\x00\x00\x00\x00\x00\x00"  # once.bytes: 1923
    + b"".join(
        bytes([number, 0, 0, 0, 0, 0, 0, 0])  # part[...].packets: 1 to 9
        + bytes([10 * number, 0, 0, 0, 0, 0, 0, 0])  # part[...].bytes: 10 to 90
        for number in range(1, 10)
    )
)
_GAP = (
    b"\x02\x00\x00\x00\x00\x00\x00\x00"  # in_packets: 2
    b"\xca\x00\x00\x00\x00\x00\x00\x00"  # in_bytes: 202
    b"\x03\x00\x00\x00\x00\x00\x00\x00"  # out_packets: 3
    b"\x2f\x01\x00\x00\x00\x00\x00\x00"  # out_bytes: 303
)
_PARTS = [(number, 10 * number) for number in range(1, 10)]

#: struct -> bytes as a little-endian machine writes them, and what the fields must read as
LITERALS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "direction": (
        _DIRECTION,
        {
            "generation": 3,
            "note": wire.SLOT_RELEASED,
            "bytes": 1009,
            "surplus": 40,
            "packets": 5 | 7 << 32,
            "last_seen": 1_000_000_000,
            "srtt_us": 1709,
            "retransmits": 23,
            "ifindex": 2,
            "unused": 0,
            "unused2": 0,
        },
    ),
    "slot": (
        _DIRECTION  # in
        + bytes(64),  # out
        {"in": (3, 1, 1009, 40, 5 | 7 << 32, 1_000_000_000, 1709, 23, 2, 0, 0), "out": (0,) * 11},
    ),
    "flow": (
        _FLOW,
        {
            "cookie": 1009,
            "cgroup": 2003,
            "netns": 4_026_531_841,
            "first_seen": 1_000_000_000,
            "local": _LOCAL,
            "remote": _REMOTE,
            "local_port": 12_345,
            "remote_port": 443,
            "protocol": 6,
            "flags": wire.FLOW_ACCEPTED | wire.FLOW_LISTENER,
            "unused": 0,
            "generation": 3,
            "revision": 5,
            "uid": 1234,
            "pid": 4243,
            "ifindex": 2,
            "unused2": 0,
            "comm": b"curl",
            "unused3": [0, 0],
        },
    ),
    "tally": (
        _TALLY,
        _OF_TALLY,
    ),
    "peer_key": (
        b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # cookie: 1009
        + _REMOTE  # remote
        + b"\x35\x00"  # remote_port: 53
        b"\x00\x00\x00\x00\x00\x00",  # unused
        {"cookie": 1009, "remote": _REMOTE, "remote_port": 53, "unused": [0, 0, 0]},
    ),
    "overflow_key": (
        b"\xd2\x04\x00\x00"  # uid: 1234
        b"\x02\x00\x00\x00"  # ifindex: 2
        b"\xd3\x07\x00\x00\x00\x00\x00\x00",  # cgroup: 2003
        {"uid": 1234, "ifindex": 2, "cgroup": 2003},
    ),
    "detour_key": (
        b"\x02\x00\x00\x00"  # home: 2
        b"\x03\x00\x00\x00"  # ifindex: 3
        b"\x11\x00\x00\x00"  # protocol: UDP
        b"\x00\x00\x00\x00",  # unused
        {"home": 2, "ifindex": 3, "protocol": 17, "unused": 0},
    ),
    "held_socket": (
        b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # cookie: 1009
        b"\x15\xcd\x5b\x07\x00\x00\x00\x00"  # started: 123456789
        b"\x93\x10\x00\x00"  # pid: 4243
        b"\x00\x00\x00\x00"  # unused
        b"curl\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",  # comm
        {"cookie": 1009, "started": 123456789, "pid": 4243, "unused": 0, "comm": b"curl"},
    ),
    "task": (
        b"\xd3\x07\x00\x00\x00\x00\x00\x00"  # cgroup: 2003
        b"\x94\x10\x00\x00"  # tid: 4244
        b"\x93\x10\x00\x00"  # pid: 4243
        b"\xd2\x04\x00\x00"  # uid: 1234
        b"\x00\x00\x00\x00"  # unused
        b"ib_write_bw\x00\x00\x00\x00\x00",  # comm
        {"cgroup": 2003, "tid": 4244, "pid": 4243, "uid": 1234, "unused": 0, "comm": b"ib_write_bw"},
    ),
    "logged_packet": (
        b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # time: 1 s
        + _LOCAL  # source
        + _REMOTE  # destination
        + b"\xf1\x03\x01\x00"  # bytes: 66545
        b"\xd2\x04\x00\x00"  # uid: 1234
        b"\x07\x00\x00\x00"  # slot: 7
        b"\x03\x00\x00\x00"  # generation: 3
        b"\x39\x30"  # source_port: 12345
        b"\xbb\x01"  # destination_port: 443
        b"\x2f\x00"  # packets: 47
        b"\x06"  # protocol: TCP
        b"\x01",  # direction: PACKET_OUT
        {
            "time": 1_000_000_000,
            "source": _LOCAL,
            "destination": _REMOTE,
            "bytes": 66_545,
            "uid": 1234,
            "slot": 7,
            "generation": 3,
            "source_port": 12_345,
            "destination_port": 443,
            "packets": 47,
            "protocol": 6,
            "direction": wire.PACKET_OUT,
        },
    ),
    "gap": (_GAP, {"in_packets": 2, "in_bytes": 202, "out_packets": 3, "out_bytes": 303}),
    "unlogged": (
        bytes(32)  # lost
        + _GAP,  # skipped
        {"lost": (0, 0, 0, 0), "skipped": (2, 202, 3, 303)},
    ),
    "captured_frame": (
        b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # time: 1 s
        b"\x07\x00\x00\x00\x00\x00\x00\x00"  # cgroup: 7
        b"\xea\x05\x00\x00"  # length: 1514
        b"\x60\x00\x00\x00"  # captured: 96
        b"\x02\x00\x00\x00"  # ifindex: 2
        b"\xe8\x03\x00\x00"  # uid: 1000
        b"\x03\x00\x00\x00"  # slot: 3
        b"\x05\x00\x00\x00"  # generation: 5
        b"\x01"  # direction: PACKET_OUT
        b"\x01"  # link_type: LINK_RAW
        b"\x01"  # doubtful
        b"\x00\x00\x00\x00\x00",  # unused
        {
            "time": 1_000_000_000,
            "cgroup": 7,
            "length": 1514,
            "captured": 96,
            "ifindex": 2,
            "uid": 1000,
            "slot": 3,
            "generation": 5,
            "direction": wire.PACKET_OUT,
            "link_type": wire.LINK_RAW,
            "doubtful": 1,
            "unused": [0] * 5,
        },
    ),
    "tapped": (_TAPPED, {"seen": 14, "filtered": 2, "others": 3, "captured": 4, "dropped": 5, "bytes": 400}),
    "tap": (
        bytes(48)  # in
        + _TAPPED  # out
        + b"\x01\x00\x00\x00\x00\x00\x00\x00",  # link_type: LINK_RAW
        {"in": (0,) * 6, "out": (14, 2, 3, 4, 5, 400), "link_type": wire.LINK_RAW},
    ),
    "path_event": (
        b"\x00\xca\x9a\x3b\x00\x00\x00\x00"  # time: 1 s
        b"\x00\xb0\xeb\x52\x81\x88\xff\xff"  # packet: 0xffff888152ebb000
        b"\xc0\x46\x7a\xd3\x82\x88\xff\xff"  # data: 0xffff8882d37a46c0
        b"\x07\x00\x00\x00\x00\x00\x00\x00"  # socket: 7
        b"\xc7\xd9\xe4\x81\xff\xff\xff\xff"  # location: 0xffffffff81e4d9c7
        + _LOCAL  # source
        + _REMOTE  # destination
        + b"\xbb\x01"  # source_port: 443
        b"\x02\x00"  # destination_port: 2
        b"\x06"  # protocol: TCP
        b"\x12"  # flags: SYN, ACK
        b"\x1d"  # stage: 29
        b"\x01"  # event: PATH_DROP
        b"\x04\x00\x00\x00"  # sequence: 4
        b"\x05\x00\x00\x00"  # acknowledgement: 5
        b"\x3c\x00\x00\x00"  # length: 60
        b"\x01\x00\x00\x00"  # ifindex: 1
        b"\xe8\x03\x00\x00"  # uid: 1000
        b"\x00\x00\x00\x00"  # pid: not a call
        b"\x03\x00\x00\x00"  # reason: 3
        b"lo\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # name
        b"\xd2\x04"  # id: 1234
        b"\x40"  # ttl: 64
        b"\x01",  # linked
        {
            "time": 1_000_000_000,
            "packet": 0xFFFF888152EBB000,
            "data": 0xFFFF8882D37A46C0,
            "socket": 7,
            "location": 0xFFFFFFFF81E4D9C7,
            "source": _LOCAL,
            "destination": _REMOTE,
            "source_port": 443,
            "destination_port": 2,
            "protocol": 6,
            "flags": 0x12,
            "stage": 29,
            "event": wire.PATH_DROP,
            "sequence": 4,
            "acknowledgement": 5,
            "length": 60,
            "ifindex": 1,
            "uid": 1000,
            "pid": 0,
            "reason": 3,
            "name": b"lo",
            "id": 1234,
            "ttl": 64,
            "linked": 1,
        },
    ),
    "path_counters": (
        b"\x09\x00\x00\x00\x00\x00\x00\x00"  # matched: 9
        b"\x90\x01\x00\x00\x00\x00\x00\x00"  # bytes: 400
        b"\x02\x00\x00\x00\x00\x00\x00\x00"  # suppressed: 2
        b"\x03\x00\x00\x00\x00\x00\x00\x00"  # lost: 3
        b"\x05\x00\x00\x00\x00\x00\x00\x00"  # timed: 5
        b"\xad\x06\x00\x00\x00\x00\x00\x00" + bytes(16),  # waited: 1709  # unused
        {
            "matched": 9,
            "bytes": 400,
            "suppressed": 2,
            "lost": 3,
            "timed": 5,
            "waited": 1709,
            "unused": [0, 0],
        },
    ),
    "path_latency": (
        bytes(8) + b"\x02" + bytes(8 * 64 - 9),  # buckets: two of 2 or 3 ns
        {"buckets": [0, 2, *[0] * 62]},
    ),
    "path_drop_key": (
        b"\xc7\xd9\xe4\x81\xff\xff\xff\xff"  # location: 0xffffffff81e4d9c7
        b"\x03\x00\x00\x00"  # reason: 3
        b"\x1d\x00\x00\x00",  # stage: 29
        {"location": 0xFFFFFFFF81E4D9C7, "reason": 3, "stage": 29},
    ),
    "roce_key": (
        _LOCAL  # source
        + _REMOTE  # destination
        + b"\x11\x00\x00\x00"  # queue_pair: 17
        b"\x02\x00\x00\x00"  # ifindex: 2
        b"\xd2\x04\x00\x00"  # uid: 1234
        b"\xff\xff"  # partition_key: the default one, full member
        b"\x0a"  # opcode: RC RDMA WRITE only
        b"\x02"  # version: 2
        b"\x01"  # way: out
        b"\x00\x00\x00\x00\x00\x00\x00",  # unused
        {
            "source": _LOCAL,
            "destination": _REMOTE,
            "queue_pair": 17,
            "ifindex": 2,
            "uid": 1234,
            "partition_key": 0xFFFF,
            "opcode": 0x0A,
            "version": wire.ROCE_V2,
            "way": wire.ROCE_OUT,
            "unused": [0] * 7,
        },
    ),
    "roce_tally": (
        _TALLY + b"\x05\x00\x80\x00"  # sequence: 8388613
        b"\x00\x00\x00\x00",  # unused
        {"tally": tuple(_OF_TALLY.values()), "sequence": 0x800005, "unused": 0},
    ),
    "forwarded_key": (
        _LOCAL  # source
        + _REMOTE  # destination
        + b"\x39\x30"  # source_port: 12345
        b"\xbb\x01"  # destination_port: 443
        b"\x11"  # protocol: UDP
        b"\x00\x00\x00"  # unused
        b"\x02\x00\x00\x00"  # ifindex: 2
        b"\x00\x00\x00\x00",  # unused2
        {
            "source": _LOCAL,
            "destination": _REMOTE,
            "source_port": 12_345,
            "destination_port": 443,
            "protocol": 17,
            "unused": [0, 0, 0],
            "ifindex": 2,
            "unused2": 0,
        },
    ),
    "amount": (
        b"\x02\x00\x00\x00\x00\x00\x00\x00"  # packets: 2
        b"\xca\x00\x00\x00\x00\x00\x00\x00",  # bytes: 202
        {"packets": 2, "bytes": 202},
    ),
    "port_direction": (
        _PORT_DIRECTION,
        {
            "stack_packets": 11,
            "stack_bytes": 1009,
            "class": [(2, 202), (3, 303), (5, 505), (7, 707), (13, 1313)],
            "tagged": 17,
            "once": (19, 1923),
            "part": _PARTS,
        },
    ),
    "port_counters": (
        bytes(264)  # in
        + _PORT_DIRECTION,  # out
        {
            "in": (0, 0, [(0, 0)] * 5, 0, (0, 0), [(0, 0)] * 9),
            "out": (
                11,
                1009,
                [(2, 202), (3, 303), (5, 505), (7, 707), (13, 1313)],
                17,
                (19, 1923),
                _PARTS,
            ),
        },
    ),
    "port": (
        b"\x05\x00\x00\x00"  # index: 5
        b"\x01\x00"  # flags: PORT_LOOPBACK
        b"\x0e\x00"  # link_header: 14
        b"\x07\x00\x00\x00"  # master: 7
        b"\x02\x00\x00\x00\x00\x09"  # address
        b"\x00\x00",  # unused
        {
            "index": 5,
            "flags": wire.PORT_LOOPBACK,
            "link_header": 14,
            "master": 7,
            "address": [2, 0, 0, 0, 0, 9],
            "unused": 0,
        },
    ),
    "target_counters": (
        b"\x05\x00\x00\x00\x00\x00\x00\x00"  # in_packets: 5
        b"\xf1\x03\x00\x00\x00\x00\x00\x00"  # in_bytes: 1009
        b"\x07\x00\x00\x00\x00\x00\x00\x00"  # out_packets: 7
        b"\xd3\x07\x00\x00\x00\x00\x00\x00",  # out_bytes: 2003
        {"in_packets": 5, "in_bytes": 1009, "out_packets": 7, "out_bytes": 2003},
    ),
}


def plain(value: Any) -> Any:
    """Python values of what numpy read."""
    if isinstance(value, np.void) and value.dtype.names:
        return tuple(plain(value[name]) for name in value.dtype.names)
    if isinstance(value, np.void):
        return value.tobytes()
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("name", LAYOUTS)
def test_bytes(name: str) -> None:
    """These bytes from the kernel are these values, and the values are these bytes again."""
    data, expected = LITERALS[name]

    (record,) = np.frombuffer(data, LAYOUTS[name])

    assert {field: plain(record[field]) for field in LAYOUTS[name].names or ()} == expected
    assert record.tobytes() == data


# -- bpf/types.h -------------------------------------------------------------------------------------

_WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "char": 1}
_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", flags=re.S | re.M)
_MEMBER = re.compile(r"\s*(?:struct\s*\{([^}]*)\}|(?:struct\s+)?(\w+))\s+(\w+)(?:\[(\w+)\])?;")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One line of a structure; `inner` if its type is a structure itself."""

    name: str
    element: str
    count: int | None
    inner: tuple[Member, ...] = ()

    @property
    def size(self) -> int:
        width = sum(member.size for member in self.inner) or _WIDTHS[self.element]
        return width * (1 if self.count is None else self.count)

    @property
    def alignment(self) -> int:
        return max((member.alignment for member in self.inner), default=0) or _WIDTHS[self.element]


class Header:
    """What bpf/types.h defines."""

    def __init__(self, text: str) -> None:
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
        bodies = re.findall(r"enum\s*\{([^}]*)\}", text)
        self.enums = [[name.strip() for name in body.split(",") if name.strip()] for body in bodies]
        self.constants = {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)\s", text)}
        for names in self.enums:
            self.constants.update({name: number for number, name in enumerate(names)})
        self.structs: dict[str, tuple[Member, ...]] = {}
        for name, body in _STRUCT.findall(text):
            self.structs[name] = self._members(body)

    def _members(self, body: str) -> tuple[Member, ...]:
        found = []
        at = 0
        while body[at:].strip():
            match = _MEMBER.match(body, at)
            assert match, f"not understood: {body[at:]!r}"
            at = match.end()
            inside, element, name, count = match.groups()
            inner = self._members(inside) if inside else self.structs.get(element, ())
            number = self.constants[count] if count in self.constants else int(count) if count else None
            found.append(Member(name=name, element=element or "", count=number, inner=inner))
        return tuple(found)


HEADER = Header((Path(__file__).parents[2] / "bpf" / "types.h").read_text())


def described(members: tuple[Member, ...]) -> list[tuple[str, Any]]:
    """Names and types in the words of described_dtype()."""
    found: list[tuple[str, Any]] = []
    for member in members:
        if member.element == "char":
            found.append((member.name, f"S{member.count}"))
        elif (member.element, member.count) == ("u8", 16):
            found.append((member.name, "V16"))
        else:
            element = described(member.inner) if member.inner else f"u{_WIDTHS[member.element]}"
            found.append((member.name, element if member.count is None else (element, member.count)))
    return found


def described_dtype(dtype: np.dtype[Any]) -> list[tuple[str, Any]]:
    """Names and types of a numpy layout in order."""
    found: list[tuple[str, Any]] = []
    for name in dtype.names or ():
        base, shape = dtype[name].base, dtype[name].shape
        element = described_dtype(base) if base.names else base.str.lstrip("<|=")
        found.append((name, (element, *shape) if shape else element))
    return found


def test_every_structure_of_the_header_is_known() -> None:
    """A structure that is added to the header needs a layout here, or a reason to have none."""
    assert HEADER.structs.keys() == LAYOUTS.keys() | KERNEL_ONLY
    assert LITERALS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_are_those_of_the_header(name: str) -> None:
    """Same names, widths and order on both sides."""
    assert described_dtype(LAYOUTS[name]) == described(HEADER.structs[name])


@pytest.mark.parametrize("name", HEADER.structs)
def test_no_hidden_padding(name: str) -> None:
    """The compiler adds none: every field lies at a multiple of its width, and so does the end."""
    offset = 0
    for member in HEADER.structs[name]:
        assert offset % member.alignment == 0, member.name
        offset += member.size
    assert offset % max(member.alignment for member in HEADER.structs[name]) == 0
    assert name not in LAYOUTS or offset == LAYOUTS[name].itemsize


def test_sizes() -> None:
    """A direction and a logged packet are one cache line, a slot and a flow are two; counters fill pages."""
    assert wire.DIRECTION.itemsize == 64
    assert wire.PACKET.itemsize == 64
    assert wire.SLOT.itemsize == wire.FLOW.itemsize == 128
    assert MAX_PORTS * wire.PORT_COUNTERS.itemsize % 4096 == 4096 % wire.TARGET_COUNTERS.itemsize == 0


def test_flags() -> None:
    """Bits have the values of the header's."""
    prefixes = "SLOT_", "FLOW_", "PORT_", "PACKET_", "LINK_", "PATH_", "ROCE_"
    names = [name for name in HEADER.constants if name.startswith(prefixes)]

    assert len(names) == 47
    assert {name: getattr(wire, name) for name in names} == {name: HEADER.constants[name] for name in names}


def test_variants_of_the_path() -> None:
    """What is written into the path's program, and what hooks hand over to it, have the enums' numbers."""
    for names, prefix in ((wire.PATH_VARIANT, "VARIANT_"), (wire.PATH_HANDED, "HANDED_")):
        assert [f"{prefix}{name.upper()}" for name in names] in HEADER.enums


def test_settings() -> None:
    """The words that user space writes have the same places."""
    (names,) = (names for names in HEADER.enums if names[0].startswith("SETTING_"))

    assert {name: getattr(wire, name) for name in names} == {name: HEADER.constants[name] for name in names}


def test_classes() -> None:
    """Classes of frames stand in the enum's order, the overlapping one last."""
    (names,) = (names for names in HEADER.enums if names[0].startswith("CLASS_"))

    assert [f"CLASS_{name.upper()}" for name in wire.CLASSES] == names[:-1]
    assert wire.CLASSES[wire.EXCLUSIVE_CLASSES :] == ("multicast",)


def test_parts() -> None:
    """Parts of frames stand in the enum's order; of those before the amounts routed each frame has one."""
    (names,) = (names for names in HEADER.enums if names[0].startswith("PART_"))

    assert [f"PART_{name.upper()}" for name in wire.PARTS] == names[:-1]
    assert (*wire.PARTS[: wire.PARTS.index("routed")], "rdma") == wire.EXCLUSIVE_PARTS


@pytest.mark.parametrize(
    ("losses", "part", "end"),
    [
        (wire.SOCKET_LOSSES, "meter", "SOCKET_LOSSES"),
        (wire.INTERFACE_LOSSES, "interfaces", "INTERFACE_LOSSES"),
    ],
)
def test_losses(losses: tuple[tuple[str, str], ...], part: str, end: str) -> None:
    """Each counter of the kernel's ledger is shown under its own name, and has a meaning in words."""
    (names,) = (names for names in HEADER.enums if names[-1] == end)
    expected = [f"{part}.{name.removeprefix('LOST_').lower().replace('_', '-')}" for name in names[:-1]]

    assert [name for name, _ in losses] == expected
    assert all(meaning for _, meaning in losses)
