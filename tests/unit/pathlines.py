"""A recorded stream of a path, as netmond writes it: one line of JSON for each thing there is to say."""

from __future__ import annotations

import json
from typing import Any

STAGES = [
    {"stage": "netif_receive_skb", "direction": "in", "layer": "device", "hook": "raw_tp:netif_receive_skb",
     "state": "on", "reason": "", "tried": []},
    {"stage": "ip_rcv_finish", "direction": "in", "layer": "ip", "hook": "netfilter:PRE_ROUTING",
     "state": "replaced", "reason": "no fentry and no kprobe here",
     "tried": ["fentry:ip_rcv_finish: not supported", "kprobe:ip_rcv_finish: No such device"]},
    {"stage": "tcp_queue_rcv", "direction": "in", "layer": "transport", "hook": None, "state": "off",
     "reason": "nothing else sees it", "tried": ["kprobe:tcp_queue_rcv: No such device"]},
    {"stage": "sock_def_readable", "direction": "in", "layer": "socket", "hook": "raw_tp:sk_data_ready",
     "state": "on", "reason": "", "tried": []},
    {"stage": "__dev_queue_xmit", "direction": "out", "layer": "device", "hook": "raw_tp:net_dev_queue",
     "state": "on", "reason": "", "tried": []},
    {"stage": "icmp_rcv", "direction": "in", "layer": "transport", "hook": None, "state": "off",
     "reason": "not of the protocols asked for", "tried": []},
    {"stage": "kfree_skb", "direction": "both", "layer": "device", "hook": "raw_tp:kfree_skb", "state": "on",
     "reason": "", "tried": []},
]  # fmt: skip

BEGIN = {"type": "stages", "stages": STAGES, "rate": 10000}

#: What is known of one TCP packet.
PACKET = {
    "src": "192.0.2.1", "dst": "192.0.2.2", "sport": 40000, "dport": 443, "protocol": "tcp",
    "seq": 4294967295, "ack": 1234567890, "flags": "P.", "length": 1500, "interface": "eth0",
}  # fmt: skip
OWNER = {"uid": 1000, "user": "alice", "pid": 4211, "process": "curl"}


def event(stage: str, nanoseconds: int = 0, **more: Any) -> dict[str, Any]:
    """A packet at a stage; None takes something away that is known otherwise."""
    line = {"type": "event", "time": f"1700000000.{nanoseconds:09d}", "stage": stage, "event": "pass"}
    return {key: value for key, value in (line | PACKET | more).items() if value is not None}


def way(journey: int, begin: int = 0, **more: Any) -> list[dict[str, Any]]:
    """The three events of a packet on its way in."""
    return [
        event("netif_receive_skb", begin, journey=journey, **more),
        event("ip_rcv_finish", begin + 850, journey=journey, since_ns=850, interface=None, **more),
        event("sock_def_readable", begin + 13150, journey=journey, since_ns=12300, **(OWNER | more)),
    ]


DROP = event(
    "kfree_skb", 20000, journey=9, event="drop", reason="NO_SOCKET", function="tcp_v4_rcv+0x1f",
    since_ns=950, dport=9,
)  # fmt: skip
SUPPRESSED = {"type": "suppressed", "stages": {"ip_rcv_finish": 40, "sock_def_readable": 2}, "lost": 3}
END = {"type": "end", "reason": "stopped"}


def figures(seconds: float = 2.0, packets: int = 100) -> dict[str, Any]:
    """A report of --stats."""
    passed = {"packets": packets, "bytes": 150000}
    latency = {"count": packets, "mean_ns": 5200, "p50_ns": 4096, "p99_ns": 1048576,
               "buckets": [[1024, 10], [4096, packets - 11], [1048576, 1]]}  # fmt: skip
    return {
        "type": "stats",
        "seconds": seconds,
        "stages": [
            {"stage": "netif_receive_skb", **passed, "suppressed": 0},
            {"stage": "ip_rcv_finish", **passed, "suppressed": 7, "latency": latency},
        ],
        "drops": [
            {"reason": "SOCKET_RCVBUFF", "function": "udp_rcv", "stage": "kfree_skb", "packets": 12},
            {"reason": "NO_SOCKET", "function": "tcp_v4_rcv", "stage": "kfree_skb", "packets": 3},
        ],
    }


def stream(*messages: dict[str, Any]) -> bytes:
    """The bytes of the stream, with its beginning."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in (BEGIN, *messages))
