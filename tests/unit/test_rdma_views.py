"""Lists of RDMA: ports, counters and queue pairs of a snapshot, and RDMA in the rows of users and flows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netmond import answers, query
from netmond.errors import InvalidArgs, NoSuchUser, NotFound
from netmond.model import NOBODY_UID, Rdma, Snapshot
from netmond.rdma import opcodes
from netmond.users import Names
from tests.bus.rdma import ADAPTER, CAROL, ETHERNET, SOFT, port, rdma, with_rdma
from tests.bus.snapshots import ALICE, BOB, numbers, small, table

NAMES = Names(name_of=lambda uid: {ALICE: "alice", BOB: "bob", CAROL: "carol", 0: "root"}[uid])


def ask(
    list_: str, *, viewer: int | None = None, snapshot: Snapshot | None = None, **options: tuple[str, Any]
) -> list[dict[str, Any]]:
    """The rows of a list. Options as (D-Bus type, value)."""
    asked = query.parse(list_, options)
    return list(answers.select(snapshot or with_rdma(small()), asked, NAMES, viewer=viewer).rows)


def having(snapshot: Snapshot, **more: Any) -> Snapshot:
    """The snapshot with other RDMA."""
    return replace(snapshot, rdma=replace(snapshot.rdma, **more))


class TestPorts:
    """ListRdmaPorts."""

    def test_a_row_in_full(self) -> None:
        """What the port is, and its figures since it is watched."""
        (row,) = ask("rdma_ports", device=("s", ADAPTER))

        assert row == {
            "device": ADAPTER, "port": 1, "link_layer": "InfiniBand", "state": "active",
            "physical_state": "link-up", "speed": 100_000_000_000, "lid": 194, "netdev": "",
            "node_guid": "b83f:d203:0012:3456", "firmware": "20.31.1014", "driver": "mlx5_core",
            "gids": [
                {"index": 0, "address": "fe80::ba3f:d203:12:3456", "type": "IB/RoCE v1", "netdev": ""}
            ],
            "in_packets": 5, "in_bytes": 2000, "out_packets": 7, "out_bytes": 1000,
            "in_packet_rate": 3.0, "in_byte_rate": 80.0, "out_packet_rate": 2.0, "out_byte_rate": 40.0,
            "bytes": 3000, "byte_rate": 120.0, "errors": 3,
        }  # fmt: skip

    def test_what_a_device_does_not_count_is_absent(self) -> None:
        """The Ethernet port counts data but no packets, the one of soft-RoCE here nothing."""
        _, ethernet, soft = ask("rdma_ports")

        assert ethernet["in_bytes"] == 20_000
        assert not {"in_packets", "out_packet_rate"} & ethernet.keys()
        assert not {"in_bytes", "in_packets", "bytes", "byte_rate", "errors"} & soft.keys()

    @pytest.mark.parametrize(
        ("counters", "expected"),
        [
            ({("hw_counters", "rcvd_pkts"): 7}, {"in_packets": 7}),
            ({("hw_counters", "ip4InPkts"): 7, ("hw_counters", "ip6InPkts"): 3}, {"in_packets": 10}),
            (
                {("hw_counters", "tx_bytes"): 11, ("hw_counters", "rx_bytes"): 2},
                {"out_bytes": 11, "bytes": 13},
            ),
            ({("counters", "port_rcv_data"): 5, ("hw_counters", "rx_bytes"): 2}, {"in_bytes": 5}),
            (
                {("counters", "port_rcv_errors"): 3, ("counters", "port_xmit_discards"): 4},
                {"errors": 7},
            ),
        ],
    )
    def test_where_figures_come_from(
        self, counters: dict[tuple[str, str], int], expected: dict[str, int]
    ) -> None:
        """Drivers have names of their own for what the specification has, too, which is preferred."""
        one = port(
            "x0", {name: (0, total, 0.5) for name, total in counters.items()}, link_layer="", state=""
        )

        (row,) = ask("rdma_ports", snapshot=having(small(), ports=(one,)))

        assert {key: row[key] for key in expected} == expected

    def test_order(self) -> None:
        """By device and port, unless something else is asked for."""
        second = replace(rdma().ports[0], port=2)
        snapshot = having(small(), ports=(second, *rdma().ports[::-1]))

        names = [(row["device"], row["port"]) for row in ask("rdma_ports", snapshot=snapshot)]
        rates = [row["device"] for row in ask("rdma_ports", snapshot=snapshot, sort=("s", "in_byte_rate"))]

        assert names == [(ADAPTER, 1), (ADAPTER, 2), (ETHERNET, 1), (SOFT, 1)]
        assert rates == [ETHERNET, ADAPTER, ADAPTER, SOFT]

    @pytest.mark.parametrize("list_", ["rdma_ports", "rdma_counters", "queue_pairs"])
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"device": ("s", "mlx9_0")}, "RDMA device 'mlx9_0'"),
            ({"device": ("s", ADAPTER), "port": ("u", 2)}, f"port 2 of RDMA device '{ADAPTER}'"),
            ({"port": ("u", 7)}, "port 7 of any RDMA device"),
        ],
    )
    def test_a_port_that_is_not_there(self, list_: str, options: dict[str, Any], said: str) -> None:
        """An error that says what is missing, and how to find out what is there."""
        with pytest.raises(NotFound, match=f"there is no {said}; see: netmonctl rdma"):
            ask(list_, **options)

    def test_no_device_at_all(self) -> None:
        """Lists are empty, and the reading has no time."""
        for list_ in ("rdma_ports", "rdma_counters", "queue_pairs"):
            assert ask(list_, snapshot=small()) == []
        assert answers.rdma_meta(small(), "all", 0)["rdma_time"] == 0

    def test_meta_tells_the_reading(self) -> None:
        """Devices are read at other times than everything else, and counted since the daemon's start."""
        meta = answers.rdma_meta(replace(with_rdma(small()), since=5.0, started=1500.0), "all", 3)

        assert (meta["time"], meta["interval"]) == (2005.0, 1.25)
        assert (meta["rdma_time"], meta["rdma_interval"], meta["since"]) == (2004.5, 0.75, 1500.0)


class TestCounters:
    """ListRdmaCounters."""

    def test_a_row_in_full(self) -> None:
        """What the device said, what it grew by in a unit for people, and what it means."""
        row = ask("rdma_counters", device=("s", ETHERNET), kind=("s", "data"))[0]

        assert "port" in row.pop("meaning")
        assert row == {
            "device": ETHERNET, "port": 1, "group": "counters", "counter": "port_rcv_data", "value": 5000,
            "total": 20_000, "rate": 800.0, "unit": "bytes", "kind": "data",
        }  # fmt: skip

    def test_order_and_filters(self) -> None:
        """By device, port, group and name; filters leave a group, or counters of one kind."""
        everything = [(row["device"], row["group"], row["counter"]) for row in ask("rdma_counters")]
        hardware = ask("rdma_counters", group=("s", "hw_counters"))

        assert everything == sorted(everything)
        assert len(everything) == 10
        assert {row["device"] for row in hardware} == {ETHERNET}
        assert [row["counter"] for row in ask("rdma_counters", sort=("s", "total"), limit=("u", 2))] == [
            "port_rcv_data", "port_xmit_data",
        ]  # fmt: skip

    def test_a_counter_that_nobody_knows(self) -> None:
        """Is shown all the same."""
        rows = {row["counter"]: row for row in ask("rdma_counters", kind=("s", "other"))}

        row = rows["made_up_by_a_driver"]
        assert (row["total"], row["unit"], row["kind"]) == (28, "events", "other")

    @pytest.mark.parametrize(
        ("option", "value", "said"), [("kind", "beauty", "congestion"), ("group", "data", "hw_counters")]
    )
    def test_a_kind_or_group_that_does_not_exist(self, option: str, value: str, said: str) -> None:
        """Is an error that names those there are."""
        options: dict[str, Any] = {option: ("s", value)}

        with pytest.raises(InvalidArgs, match=said):
            ask("rdma_counters", **options)

    def test_counters_near_the_top_of_their_range(self) -> None:
        """64 bits, unsigned."""
        top = (1 << 64) - 1
        one = port("x0", {("counters", "port_rcv_data"): (top, top, 0.0)}, link_layer="", state="")

        (row,) = ask("rdma_counters", snapshot=having(small(), ports=(one,)))

        assert (row["value"], row["total"]) == (top, top)


class TestQueuePairs:
    """ListQueuePairs."""

    def test_a_row_in_full(self) -> None:
        """Both numbers, the owner, and four counters: the network stack has nothing to do with it."""
        (row,) = ask("queue_pairs", unit=("s", "ssh.scope"))

        assert row == {
            "device": ETHERNET, "port": 1, "queue_pair": 0x11, "remote_queue_pair": 0x21, "type": "RC",
            "state": "RTS", "pid": 103, "process": "ib_write_bw", "uid": ALICE, "user": "alice",
            "unit": "ssh.scope", "source": "wire", "in_packets": 20, "in_bytes": 2020, "out_packets": 21,
            "out_bytes": 220, "in_packet_rate": 1.5, "in_byte_rate": 1.5, "out_packet_rate": 1.5,
            "out_byte_rate": 1.5, "bytes": 2240, "byte_rate": 3.0,
        }  # fmt: skip

    def test_unknown_owners(self) -> None:
        """Have no user; the kernel's belong to root and name the module."""
        rows = {row["queue_pair"]: row for row in ask("queue_pairs")}

        assert not {"uid", "user"} & rows[0x81].keys()
        assert (rows[1]["user"], rows[1]["pid"], rows[1]["process"]) == ("root", 0, "ib_core")

    def test_a_viewer_sees_the_own_ones(self) -> None:
        """No filter shows another's, or one that is nobody's."""
        assert [row["queue_pair"] for row in ask("queue_pairs", viewer=ALICE)] == [0x11]
        assert ask("queue_pairs", viewer=BOB) == []
        assert ask("queue_pairs", viewer=ALICE, device=("s", ADAPTER)) == []
        assert ask("queue_pairs", viewer=ALICE, pid=("u", 301)) == []


class TestUsers:
    """RDMA beside IP in ListUsers and GetUser."""

    def test_figures_stand_beside_those_of_ip(self) -> None:
        """And the sum over both is a key of its own."""
        (row,) = ask("users", viewer=ALICE)

        assert (row["in_bytes"], row["out_bytes"], row["bytes"]) == (3333, 363, 3696)
        assert (row["rdma_in_packets"], row["rdma_in_bytes"]) == (21, 2121)
        assert (row["rdma_out_packets"], row["rdma_out_bytes"]) == (22, 231)
        assert (row["queue_pairs"], row["flows"]) == (1, 3)
        assert row["total_bytes"] == 3696 + 2121 + 231
        assert (row["rdma_in_byte_rate"], row["rdma_out_byte_rate"], row["total_byte_rate"]) == (
            1.5,
            1.5,
            6.0,
        )

    def test_who_uses_rdma_only_and_who_does_not(self) -> None:
        """Both have a row with all of the keys."""
        rows = {row["user"]: row for row in ask("users")}

        assert rows.keys() == {"alice", "bob", "carol", "unknown"}
        assert rows["bob"].keys() == rows["carol"].keys()
        assert (rows["bob"]["queue_pairs"], rows["bob"]["rdma_in_bytes"]) == (0, 0)
        assert rows["bob"]["total_bytes"] == rows["bob"]["bytes"] == 4032
        assert (rows["carol"]["flows"], rows["carol"]["bytes"], rows["carol"]["total_bytes"]) == (0, 0, 3024)

    def test_unknown_is_a_row(self) -> None:
        """With the number of nobody; not for viewers, and not without anything in it."""
        unknown = ask("users", sort=("s", "uid"))[0]
        none = table([0], uid=numbers("u4", NOBODY_UID), queue_pairs=numbers("u4", 0))

        assert (unknown["uid"], unknown["user"], unknown["rdma_in_packets"]) == (NOBODY_UID, "unknown", 41)
        assert [row["user"] for row in ask("users", viewer=CAROL)] == ["carol"]
        none.counters[:] = 0
        rows = ask("users", snapshot=having(small(), users=none))
        assert [row["user"] for row in rows] == ["bob", "alice"]
        one = replace(none, columns={**none.columns, "queue_pairs": numbers("u4", 1)})
        assert len(ask("users", snapshot=having(small(), users=one))) == 3

    def test_order_by_the_sum(self) -> None:
        """total_bytes sorts as any other."""
        assert [row["user"] for row in ask("users", sort=("s", "total_bytes"))] == [
            "alice", "unknown", "bob", "carol",
        ]  # fmt: skip

    def test_columns_are_as_long_as_the_table(self) -> None:
        """Whatever users there are on either side, in whatever order: each one's figures, once."""
        random = np.random.default_rng(3)
        for _ in range(50):
            ours, theirs = (random.permutation(40)[: random.integers(0, 40)] + 1 for _ in range(2))
            users = table([*ours], uid=ours.astype("u4"), flows=np.ones(len(ours), "u4"))
            more = table([*theirs], uid=theirs.astype("u4"), queue_pairs=np.ones(len(theirs), "u4"))
            snapshot = replace(small(), users=users, rdma=Rdma(users=more))
            names = Names(name_of=str)
            asked = query.Query(list="users", sort="uid", limit=0)
            rows = answers.select(snapshot, asked, names).rows

            found = {row["uid"]: (row["in_packets"], row["rdma_in_packets"]) for row in rows}

            assert found == {
                uid: (uid * (uid in ours), uid * (uid in theirs))
                for uid in {*ours.tolist(), *theirs.tolist()}
            }

    def test_detail(self) -> None:
        """GetUser has the same keys, for those of RDMA alone, too; flows of RoCE are among the flows."""
        snapshot = with_rdma(small())

        carol = answers.user_detail(snapshot, CAROL, 0, NAMES)
        alice = answers.user_detail(snapshot, ALICE, 0, NAMES)

        assert (carol["flow_count"], carol["queue_pairs"], carol["flows"]) == (0, 1, [])
        assert alice["total_bytes"] == 6048
        assert {7, 8} <= {flow["id"] for flow in alice["flows"]}
        assert "192.0.2.21" in [peer["address"] for peer in alice["peers"]]

    def test_nobody_is_no_user_to_ask_for(self) -> None:
        """What is unknown has no detail: forwarded flows are nobody's as well."""
        with pytest.raises(NoSuchUser):
            answers.user_detail(with_rdma(small()), NOBODY_UID, 0, NAMES)


class TestFlows:
    """RoCE in ListFlows."""

    def test_what_a_row_of_roce_has(self) -> None:
        """Opcode by name, the destination's queue pair, key of the partition, last sequence number."""
        row = {row["id"]: row for row in ask("flows")}[7]

        assert (row["kind"], row["traffic_type"], row["protocol"]) == ("roce", "roce_v2", "udp")
        assert (row["local_port"], row["remote_port"]) == (0, 4791)
        assert (row["opcode"], row["queue_pair"]) == ("RC_RDMA_WRITE_ONLY", 0x21)
        assert (row["partition_key"], row["sequence"]) == (0xFFFF, 1009)
        assert (row["user"], row["process"], row["unit"]) == ("alice", "ib_write_bw", "ssh.scope")

    def test_version_1(self) -> None:
        """Has GIDs for addresses, and neither protocol nor ports."""
        row = {row["id"]: row for row in ask("flows")}[9]

        assert (row["traffic_type"], row["protocol"], row["family"]) == ("roce_v1", "0", 6)
        assert (row["local"], row["remote"], row["local_port"]) == ("fe80::1", "fe80::2", 0)
        assert row["opcode"] == "UC_SEND_ONLY"

    def test_flows_of_ip_have_none_of_it(self) -> None:
        """But all have the type of traffic."""
        keys = {"opcode", "queue_pair", "partition_key", "sequence"}

        for row in ask("flows"):
            assert (row["traffic_type"] == "ip") == (not keys & row.keys())

    def test_a_reserved_opcode(self) -> None:
        """Is a number."""
        assert {row["id"]: row for row in ask("flows")}[10]["opcode"] == "31"

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"traffic_type": "roce_v2"}, {7, 8, 10, 11}),
            ({"traffic_type": "roce_v1"}, {9}),
            ({"traffic_type": "ip"}, {1, 2, 3, 4, 5, 6}),
            ({"kind": "roce"}, {7, 8, 9, 10}),
            ({"kind": "forwarded", "traffic_type": "roce_v2"}, {11}),
            ({"peer": "192.0.2.21"}, {7, 8}),
            ({"protocol": "udp", "kind": "roce"}, {7, 8, 10}),
        ],
    )
    def test_filters(self, options: dict[str, str], expected: set[int]) -> None:
        """By type of traffic, by kind, and by what IP has, too."""
        given: dict[str, Any] = {name: ("s", value) for name, value in options.items()}

        assert {row["id"] for row in ask("flows", **given)} == expected

    def test_order_by_opcode(self) -> None:
        """Rows without one come first, in their order; then by name."""
        rows = ask("flows", sort=("s", "opcode"))

        assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6, 10, 11, 8, 7, 9]

    def test_an_unknown_type(self) -> None:
        """Is an error that names those there are."""
        with pytest.raises(InvalidArgs, match="ip, roce_v1, roce_v2"):
            ask("flows", traffic_type=("s", "infiniband"))

    def test_a_viewer_sees_the_own_ones(self) -> None:
        """Neither others' nor those of nobody."""
        assert {row["id"] for row in ask("flows", viewer=ALICE)} == {1, 2, 3, 7, 8}
        assert {row["id"] for row in ask("flows", viewer=BOB)} == {4, 6, 9}


@pytest.mark.parametrize(
    ("opcode", "name"),
    [
        (0x00, "RC_SEND_FIRST"),
        (0x05, "RC_SEND_ONLY_WITH_IMMEDIATE"),
        (0x08, "RC_RDMA_WRITE_LAST"),
        (0x10, "RC_RDMA_READ_RESPONSE_ONLY"),
        (0x11, "RC_ACKNOWLEDGE"),
        (0x14, "RC_FETCH_ADD"),
        (0x15, "21"),
        (0x17, "RC_SEND_ONLY_WITH_INVALIDATE"),
        (0x1D, "RC_ATOMIC_WRITE"),
        (0x2B, "UC_RDMA_WRITE_ONLY_WITH_IMMEDIATE"),
        (0x2C, "44"),
        (0x55, "RD_RESYNC"),
        (0x64, "UD_SEND_ONLY"),
        (0x65, "UD_SEND_ONLY_WITH_IMMEDIATE"),
        (0x60, "96"),
        (0x80, "128"),
        (0x81, "CNP"),
        (0xAA, "XRC_RDMA_WRITE_ONLY"),
        (0xFF, "255"),
    ],
)
def test_opcodes(opcode: int, name: str) -> None:
    """As in the specification's table; what is reserved there is a number."""
    assert opcodes.name(opcode) == name
