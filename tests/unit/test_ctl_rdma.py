"""netmonctl rdma: verdicts that errors never improve, tables that stay aligned, mistakes in one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from netmonctl import rdma_pages as pages
from netmonctl.calls import Typed
from netmonctl.errors import ExitCode
from netmonctl.list_columns import FLOWS, USERS
from netmonctl.rdma_verdict import (
    CNP_RATE,
    ERRORS_A_DAY,
    LOSS_SHARE,
    MARKED_SHARE,
    RNR_RATE,
    STATES,
    WAIT_SHARE,
    Figures,
    Verdict,
    judge,
)
from netmonctl.render import Row, Style, cells, table
from tests.unit.rdma_rows import NAMES, PAIRS, PORT, counter, counters, loaded
from tests.unit.test_ctl_commands import ALICE, FLOW, Fake, Ran

DAY = 86400.0
PACKETS = PORT["in_packet_rate"] + PORT["out_packet_rate"]


def figures(rows: Sequence[Row], *, watched: float = DAY, interval: float = 1.0, **port: Any) -> Figures:
    return Figures(port={**PORT, **port}, counters=rows, watched=watched, interval=interval)


def verdict(watched: float = DAY, /, **moving: tuple[int, float]) -> Verdict:
    """On the port under load, with these counters' totals and rates."""
    return judge(figures(loaded(**moving), watched=watched))


def test_healthy() -> None:
    """Says so, and what there was before."""
    assert verdict() == Verdict(state="healthy", reason="no trouble in the last 1.0 s, nor before")
    assert verdict(packet_seq_err=(12, 0.0)).reason == (
        "no trouble in the last 1.0 s; before that packet_seq_err counted 12"
    )
    assert (
        verdict(packet_seq_err=(12, 0.5)).reason == "packet_seq_err 0.5/s in the last 1.0 s, which is little"
    )


def test_congested() -> None:
    """By notifications, by marked packets, by waiting for credits; with all of these in figures."""
    found = verdict(rp_cnp_handled=(9000, 1204.0), np_ecn_marked_roce_packets=(9000, 1204.0))

    assert found.state == "congested"
    assert found.reason == "1,204 CNPs/s received in the last 1.0 s, 0.3 % of packets marked"
    assert found.look_at == "look at PFC and ECN of the switch port"


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("rp_cnp_handled", CNP_RATE),
        ("np_cnp_sent", CNP_RATE),
        ("np_ecn_marked_roce_packets", MARKED_SHARE * PORT["in_packet_rate"]),
        ("port_xmit_wait", PORT["out_byte_rate"] / 4 * WAIT_SHARE / (1 - WAIT_SHARE)),
    ],
)
def test_congested_from(name: str, rate: float) -> None:
    """The thresholds that netmonctl(1) tells."""
    assert verdict(**{name: (1, 0.98 * rate)}).state == "healthy"
    assert verdict(**{name: (1, 1.02 * rate)}).state == "congested"


def test_what_two_counters_count() -> None:
    """Handled and ignored notifications are different ones; what optional counters say, the same."""
    rows = [
        counter("rp_cnp_handled", 9, 600.0), counter("rp_cnp_ignored", 9, 500.0),
        counter("cc_rx_cnp_pkts", 9, 1100.0),
    ]  # fmt: skip
    assert judge(figures(rows)).reason == "1,100 CNPs/s received in the last 1.0 s"


def test_bytes_sent_again_are_not_packets() -> None:
    """A loss is a packet, however large."""
    rows = [*loaded(), {**counter("packet_seq_err", 9, 900.0), "counter": "retrans_bytes", "unit": "bytes"}]
    assert judge(figures(rows)) == Verdict(
        state="healthy", reason="no trouble in the last 1.0 s, nor before"
    )


@pytest.mark.parametrize(
    ("name", "state"),
    [("packet_seq_err", "lossy"), ("out_of_sequence", "lossy"), ("port_xmit_discards", "lossy")],
)
def test_lossy_from(name: str, state: str) -> None:
    """A share of all packets; several counters see the same loss, so the largest speaks."""
    assert verdict(**{name: (1, 0.98 * LOSS_SHARE * PACKETS)}).state == "healthy"
    found = verdict(**{name: (1, 1.02 * LOSS_SHARE * PACKETS)})
    assert (found.state, found.reason) == (state, f"{name} 8.0/s in the last 1.0 s, 0.001 % of packets")


def test_loss_without_packets() -> None:
    """Of a device that counts no packets any loss is one too many."""
    port = {name: value for name, value in PORT.items() if "packet" not in name}
    rows = [counter("out_of_sequence", 1, 0.1)]

    assert judge(Figures(port=port, counters=rows, watched=DAY, interval=1.0)).reason == (
        "out_of_sequence 0.1/s in the last 1.0 s"
    )


def test_timeouts() -> None:
    """One is enough: its queue pair stood still for seconds."""
    assert verdict(local_ack_timeout_err=(1, 0.2)).state == "lossy"
    assert verdict(local_ack_timeout_err=(1, 0.0)).state == "healthy"


def test_starved() -> None:
    """From where receivers that are not ready cost one percent of the time."""
    assert verdict(rnr_nak_retry_err=(1, RNR_RATE - 0.1)).state == "healthy"
    assert verdict(rnr_nak_retry_err=(1, RNR_RATE)).state == "starved"


def test_faulty() -> None:
    """By errors of the line in a day; those of programs are theirs."""
    assert verdict(symbol_error=(ERRORS_A_DAY - 1, 0.0)).state == "healthy"
    assert verdict(symbol_error=(ERRORS_A_DAY, 0.0)).reason == "symbol_error counted 10 in 1d"
    assert verdict(60.0, symbol_error=(ERRORS_A_DAY, 0.0)).state == "faulty"
    assert verdict(2 * DAY, symbol_error=(ERRORS_A_DAY, 0.0)).state == "healthy"
    assert verdict(port_rcv_errors=(ERRORS_A_DAY, 0.0)).state == "faulty"
    assert verdict(req_cqe_error=(1_000_000, 9.0)).state == "healthy"


@pytest.mark.parametrize(
    ("link_layer", "physical", "look_at"),
    [
        ("Ethernet", "disabled", "whether the interface is up"),
        ("Ethernet", "link-up", "whether the interface is up"),
        ("InfiniBand", "polling", "the cable"),
        ("InfiniBand", "link-up", "the subnet manager"),
    ],
)
def test_down(link_layer: str, physical: str, look_at: str) -> None:
    """A port of InfiniBand with a link lacks somebody who configures it."""
    rows = counters(symbol_error=(99, 0.0))
    found = judge(figures(rows, state="init", physical_state=physical, link_layer=link_layer))

    assert (found.state, found.reason) == ("down", f"the port is init, {physical}")
    assert look_at in found.look_at
    assert found.more == ("faulty: symbol_error counted 99 in 1d",)


def test_unknown() -> None:
    """Without counters, or with one reading of them, nothing is claimed."""
    assert judge(figures([])).state == "unknown"
    assert judge(figures(loaded(), interval=0.0)).state == "unknown"


#: Counters that tell of trouble, whoever counts them.
TROUBLE = [
    name
    for name in NAMES
    if counter(name)["kind"] not in ("data", "packets", "requests", "multicast", "other")
]
_FIGURE = some.tuples(
    some.integers(0, 10**6),
    some.one_of(some.just(0.0), some.floats(0.0, 10.0), some.floats(0.0, 1e7)),
)


@given(
    some.dictionaries(some.sampled_from(TROUBLE), _FIGURE),
    some.dictionaries(some.sampled_from(TROUBLE), _FIGURE, min_size=1),
    some.sampled_from([0.0, 60.0, 5 * DAY]),
    some.sampled_from(["active", "init", "down"]),
    some.booleans(),
)
def test_more_errors_never_make_a_port_healthier(
    before: dict[str, tuple[int, float]],
    growth: dict[str, tuple[int, float]],
    watched: float,
    state: str,
    busy: bool,
) -> None:
    """Whatever counters of trouble grow by, the verdict stays or gets worse."""
    after = dict(before)
    for name, (total, rate) in growth.items():
        old = before.get(name, (0, 0.0))
        after[name] = (old[0] + total, old[1] + rate)
    port = {} if busy else {"in_packet_rate": 0.0, "out_packet_rate": 0.0, "out_byte_rate": 0.0}
    verdicts = [
        judge(figures(loaded(**moving), watched=watched, state=state, **port)) for moving in (before, after)
    ]

    assert verdicts[0].severity <= verdicts[1].severity


def test_every_state_has_a_colour() -> None:
    assert {pages.hue(state) for state in STATES} == {("dim",), ("green",), ("yellow",), ("red",)}


META = {"scope": "all", "total": 1, "time": 2 * DAY, "since": DAY, "interval": 5.0, "rdma_interval": 1.0}
NOTHING = json.dumps({"features": []})


def fake(*ports: Row, rows: Sequence[Row] = (), pairs: Sequence[Row] = ()) -> Fake:
    """A netmond with these ports, counters and queue pairs."""
    replies = {"ListRdmaPorts": ports, "ListRdmaCounters": rows, "ListQueuePairs": pairs}
    return Fake({member: [[*found], META] for member, found in replies.items()} | {"Describe": [NOTHING]})


def test_nccl() -> None:
    """Verdict, port, and groups with what each counter means; what did not move is named only."""
    rows = loaded(rp_cnp_handled=(812_345, 1204.0), local_ack_timeout_err=(3, 0.0))
    ran = Ran(fake(PORT, rows=rows), "rdma", "--nccl")

    assert ran.code == ExitCode.OK
    assert ran.stdout.splitlines() == [
        "● mlx5_0/1 congested: 1,204 CNPs/s received in the last 1.0 s; "
        "look at PFC and ECN of the switch port",
        "  active, link-up, Ethernet, 100 Gb/s, ens1f0np0",
        "",
        "COUNTER                          TOTAL       RATE",
        "Data",
        "  port_rcv_data                1.2 TiB  8.7 GiB/s"
        "  received by the port, with headers but without link framing",
        "  port_xmit_data             930.3 GiB  7.5 GiB/s"
        "  sent by the port, with headers but without link framing",
        "Packets",
        "  port_rcv_packets       1,288,490,188  401,333/s  received by the port, also faulty ones",
        "  port_xmit_packets        975,466,470  380,000/s  sent by the port, also faulty ones",
        "Sent again: none (packet_seq_err)",
        "Out of sequence: none (out_of_sequence)",
        "Congestion: ECN, notifications (CNP), credits",
        "  rp_cnp_handled               812,345    1,204/s"
        "  congestion notifications received: sending slows down",
        "  none: port_xmit_wait, np_cnp_sent, np_ecn_marked_roce_packets",
        "Receiver not ready (RNR): none (rnr_nak_retry_err)",
        "Timeouts",
        "  local_ack_timeout_err              3        0/s  acknowledgements that did not come in time",
        "Discards: none (port_xmit_discards)",
        "Errors: none (port_rcv_errors, req_cqe_error)",
        "Line: none (link_downed, symbol_error)",
    ]


def test_nccl_for_programs() -> None:
    """The verdict beside the counters, which are rows as they are."""
    rows = loaded(rp_cnp_handled=(812_345, 1204.0))
    (port,) = json.loads(Ran(fake(PORT, rows=rows), "rdma", "--nccl", "--json").stdout)

    assert (port["verdict"], port["look_at"]) == ("congested", "look at PFC and ECN of the switch port")
    assert port["counters"] == [row for row in rows if row["kind"] != "requests"]


def test_absent_counters_are_absent() -> None:
    """A group that the device does not count is not there at all."""
    lines = Ran(fake(PORT, rows=[counter("packet_seq_err")]), "rdma", "--nccl").stdout

    assert "Sent again: none (packet_seq_err)" in lines
    assert "Timeouts" not in lines


def test_device() -> None:
    """All that is known, with what the device says in its own unit."""
    rows = loaded(rx_write_requests=(4, 0.0))
    lines = Ran(fake(PORT, rows=rows), "rdma", "-d", "mlx5_0/1").stdout.splitlines()

    assert lines[:9] == [
        "● mlx5_0/1 healthy: no trouble in the last 1.0 s, nor before",
        "     State: active, link-up",
        "      Link: Ethernet at 100 Gb/s",
        "    Netdev: ens1f0np0",
        " Node GUID: b83f:d203:0012:3456",
        "    Driver: mlx5_core, firmware 20.31.1014",
        "      GIDs: 0 fe80::ba3f:d2ff:fe12:3456 (IB/RoCE v1, ens1f0np0)",
        "            3 ::ffff:192.0.2.7 (RoCE v2, ens1f0np0)",
        "",
    ]
    assert any(line.split()[:5] == ["port_rcv_data", "1.2", "TiB", "8.7", "GiB/s"] for line in lines)
    assert any(line.split()[0] == "rx_write_requests" for line in lines if line)


@pytest.mark.parametrize("width", [72, 80, 100, 132])
@pytest.mark.parametrize("device", ["mlx5_0", "a_device_with_a_long_name_of_its_own", "x\x1b[2J\n"])
def test_fits_the_terminal(device: str, width: int) -> None:
    """No line is wider, none can steer the terminal, and figures stand below each other."""
    style = Style(width=width)
    port = {**PORT, "device": device}
    judged = figures(loaded(rp_cnp_handled=(9, 1e6), symbol_error=(99, 0.0)), device=device)
    row = {**port, "verdict": "faulty", "ails": judge(judged)}
    for lines in (
        pages.overview([row, row], style, False, ""),
        pages.nccl(judged, judge(judged), style, True),
        pages.device(judged, judge(judged), style, False),
        table(pages.PAIRS, [{**pair, "device": device} for pair in PAIRS], style),
    ):
        assert all(line.isprintable() for line in lines)
        assert max(cells(line) for line in lines) <= width


def test_counters_are_aligned() -> None:
    """Rates end in one column, through all groups and explanations."""
    lines = pages.nccl(figures(loaded()), judge(figures(loaded())), Style(width=80), True)
    (header,) = [line for line in lines if line.startswith("COUNTER")]

    ends = {line.rindex("/s") + 2 for line in lines if line.startswith("  ") and line.endswith("/s")}
    assert ends == {len(header)}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {"limit": 10_000}),
        (["-d", "mlx5_0"], {"device": "mlx5_0", "limit": 0}),
        (["--nccl", "-d", "mlx5_0/2"], {"device": "mlx5_0", "port": Typed("u", 2), "limit": 0}),
        (["-n", "3", "--sort", "byte_rate", "-r"], {"limit": 3, "sort": "byte_rate", "reverse": True}),
    ],
)
def test_asks_for_ports(words: list[str], options: dict[str, Any]) -> None:
    netmond = fake(PORT)
    assert Ran(netmond, "rdma", *words).code == ExitCode.OK
    assert netmond.calls[0].body[0] == options


def test_asks_for_queue_pairs() -> None:
    """Of a port, of a user; everyone's if wanted."""
    netmond = fake(pairs=PAIRS)
    assert Ran(netmond, "rdma", "--qp", "-d", "mlx5_0/1", "-u", "alice", "--all", "-n", "0").code == 0
    (call,) = netmond.calls
    assert (call.member, call.body[0]) == (
        "ListQueuePairs",
        {"user": "alice", "scope": "all", "limit": 0, "device": "mlx5_0", "port": Typed("u", 1)},
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--nccl", "--qp"], ["-u", "alice"], ["--own"], ["--nccl", "--sort", "rate"],
        ["-d", "mlx5_0", "-n", "3"],
        ["-d", "mlx5_0/"], ["-d", "/1"], ["-d", "mlx5_0/one"], ["-d", "mlx5_0/4294967296"], ["-d", ""],
        ["more"],
    ],
)  # fmt: skip
def test_mistakes(words: list[str]) -> None:
    """One line, and nothing is asked of netmond."""
    netmond = fake(PORT)
    ran = Ran(netmond, "rdma", *words)

    assert (ran.code, ran.stdout, netmond.calls) == (ExitCode.USAGE, "", [])
    assert ran.stderr.count("\n") == 1


def test_no_device() -> None:
    """An empty list is in order; scripts may want nothing at all."""
    assert Ran(fake(), "rdma").stdout == "No RDMA device on this machine.\n"
    assert Ran(fake(), "rdma", "--no-legend").stdout == ""
    assert json.loads(Ran(fake(), "rdma", "--json").stdout) == []


def test_a_device_that_counts_packets_only() -> None:
    """As soft-RoCE does: at 80 columns there is room for them."""
    soft = {name: value for name, value in PORT.items() if "byte" not in name}
    header, line = table(pages.PORTS, [{**soft, "verdict": "healthy"}], Style(width=80))

    assert "IN PKTS" in header
    assert "IN RATE" not in header
    assert str(PORT["in_packets"]) in line


def test_queue_pairs_without_counters() -> None:
    """Figures that nobody has are missing; an owner whom nobody knows is called so."""
    lines = [line.split() for line in table(pages.PAIRS, PAIRS, Style())]

    assert lines[2][-7:] == ["-"] * 7
    assert lines[3][5] == "unknown"


def test_users_at_80_columns() -> None:
    """Both kinds of traffic fit; without RDMA the table is the one that it was."""
    quiet = {"queue_pairs": 0, "rdma_in_bytes": 0, "rdma_out_bytes": 0, "total_bytes": 93849}
    busy = {**quiet, "queue_pairs": 2, "rdma_in_bytes": 5 << 40, "rdma_out_bytes": 7 << 40}
    style = Style(width=80)

    assert table(USERS, [{**ALICE, **quiet}], style) == table(USERS, [ALICE], style)
    header, line = table(
        USERS, [{**ALICE, **busy, "rdma_in_byte_rate": 0.0, "rdma_out_byte_rate": 0.0}], style
    )
    assert "RDMA IN" in header
    assert line.endswith("5.0 TiB   7.0 TiB")
    assert len(line) <= 80


def test_flows_of_roce() -> None:
    """What they carry stands where others have their protocol."""
    roce = {**FLOW, "traffic_type": "roce_v2", "opcode": "RC_RDMA_WRITE_ONLY", "queue_pair": 17}
    header, line, *_ = table(FLOWS, [roce], Style())

    assert header.split()[:5] == ["PROTO", "LOCAL", "REMOTE", "OPCODE", "QP"]
    assert line.split()[0] == "roce_v2"
    assert line.split()[3:5] == ["RC_RDMA_WRITE_ONLY", "17"]
    assert "OPCODE" not in table(FLOWS, [{**FLOW, "traffic_type": "ip"}], Style())[0]
