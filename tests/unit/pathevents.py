"""Events of packets as the kernel writes them (wire.PATH_EVENT), for tests."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.path.journeys import Place

#: Stages of a machine that receives, sends and forwards, in the order of the way.
STAGES = {
    "netif_receive_skb": Place(rank=0, incoming=True),
    "ip_rcv": Place(rank=1, incoming=True),
    "tcp_v4_do_rcv": Place(rank=2, incoming=True),
    "sock_def_readable": Place(rank=3, incoming=True, socket=True),
    "skb_copy_datagram_iter": Place(rank=4, incoming=True, socket=True, repeats=True),
    "tcp_sendmsg": Place(rank=5, incoming=False, socket=True, origin=True),
    "ip_queue_xmit": Place(rank=6, incoming=False, origin=True),
    "ip_output": Place(rank=7, incoming=False),
    "net_dev_start_xmit": Place(rank=8, incoming=False),
    "kfree_skb": Place(rank=9, incoming=True),
    "tcp_retransmit_skb": Place(rank=10, incoming=False),
}
NAMES = tuple(STAGES)

#: Flags of TCP
SYN, PUSH, ACK = 0x02, 0x08, 0x10


def event(stage: str, time: int, **fields: Any) -> NDArray[Any]:
    """One event (1,), if nothing else is said of a segment with data, 192.0.2.1:1000 to 192.0.2.2:80."""
    record = np.zeros(1, wire.PATH_EVENT)
    told: dict[str, Any] = {
        "source": "192.0.2.1", "destination": "192.0.2.2", "source_port": 1000, "destination_port": 80,
        "protocol": 6, "sequence": 5000, "acknowledgement": 7000, "flags": PUSH | ACK, "length": 100,
        "uid": NOBODY_UID, "packet": 0xFFFF888000001000, "stage": NAMES.index(stage), "time": time, **fields,
    }  # fmt: skip
    for name, value in told.items():
        record[name] = np.void(packed(value)) if name in ("source", "destination") else value
    return record


def packed(address: str) -> bytes:
    """As the kernel writes it: IPv4 mapped."""
    parsed = ipaddress.ip_address(address)
    return parsed.packed if parsed.version == 6 else bytes(10) + b"\xff\xff" + parsed.packed
