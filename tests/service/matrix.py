"""Who may do what on the bus: every member of every object, with a call that tries it.

A member is written "interface.Member"; a property is two entries, "get interface.Property" and, if it can
be set, "set interface.Property". `live` reads the same list from the running service: nothing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from tests.service.client import Caller
from tests.service.people import TARGET, TARGET_PATH

READ_ALL = "org.netmond1.read-all"
MANAGE = "org.netmond1.manage"
CAPTURE = "org.netmond1.capture"

MANAGER = "org.netmond1.Manager"
TARGET_INTERFACE = "org.netmond1.Target"
LOG_CONTROL = "org.freedesktop.LogControl1"
PROPERTIES = "org.freedesktop.DBus.Properties"
OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"

ROOT_PATH = "/org/netmond1"
LOG_PATH = "/org/freedesktop/LogControl1"

#: Stands for the number of the caller, for that of somebody else, for what a setting is at present, and for
#: a session of root's.
OWN, FOREIGN, PRESENT, SESSION = object(), object(), object(), object()

#: A target that is there for one call only.
VICTIM = "203.0.113.78"
#: An address that is no target before the call.
FRESH = "203.0.113.79"

#: Numbers that no user has: one whose packets are logged before the call, and one whose are not.
LOGGED, UNUSED = 64901, 64902


@dataclass(frozen=True, slots=True)
class Try:
    """A call, and the polkit action it takes; None: it is for everybody."""

    needs: str | None = None
    types: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()


_LIST: tuple[tuple[str, ...], tuple[Any, ...]] = (("a{sv}",), ({},))

#: Options of a session that ends by itself at once.
_BRIEF = {"duration": ["d", 0.01]}


def _get(interface: str, *properties: str, needs: str | None = None) -> dict[str, Try]:
    return {f"get {interface}.{name}": Try(needs, ("s", "s"), (interface, name)) for name in properties}


def _set(interface: str, *properties: str) -> dict[str, Try]:
    types = ("s", "s", "v")
    return {f"set {interface}.{name}": Try(MANAGE, types, (interface, name, PRESENT)) for name in properties}


def _properties(interface: str, example: str, needs: str | None = None) -> dict[str, Try]:
    """The interface Properties of an object, tried with one of its properties; who may set: see "set"."""
    return {
        f"{PROPERTIES}.Get": Try(needs, ("s", "s"), (interface, example)),
        f"{PROPERTIES}.GetAll": Try(needs, ("s",), (interface,)),
    }


def _standard(needs: str | None = None) -> dict[str, Try]:
    """What every object has. Peer says nothing about an object, not even whether it exists."""
    return {
        "org.freedesktop.DBus.Peer.Ping": Try(),
        "org.freedesktop.DBus.Peer.GetMachineId": Try(),
        "org.freedesktop.DBus.Introspectable.Introspect": Try(needs),
    }


#: Every object and its members.
MATRIX: Mapping[str, Mapping[str, Try]] = {
    "/": _standard(),
    "/org": _standard(),
    "/org/freedesktop": _standard(),
    "/org/netmond1/target": _standard(),
    LOG_PATH: {
        **_standard(),
        **_properties(LOG_CONTROL, "LogLevel"),
        **_get(LOG_CONTROL, "LogLevel", "LogTarget", "SyslogIdentifier"),
        **_set(LOG_CONTROL, "LogLevel", "LogTarget"),
    },
    ROOT_PATH: {
        **_standard(),
        **_properties(MANAGER, "Version"),
        f"{OBJECT_MANAGER}.GetManagedObjects": Try(READ_ALL),
        f"{MANAGER}.ListUsers": Try(None, *_LIST),
        f"{MANAGER}.ListUnits": Try(None, *_LIST),
        f"{MANAGER}.ListProcesses": Try(None, *_LIST),
        f"{MANAGER}.ListFlows": Try(None, *_LIST),
        f"{MANAGER}.ListInterfaces": Try(None, *_LIST),
        f"{MANAGER}.ListBooks": Try(READ_ALL, *_LIST),
        f"{MANAGER}.ListTargets": Try(READ_ALL, *_LIST),
        f"{MANAGER}.ListRdmaPorts": Try(None, *_LIST),
        f"{MANAGER}.ListRdmaCounters": Try(None, *_LIST),
        f"{MANAGER}.ListQueuePairs": Try(None, *_LIST),
        f"{MANAGER}.GetUser": Try(None, ("u", "a{sv}"), (OWN, {})),
        f"{MANAGER}.AddTargets": Try(MANAGE, ("as", "a{sv}"), ([FRESH], {})),
        f"{MANAGER}.RemoveTargets": Try(MANAGE, ("as", "a{sv}"), ([VICTIM], {})),
        f"{MANAGER}.ResetTargets": Try(MANAGE, ("as", "a{sv}"), ([TARGET], {})),
        f"{MANAGER}.GetTarget": Try(READ_ALL, ("s",), (TARGET,)),
        f"{MANAGER}.MonitorInterface": Try(MANAGE, ("s", "a{sv}"), ("lo", {})),
        f"{MANAGER}.UnmonitorInterface": Try(MANAGE, ("s", "a{sv}"), ("lo", {})),
        f"{MANAGER}.EnablePacketLog": Try(MANAGE, ("au", "a{sv}"), ([UNUSED], {})),
        f"{MANAGER}.DisablePacketLog": Try(MANAGE, ("au", "a{sv}"), ([LOGGED], {})),
        f"{MANAGER}.ListPacketLogs": Try(None, *_LIST),
        f"{MANAGER}.OpenLog": Try(None, ("u", "a{sv}"), (OWN, {})),
        f"{MANAGER}.StartCapture": Try(CAPTURE, ("a{sv}",), ({"interfaces": ["as", ["lo"]], **_BRIEF},)),
        f"{MANAGER}.StartPath": Try(CAPTURE, ("a{sv}",), (_BRIEF,)),
        f"{MANAGER}.StopSession": Try(MANAGE, ("t", "a{sv}"), (SESSION, {})),
        f"{MANAGER}.ListSessions": Try(None, *_LIST),
        f"{MANAGER}.Reload": Try(MANAGE, *_LIST),
        f"{MANAGER}.Describe": Try(),
        **_get(
            MANAGER,
            "Version",
            "Since",
            "Started",
            "Features",
            "Losses",
            "TargetCount",
            "FlowCount",
            "UserCount",
        ),
    },
    TARGET_PATH: {
        **_standard(READ_ALL),
        **_properties(TARGET_INTERFACE, "Address", READ_ALL),
        f"{TARGET_INTERFACE}.Describe": Try(READ_ALL),
        f"{TARGET_INTERFACE}.Reset": Try(MANAGE, *_LIST),
        f"{TARGET_INTERFACE}.Remove": Try(MANAGE, *_LIST),
        **_get(
            TARGET_INTERFACE,
            *("Address", "Since", "InPackets", "InBytes", "OutPackets", "OutBytes"),
            needs=READ_ALL,
        ),
    },
}

#: Lists that have no option user.
_WITHOUT_USER = {("foreign", f"List{what}") for what in ("Users", "PacketLogs", "Sessions")}

#: Members whose options decide: other people's figures take read-all.
WIDER: Mapping[str, Try] = {
    **{
        f"{what} {list_}": Try(READ_ALL, ("a{sv}",), (options,))
        for what, options in (("all", {"scope": ["s", "all"]}), ("foreign", {"user": FOREIGN}))
        for list_ in (
            *("ListUsers", "ListUnits", "ListProcesses", "ListFlows", "ListPacketLogs"),
            *("ListQueuePairs", "ListSessions"),
        )
        if (what, list_) not in _WITHOUT_USER
    },
    "foreign GetUser": Try(READ_ALL, ("u", "a{sv}"), (FOREIGN, {})),
    "foreign OpenLog": Try(READ_ALL, ("u", "a{sv}"), (FOREIGN, {})),
}

#: Signals, and the action that it takes to receive them.
SIGNALS: Mapping[str, str | None] = {
    f"{ROOT_PATH} {MANAGER}.Reloaded": MANAGE,
    f"{ROOT_PATH} {OBJECT_MANAGER}.InterfacesAdded": READ_ALL,
    f"{ROOT_PATH} {OBJECT_MANAGER}.InterfacesRemoved": READ_ALL,
    f"{ROOT_PATH} {PROPERTIES}.PropertiesChanged": None,
    f"{LOG_PATH} {PROPERTIES}.PropertiesChanged": None,
    f"{TARGET_PATH} {PROPERTIES}.PropertiesChanged": READ_ALL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a service says about itself."""

    members: Mapping[str, frozenset[str]]
    signals: frozenset[str]


def live(caller: Caller) -> Offer:
    """Everything that the objects of the running service offer, as far as this caller is shown."""
    members: dict[str, frozenset[str]] = {}
    signals: set[str] = set()
    for path, node in _objects(caller, "/"):
        members[path] = frozenset(
            name
            for interface in node.iterfind("interface")
            for name in _members(interface)
            if name != f"{PROPERTIES}.Set"  # "set" entries try it
        )
        signals.update(
            f"{path} {interface.get('name')}.{signal.get('name')}"
            for interface in node.iterfind("interface")
            for signal in interface.iterfind("signal")
        )
    return Offer(members=members, signals=frozenset(signals))


def _objects(caller: Caller, path: str) -> Iterator[tuple[str, ElementTree.Element]]:
    xml = caller.call("Introspect", path=path, interface="org.freedesktop.DBus.Introspectable")
    node = ElementTree.fromstring(xml)
    yield path, node
    for child in node.iterfind("node"):
        yield from _objects(caller, f"{path.rstrip('/')}/{child.get('name')}")


def _members(interface: ElementTree.Element) -> Iterator[str]:
    name = interface.get("name")
    for method in interface.iterfind("method"):
        yield f"{name}.{method.get('name')}"
    for declared in interface.iterfind("property"):
        yield f"get {name}.{declared.get('name')}"
        if declared.get("access") != "read":
            yield f"set {name}.{declared.get('name')}"
