"""The stages of a packet's way through the kernel.

The order is the way, first out, then in: a stage's number says which comes earlier. Names are those of
the kernel's functions (net/core, net/ipv4, net/ipv6). A stage's hooks are tried in turn: the function itself
where the kernel lets its functions be watched, else what comes closest to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP

from netmond.kernel.wire import (
    PATH_ASIDE,
    PATH_AT_DATA,
    PATH_BY_SOCKET,
    PATH_CALL,
    PATH_CONNECTED,
    PATH_DROP,
    PATH_LINKED,
    PATH_OUT,
    PATH_OWNED,
    PATH_PASS,
    PATH_PAYLOAD,
    PATH_RESET,
    PATH_RETRANSMIT,
)
from netmond.path.hook_kinds import Hook, cgroup, function, netfilter, sent, tracepoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A place that packets pass. direction: in, out or both; layer: device, ip, transport or socket; event:
    wire.PATH_*; family: AF_INET, AF_INET6, 0 for both; protocols: IANA numbers, none for all."""

    name: str
    direction: str
    layer: str
    hooks: tuple[Hook, ...]
    event: int = PATH_PASS
    family: int = 0
    protocols: frozenset[int] = field(default_factory=frozenset)


def _stage(
    name: str, direction: str, layer: str, *hooks: Hook, tcp: bool = False, event: int = PATH_PASS
) -> Stage:
    """A stage of both families."""
    protocols = frozenset({IPPROTO_TCP} if tcp else ())
    return Stage(name=name, direction=direction, layer=layer, hooks=hooks, event=event, protocols=protocols)


def _pair(
    names: tuple[str, str],
    direction: str,
    layer: str,
    protocols: tuple[int, int],
    hooks: Callable[[str, int], tuple[Hook, ...]],
) -> tuple[Stage, Stage]:
    """A stage that is a function of its own for each family. protocols: of IPv4 and IPv6, 0 for all; hooks:
    of a function and a protocol."""
    four, six = (
        Stage(
            name=name,
            direction=direction,
            layer=layer,
            hooks=hooks(name, protocol),
            family=family,
            protocols=frozenset({protocol} if protocol else ()),
        )
        for name, family, protocol in zip(names, (AF_INET, AF_INET6), protocols, strict=True)
    )
    return four, six


_ALL, _TCP, _UDP = (0, 0), (IPPROTO_TCP, IPPROTO_TCP), (IPPROTO_UDP, IPPROTO_UDP)
_DELIVERS = {"ip_rcv_finish": "ip_local_deliver", "ip6_rcv_finish": "ip6_input"}
_SENDS = PATH_OUT | PATH_CALL
_HEADLESS = PATH_OUT | PATH_BY_SOCKET

STAGES: tuple[Stage, ...] = (
    _stage(
        "tcp_sendmsg",
        "out",
        "socket",
        *function("tcp_sendmsg", _SENDS, socket=0, length=2),
        sent(IPPROTO_TCP),
        tcp=True,
    ),
    *_pair(
        ("udp_sendmsg", "udpv6_sendmsg"),
        "out",
        "socket",
        _UDP,
        lambda name, protocol: (*function(name, _SENDS, socket=0, length=2), sent(protocol)),
    ),
    *_pair(
        ("ip_queue_xmit", "inet6_csk_xmit"),
        "out",
        "transport",
        _TCP,
        lambda name, protocol: (
            *function(name, _HEADLESS | PATH_AT_DATA, socket=0, packet=1),
            netfilter("output", PATH_OUT, protocol=protocol),
            cgroup("egress", protocol, "later, behind all rules of output", PATH_OUT),
        ),
    ),
    *_pair(
        ("ip_output", "ip6_output"),
        "out",
        "ip",
        _ALL,
        lambda name, _: (*function(name, PATH_OUT, packet=2), netfilter("postrouting", PATH_OUT)),
    ),
    _stage(
        "__dev_queue_xmit",
        "out",
        "device",
        tracepoint("net_dev_queue", PATH_OUT, packet=0),
        *function("__dev_queue_xmit", PATH_OUT, packet=0),
    ),
    _stage("qdisc_enqueue", "out", "device", tracepoint("qdisc_enqueue", PATH_OUT, packet=2)),
    _stage("qdisc_dequeue", "out", "device", tracepoint("qdisc_dequeue", PATH_OUT, packet=3)),
    _stage("net_dev_start_xmit", "out", "device", tracepoint("net_dev_start_xmit", PATH_OUT, packet=0)),
    _stage("netif_receive_skb", "in", "device", tracepoint("netif_receive_skb", PATH_AT_DATA, packet=0)),
    *_pair(
        ("ip_rcv", "ipv6_rcv"),
        "in",
        "ip",
        _ALL,
        lambda name, _: (*function(name, packet=0), netfilter("prerouting")),
    ),
    *_pair(
        ("ip_rcv_finish", "ip6_rcv_finish"),
        "in",
        "ip",
        _ALL,
        lambda name, _: (
            netfilter("prerouting", last=True),
            # Compilers build the function into its caller and leave a copy that is hardly ever called: there
            # is something to attach to, and nothing to see.
            *function(
                _DELIVERS[name],
                instead=f"a moment later, of what is delivered here, in {_DELIVERS[name]}",
                packet=0,
            ),
        ),
    ),
    *_pair(
        ("ip_forward", "ip6_forward"),
        "both",
        "ip",
        _ALL,
        lambda name, _: (*function(name, packet=0), netfilter("forward")),
    ),
    *_pair(
        ("ip_local_deliver", "ip6_input"),
        "in",
        "ip",
        _ALL,
        lambda name, _: (*function(name, packet=0), netfilter("input")),
    ),
    *_pair(
        ("icmp_rcv", "icmpv6_rcv"),
        "in",
        "transport",
        (IPPROTO_ICMP, IPPROTO_ICMPV6),
        lambda name, protocol: (*function(name, packet=0), netfilter("input", last=True, protocol=protocol)),
    ),
    *_pair(
        ("tcp_v4_do_rcv", "tcp_v6_do_rcv"),
        "in",
        "transport",
        _TCP,
        lambda name, protocol: (
            *function(name, packet=1),
            cgroup("ingress", protocol, "just before, when its socket is found"),
            tracepoint("tcp_probe", instead="of established connections only", socket=0, packet=1),
        ),
    ),
    *_pair(
        ("udp_queue_rcv_skb", "udpv6_queue_rcv_skb"),
        "in",
        "transport",
        _UDP,
        lambda name, protocol: (
            *function(name, packet=1),
            cgroup("ingress", protocol, "just before it is queued"),
        ),
    ),
    _stage(
        "tcp_queue_rcv",
        "in",
        "transport",
        *function("tcp_queue_rcv", packet=1),
        tracepoint(
            "tcp_probe",
            PATH_PAYLOAD | PATH_CONNECTED,
            "segments of established connections with data, whether or not in order",
            socket=0,
            packet=1,
        ),
        tcp=True,
    ),
    _stage(
        "sock_def_readable",
        "in",
        "socket",
        tracepoint("sk_data_ready", PATH_LINKED | PATH_CONNECTED, socket=0),
        *function("sock_def_readable", PATH_LINKED, socket=0),
    ),
    _stage(
        "skb_copy_datagram_iter",
        "in",
        "socket",
        tracepoint("skb_copy_datagram_iovec", PATH_CALL | PATH_OWNED | PATH_CONNECTED, packet=0, length=1),
    ),
    _stage(
        "kfree_skb",
        "both",
        "device",
        tracepoint("kfree_skb", packet=0, location=1, reason=2, socket=3),
        event=PATH_DROP,
    ),
    _stage(
        "tcp_retransmit_skb",
        "out",
        "transport",
        tracepoint("tcp_retransmit_skb", _HEADLESS | PATH_ASIDE, socket=0, packet=1),
        tcp=True,
        event=PATH_RETRANSMIT,
    ),
    _stage(
        "tcp_send_reset",
        "out",
        "transport",
        tracepoint("tcp_send_reset", PATH_OUT | PATH_ASIDE, socket=0, packet=1),
        tcp=True,
        event=PATH_RESET,
    ),
    _stage(
        "tcp_receive_reset",
        "in",
        "transport",
        tracepoint("tcp_receive_reset", PATH_LINKED | PATH_ASIDE, socket=0),
        tcp=True,
        event=PATH_RESET,
    ),
)
