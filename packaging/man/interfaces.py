"""The D-Bus interfaces for the man page, from the XML that is installed."""

from __future__ import annotations

import textwrap
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markup import Entry, Notes, definitions, emphasised

XML = Path(__file__).resolve().parents[1] / "dbus"
DOC = "{http://www.freedesktop.org/dbus/1.0/doc.dtd}"
CHANGES = "org.freedesktop.DBus.Property.EmitsChangedSignal"

ACCESS = {"read": "readonly", "readwrite": "readwrite"}
#: EmitsChangedSignal in words.
SIGNALS = {
    "const": "It never changes.",
    "true": "A change is signalled with PropertiesChanged.",
    "false": "Changes are not signalled.",
}


def _interface(name: str) -> Element:
    found = ElementTree.parse(XML / f"{name}.xml").getroot().find("interface")
    assert found is not None
    return found


def _arguments(member: Element) -> list[str]:
    return [
        " ".join(filter(None, (arg.get("direction"), arg.get("type"), arg.get("name"))))
        for arg in member.findall("arg")
    ]


def _changes(property_: Element) -> str:
    values = {each.get("name"): each.get("value") for each in property_.findall("annotation")}
    return values.get(CHANGES) or "true"


def synopsis(_notes: Notes, name: str, path: str) -> str:
    """The whole interface as a block, the way systemd's pages show theirs."""
    interface = _interface(name)
    lines = [f"node {path} {{", f"  interface {name} {{"]
    for kind, title in (("method", "methods:"), ("signal", "signals:")):
        members = interface.findall(kind)
        lines += [f"    {title}"] if members else []
        for member in members:
            head = f"      {member.get('name')}("
            lines += (head + f",\n{' ' * len(head)}".join(_arguments(member)) + ");").splitlines()
    if properties := interface.findall("property"):
        lines.append("    properties:")
    for member in properties:
        access = ACCESS[str(member.get("access"))]
        lines.append(f'      @EmitsChangedSignal("{_changes(member)}")')
        lines.append(f"      {access} {member.get('type')} {member.get('name')};")
    return "::\n\n" + textwrap.indent("\n".join([*lines, "  };", "};"]), "   ")


def members(notes: Notes, name: str) -> str:
    """Every member with its documentation."""
    interface = _interface(name)

    def entry(member: Element, more: str = "") -> Entry:
        paragraphs = [emphasised(" ".join((each.text or "").split())) for each in member.iter(f"{DOC}para")]
        brackets = "()" if member.tag != "property" else ""
        text = "\n\n".join(filter(None, (*paragraphs, more)))
        return Entry(str(member.get("name")), f"**{member.get('name')}**\\ {brackets}", text)

    return definitions(
        [
            *(entry(member) for kind in ("method", "signal") for member in interface.findall(kind)),
            *(entry(member, SIGNALS[_changes(member)]) for member in interface.findall("property")),
        ],
        notes,
    )


def about(_notes: Notes, name: str) -> str:
    """What the interface as a whole is documented with."""
    return "\n\n".join(
        emphasised(" ".join((each.text or "").split()))
        for each in _interface(name).findall(f"{DOC}doc/{DOC}para")
    )
