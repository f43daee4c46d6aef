"""Questions about a Snapshot: options, filters, order, limits, and whose rows they are."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netmond import answers, query
from netmond.errors import InvalidArgs, LimitExceeded, NetmondError, NoSuchInterface, NoSuchUser
from netmond.model import COUNTERS, RATES, FlowKind, Snapshot, Table
from netmond.query import Query
from netmond.users import Names
from tests.bus.rdma import with_rdma
from tests.bus.snapshots import ALICE, BOB, address, numbers, small, table, texts

NAMES = Names(name_of=lambda uid: {ALICE: "alice", BOB: "bob"}[uid])


def ask(
    list_: str, viewer: int | None = None, snapshot: Snapshot | None = None, **options: Any
) -> answers.Answer:
    """Answer a query with options given as Python values."""
    asked = query.parse(
        list_, {name: (kind(value), value) for name, value in options.items() if name != "uid"}
    )
    if "uid" in options:
        asked = replace(asked, uid=options["uid"])
    return answers.select(snapshot or small(), asked, NAMES, viewer=viewer)


def kind(value: Any) -> str:
    """The D-Bus type that fits a test's option."""
    if isinstance(value, bool):
        return "b"
    if isinstance(value, np.uint16):
        return "q"
    return "u" if isinstance(value, int) else "s"


def ids(**options: Any) -> list[int]:
    """The flows that match, in order."""
    return [row["id"] for row in ask("flows", **options).rows]


def test_default_order_is_by_bytes() -> None:
    """Most bytes first; the total counts rows before the limit."""
    answer = ask("flows", limit=2)

    assert answer.total == 6
    assert [row["id"] for row in answer.rows] == [5, 4]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"unit": "app.service"}, [4, 1, 3]),
        ({"unit": "no.service"}, []),
        ({"pid": 101}, [1, 3]),
        ({"uid": BOB}, [4, 6]),
        ({"protocol": "udp"}, [5, 3]),
        ({"protocol": "TCP"}, [4, 1, 2]),
        ({"protocol": "17"}, [5, 3]),
        ({"protocol": "icmp"}, []),
        ({"port": np.uint16(443)}, [4, 1]),
        ({"port": np.uint16(40003)}, [2]),
        ({"peer": "192.0.2.7"}, [4, 1]),
        ({"peer": "192.0.2.0/24"}, [4, 1, 3]),
        ({"peer": "0.0.0.0/0"}, [5, 4, 1, 3]),
        ({"peer": "2001:db8::/32"}, [2]),
        ({"peer": "::/0"}, [2]),
        ({"peer": "::ffff:192.0.2.7"}, [4, 1]),
        ({"peer": "10.0.0.1"}, []),
        ({"peer": "198.51.100.0/24"}, [5]),
        ({"interface": "veth7"}, [5]),
        ({"interface": "lo"}, []),
        ({"kind": "peer"}, [3]),
        ({"kind": "overflow"}, [6]),
        ({"active": True}, [5, 4, 1]),
        ({"active": False}, [2, 6, 3]),
        ({"active": True, "protocol": "tcp", "uid": ALICE}, [1]),
    ],
)
def test_filters(options: dict[str, Any], expected: list[int]) -> None:
    """Each filter alone, its edges, and several together."""
    assert ids(**options) == expected


def test_filter_by_an_interface_that_is_not_there() -> None:
    """An error, not an empty answer."""
    with pytest.raises(NoSuchInterface, match="'eth9'"):
        ids(interface="eth9")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("id", [6, 5, 4, 3, 2, 1]),
        ("byte_rate", [4, 1, 5, 2, 3, 6]),
        ("first_seen", [6, 5, 4, 3, 2, 1]),
        ("kind", [5, 6, 3, 1, 2, 4]),
        ("protocol", [6, 1, 2, 4, 3, 5]),
        ("family", [2, 1, 3, 4, 5, 6]),
        ("remote", [6, 1, 4, 3, 5, 2]),
        ("remote_port", [5, 3, 1, 4, 2, 6]),
        ("interface", [6, 1, 2, 3, 4, 5]),
        ("process", [5, 6, 1, 3, 2, 4]),
        ("unit", [5, 1, 3, 4, 6, 2]),
        ("ended", [3, 1, 2, 4, 5, 6]),
    ],
)
def test_sort_keys(key: str, expected: list[int]) -> None:
    """Numbers descending, text ascending, ties in the table's order; the same with a limit, and reversed."""
    assert ids(sort=key) == expected
    assert ids(sort=key, limit=3) == expected[:3]
    values = {row["id"]: row[key] for row in ask("flows", sort=key).rows}
    backwards = ids(sort=key, reverse=True)
    assert [values[i] for i in backwards] == [values[i] for i in reversed(expected)]


def test_every_row_key_sorts() -> None:
    """Whatever a row has can be sorted by, in every list; anything else is refused with the keys."""
    for list_ in query.OPTIONS:
        snapshot = with_rdma(small())
        keys = {key for row in ask(list_, snapshot=snapshot).rows for key in row} - {"classes"}
        for key in keys:
            assert len(list(ask(list_, snapshot=snapshot, sort=key, limit=1).rows)) == 1
        with pytest.raises(InvalidArgs, match=min(keys)):
            ask(list_, snapshot=snapshot, sort="beauty")


def test_ties_at_the_limit_are_kept_in_order() -> None:
    """Cutting among equal rows takes the first ones, as the full order has them."""
    snapshot = replace(
        small(), users=table([7] * 101, uid=numbers("u4", *range(101)), flows=numbers("u4", *[1] * 101))
    )

    for limit in (1, 50, 100, 101):
        assert [row["uid"] for row in ask("users", snapshot=snapshot, limit=limit).rows] == list(
            range(limit)
        )


def test_counters_near_the_top_of_their_range() -> None:
    """64-bit counters sort as unsigned numbers."""
    users = table([0, 0, 0], uid=numbers("u4", 1, 2, 3), flows=numbers("u4", 1, 1, 1))
    users.counters[:, 1] = [1, (1 << 64) - 2, 1 << 63]
    snapshot = replace(small(), users=users)

    assert [row["uid"] for row in ask("users", snapshot=snapshot, sort="in_bytes", limit=2).rows] == [2, 3]
    (first,) = ask("users", snapshot=snapshot, sort="in_bytes", limit=1).rows
    assert first["in_bytes"] == (1 << 64) - 2


def test_figures_of_a_row() -> None:
    """Eight counters, four rates and the two sums, as Python numbers."""
    (row,) = ask("users", limit=1, sort="uid", reverse=True).rows

    assert (row["uid"], row["user"], row["flows"]) == (ALICE, "alice", 3)
    assert [row[name] for name in COUNTERS] == [33, 3333, 34, 363, 33, 3201, 34, 231]
    assert [row[name] for name in RATES] == [1.5] * 4
    assert (row["bytes"], row["byte_rate"]) == (3696, 3.0)
    assert {type(value) for value in row.values()} == {int, float, str}


def test_addresses() -> None:
    """IPv4 and IPv6 as text with their family; empty for any address; nobody's rows have no user."""
    rows = {row["id"]: row for row in ask("flows").rows}

    assert (rows[1]["local"], rows[1]["remote"], rows[1]["family"]) == ("10.0.0.1", "192.0.2.7", 4)
    assert (rows[2]["local"], rows[2]["remote"], rows[2]["family"]) == ("2001:db8::1", "2001:db8::7", 6)
    assert (rows[3]["local"], rows[3]["family"]) == ("", 4)
    assert (rows[6]["local"], rows[6]["remote"], rows[6]["family"]) == ("", "", 0)
    assert "uid" not in rows[5]
    assert "user" not in rows[5]
    assert rows[6]["interface"] == ""
    assert rows[5]["unit"] == ""


def test_viewer_sees_own_rows_only() -> None:
    """Alice: her flows, processes and user row; nothing of bob, of nobody, whatever she filters by."""
    assert sorted(row["id"] for row in ask("flows", viewer=ALICE).rows) == [1, 2, 3]
    assert [row["uid"] for row in ask("users", viewer=ALICE).rows] == [ALICE]
    assert sorted(row["pid"] for row in ask("processes", viewer=ALICE).rows) == [101, 103]
    assert list(ask("flows", viewer=ALICE, uid=BOB).rows) == []
    assert list(ask("flows", viewer=ALICE, pid=201).rows) == []
    assert list(ask("units", viewer=ALICE, unit="cron.service").rows) == []


def test_units_of_a_viewer_hold_no_one_elses_figures() -> None:
    """app.service served alice and bob: all of it for who may see all, else each one's own part."""

    def packets(**options: Any) -> dict[str, int]:
        return {row["unit"]: row["in_packets"] for row in ask("units", **options).rows}

    assert packets() == {"app.service": 57, "ssh.scope": 7, "cron.service": 5}
    assert packets(viewer=ALICE) == {"app.service": 26, "ssh.scope": 7}
    assert packets(viewer=BOB) == {"app.service": 31, "cron.service": 5}
    assert packets(uid=BOB) == {"app.service": 31, "cron.service": 5}
    assert packets(pid=103) == {"ssh.scope": 7}
    assert packets(viewer=ALICE, unit="app.service") == {"app.service": 26}
    assert packets(viewer=7919) == {}


def test_own_units_keep_slice_and_cgroup() -> None:
    """They are looked up; a unit that is gone from the table has none."""
    snapshot = small()
    gone = replace(
        snapshot, units=table([], unit=texts(), slice=texts(), cgroup=texts(), flows=numbers("u4"))
    )

    (row, _) = ask("units", viewer=ALICE).rows
    (lost, _) = ask("units", viewer=ALICE, snapshot=gone).rows

    assert (row["slice"], row["cgroup"], row["flows"]) == ("system.slice", "/system.slice/app.service", 2)
    assert (lost["slice"], lost["cgroup"]) == ("", "")


def test_interfaces() -> None:
    """All links by name; sorting by a counter puts those without any last."""
    rows = list(ask("interfaces").rows)

    assert [row["name"] for row in rows] == ["eth0", "lo", "veth7"]
    assert [row["name"] for row in ask("interfaces", sort="name", reverse=True).rows] == [
        "veth7",
        "lo",
        "eth0",
    ]
    assert [row["name"] for row in ask("interfaces", sort="bytes", limit=1).rows] == ["eth0"]
    assert [row["name"] for row in ask("interfaces", monitored=False).rows] == ["lo", "veth7"]
    assert (rows[2]["reason"], rows[2]["kernel_rx_packets"]) == ("no tc here", 0)
    assert "in_bytes" not in rows[2]


def test_user_detail() -> None:
    """Peers are summed over flows; what has no address is in none of them."""
    detail = answers.user_detail(small(), BOB, 0, NAMES)

    assert detail["flow_count"] == 2
    assert [(peer["address"], peer["in_packets"]) for peer in detail["peers"]] == [("192.0.2.7", 31)]
    assert [flow["id"] for flow in detail["flows"]] == [4, 6]
    with pytest.raises(NoSuchUser):
        answers.user_detail(small(), 7919, 0, NAMES)


def test_peers_are_summed_by_address() -> None:
    """Two flows to one address are one peer with the sum of both, whatever lies between them."""
    base = small().flows
    columns = dict(base.columns) | {
        "remote": np.frombuffer(
            b"".join(map(address, ["192.0.2.7", "", "192.0.2.9", "192.0.2.7", "", ""])), "V16"
        ),
        "uid": numbers("u4", *[ALICE] * 6),
    }
    snapshot = replace(small(), flows=Table(columns=columns, counters=base.counters, rates=base.rates))

    peers = answers.user_detail(snapshot, ALICE, 0, NAMES)["peers"]

    assert [(peer["address"], peer["flows"], peer["in_packets"], peer["byte_rate"]) for peer in peers] == [
        ("192.0.2.7", 2, 54, 8.0),
        ("192.0.2.9", 1, 3, 0.0),
    ]


def test_empty_snapshot() -> None:
    """Before the first tick every list is empty and Describe works."""
    full = small()
    empty = replace(
        full,
        **{
            name: Table.empty(**getattr(full, name).columns)
            for name in ("users", "units", "processes", "flows", "interfaces", "targets")
        },
        links={},
    )

    for list_ in query.OPTIONS:
        for key in ("bytes", "in_packets") if list_ != "rdma_counters" else ("total",):
            assert list(ask(list_, snapshot=empty, sort=key).rows) == []
            assert list(ask(list_, snapshot=empty, sort=key, limit=0).rows) == []
    assert list(ask("units", snapshot=empty, viewer=ALICE).rows) == []
    assert answers.describe(empty, "1")["totals"]["bytes"] == 0


def test_describe_is_json() -> None:
    """Plain values only."""
    status = json.loads(json.dumps(answers.describe(small(), "7.11.13")))

    assert status["totals"]["bytes"] == 3696 + 4032
    assert (status["started"], status["since"], status["time"]) == (1900.5, 1000.25, 2005.0)
    assert [row["name"] for row in status["interfaces"]] == ["eth0", "lo", "veth7"]


def test_more_rows_than_an_answer_holds() -> None:
    """Refused with the number that matched; a limit or a filter makes it possible."""
    count = answers.MAX_ROWS + 1
    users = table([1] * count, uid=numbers("u4", *range(count)), flows=numbers("u4", *[1] * count))
    snapshot = replace(small(), users=users)

    for limit in (0, count):
        with pytest.raises(LimitExceeded, match=str(count)):
            ask("users", snapshot=snapshot, limit=limit)
    assert len(list(ask("users", snapshot=snapshot, limit=answers.MAX_ROWS).rows)) == answers.MAX_ROWS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::/0", "::/0"),
    ],
)
def test_networks(text: str, expected: str) -> None:
    """Every spelling has one form, in which netmond shows it."""
    assert query.network_text(query.parse_network(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "example.org", "192.0.2", "192.0.2.1/33", "10.0.0.1/8", "fe80::1%eth0", "1" * 5000, "::1\n"]
)
def test_malformed_networks(text: str) -> None:
    """InvalidArgs in one line of sane length."""
    with pytest.raises(InvalidArgs) as caught:
        query.parse_network(text)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 150


def test_check_options() -> None:
    """Values come back; an option where none is allowed, and a type that is wrong, are said."""
    assert query.check_options({"a": "s", "b": "u"}, {"b": ("u", 7)}) == {"b": 7}
    with pytest.raises(InvalidArgs, match="no option is allowed"):
        query.check_options({}, {"b": ("u", 7)})
    with pytest.raises(InvalidArgs, match="has D-Bus type 'i'"):
        query.check_options({"b": "u"}, {"b": ("i", 7)})


def test_parse_names_every_filter() -> None:
    """Options become the fields of a Query of the same name."""
    asked = query.parse(
        "flows", {"kind": ("s", "peer"), "port": ("q", 53), "user": ("s", "alice"), "limit": ("u", 7)}
    )

    assert asked == Query(list="flows", sort="bytes", kind=FlowKind.PEER, port=53, user="alice", limit=7)


def test_errors_are_netmonds() -> None:
    """Whatever is wrong with options is a NetmondError, never another exception."""
    strange: list[tuple[str, Any]] = [("s", ""), ("s", "\0"), ("s", "x" * 10_000), ("d", 1.5), ("as", [])]
    refused = 0

    for list_, allowed in query.OPTIONS.items():
        for name in (*allowed, "colour"):
            for value in strange:
                with suppress(NetmondError):
                    asked = query.parse(list_, {name: value})
                    list(answers.select(with_rdma(small()), asked, NAMES).rows)
                    refused -= 1
                refused += 1

    assert refused > 150
