"""The decoders of RDMA: RoCE v1 and v2, and InfiniBand's own frames. Pure.

Headers are those of the InfiniBand Architecture Specification, volume 1: local route (7.7), global route
(8.3), base transport (9.2) and extended ones (9.3); RoCE is in its annexes A16 and A17. Opcodes have the
names that the kernel gives them (include/rdma/ib_pack.h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from netmonctl.frame_line import Line, ipv6

ROCE_ETHERTYPE, ROCE_PORT = 0x8915, 4791

_TRANSPORTS = {0x00: "RC", 0x20: "UC", 0x40: "RD", 0x60: "UD", 0xA0: "XRC"}
_OPERATIONS = (
    "SEND_FIRST", "SEND_MIDDLE", "SEND_LAST", "SEND_LAST_WITH_IMMEDIATE", "SEND_ONLY",
    "SEND_ONLY_WITH_IMMEDIATE", "RDMA_WRITE_FIRST", "RDMA_WRITE_MIDDLE", "RDMA_WRITE_LAST",
    "RDMA_WRITE_LAST_WITH_IMMEDIATE", "RDMA_WRITE_ONLY", "RDMA_WRITE_ONLY_WITH_IMMEDIATE",
    "RDMA_READ_REQUEST", "RDMA_READ_RESPONSE_FIRST", "RDMA_READ_RESPONSE_MIDDLE",
    "RDMA_READ_RESPONSE_LAST", "RDMA_READ_RESPONSE_ONLY", "ACKNOWLEDGE", "ATOMIC_ACKNOWLEDGE",
    "COMPARE_SWAP", "FETCH_ADD", "RESYNC", "SEND_LAST_WITH_INVALIDATE", "SEND_ONLY_WITH_INVALIDATE", "", "",
    "", "", "FLUSH", "ATOMIC_WRITE",
)  # fmt: skip
_RESYNC, _FLUSH, _ATOMIC_WRITE = 0x15, 0x1C, 0x1D

#: Which operations a transport has; what only comes from a responder has no header of a request.
_OF = {
    "RC": {*range(0x18), _FLUSH, _ATOMIC_WRITE} - {_RESYNC},
    "UC": {*range(0x0C)},
    "RD": {*range(0x16), _FLUSH, _ATOMIC_WRITE},
    "UD": {4, 5},
    "XRC": {*range(0x18)} - {_RESYNC},
}
_RESPONSES = range(0x0D, 0x13)

#: By number: a congestion notification packet (annex A17.9.3), which is of no transport.
OPCODES = {0x81: "CNP"} | {
    base + number: f"{transport}_{_OPERATIONS[number]}"
    for base, transport in _TRANSPORTS.items()
    for number in sorted(_OF[transport])
}

_NAKS = (
    "psn sequence error", "invalid request", "remote access error", "remote operational error",
    "invalid rd request",
)  # fmt: skip

_GRH, _BTH, _ICRC = 40, 12, 4
_TRANSPORT_NEXT, _GLOBAL_NEXT = 2, 3  # what follows a local route header: a base transport header, or GRH


def is_roce(data: bytes) -> bool:
    """Whether these bytes of a datagram to ROCE_PORT begin with a base transport header: any program may
    use that port. Its version is 0, its opcode one that there is."""
    return len(data) >= _BTH and data[1] & 0x0F == 0 and data[0] in OPCODES


def roce_v1(line: Line, data: bytes, length: int) -> None:
    """What follows ROCE_ETHERTYPE: a global route header, which has the layout of an IPv6 header."""
    line.layer = "grh"
    first, size, _, ttl = struct.unpack_from("!IHBB", data)
    if first >> 28 != 6:
        line.add(f"GRH bad header, version {first >> 28}, length {length}")
        return
    source, destination = ipv6(data[8:24]), ipv6(data[24:40])
    line.know(traffic_type="roce_v1", source=source, destination=destination, ttl=ttl)
    line.add(f"GRH {source} > {destination}: RoCEv1 ")
    _transport(line, data[_GRH : _GRH + size], size)


def roce_v2(line: Line, data: bytes, length: int) -> None:
    """What a datagram to ROCE_PORT carries."""
    line.know(traffic_type="roce_v2")
    line.add("RoCEv2 ")
    _transport(line, data, length)


def infiniband(line: Line, data: bytes, length: int) -> None:
    """A frame of InfiniBand. The queue pair that sent it is known of datagrams only."""
    line.layer = "lrh"
    flow, destination, words, source = struct.unpack_from("!4H", data)
    follows = flow & 3
    line.know(traffic_type="infiniband", source_lid=source, destination_lid=destination)
    if follows not in (_TRANSPORT_NEXT, _GLOBAL_NEXT):
        kind = "raw IPv6" if follows else "raw"
        line.add(f"IB {source} > {destination}, {kind}, length {length}")
        return
    start = 8
    if follows == _GLOBAL_NEXT:
        line.layer = "grh"
        line.know(source=ipv6(data[16:32]), destination=ipv6(data[32:48]))
        start += _GRH
    line.layer = "bth"
    opcode, target = struct.unpack_from("!B3xI", data, start)
    sender = "?"
    if opcode & 0xE0 == 0x60:
        sender = str(int.from_bytes(data[start + _BTH + 5 : start + _BTH + 8]))
    line.add(f"IB {sender}:{source} -> {target & 0xFFFFFF}:{destination} proto={opcode} ")
    # The length in words of 4 bytes is without the checksum that ends the frame on its link.
    size = (words & 0x7FF) * 4
    _transport(line, data[start:size], size - start)


def _transport(line: Line, data: bytes, length: int) -> None:
    """A base transport header, and what follows it until the checksum: `length` bytes in all."""
    line.layer = "bth"
    opcode, flags, partition, target, counted = struct.unpack_from("!BBHII", data)
    name = OPCODES.get(opcode)
    queue_pair, sequence = target & 0xFFFFFF, counted & 0xFFFFFF
    line.know(opcode=name or opcode, queue_pair=queue_pair, partition_key=partition, sequence=sequence)
    transport, _, operation = (name or "").partition("_")
    line.add(f"{transport} {operation}".strip() or f"opcode {opcode:#04x}")
    line.add(f", qp {queue_pair:#x}, psn {sequence}, pkey {partition:#06x}")
    marks = (("fecn", target >> 31), ("becn", target >> 30 & 1), ("ack requested", counted >> 31))
    line.add("".join(f", {word}" for word, mark in marks if mark))
    rest = _BTH
    if operation:
        rest = _extended(line, data, transport, opcode & 0x1F)
    payload = length - rest - (flags >> 4 & 3) - _ICRC
    line.know(payload=payload)
    line.add(f", length {payload}" if payload >= 0 else f", bad length {length}")


def _extended(line: Line, data: bytes, transport: str, operation: int) -> int:
    """The extended headers; where the payload begins."""
    place = _BTH
    if transport == "RD":
        place += 4
    if transport == "UD" or (transport == "RD" and operation not in _RESPONSES):
        key, sender = struct.unpack_from("!II", data, place)
        line.know(source_queue_pair=sender & 0xFFFFFF)
        line.add(f", from qp {sender & 0xFFFFFF:#x}, qkey {key:#x}")
        place += 8
    if transport == "XRC" and operation not in _RESPONSES:
        (shared,) = struct.unpack_from("!I", data, place)
        line.add(f", srq {shared & 0xFFFFFF:#x}")
        place += 4
    for header in _EXTENDED.get(operation, ()):
        place += header(line, data, place)
    return place


def _reth(line: Line, data: bytes, place: int) -> int:
    address, key, size = struct.unpack_from("!QII", data, place)
    line.add(f", va {address:#x}, rkey {key:#x}, dma length {size}")
    return 16


def _aeth(line: Line, data: bytes, place: int) -> int:
    (word,) = struct.unpack_from("!I", data, place)
    syndrome, number = word >> 24, word & 0xFFFFFF
    kind, value = syndrome >> 5 & 3, syndrome & 0x1F
    if kind == 1:
        line.add(f", rnr nak timer {value}")
    elif kind == 3:
        line.add(f", nak {_NAKS[value] if value < len(_NAKS) else value}")
    elif kind:
        line.add(f", syndrome {syndrome:#04x}")
    line.add(f", msn {number}")
    return 4


def _immediate(line: Line, data: bytes, place: int) -> int:
    line.add(f", imm {struct.unpack_from('!I', data, place)[0]:#x}")
    return 4


def _invalidated(line: Line, data: bytes, place: int) -> int:
    line.add(f", invalidates rkey {struct.unpack_from('!I', data, place)[0]:#x}")
    return 4


def _atomic(line: Line, data: bytes, place: int) -> int:
    address, key, swap, compare = struct.unpack_from("!QIQQ", data, place)
    line.add(f", va {address:#x}, rkey {key:#x}, swap or add {swap:#x}, compare {compare:#x}")
    return 28


def _atomic_ack(line: Line, data: bytes, place: int) -> int:
    line.add(f", was {struct.unpack_from('!Q', data, place)[0]:#x}")
    return 8


def _flush(line: Line, data: bytes, place: int) -> int:
    line.add(f", flush {struct.unpack_from('!I', data, place)[0]:#x}")
    return 4


#: By operation: the extended headers that follow those of the transport. Each adds what it says, and
#: returns how long it is.
_EXTENDED: dict[int, tuple[Callable[[Line, bytes, int], int], ...]] = {
    0x03: (_immediate,), 0x05: (_immediate,), 0x06: (_reth,), 0x09: (_immediate,), 0x0A: (_reth,),
    0x0B: (_reth, _immediate), 0x0C: (_reth,), 0x0D: (_aeth,), 0x0F: (_aeth,), 0x10: (_aeth,),
    0x11: (_aeth,), 0x12: (_aeth, _atomic_ack), 0x13: (_atomic,), 0x14: (_atomic,),
    0x16: (_invalidated,), 0x17: (_invalidated,), _FLUSH: (_flush, _reth), _ATOMIC_WRITE: (_reth,),
}  # fmt: skip
