"""What the Manager answers: lists, details, properties, and an error for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from netmond.bus import names
from netmond.errors import ConfigError, LimitExceeded
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, code
from tests.bus.snapshots import ALICE, BOB

OPTIONS = ("a{sv}",)
TARGETS = ("as", "a{sv}")
LISTS = ("ListUsers", "ListUnits", "ListProcesses", "ListFlows", "ListInterfaces", "ListTargets")


def failure(caller: Caller, member: str, types: tuple[str, ...], *values: Any) -> tuple[str, str]:
    """Code and text of the error a call ends with."""
    with pytest.raises(CallError) as caught:
        caller.call(member, types, *values)
    return code(caught.value), caught.value.text


def test_list_flows_in_full(host: Host, admin: Caller) -> None:
    """A row has every documented key with its value, and meta says what the figures are over."""
    rows, meta = admin.call("ListFlows", OPTIONS, {"limit": ["u", 1], "pid": ["u", 201]})

    expected = {
        "id": 4, "kind": "socket", "traffic_type": "ip", "protocol": "tcp", "family": 4, "local": "10.0.0.1",
        "local_port": 40007, "remote": "192.0.2.7", "remote_port": 443, "interface": "eth0", "uid": BOB,
        "user": "news", "pid": 201, "process": "wget", "unit": "app.service", "first_seen": 1003.5,
        "last_seen": 2003.5, "srtt_us": 1900, "retransmits": 3, "ended": False, "in_packets": 31,
        "in_bytes": 3131, "out_packets": 32, "out_bytes": 341, "in_stack_packets": 31,
        "in_stack_bytes": 3007, "out_stack_packets": 32, "out_stack_bytes": 217, "in_packet_rate": 2.5,
        "in_byte_rate": 2.5, "out_packet_rate": 2.5, "out_byte_rate": 2.5, "bytes": 3472, "byte_rate": 5.0,
    }  # fmt: skip
    assert rows == [expected]
    assert meta == {
        "scope": "all", "total": 1, "time": 2005.0, "interval": 1.25, "since": 1000.25, "tick": 17,
    }  # fmt: skip


def test_row_types_are_the_documented_ones(host: Host, admin: Caller) -> None:
    """busctl, another implementation of D-Bus, reads the types the interface description promises."""
    command = ["busctl", f"--address={host.bus.address}", "--json=short", "call", names.BUS_NAME]
    command += [names.ROOT_PATH, names.MANAGER, "ListFlows", "a{sv}", "1", "limit", "u", "1"]

    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    (row,), meta = answer["data"]
    types = {key: value["type"] for key, value in row.items()}
    groups = {kind: {key for key, value in types.items() if value == kind} for kind in "sbquqd"}
    assert answer["type"] == "aa{sv}a{sv}"
    assert groups["q"] == {"local_port", "remote_port"}
    assert groups["u"] >= {"pid", "family", "srtt_us", "retransmits"}
    assert groups["b"] == {"ended"}
    assert groups["d"] >= {"first_seen", "last_seen", "in_byte_rate", "byte_rate"}
    assert groups["s"] >= {"kind", "protocol", "local", "remote", "interface", "process", "unit"}
    assert {types[key] for key in ("id", "in_packets", "out_stack_bytes", "bytes")} == {"t"}
    assert {key: value["type"] for key, value in meta.items()} == {
        "scope": "s", "total": "u", "time": "d", "interval": "d", "since": "d", "tick": "t",
    }  # fmt: skip


def test_names_reach_the_client_as_valid_text(host: Host, admin: Caller) -> None:
    """A command name with a byte that is no UTF-8 arrives with a replacement character."""
    rows, _ = admin.call("ListProcesses", OPTIONS, {"pid": ["u", 103]})

    assert [row["process"] for row in rows] == ["ssh\N{REPLACEMENT CHARACTER}"]


def test_list_interfaces(host: Host, admin: Caller) -> None:
    """Every interface is there by name; only monitored ones have figures and classes."""
    rows, meta = admin.call("ListInterfaces", OPTIONS, {})

    assert [(row["name"], "in_bytes" in row) for row in rows] == [
        ("eth0", True),
        ("lo", False),
        ("veth7", False),
    ]
    assert rows[0]["classes"] == {"in_ipv4_packets": 61, "in_ipv4_bytes": 6100}
    assert rows[0]["kernel_rx_packets"] == 73
    assert meta["total"] == 3


def test_list_books(host: Host, admin: Caller) -> None:
    """A row for each line, in order; amounts are signed."""
    rows, meta = admin.call("ListBooks", OPTIONS, {"interface": ["s", "eth0"]})

    books = [(row["line"], row["layer"], row["line_packets"], row["line_bytes"]) for row in rows]
    assert books[: books.index(("wire", "tc", 5, 570)) + 1] == [
        ("kernel", "driver", 5, 500),
        ("users", "sockets", 3, 300),
        ("system", "tc", 1, 100),
        ("link", "tc", 0, 70),
        ("headers", "driver", 0, -70),
        ("unattributed", "", 1, 100),
        ("wire", "tc", 5, 570),
    ]
    assert {(row["interface"], row["index"], row["since"]) for row in rows} == {("eth0", 2, 1700.5)}
    assert [row["direction"] for row in rows] == ["in"] * 7 + ["out"] * 4
    assert meta["total"] == 11


def test_books_of_what_is_not_monitored(host: Host, admin: Caller) -> None:
    """Says what to do; of an interface that there is not, that."""
    for name, error in (("lo", "InvalidArgs"), ("nosuch", "NoSuchInterface")):
        with pytest.raises(CallError, match=error):
            admin.call("ListBooks", OPTIONS, {"interface": ["s", name]})


def test_list_targets_names_their_objects(host: Host, admin: Caller) -> None:
    """The path in a row is where the target's object lives."""
    (path,) = admin.call("AddTargets", TARGETS, ["192.0.2.7"], {})

    rows, _ = admin.call("ListTargets", OPTIONS, {})

    assert [(row["address"], row["path"], row["since"]) for row in rows] == [("192.0.2.7", path, 1500.5)]


def test_get_user_in_detail(host: Host, admin: Caller) -> None:
    """The row of a user, the number of flows renamed, and the top peers, units, processes and flows."""
    user = admin.call("GetUser", ("u", "a{sv}"), ALICE, {"limit": ["u", 2]})

    assert (user["uid"], user["flow_count"], user["in_packets"]) == (ALICE, 3, 33)
    assert [(peer["address"], peer["flows"], peer["in_packets"]) for peer in user["peers"]] == [
        ("192.0.2.7", 1, 23),
        ("2001:db8::7", 1, 7),
    ]
    assert [unit["unit"] for unit in user["units"]] == ["app.service", "ssh.scope"]
    assert [process["pid"] for process in user["processes"]] == [101, 103]
    assert [flow["id"] for flow in user["flows"]] == [1, 2]


def test_describe_is_json_without_users(host: Host, admin: Caller) -> None:
    """Describe holds the whole status and no figure of a single user."""
    status = json.loads(admin.call("Describe"))

    assert status["version"] == "7.11.13"
    assert status["features"][1] == {
        "name": "journal",
        "state": "off",
        "reason": "no journal; start systemd-journald",
    }
    assert status["losses"] == [{"name": "meter.no-slot", "count": 13, "meaning": "flows without a slot"}]
    assert (status["users"], status["flows"], status["targets"]) == (2, 6, 1)
    assert status["totals"]["in_packets"] == 69
    assert status["cost"] == {"cpu_seconds": 1.5, "resident_bytes": 40_000_000, "tick_seconds": 0.003}
    assert "uid" not in json.dumps(status)


def test_properties(host: Host, admin: Caller) -> None:
    """Get and GetAll agree on every property."""
    admin.call("AddTargets", TARGETS, ["192.0.2.7", "192.0.2.11"], {})
    expected = {
        "Version": "7.11.13",
        "Started": 1900500000,
        "Since": 1000250000,
        "Features": [["meter", "on", ""], ["journal", "off", "no journal; start systemd-journald"]],
        "Losses": {"meter.no-slot": 13},
        "TargetCount": 2,
        "FlowCount": 6,
        "UserCount": 2,
    }

    assert admin.call("GetAll", ("s",), names.MANAGER, interface=names.PROPERTIES) == expected
    assert {name: admin.get(name) for name in expected} == expected
    assert admin.get("Version", interface="") == "7.11.13"


@pytest.mark.parametrize("member", LISTS)
def test_unknown_option_is_named_with_the_allowed_ones(host: Host, admin: Caller, member: str) -> None:
    """InvalidArgs says which option it was and which there are."""
    error, text = failure(admin, member, OPTIONS, {"colour": ["s", "red"]})

    assert error == "InvalidArgs"
    assert "'colour'" in text
    assert "limit, " in text


@pytest.mark.parametrize(
    ("member", "option", "value", "said"),
    [
        ("ListUsers", "limit", ["i", 5], "must be 'u'"),
        ("ListUsers", "sort", ["u", 5], "must be 's'"),
        ("ListUsers", "sort", ["s", "beauty"], "'beauty'"),
        ("ListUsers", "scope", ["s", "mine"], "own, all"),
        ("ListUsers", "user", ["s", "root"], "unknown option 'user'"),
        ("ListTargets", "scope", ["s", "own"], "allowed are: all"),
        ("ListFlows", "port", ["u", 443], "must be 'q'"),
        ("ListFlows", "protocol", ["s", "256"], "unknown protocol"),
        ("ListFlows", "protocol", ["s", "warp"], "udplite"),
        ("ListFlows", "kind", ["s", "pear"], "peer"),
        ("ListFlows", "peer", ["s", "10.0.0.1/8"], "did you mean 10.0.0.0/8?"),
        ("ListFlows", "peer", ["s", "fe80::1%eth0"], "without it"),
        ("ListFlows", "active", ["s", "yes"], "must be 'b'"),
        ("ListInterfaces", "monitored", ["u", 1], "must be 'b'"),
    ],
)
def test_bad_option(host: Host, admin: Caller, member: str, option: str, value: Any, said: str) -> None:
    """Each wrong value or type is InvalidArgs with the remedy in one line."""
    error, text = failure(admin, member, OPTIONS, {option: value})

    assert error == "InvalidArgs"
    assert said in text


@pytest.mark.parametrize(
    ("member", "types", "values", "expected"),
    [
        ("AddTargets", TARGETS, (["192.0.2.300"], {}), "InvalidArgs"),
        ("AddTargets", TARGETS, (["192.0.2.1", "192.0.2.1"], {}), "InvalidArgs"),
        ("AddTargets", TARGETS, (["192.0.2.1"], {"x": ["b", True]}), "InvalidArgs"),
        ("AddTargets", TARGETS, (["192.0.2.1"] * 10_001, {}), "LimitExceeded"),
        ("AddTargets", TARGETS, (["192.0.2.1"] * 30_001, {}), "LimitExceeded"),
        ("AddTargets", TARGETS, (["192.0.2.1" * 200_000], {}), "LimitExceeded"),
        ("RemoveTargets", TARGETS, (["192.0.2.1"], {}), "NoSuchTarget"),
        ("RemoveTargets", TARGETS, ([""], {}), "InvalidArgs"),
        ("ResetTargets", TARGETS, (["192.0.2.1"], {}), "NoSuchTarget"),
        ("GetTarget", ("s",), ("192.0.2.1",), "NoSuchTarget"),
        ("GetTarget", ("s",), ("x" * 5000,), "InvalidArgs"),
        ("GetUser", ("u", "a{sv}"), (99, {}), "NoSuchUser"),
        ("GetUser", ("u", "a{sv}"), (ALICE, {"limit": ["s", "1"]}), "InvalidArgs"),
        ("ListFlows", OPTIONS, ({"user": ["s", "no-such-user"]},), "NoSuchUser"),
        ("ListFlows", OPTIONS, ({"user": ["s", "4294967295"]},), "NoSuchUser"),
        ("ListFlows", OPTIONS, ({"interface": ["s", "eth9"]},), "NoSuchInterface"),
        ("MonitorInterface", ("s", "a{sv}"), ("eth9", {}), "NoSuchInterface"),
        ("MonitorInterface", ("s", "a{sv}"), ("eth0", {"attach": ["s", "glue"]}), "InvalidArgs"),
        ("MonitorInterface", ("s", "a{sv}"), ("eth0", {"attach": ["s", "xdp"]}), "Unavailable"),
        ("UnmonitorInterface", ("s", "a{sv}"), ("eth0", {"now": ["b", True]}), "InvalidArgs"),
        ("Reload", OPTIONS, ({"now": ["b", True]},), "InvalidArgs"),
    ],
)
def test_errors(
    host: Host, admin: Caller, member: str, types: tuple[str, ...], values: tuple[Any, ...], expected: str
) -> None:
    """What is wrong with a call decides the error's name; its text is one line of sane length."""
    error, text = failure(admin, member, types, *values)

    assert error == expected
    assert 10 < len(text) < 250
    assert host.monitor.targets() == {}


def test_errors_of_the_daemon_pass_through(host: Host, admin: Caller) -> None:
    """What the daemon raises reaches the caller with its own name and text."""
    for error in (LimitExceeded("no room"), ConfigError("netmond.toml: [meter] slots = -1: at least 1")):
        host.monitor.failure = error
        assert failure(admin, "Reload", OPTIONS, {}) == (error.code, str(error))


def test_all_or_nothing(host: Host, admin: Caller) -> None:
    """One bad address among good ones and nothing is added."""
    assert failure(admin, "AddTargets", TARGETS, ["192.0.2.1", "bad"], {})[0] == "InvalidArgs"
    admin.call("AddTargets", TARGETS, ["192.0.2.3"], {})
    assert failure(admin, "AddTargets", TARGETS, ["192.0.2.1", "192.0.2.3"], {})[0] == "AlreadyExists"

    assert admin.get("TargetCount") == 1


def test_addresses_are_understood_however_written(host: Host, admin: Caller) -> None:
    """The same target by any spelling; an IPv4-mapped address is the IPv4 one."""
    paths = admin.call("AddTargets", TARGETS, ["192.0.2.1/32", "2001:DB8:0::/32"], {})

    assert paths == [names.target_path("192.0.2.1"), names.target_path("2001:db8::/32")]
    assert admin.call("GetTarget", ("s",), "::ffff:192.0.2.1") == paths[0]
    assert admin.call("GetTarget", ("s",), "2001:db8::/32") == paths[1]


def test_commands_reach_the_daemon(host: Host, admin: Caller) -> None:
    """Each managing member does its one thing."""
    admin.call("AddTargets", TARGETS, ["192.0.2.1"], {})
    admin.call("ResetTargets", TARGETS, ["192.0.2.1"], {})
    admin.call("RemoveTargets", TARGETS, ["192.0.2.1"], {})
    admin.call("MonitorInterface", ("s", "a{sv}"), "veth7", {"attach": ["s", "xdp-generic"]})
    admin.call("MonitorInterface", ("s", "a{sv}"), "lo", {})
    admin.call("UnmonitorInterface", ("s", "a{sv}"), "lo", {})
    warnings = admin.call("Reload", OPTIONS, {})

    assert warnings == ["netmond.toml: unknown key colour"]
    assert host.monitor.done == [
        ("add", "192.0.2.1/32"),
        ("reset", "192.0.2.1/32"),
        ("remove", "192.0.2.1/32"),
        ("monitor", "veth7", "xdp-generic"),
        ("monitor", "lo", "auto"),
        ("unmonitor", "lo"),
        ("reload",),
    ]


def test_log_control(host: Host, admin: Caller) -> None:
    """Level and target are read and set; other values and the constant are refused."""
    where: dict[str, Any] = {"path": names.LOG_CONTROL_PATH, "interface": names.PROPERTIES}
    types = ("s", "s", "v")

    admin.call("Set", types, names.LOG_CONTROL, "LogLevel", ["s", "debug"], **where)
    admin.call("Set", types, names.LOG_CONTROL, "LogTarget", ["s", "console"], **where)

    everything = admin.call("GetAll", ("s",), names.LOG_CONTROL, **where)
    assert everything == {"LogLevel": "debug", "LogTarget": "console", "SyslogIdentifier": "netmond"}
    for name, value, error in (
        ("LogLevel", ["s", "loud"], "org.netmond1.Error.InvalidArgs"),
        ("LogTarget", ["s", "printer"], "org.netmond1.Error.InvalidArgs"),
        ("LogLevel", ["u", 7], names.INVALID_ARGS),
        ("SyslogIdentifier", ["s", "other"], names.PROPERTY_READ_ONLY),
        ("Colour", ["s", "red"], names.UNKNOWN_PROPERTY),
    ):
        with pytest.raises(CallError) as caught:
            admin.call("Set", types, names.LOG_CONTROL, name, value, **where)
        assert caught.value.name == error
