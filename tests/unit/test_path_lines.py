"""Lines of events: members, owners, times, reasons."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.path.clock import WallClock
from netmond.path.drops import Reasons
from netmond.path.lines import Lines
from netmond.path.processes import Processes
from netmond.path.symbols import Symbols
from tests.unit.pathevents import ACK, NAMES, STAGES, SYN, event

NOW = 10**12
ZERO_OF_CLOCK = 1_700_000_000 * 10**9
REASONS = Reasons(
    {2: "SKB_DROP_REASON_NOT_SPECIFIED", 3: "SKB_DROP_REASON_NO_SOCKET"},
    {2: "SKB_DROP_REASON_SUBSYS_OPENVSWITCH"},
)


def lines_of(*records: NDArray[Any], table: NDArray[Any] | None = None) -> list[dict[str, Any]]:
    flows = np.zeros(0, wire.FLOW) if table is None else table
    lines = Lines(
        NAMES,
        tuple(STAGES.values()),
        reasons=REASONS,
        symbols=Symbols(None, -1),
        processes=Processes(lambda: flows),
        user={0: "root", 1234: "foo"}.__getitem__,
        clock=WallClock(lambda: ZERO_OF_CLOCK, lambda: 0),
    )
    text = lines.write(np.concatenate(records)).decode()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_segment() -> None:
    """Everything that is known, and nothing else."""
    sent = event("ip_queue_xmit", NOW, name=b"eth0", ifindex=2, uid=1234)
    came = event("netif_receive_skb", NOW + 1500, name=b"veth1", ifindex=3)

    assert lines_of(sent, came) == [
        {
            "type": "event",
            "time": "1700001000.000000000",
            "stage": "ip_queue_xmit",
            "event": "pass",
            "src": "192.0.2.1",
            "dst": "192.0.2.2",
            "sport": 1000,
            "dport": 80,
            "protocol": "tcp",
            "seq": 5000,
            "ack": 7000,
            "flags": "P.",
            "length": 100,
            "interface": "eth0",
            "uid": 1234,
            "user": "foo",
            "journey": 1,
        },
        {
            "type": "event",
            "time": "1700001000.000001500",
            "stage": "netif_receive_skb",
            "event": "pass",
            "src": "192.0.2.1",
            "dst": "192.0.2.2",
            "sport": 1000,
            "dport": 80,
            "protocol": "tcp",
            "seq": 5000,
            "ack": 7000,
            "flags": "P.",
            "length": 100,
            "interface": "veth1",
            "since_ns": 1500,
            "journey": 1,
        },
    ]


def test_events_come_in_the_order_of_their_times() -> None:
    """CPUs write to the ring in turns that are only about that."""
    late, early = event("net_dev_start_xmit", NOW + 10), event("ip_queue_xmit", NOW)

    assert [line["stage"] for line in lines_of(late, early)] == ["ip_queue_xmit", "net_dev_start_xmit"]


def test_a_call_to_send() -> None:
    """Knows the number of its first byte, and nothing else of a segment."""
    (line,) = lines_of(event("tcp_sendmsg", NOW, packet=0, acknowledgement=0, flags=0, pid=7, name=b"x"))

    assert line["seq"] == 5000
    assert not {"ack", "flags"} & line.keys()


def test_a_call_has_a_process() -> None:
    """In the place of the interface."""
    (line,) = lines_of(event("skb_copy_datagram_iter", NOW, pid=77, name=b'a"b\xff', uid=0))

    assert (line["pid"], line["process"], line["user"]) == (77, 'a"b\ufffd', "root")
    assert "interface" not in line


def test_the_process_behind_a_socket() -> None:
    """Is the meter's, known by the socket's cookie."""
    table = np.zeros(3, wire.FLOW)
    table["cookie"], table["pid"], table["comm"] = (5, 6, 7), (0, 4211, 9), (b"", b"nginx", b"x")
    records = [event("ip_rcv", NOW, socket=cookie) for cookie in (6, 5, 8, 0)]

    assert [(line.get("pid"), line.get("process")) for line in lines_of(*records, table=table)] == [
        (4211, "nginx"),
        *[(None, None)] * 3,
    ]


def test_drops() -> None:
    """Reason and function; no reason before Linux 5.17, others are of subsystems."""
    records = [
        event("kfree_skb", NOW, event=wire.PATH_DROP, reason=reason, location=0xFFFFFFFF81000010)
        for reason in (3, 0, 2 << 16 | 4, 99)
    ]
    lines = lines_of(*records)

    assert [line["reason"] for line in lines] == ["NO_SOCKET", "NOT_SPECIFIED", "OPENVSWITCH:4", "99"]
    assert {line["function"] for line in lines} == {"0xffffffff81000010"}
    assert {line["event"] for line in lines} == {"drop"}


def test_a_kernel_without_reasons() -> None:
    assert Reasons({}, {}).name(7) == "NOT_SPECIFIED"


def test_a_retransmission_names_the_first() -> None:
    """Of the same segment."""
    first = event("ip_queue_xmit", NOW)
    again = event("tcp_retransmit_skb", NOW + 5, packet=7, event=wire.PATH_RETRANSMIT)

    assert [(line["event"], line["journey"], line.get("first")) for line in lines_of(first, again)] == [
        ("pass", 1, None),
        ("retransmit", 2, 1),
    ]


@pytest.mark.parametrize(
    ("flags", "shown"), [(SYN, "S"), (SYN | ACK, "S."), (0x11, "F."), (0x04, "R"), (0xC2, "SEW")]
)
def test_flags_are_those_of_tcpdump(flags: int, shown: str) -> None:
    assert lines_of(event("ip_rcv", NOW, flags=flags))[0]["flags"] == shown


def test_other_protocols() -> None:
    """Have no numbers of TCP, and ports only if there are such."""
    kinds = {17: {"sport", "dport"}, 1: set(), 58: set(), 47: set()}
    lines = lines_of(*(event("ip_rcv", NOW, protocol=protocol, sequence=1) for protocol in kinds))

    assert [line["protocol"] for line in lines] == ["udp", "icmp", "icmp6", "47"]
    assert [{"seq", "ack", "flags", "sport", "dport"} & line.keys() for line in lines] == list(
        kinds.values()
    )


def test_ipv6() -> None:
    (line,) = lines_of(event("ip_rcv", NOW, source="2001:db8::1", destination="fe80::2"))

    assert (line["src"], line["dst"]) == ("2001:db8::1", "fe80::2")


def test_what_is_not_known_is_not_there() -> None:
    """A listener's event: no peer, no numbers, no owner, no interface."""
    record = event(
        "sock_def_readable",
        NOW,
        source="::",
        source_port=0,
        packet=0,
        sequence=0,
        acknowledgement=0,
        flags=0,
        length=0,
        uid=NOBODY_UID,
    )

    assert lines_of(record)[0].keys() == {
        "type", "time", "stage", "event", "dst", "dport", "protocol", "journey",
    }  # fmt: skip
