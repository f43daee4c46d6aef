"""Names of the opcodes in an InfiniBand base transport header (BTH).

InfiniBand Architecture Specification, volume 1, section 9.2.1 and annexes A14 (XRC), A17 (CNP) and A19
(FLUSH, ATOMIC WRITE). The upper three bits are the transport service, the lower five the operation. Names
are the kernel's (include/rdma/ib_pack.h) without their IB_OPCODE.
"""

from __future__ import annotations

_OPERATIONS = {
    0x00: "SEND_FIRST",
    0x01: "SEND_MIDDLE",
    0x02: "SEND_LAST",
    0x03: "SEND_LAST_WITH_IMMEDIATE",
    0x04: "SEND_ONLY",
    0x05: "SEND_ONLY_WITH_IMMEDIATE",
    0x06: "RDMA_WRITE_FIRST",
    0x07: "RDMA_WRITE_MIDDLE",
    0x08: "RDMA_WRITE_LAST",
    0x09: "RDMA_WRITE_LAST_WITH_IMMEDIATE",
    0x0A: "RDMA_WRITE_ONLY",
    0x0B: "RDMA_WRITE_ONLY_WITH_IMMEDIATE",
    0x0C: "RDMA_READ_REQUEST",
    0x0D: "RDMA_READ_RESPONSE_FIRST",
    0x0E: "RDMA_READ_RESPONSE_MIDDLE",
    0x0F: "RDMA_READ_RESPONSE_LAST",
    0x10: "RDMA_READ_RESPONSE_ONLY",
    0x11: "ACKNOWLEDGE",
    0x12: "ATOMIC_ACKNOWLEDGE",
    0x13: "COMPARE_SWAP",
    0x14: "FETCH_ADD",
    0x15: "RESYNC",
    0x16: "SEND_LAST_WITH_INVALIDATE",
    0x17: "SEND_ONLY_WITH_INVALIDATE",
    0x1C: "FLUSH",
    0x1D: "ATOMIC_WRITE",
}

_RELIABLE = range(0x15)  # what reliable services have in common
_INVALIDATING = (0x16, 0x17)
_PERSISTENT = (0x1C, 0x1D)

#: Transport service -> its upper bits, and which operations it has.
_SERVICES: dict[str, tuple[int, tuple[int, ...]]] = {
    "RC": (0x00, (*_RELIABLE, *_INVALIDATING, *_PERSISTENT)),
    "UC": (0x20, tuple(range(0x0C))),
    "RD": (0x40, (*_RELIABLE, 0x15, *_PERSISTENT)),
    "UD": (0x60, (0x04, 0x05)),
    "XRC": (0xA0, (*_RELIABLE, *_INVALIDATING)),
}

#: Every opcode that has a meaning. CNP: the congestion notification packet of RoCE v2.
NAMES: dict[int, str] = {
    **{
        upper | operation: f"{service}_{_OPERATIONS[operation]}"
        for service, (upper, operations) in _SERVICES.items()
        for operation in operations
    },
    0x81: "CNP",
}


def name(opcode: int) -> str:
    """The name of an opcode, 0 to 255; of one that is reserved its number."""
    return NAMES.get(opcode, str(opcode))
