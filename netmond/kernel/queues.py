"""What waits in the queueing disciplines of the interfaces, and what they dropped (tc(8), `tc -s qdisc`)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from netmond.kernel import netlink

# include/uapi/linux/rtnetlink.h, gen_stats.h
_TCMSG = struct.Struct("=B3xiIII")  # family, interface, handle, parent, info
_TC_H_ROOT = 0xFFFFFFFF
_TCA_STATS2, _TCA_STATS_QUEUE = 7, 3
_QUEUE = struct.Struct("=5I")  # struct gnet_stats_queue: length, backlog, drops, requeues, overlimits


class Queue(NamedTuple):
    """An interface's queue: packets it ever dropped (32 bits), and packets and bytes that wait in it."""

    drops: int
    packets: int
    bytes: int


def queues() -> dict[int, Queue]:
    """The root queue of each interface that has one, by index."""
    found = {}
    for answer in netlink.dump(netlink.ROUTE, netlink.RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        _, ifindex, _, parent, _ = _TCMSG.unpack_from(answer)
        if parent != _TC_H_ROOT:
            continue
        stats = netlink.attributes(netlink.attributes(answer, _TCMSG.size).get(_TCA_STATS2, b""))
        if _TCA_STATS_QUEUE in stats:
            length, backlog, drops, _, _ = _QUEUE.unpack_from(stats[_TCA_STATS_QUEUE])
            found[ifindex] = Queue(drops=drops, packets=length, bytes=backlog)
    return found
