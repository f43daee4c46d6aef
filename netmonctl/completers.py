"""Live values for shell completion. A daemon that is not there completes nothing, silently."""

from __future__ import annotations

from argparse import Action, Namespace
from collections.abc import Iterable
from typing import Any

from netmonctl.calls import NOBODY_UID
from netmonctl.errors import CtlError

#: A person waits for the Tab key: rather no values than late ones.
TIMEOUT = 1.0

#: Where netmond can see packets on their way; which of them this kernel has, only a path can tell.
STAGES = (
    "tcp_sendmsg", "udp_sendmsg", "udpv6_sendmsg", "ip_queue_xmit", "inet6_csk_xmit", "ip_output",
    "ip6_output", "__dev_queue_xmit", "qdisc_enqueue", "qdisc_dequeue", "net_dev_start_xmit",
    "netif_receive_skb", "ip_rcv", "ipv6_rcv", "ip_rcv_finish", "ip6_rcv_finish", "ip_forward",
    "ip6_forward", "ip_local_deliver", "ip6_input", "icmp_rcv", "icmpv6_rcv", "tcp_v4_do_rcv",
    "tcp_v6_do_rcv", "udp_queue_rcv_skb", "udpv6_queue_rcv_skb", "tcp_queue_rcv", "sock_def_readable",
    "skb_copy_datagram_iter", "kfree_skb", "tcp_retransmit_skb", "tcp_send_reset", "tcp_receive_reset",
)  # fmt: skip


def _rows(what: str, **options: Any) -> list[dict[str, Any]]:
    from netmonctl.client import connect

    try:
        with connect(timeout=TIMEOUT) as client:
            return client.listing(what, {"limit": 1000, **options}).rows
    except CtlError:
        return []


def _matching(values: Iterable[str], prefix: str) -> list[str]:
    """Each once, without what is unknown (empty or 0) and without names that could steer the terminal."""
    known = set(values) - {"", "0"}
    return sorted(value for value in known if value.startswith(prefix) and value.isprintable())


def _values(what: str, key: str, prefix: str, **options: Any) -> list[str]:
    return _matching((str(row.get(key, "")) for row in _rows(what, **options)), prefix)


def _but_given(values: Iterable[str], action: Action, parsed_args: Namespace) -> list[str]:
    given = getattr(parsed_args, action.dest, None) or ()
    return [value for value in values if value not in given]


def targets(prefix: str, action: Action, parsed_args: Namespace, **_: Any) -> list[str]:
    """Addresses that are targets now, but those already on the line."""
    return _but_given(_values("Targets", "address", prefix), action, parsed_args)


def users(prefix: str, **_: Any) -> list[str]:
    """Users with figures that the caller may see."""
    known = (row for row in _rows("Users") if row["uid"] != NOBODY_UID)
    return _matching((str(row["user"]) for row in known), prefix)


def more_users(prefix: str, action: Action, parsed_args: Namespace, **_: Any) -> list[str]:
    """The same, but those already on the line."""
    return _but_given(users(prefix), action, parsed_args)


def logged(prefix: str, action: Action, parsed_args: Namespace, **_: Any) -> list[str]:
    """Users whose packets are logged, but those already on the line."""
    return _but_given(_values("PacketLogs", "user", prefix), action, parsed_args)


def units(prefix: str, **_: Any) -> list[str]:
    """Units with figures that the caller may see."""
    return _values("Units", "unit", prefix)


def processes(prefix: str, **_: Any) -> list[str]:
    """Processes with figures that the caller may see, by number."""
    return _values("Processes", "pid", prefix)


def names(prefix: str, **_: Any) -> list[str]:
    """Processes with figures that the caller may see, by name."""
    return _values("Processes", "process", prefix)


def protocols(prefix: str, **_: Any) -> list[str]:
    """Protocols of the flows there are."""
    return _values("Flows", "protocol", prefix)


def peers(prefix: str, **_: Any) -> list[str]:
    """Remote addresses of the flows there are."""
    return _values("Flows", "remote", prefix)


def interfaces(prefix: str, **_: Any) -> list[str]:
    """Interfaces of this machine."""
    return _values("Interfaces", "name", prefix)


def monitored(prefix: str, **_: Any) -> list[str]:
    """Interfaces that netmond watches."""
    return _values("Interfaces", "name", prefix, monitored=True)


def unmonitored(prefix: str, **_: Any) -> list[str]:
    """Interfaces that it does not."""
    return _values("Interfaces", "name", prefix, monitored=False)


def devices(prefix: str, **_: Any) -> list[str]:
    """RDMA devices; their ports behind a slash."""
    rows = _rows("RdmaPorts")
    ports = (f"{row['device']}/{row['port']}" for row in rows)
    return _matching([*ports, *(str(row["device"]) for row in rows)], prefix)


def sessions(prefix: str, action: Action, parsed_args: Namespace, **_: Any) -> list[str]:
    """Sessions that are under way, but those already on the line."""
    given = {str(number) for number in getattr(parsed_args, action.dest, None) or ()}
    return [number for number in _values("Sessions", "session", prefix) if number not in given]


def stages(prefix: str, **_: Any) -> list[str]:
    """Stages of a path; more of them behind a comma."""
    before, comma, last = prefix.rpartition(",")
    return [f"{before}{comma}{name}" for name in STAGES if name.startswith(last)]


def sort_keys(prefix: str, parsed_args: Namespace, **_: Any) -> list[str]:
    """What the rows of this list can be sorted by: the keys they have."""
    verb = str(getattr(parsed_args, "verb", ""))
    groups = {"target list": "Targets", "log list": "PacketLogs", "sessions list": "Sessions"}
    what = groups.get(verb, verb.capitalize())
    if verb == "rdma":
        pairs = getattr(parsed_args, "queue_pairs", False)
        what = "QueuePairs" if pairs else "RdmaPorts"
    row: dict[str, Any] = next(iter(_rows(what, limit=1)), {})
    return _matching((key for key, value in row.items() if not isinstance(value, dict)), prefix)


def files(prefix: str, **_: Any) -> list[str]:
    """Names of files and, ending in a slash, of directories."""
    from glob import escape, glob
    from os.path import isdir

    return [f"{name}/" if isdir(name) else name for name in sorted(glob(f"{escape(prefix)}*"))]
