"""RDMA netlink (include/uapi/rdma/rdma_netlink.h, drivers/infiniband/core/nldev.c): what ``rdma`` shows.

By hand, because pyroute2 has nothing of RDMA and takes 13 MB. Nothing here needs a capability. The kernel
tells ids of processes as our PID namespace has them, and leaves out queue pairs of processes outside it.
KernelError: it refuses, or has no such family. Asking loads ib_core, where that is installed: ask only if
there are devices.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from netmond.kernel import netlink

FAMILY = 20  # NETLINK_RDMA

_NLDEV = 5 << 10  # RDMA_NL_GET_TYPE(RDMA_NL_NLDEV, 0)
_GET, _QP_GET, _STAT_GET = 1, 10, 17  # RDMA_NLDEV_CMD_*

# RDMA_NLDEV_ATTR_*
_DEVICE, _NAME, _PORT = 1, 2, 3
_QPS, _QP, _QPN, _REMOTE_QPN = 19, 20, 21, 22
_TYPE, _STATE, _PID, _KERNEL_NAME = 26, 27, 28, 29
_RESOURCE = 75
_BOUND, _BOUND_ENTRY, _BOUND_ID = 77, 78, 79
_COUNTERS, _COUNTER, _COUNTER_NAME, _COUNTER_VALUE = 80, 81, 82, 83

# enum ib_qp_type and enum ib_qp_state (include/rdma/ib_verbs.h), by the names that rdma(8) has for them.
_TYPES = {
    0: "SMI", 1: "GSI", 2: "RC", 3: "UC", 4: "UD", 5: "RAW_IPV6", 6: "RAW_ETHERTYPE", 8: "RAW_PACKET",
    9: "XRC_INI", 10: "XRC_TGT", 255: "DRIVER",
}  # fmt: skip
_STATES = {0: "RESET", 1: "INIT", 2: "RTR", 3: "RTS", 4: "SQD", 5: "SQE", 6: "ERR"}


class QueuePair(NamedTuple):
    """A queue pair. pid 0: it is the kernel's own, and `kernel` the module's name."""

    device: str
    port: int  #: 0: not bound to one yet
    qpn: int
    remote_qpn: int  #: 0: none, or not connected
    type: str  #: ``RC``, ``UD``...; a number if it has no name
    state: str  #: ``RTS``...
    pid: int
    kernel: str


class BoundCounter(NamedTuple):
    """A set of counters for some queue pairs (``rdma statistic qp``): all of one process."""

    device: str
    port: int
    number: int
    qpns: tuple[int, ...]
    pid: int  #: 0: not told, as it is not what they were bound by
    values: Mapping[str, int]


def devices() -> dict[str, int]:
    """The number of each RDMA device that this network namespace sees, by its name."""
    found = (netlink.attributes(answer) for answer in _dump(_GET))
    return {_text(device.get(_NAME, b"")): _number(device.get(_DEVICE, b"")) for device in found}


def queue_pairs(device: int) -> list[QueuePair]:
    """All queue pairs of a device, by its number. Drivers may ask the hardware for each of them."""
    return [pair for answer in _dump(_QP_GET, (_DEVICE, device)) for pair in read_queue_pairs(answer)]


def bound_counters(device: int) -> list[BoundCounter]:
    """Counters that queue pairs of a device are bound to: none, unless somebody asked for it."""
    answers = _dump(_STAT_GET, (_DEVICE, device), (_RESOURCE, _QPS))
    return [counter for answer in answers for counter in read_bound_counters(answer)]


def statistics(device: int, port: int) -> dict[str, int]:
    """The hw_counters of a port by name; optional ones that are switched on are here, and not in sysfs."""
    answer = netlink.get(FAMILY, _NLDEV + _STAT_GET, _body((_DEVICE, device), (_PORT, port)))
    return read_values(netlink.attributes(answer).get(_COUNTERS, b""))


def read_queue_pairs(answer: bytes) -> Iterator[QueuePair]:
    """Those in one message of a dump."""
    message = netlink.attributes(answer)
    device = _text(message.get(_NAME, b""))
    for pair in _entries(message, _QPS, _QP):
        kind, state = _number(pair.get(_TYPE, b"")), _number(pair.get(_STATE, b""))
        yield QueuePair(
            device=device,
            port=_number(pair.get(_PORT, b"")),
            qpn=_number(pair.get(_QPN, b"")),
            remote_qpn=_number(pair.get(_REMOTE_QPN, b"")),
            type=_TYPES.get(kind, str(kind)),
            state=_STATES.get(state, str(state)),
            pid=_number(pair.get(_PID, b"")),
            kernel=_text(pair.get(_KERNEL_NAME, b"")),
        )


def read_bound_counters(answer: bytes) -> Iterator[BoundCounter]:
    """Those in one message of a dump."""
    message = netlink.attributes(answer)
    device = _text(message.get(_NAME, b""))
    for counter in _entries(message, _BOUND, _BOUND_ENTRY):
        yield BoundCounter(
            device=device,
            port=_number(counter.get(_PORT, b"")),
            number=_number(counter.get(_BOUND_ID, b"")),
            qpns=tuple(_number(pair.get(_QPN, b"")) for pair in _entries(counter, _QPS, _QP)),
            pid=_number(counter.get(_PID, b"")),
            values=read_values(counter.get(_COUNTERS, b"")),
        )


def read_values(counters: bytes) -> dict[str, int]:
    """Names and values of a nested table of counters."""
    entries = (
        netlink.attributes(entry) for kind, entry in netlink.each_attribute(counters) if kind == _COUNTER
    )
    return {
        _text(entry.get(_COUNTER_NAME, b"")): _number(entry.get(_COUNTER_VALUE, b"")) for entry in entries
    }


def _dump(command: int, *wanted: tuple[int, int]) -> Iterator[bytes]:
    return netlink.dump(FAMILY, _NLDEV + command, _body(*wanted))


def _body(*wanted: tuple[int, int]) -> bytes:
    """Attributes of 32 bits each."""
    return b"".join(struct.pack("=HHI", 8, kind, value) for kind, value in wanted)


def _entries(outer: Mapping[int, bytes], table: int, entry: int) -> Iterator[dict[int, bytes]]:
    """The attributes of each entry of a nested table."""
    for kind, value in netlink.each_attribute(outer.get(table, b"")):
        if kind == entry:
            yield netlink.attributes(value)


def _number(value: bytes) -> int:
    """An attribute of 1 to 8 bytes; 0 for one that is absent."""
    return int.from_bytes(value[:8], sys.byteorder)


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode(errors="replace")
