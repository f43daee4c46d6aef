"""The documented XML in packaging/ and the live service say the same, in both directions."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from netmond.bus import names
from tests.bus.conftest import Host
from tests.bus.private import PACKAGING, Caller

DOC = "{http://www.freedesktop.org/dbus/1.0/doc.dtd}"
PATHS = {
    names.MANAGER: names.ROOT_PATH,
    names.TARGET: names.target_path("192.0.2.7"),
    names.LOG_CONTROL: names.LOG_CONTROL_PATH,
}

#: Signatures never change. A member that is new here is fine; one that differs breaks somebody's client.
GOLDEN = {
    "Manager.ListUsers": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListUnits": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListProcesses": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListFlows": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListInterfaces": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListBooks": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListTargets": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListRdmaPorts": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListRdmaCounters": "a{sv} -> aa{sv}a{sv}",
    "Manager.ListQueuePairs": "a{sv} -> aa{sv}a{sv}",
    "Manager.GetUser": "ua{sv} -> a{sv}",
    "Manager.AddTargets": "asa{sv} -> ao",
    "Manager.RemoveTargets": "asa{sv} -> ",
    "Manager.ResetTargets": "asa{sv} -> ",
    "Manager.GetTarget": "s -> o",
    "Manager.MonitorInterface": "sa{sv} -> ",
    "Manager.UnmonitorInterface": "sa{sv} -> ",
    "Manager.EnablePacketLog": "aua{sv} -> ",
    "Manager.DisablePacketLog": "aua{sv} -> ",
    "Manager.ListPacketLogs": "a{sv} -> aa{sv}a{sv}",
    "Manager.OpenLog": "ua{sv} -> h",
    "Manager.StartCapture": "a{sv} -> thh",
    "Manager.StartPath": "a{sv} -> thh",
    "Manager.StopSession": "ta{sv} -> ",
    "Manager.ListSessions": "a{sv} -> aa{sv}a{sv}",
    "Manager.Reload": "a{sv} -> as",
    "Manager.Describe": " -> s",
    "Manager.Reloaded": "as",
    "Manager.Version": "s read const",
    "Manager.Started": "t read const",
    "Manager.Since": "t read const",
    "Manager.Features": "a(sss) read true",
    "Manager.Losses": "a{st} read false",
    "Manager.TargetCount": "u read false",
    "Manager.FlowCount": "u read false",
    "Manager.UserCount": "u read false",
    "Target.Reset": "a{sv} -> ",
    "Target.Remove": "a{sv} -> ",
    "Target.Describe": " -> s",
    "Target.Address": "s read const",
    "Target.Since": "t read false",
    "Target.InPackets": "t read false",
    "Target.InBytes": "t read false",
    "Target.OutPackets": "t read false",
    "Target.OutBytes": "t read false",
    "LogControl1.LogLevel": "s readwrite false",
    "LogControl1.LogTarget": "s readwrite false",
    "LogControl1.SyslogIdentifier": "s read const",
}


def live(caller: Caller, path: str) -> ET.Element:
    """The introspection document of an object."""
    return ET.fromstring(caller.call("Introspect", path=path, interface=names.INTROSPECTABLE))


def documented(interface: str) -> ET.Element:
    """The interface element in packaging/."""
    found = ET.parse(PACKAGING / f"{interface}.xml").getroot().find("interface")
    assert found is not None
    assert found.get("name") == interface
    return found


def members(interface: ET.Element) -> dict[str, Any]:
    """Everything a client can rely on, by member."""
    return {
        member.get("name", ""): (
            member.tag,
            dict(member.attrib),
            [dict(argument.attrib) for argument in member.findall("arg")],
            {note.get("name"): note.get("value") for note in member.findall("annotation")},
        )
        for member in interface
        if not member.tag.startswith(DOC)
    }


def shape(member: ET.Element) -> str:
    """A member's types in one line, as in GOLDEN."""
    if member.tag == "property":
        annotation = member.find("annotation")
        assert annotation is not None
        return f"{member.get('type')} {member.get('access')} {annotation.get('value')}"
    types = dict.fromkeys(("in", "out", None), "")
    for argument in member.findall("arg"):
        types[argument.get("direction")] += argument.get("type", "")
    return str(types[None]) if member.tag == "signal" else f"{types['in']} -> {types['out']}"


@pytest.mark.parametrize("interface", PATHS)
def test_documented_interface_is_the_live_one(host: Host, admin: Caller, interface: str) -> None:
    """Members, argument names, types, access and annotations agree, and neither side has more."""
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {})

    (found,) = [i for i in live(admin, PATHS[interface]).findall("interface") if i.get("name") == interface]

    assert members(found) == members(documented(interface))


@pytest.mark.parametrize("interface", PATHS)
def test_every_member_is_documented_in_prose(interface: str) -> None:
    """No member, and no interface, without at least a sentence."""
    described = documented(interface)

    for element in [described, *(child for child in described if not child.tag.startswith(DOC))]:
        text = " ".join("".join(doc.itertext()) for doc in element.findall(f"{DOC}doc")).strip()
        assert text.endswith("."), element.get("name")


def test_signatures_never_change() -> None:
    """The golden list: what was published stays as it is."""
    found = {
        f"{interface.rpartition('.')[2]}.{member.get('name')}": shape(member)
        for interface in PATHS
        for member in documented(interface)
        if not member.tag.startswith(DOC)
    }

    assert found == GOLDEN


def test_every_object_has_the_standard_interfaces(host: Host, admin: Caller) -> None:
    """Peer, Introspectable and Properties everywhere, ObjectManager at the root only."""
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {})
    standard = {names.PEER, names.INTROSPECTABLE, names.PROPERTIES}

    for interface, path in PATHS.items():
        found = {element.get("name") for element in live(admin, path).findall("interface")}
        manager = {names.OBJECT_MANAGER} if path == names.ROOT_PATH else set()
        assert found == {interface} | standard | manager


def test_objects_are_found_from_the_root(host: Host, admin: Caller) -> None:
    """Walking down the nodes from "/" reaches every object."""
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7", "2001:db8::/32"], {})
    seen, todo = set(), ["/"]

    while todo:
        path = todo.pop()
        seen.add(path)
        todo += [
            path.rstrip("/") + "/" + str(node.get("name")) for node in live(admin, path).findall("node")
        ]

    assert seen >= {*PATHS.values(), names.target_path("2001:db8::/32")}
    assert names.target_path("192.0.2.7") == "/org/netmond1/target/_3192_2e0_2e2_2e7"


def test_targets_are_not_listed_to_everybody(host: Host, admin: Caller, alice: Caller) -> None:
    """Who may not see targets does not learn of them from introspection either."""
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {})

    assert live(alice, names.TARGETS_PATH).findall("node") == []
    assert len(live(admin, names.TARGETS_PATH).findall("node")) == 1
