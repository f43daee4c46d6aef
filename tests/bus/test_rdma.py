"""RDMA on the bus: the documented types, and that everybody sees devices but only their own use of them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from netmond.bus import names
from netmond.model import NOBODY_UID
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, code
from tests.bus.rdma import ADAPTER, CAROL, ETHERNET, SOFT, with_rdma
from tests.bus.snapshots import ALICE, BOB, small

OPTIONS = ("a{sv}",)

LISTS = (
    *("ListUsers", "ListUnits", "ListProcesses", "ListFlows"),
    *("ListQueuePairs", "ListRdmaPorts", "ListRdmaCounters"),
)

#: What tells of somebody who is not alice: numbers, names and addresses that only these rows have.
SECRETS = ("nccl", "train.service", "192.0.2.22", "fe80::2", str(NOBODY_UID), "ib_core")


@pytest.fixture
def host(host: Host) -> Host:
    """The service over a snapshot with RDMA."""
    host.monitor.snapshot = with_rdma(small())
    return host


def types(host: Host, member: str, *options: str) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Types by key of rows and meta, as busctl, another implementation of D-Bus, reads them."""
    command = ["busctl", f"--address={host.bus.address}", "--json=short", "call", names.BUS_NAME]
    command += [names.ROOT_PATH, names.MANAGER, member, "a{sv}", str(len(options) // 3), *options]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    rows, meta = json.loads(done.stdout)["data"]
    return [{key: value["type"] for key, value in row.items()} for row in rows], {
        key: value["type"] for key, value in meta.items()
    }


def by_type(row: dict[str, str]) -> dict[str, set[str]]:
    """The keys of each type."""
    return {kind: {key for key, value in row.items() if value == kind} for kind in row.values()}


def test_types_of_ports(host: Host) -> None:
    """As the interface description has them; addresses are rows in the row."""
    (row, *_), meta = types(host, "ListRdmaPorts")

    assert by_type(row) == {
        "s": {
            *(
                "device",
                "link_layer",
                "state",
                "physical_state",
                "netdev",
                "node_guid",
                "firmware",
                "driver",
            ),
        },
        "u": {"port", "lid"},
        "t": {"speed", "in_packets", "in_bytes", "out_packets", "out_bytes", "bytes", "errors"},
        "d": {"in_packet_rate", "in_byte_rate", "out_packet_rate", "out_byte_rate", "byte_rate"},
        "aa{sv}": {"gids"},
    }
    assert meta == {
        "scope": "s", "total": "u", "time": "d", "interval": "d", "since": "d", "tick": "t",
        "rdma_time": "d", "rdma_interval": "d",
    }  # fmt: skip


def test_types_of_counters(host: Host) -> None:
    """A counter's total has 64 bits, unlike the number of rows in meta."""
    (row, *_), meta = types(host, "ListRdmaCounters")

    assert by_type(row) == {
        "s": {"device", "group", "counter", "unit", "kind", "meaning"},
        "u": {"port"},
        "t": {"value", "total"},
        "d": {"rate"},
    }
    assert meta["total"] == "u"


def test_types_of_queue_pairs_users_and_flows(host: Host) -> None:
    """Numbers of queue pairs are 32 bits, partition keys 16."""
    (queue_pair, *_), _ = types(host, "ListQueuePairs")
    (user, *_), _ = types(host, "ListUsers")
    (flow,), _ = types(host, "ListFlows", "traffic_type", "s", "roce_v1")

    assert by_type(queue_pair)["u"] == {"port", "queue_pair", "remote_queue_pair", "pid", "uid"}
    assert user["queue_pairs"] == "u"
    assert {user[f"{way}_bytes"] for way in ("rdma_in", "rdma_out", "total")} == {"t"}
    assert {user[key] for key in ("rdma_in_byte_rate", "total_byte_rate")} == {"d"}
    assert [flow[key] for key in ("opcode", "queue_pair", "partition_key", "sequence")] == [*"suqu"]


@pytest.mark.parametrize("who", ["alice", "bob", "member", "admin"])
def test_devices_are_for_everybody(host: Host, who: str, request: pytest.FixtureRequest) -> None:
    """Ports and counters tell of the machine, of no user: all see the same."""
    caller: Caller = request.getfixturevalue(who)

    ports, meta = caller.call("ListRdmaPorts", OPTIONS, {})
    counters, _ = caller.call("ListRdmaCounters", OPTIONS, {"device": ["s", ETHERNET]})

    assert [row["device"] for row in ports] == [ADAPTER, ETHERNET, SOFT]
    assert (meta["scope"], meta["total"], meta["rdma_time"]) == ("all", 3, 2004.5)
    assert len(counters) == 5


def test_queue_pairs_are_their_users(host: Host, alice: Caller, bob: Caller, admin: Caller) -> None:
    """Own ones for everybody, of all for those who may, with the scope in meta."""
    found = {}
    for name, caller in (("alice", alice), ("bob", bob), ("admin", admin)):
        rows, meta = caller.call("ListQueuePairs", OPTIONS, {})
        found[name] = meta["scope"], meta["total"], [row["queue_pair"] for row in rows]

    assert found == {
        "alice": ("own", 1, [0x11]),
        "bob": ("own", 0, []),
        "admin": ("all", 4, [0x12, 0x11, 0x81, 1]),
    }


def test_names_of_all_of_them(host: Host, admin: Caller) -> None:
    """Also of who uses nothing but RDMA, and from the first answer on."""
    queue_pairs, _ = admin.call("ListQueuePairs", OPTIONS, {})
    users, _ = admin.call("ListUsers", OPTIONS, {})

    assert {row["queue_pair"]: row.get("user") for row in queue_pairs} == {
        0x11: "games", 0x12: "proxy", 1: "root", 0x81: None,
    }  # fmt: skip
    assert {row["user"] for row in users} == {"games", "news", "proxy", "unknown"}


def test_unknown_is_shown_to_those_who_may_see_all(host: Host, alice: Caller, member: Caller) -> None:
    """The row of what nobody can be named for."""
    rows, _ = member.call("ListUsers", OPTIONS, {"sort": ["s", "uid"], "limit": ["u", 1]})
    own, meta = alice.call("ListUsers", OPTIONS, {})

    assert [(row["uid"], row["user"], row["rdma_in_packets"]) for row in rows] == [
        (NOBODY_UID, "unknown", 41)
    ]
    assert ([row["uid"] for row in own], meta["total"]) == ([ALICE], 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scope": ["s", "own"]},
        {"device": ["s", ADAPTER]},
        {"pid": ["u", 301]},
        {"pid": ["u", 0]},
        {"unit": ["s", "train.service"]},
        {"limit": ["u", 0], "sort": ["s", "user"]},
    ],
)
def test_nothing_of_others_in_queue_pairs(host: Host, alice: Caller, options: dict[str, Any]) -> None:
    """Neither rows nor numbers of others, whatever is asked for."""
    rows, meta = alice.call("ListQueuePairs", OPTIONS, options)

    assert {row["uid"] for row in rows} <= {ALICE}
    assert meta["total"] == len(rows)


def test_whatever_alice_asks_for_tells_nothing(host: Host, alice: Caller, admin: Caller) -> None:
    """Every list and detail, also sorted by what others have: the secrets are in root's answers only."""

    def answers(caller: Caller) -> str:
        texts = [caller.call("Describe")]
        for member in LISTS:
            texts.append(json.dumps(caller.call(member, OPTIONS, {"limit": ["u", 0]})))
        texts.append(json.dumps(caller.call("GetUser", ("u", *OPTIONS), ALICE, {})))
        return "".join(texts)

    assert [secret for secret in SECRETS if secret in answers(alice)] == []
    assert [secret for secret in SECRETS if secret not in answers(admin)] == []


def test_asking_for_others_is_refused(host: Host, alice: Caller) -> None:
    """By name, by scope, and by number, whether there is such a user or not."""
    for options in ({"scope": ["s", "all"]}, {"user": ["s", str(CAROL)]}, {"user": ["s", "root"]}):
        with pytest.raises(CallError, match="AccessDenied"):
            alice.call("ListQueuePairs", OPTIONS, options)
    for uid in (CAROL, NOBODY_UID, 7919):
        with pytest.raises(CallError, match="AccessDenied"):
            alice.call("GetUser", ("u", *OPTIONS), uid, {})


def test_a_user_of_rdma_alone_has_a_detail(host: Host, admin: Caller) -> None:
    """Though no socket of hers was ever seen; who has nothing of either has none."""
    detail = admin.call("GetUser", ("u", *OPTIONS), CAROL, {})

    assert (detail["uid"], detail["flow_count"], detail["queue_pairs"]) == (CAROL, 0, 1)
    assert detail["total_bytes"] == detail["rdma_in_bytes"] + detail["rdma_out_bytes"] == 3024
    for uid in (NOBODY_UID, 7919):
        with pytest.raises(CallError, match="NoSuchUser"):
            admin.call("GetUser", ("u", *OPTIONS), uid, {})


@pytest.mark.parametrize(
    ("member", "options", "error", "said"),
    [
        ("ListRdmaPorts", {"device": ["s", "mlx9_9"]}, "NotFound", "'mlx9_9'; see: netmonctl rdma"),
        ("ListRdmaPorts", {"scope": ["s", "own"]}, "InvalidArgs", "allowed are: all"),
        ("ListRdmaPorts", {"port": ["q", 1]}, "InvalidArgs", "must be 'u'"),
        ("ListRdmaCounters", {"kind": ["s", "beauty"]}, "InvalidArgs", "congestion"),
        ("ListRdmaCounters", {"colour": ["s", "red"]}, "InvalidArgs", "device, group, kind"),
        ("ListQueuePairs", {"device": ["s", ETHERNET], "port": ["u", 2]}, "NotFound", "no port 2 of"),
        ("ListQueuePairs", {"kind": ["s", "data"]}, "InvalidArgs", "unknown option 'kind'"),
        ("ListFlows", {"traffic_type": ["s", "roce"]}, "InvalidArgs", "ip, roce_v1, roce_v2"),
        ("ListUsers", {"sort": ["s", "rdma"]}, "InvalidArgs", "total_bytes"),
    ],
)
def test_errors(
    host: Host, admin: Caller, member: str, options: dict[str, Any], error: str, said: str
) -> None:
    """What is wrong, and what there is instead."""
    with pytest.raises(CallError) as caught:
        admin.call(member, OPTIONS, options)

    assert code(caught.value) == error
    assert said in caught.value.text


def test_users_by_all_they_exchanged(host: Host, admin: Caller) -> None:
    """total_bytes is a key like any other."""
    rows, _ = admin.call("ListUsers", OPTIONS, {"sort": ["s", "total_bytes"], "reverse": ["b", True]})

    assert [row["uid"] for row in rows] == [CAROL, BOB, NOBODY_UID, ALICE]
