"""The polkit actions that are installed, those netmond asks for, and what the D-Bus documentation says."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from netmond.bus.authority import Action
from netmond.bus.logcontrol import LogControl
from netmond.bus.manager import Manager
from netmond.bus.target import Target, Targets
from netmond.bus.typed import Interface

PACKAGING = Path(__file__).parents[2] / "packaging"
DOC = "{http://www.freedesktop.org/dbus/1.0/doc.dtd}doc"

#: Takes an action only for what belongs to others; decided in viewing.py, packetlogs.py and sessions.py.
PARTLY = {
    **dict.fromkeys(("ListUsers", "ListUnits", "ListProcesses", "ListFlows", "GetUser"), Action.READ_ALL),
    **dict.fromkeys(("ListQueuePairs", "ListPacketLogs", "OpenLog", "ListSessions"), Action.READ_ALL),
    "StopSession": Action.MANAGE,
}


def actions() -> dict[str, ET.Element]:
    """The actions of the installed policy by id."""
    root = ET.parse(PACKAGING / "polkit" / "org.netmond1.policy").getroot()
    return {str(action.get("id")): action for action in root.findall("action")}


def test_every_action_is_installed() -> None:
    """polkit refuses to answer about actions it does not know."""
    assert set(actions()) == {action.id for action in Action}


@pytest.mark.parametrize("action", Action)
def test_action(action: Action) -> None:
    """Described, owned by the user netmond, and not given to anybody by default without authentication."""
    found = actions()[action.id]
    defaults = found.find("defaults")
    owner = found.find("annotate[@key='org.freedesktop.policykit.owner']")

    assert defaults is not None
    assert owner is not None
    assert owner.text == "unix-user:netmond"
    assert {child.tag: child.text for child in defaults} == {
        "allow_any": "auth_admin",
        "allow_inactive": "auth_admin",
        "allow_active": "auth_admin_keep",
    }
    assert found.findtext("description")
    assert str(found.findtext("message")).startswith("Authentication is required to ")


def documented(interface: type[Interface], member: str) -> str:
    """What packaging/dbus says about a member, in one line."""
    root = ET.parse(PACKAGING / "dbus" / f"{interface.name}.xml").getroot()
    (element,) = [e for e in root.iter() if e.get("name") == member and e.tag in ("method", "property")]
    return " ".join(" ".join("".join(doc.itertext()) for doc in element.findall(DOC)).split())


@pytest.mark.parametrize("interface", [Manager, Target, LogControl])
def test_documentation_names_the_action(interface: type[Interface]) -> None:
    """Each member's text names exactly the actions that it takes."""
    needs = {name: {declared.action} for name, declared in interface.methods.items()}
    needs |= {
        name: {declared.action, declared.set_action} for name, declared in interface.properties.items()
    }

    for member, taken in needs.items():
        expected = {action for action in taken if action is not None}
        expected |= {Targets.action} if interface is Target else set()
        expected |= {PARTLY[member]} if member in PARTLY else set()
        text = documented(interface, member)
        assert {action for action in Action if action.id in text} == expected, member
