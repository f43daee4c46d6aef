"""Introspection data, made from the declarations."""

from __future__ import annotations

from collections.abc import Iterable

from netmond.bus.typed import Argument, Interface

_HEADER = (
    '<!DOCTYPE node PUBLIC "-//freedesktop//DTD D-BUS Object Introspection 1.0//EN"\n'
    ' "http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd">\n'
)
EMITS = "org.freedesktop.DBus.Property.EmitsChangedSignal"


def node_xml(interfaces: Iterable[type[Interface]], children: Iterable[str]) -> str:
    """The introspection document of an object with these interfaces and these child nodes."""
    lines = ["<node>"]
    for interface in interfaces:
        lines += _interface(interface)
    lines += [f"  <node name={_quoted(child)}/>" for child in children]
    lines.append("</node>\n")
    return _HEADER + "\n".join(lines)


def _interface(interface: type[Interface]) -> Iterable[str]:
    yield f"  <interface name={_quoted(interface.name)}>"
    for method in interface.methods.values():
        yield f"    <method name={_quoted(method.name)}>"
        yield from (_argument(argument, ' direction="in"') for argument in method.takes)
        yield from (_argument(argument, ' direction="out"') for argument in method.gives)
        yield "    </method>"
    for signal in interface.signals.values():
        yield f"    <signal name={_quoted(signal.name)}>"
        yield from (_argument(argument, "") for argument in signal.carries)
        yield "    </signal>"
    for prop in interface.properties.values():
        yield (
            f"    <property name={_quoted(prop.name)} type={_quoted(prop.signature)}"
            f" access={_quoted(prop.access)}>"
        )
        yield f'      <annotation name="{EMITS}" value="{prop.emits}"/>'
        yield "    </property>"
    yield "  </interface>"


def _argument(argument: Argument, direction: str) -> str:
    return f"      <arg name={_quoted(argument.name)} type={_quoted(argument.signature)}{direction}/>"


def _quoted(text: str) -> str:
    """An attribute's value. By hand: xml.sax.saxutils imports an HTTP client, html all entities."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'"{escaped}"'
