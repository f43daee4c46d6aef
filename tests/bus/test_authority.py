"""Who may do what: every member of every interface, by two ordinary users, a group member and root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from netmond.bus import names
from netmond.bus.logcontrol import LogControl
from netmond.bus.manager import Manager
from netmond.bus.standard import Introspectable, ObjectManager, Peer, Properties
from netmond.bus.target import Target
from netmond.bus.typed import Interface
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, outcome
from tests.bus.snapshots import ALICE, BOB

LIST: tuple[Any, ...] = (("a{sv}",), {})
TARGET_PATH = names.target_path("192.0.2.7")

#: Stands for the uid of somebody else.
FOREIGN = object()

#: Members that everybody may call (what they answer may differ: see the tests on scope).
EVERYBODY: dict[tuple[type[Interface], str], tuple[Any, ...]] = {
    (Manager, "ListUsers"): LIST,
    (Manager, "ListUnits"): LIST,
    (Manager, "ListProcesses"): LIST,
    (Manager, "ListFlows"): LIST,
    (Manager, "ListInterfaces"): LIST,
    (Manager, "ListRdmaPorts"): LIST,
    (Manager, "ListRdmaCounters"): LIST,
    (Manager, "ListQueuePairs"): LIST,
    (Manager, "ListPacketLogs"): LIST,
    (Manager, "ListSessions"): LIST,
    (Manager, "Describe"): ((),),
    (Peer, "Ping"): ((),),
    (Peer, "GetMachineId"): ((),),
    (Introspectable, "Introspect"): ((),),
    (Properties, "Get"): (("s", "s"), names.MANAGER, "Version"),
    (Properties, "GetAll"): (("s",), names.MANAGER),
}

#: Members for root and netmond's group.
AUTHORISED: dict[tuple[type[Interface], str], tuple[Any, ...]] = {
    (Manager, "ListBooks"): LIST,
    (Manager, "ListTargets"): LIST,
    (Manager, "GetUser"): (("u", "a{sv}"), FOREIGN, {}),
    (Manager, "AddTargets"): (("as", "a{sv}"), ["192.0.2.11"], {}),
    (Manager, "RemoveTargets"): (("as", "a{sv}"), ["192.0.2.7"], {}),
    (Manager, "ResetTargets"): (("as", "a{sv}"), ["192.0.2.7"], {}),
    (Manager, "GetTarget"): (("s",), "192.0.2.7"),
    (Manager, "MonitorInterface"): (("s", "a{sv}"), "lo", {}),
    (Manager, "UnmonitorInterface"): (("s", "a{sv}"), "lo", {}),
    (Manager, "EnablePacketLog"): (("au", "a{sv}"), [ALICE], {}),
    (Manager, "DisablePacketLog"): (("au", "a{sv}"), [ALICE], {}),
    (Manager, "OpenLog"): (("u", "a{sv}"), FOREIGN, {}),
    (Manager, "StartCapture"): LIST,
    (Manager, "StartPath"): LIST,
    (Manager, "StopSession"): (("t", "a{sv}"), 1, {}),
    (Manager, "Reload"): LIST,
    (Target, "Reset"): LIST,
    (Target, "Describe"): ((),),
    (ObjectManager, "GetManagedObjects"): ((),),
    (Properties, "Set"): (("s", "s", "v"), names.LOG_CONTROL, "LogLevel", ["s", "err"]),
    (Target, "Remove"): LIST,  # last: the object is gone then
}

READABLE: set[tuple[type[Interface], str]] = {
    (Manager, "Version"), (Manager, "Started"), (Manager, "Since"), (Manager, "Features"),
    (Manager, "Losses"), (Manager, "TargetCount"), (Manager, "FlowCount"), (Manager, "UserCount"),
    (LogControl, "LogLevel"), (LogControl, "LogTarget"), (LogControl, "SyslogIdentifier"),
}  # fmt: skip
PROTECTED: set[tuple[type[Interface], str]] = {
    (Target, "Address"), (Target, "Since"), (Target, "InPackets"), (Target, "InBytes"),
    (Target, "OutPackets"), (Target, "OutBytes"),
}  # fmt: skip
SETTABLE: dict[tuple[type[Interface], str], str] = {
    (LogControl, "LogLevel"): "debug",
    (LogControl, "LogTarget"): "console",
}

PATHS: dict[type[Interface], str] = {
    Manager: names.ROOT_PATH,
    Target: TARGET_PATH,
    LogControl: names.LOG_CONTROL_PATH,
}


@pytest.fixture
def people(
    host: Host, alice: Caller, bob: Caller, member: Caller, admin: Caller, tmp_path: Path
) -> dict[str, Caller]:
    """Everybody, with a target to look at, and logs of both ordinary users."""
    host.monitor.log_directory = tmp_path
    for uid in (ALICE, BOB):
        (tmp_path / f"{uid}.log").write_text(f"log of {uid}\n")
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {})
    host.monitor.done.clear()
    return {"alice": alice, "bob": bob, "member": member, "root": admin}


def test_the_matrix_is_complete() -> None:
    """Every declared member is in it exactly once."""
    interfaces: tuple[type[Interface], ...] = (
        Manager,
        Target,
        LogControl,
        Peer,
        Introspectable,
        Properties,
        ObjectManager,
    )

    methods = {(interface, name) for interface in interfaces for name in interface.methods}
    properties = {(interface, name) for interface in interfaces for name in interface.properties}
    settable = {
        (interface, name)
        for interface in interfaces
        for name, declared in interface.properties.items()
        if declared.setter is not None
    }

    assert methods == EVERYBODY.keys() | AUTHORISED.keys()
    assert not EVERYBODY.keys() & AUTHORISED.keys()
    assert properties == READABLE | PROTECTED
    assert settable == SETTABLE.keys()


@pytest.mark.parametrize("who", ["alice", "bob", "member", "root"])
def test_methods(host: Host, people: dict[str, Caller], who: str) -> None:
    """Ordinary users get AccessDenied from protected members and change nothing; the others succeed."""
    caller, powerful = people[who], who in ("member", "root")
    denied = "ok" if powerful else "org.netmond1.Error.AccessDenied"
    found, expected = {}, {}

    for (interface, member), (types, *values) in (EVERYBODY | AUTHORISED).items():
        values = [(ALICE if who == "bob" else BOB) if value is FOREIGN else value for value in values]
        path = PATHS.get(interface, names.ROOT_PATH)
        if member == "Set":
            path = names.LOG_CONTROL_PATH
        result = outcome(lambda: caller.call(member, types, *values, path=path, interface=interface.name))  # noqa: B023
        found[interface.name, member] = result
        expected[interface.name, member] = "ok" if (interface, member) in EVERYBODY else denied
        if powerful and (interface, member) == (Manager, "RemoveTargets"):
            caller.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {})

    assert found == expected
    assert bool(host.monitor.done) == powerful
    assert host.monitor.log_level == ("err" if powerful else "info")


@pytest.mark.parametrize("who", ["alice", "bob", "member", "root"])
def test_properties(host: Host, people: dict[str, Caller], who: str) -> None:
    """Reading and setting each property; GetAll is refused where any property is."""
    caller, powerful = people[who], who in ("member", "root")
    denied = "ok" if powerful else "org.netmond1.Error.AccessDenied"

    for interface, name in READABLE | PROTECTED:
        result = outcome(lambda: caller.get(name, PATHS[interface], interface.name))  # noqa: B023
        assert result == ("ok" if (interface, name) in READABLE else denied), name
    for (interface, name), value in SETTABLE.items():
        arguments = (interface.name, name, ["s", value])
        where: dict[str, Any] = {"path": PATHS[interface], "interface": names.PROPERTIES}
        assert outcome(lambda: caller.call("Set", ("s", "s", "v"), *arguments, **where)) == denied  # noqa: B023
    everything: dict[str, Any] = {"path": TARGET_PATH, "interface": names.PROPERTIES}
    assert outcome(lambda: caller.call("GetAll", ("s",), names.TARGET, **everything)) == denied
    assert (host.monitor.log_level, host.monitor.log_target) == (
        ("debug", "console") if powerful else ("info", "journal")
    )


@pytest.mark.parametrize(
    "list_", ["ListUsers", "ListUnits", "ListProcesses", "ListFlows", "ListPacketLogs", "ListSessions"]
)
def test_scope(people: dict[str, Caller], list_: str) -> None:
    """Without a scope the powerful see all and others their own; "all" is refused to others."""
    scopes = {who: caller.call(list_, *LIST)[1]["scope"] for who, caller in people.items()}
    asked = {
        who: outcome(lambda: caller.call(list_, ("a{sv}",), {"scope": ["s", "all"]}))  # noqa: B023
        for who, caller in people.items()
    }

    assert scopes == {"alice": "own", "bob": "own", "member": "all", "root": "all"}
    denied = "org.netmond1.Error.AccessDenied"
    assert asked == {"alice": denied, "bob": denied, "member": "ok", "root": "ok"}


def test_own_rows_only(people: dict[str, Caller]) -> None:
    """No row of another user, none of nobody, and of a shared unit only the own part."""
    alice = people["alice"]

    users, _ = alice.call("ListUsers", *LIST)
    flows, meta = alice.call("ListFlows", *LIST)
    processes, _ = alice.call("ListProcesses", *LIST)
    units, _ = alice.call("ListUnits", *LIST)

    assert [row["uid"] for row in users] == [ALICE]
    assert sorted(row["id"] for row in flows) == [1, 2, 3]
    assert meta["total"] == 3
    assert {row["pid"] for row in processes} == {101, 103}
    assert {row["unit"]: row["in_packets"] for row in units} == {"app.service": 26, "ssh.scope": 7}


def test_own_scope_on_request(people: dict[str, Caller]) -> None:
    """Who may see all can still ask for the own rows; root has none here."""
    rows, meta = people["root"].call("ListFlows", ("a{sv}",), {"scope": ["s", "own"]})

    assert (rows, meta["scope"], meta["total"]) == ([], "own", 0)


def test_asking_for_another_user_is_refused_not_empty(people: dict[str, Caller]) -> None:
    """The filter user, and GetUser, with a foreign uid; with the own one both work."""
    alice, denied = people["alice"], "org.netmond1.Error.AccessDenied"

    for member in ("ListFlows", "ListUnits", "ListProcesses"):
        assert outcome(lambda: alice.call(member, ("a{sv}",), {"user": ["s", str(BOB)]})) == denied  # noqa: B023
        assert outcome(lambda: alice.call(member, ("a{sv}",), {"user": ["s", str(ALICE)]})) == "ok"  # noqa: B023
    assert outcome(lambda: alice.call("GetUser", ("u", "a{sv}"), BOB, {})) == denied
    assert outcome(lambda: alice.call("GetUser", ("u", "a{sv}"), 99, {})) == denied
    assert alice.call("GetUser", ("u", "a{sv}"), ALICE, {})["uid"] == ALICE


def test_denial_says_who_may(people: dict[str, Caller]) -> None:
    """The text of AccessDenied names the way out."""
    with pytest.raises(CallError, match="only root and members of group operator may change targets"):
        people["alice"].call("Reload", *LIST)
