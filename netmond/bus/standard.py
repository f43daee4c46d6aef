"""The interfaces that every object has by the D-Bus specification, declared like our own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from dbus_next.signature import Variant as ReceivedVariant

from netmond.bus import names
from netmond.bus.authority import Action, Caller
from netmond.bus.introspect import node_xml
from netmond.bus.marshal import Variant
from netmond.bus.typed import Interface, Property, StandardError, method, signal
from netmond.errors import Unavailable
from netmond.outputs import audit


class Tree(Protocol):
    """What these interfaces need of the dispatcher."""

    async def authorise(self, caller: Caller, action: Action) -> None: ...

    async def children(self, caller: Caller, path: str) -> list[str]: ...

    def managed(self, path: str) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]: ...


class Peer(Interface):
    name = names.PEER

    @method("Ping")
    def ping(self, caller: Caller) -> None:
        return None

    @method("GetMachineId", gives="machine_uuid:s")
    async def machine_id(self, caller: Caller) -> str:
        for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
            try:
                return (await asyncio.to_thread(Path(path).read_text)).strip()
            except OSError:
                continue
        raise Unavailable("this machine has no /etc/machine-id")


class Introspectable(Interface):
    name = names.INTROSPECTABLE

    def __init__(self, tree: Tree, path: str, own: tuple[Interface, ...]) -> None:
        self._tree = tree
        self._path = path
        self._own = own

    @method("Introspect", gives="xml_data:s")
    async def introspect(self, caller: Caller) -> str:
        interfaces: list[type[Interface]] = [type(interface) for interface in self._own]
        interfaces += [Peer, Introspectable]
        if self._own:
            interfaces.append(Properties)
        if self._path == names.ROOT_PATH:
            interfaces.append(ObjectManager)
        return node_xml(interfaces, await self._tree.children(caller, self._path))


class Properties(Interface):
    name = names.PROPERTIES

    changed = signal(
        "PropertiesChanged",
        "interface_name:s changed_properties:a{sv} invalidated_properties:as",
    )

    def __init__(self, tree: Tree, path: str, own: tuple[Interface, ...]) -> None:
        self._tree = tree
        self._path = path
        self._own = own

    @method("Get", "interface_name:s property_name:s", "value:v")
    async def get(self, caller: Caller, interface_name: str, property_name: str) -> Variant:
        interface, declared = self._property(interface_name, property_name)
        return await self._value(caller, interface, declared)

    @method("GetAll", "interface_name:s", "properties:a{sv}")
    async def get_all(self, caller: Caller, interface_name: str) -> dict[str, Variant]:
        return {
            declared.name: await self._value(caller, interface, declared)
            for interface in self._interfaces(interface_name)
            for declared in interface.properties.values()
        }

    @method("Set", "interface_name:s property_name:s value:v")
    async def set(
        self, caller: Caller, interface_name: str, property_name: str, value: ReceivedVariant
    ) -> None:
        interface, declared = self._property(interface_name, property_name)
        if declared.setter is None or declared.set_action is None:
            raise StandardError(names.PROPERTY_READ_ONLY, f"property {property_name} cannot be set")
        if value.signature != declared.signature:
            wanted = f"property {property_name} has type {declared.signature!r}, not {value.signature!r}"
            raise StandardError(names.INVALID_ARGS, wanted)
        await self._tree.authorise(caller, declared.set_action)
        declared.setter(interface, value.value)
        audit.changed(caller.uid, self._path, interface.name, declared.name, [value.value])

    async def _value(self, caller: Caller, interface: Interface, declared: Property) -> Variant:
        if declared.action is not None:
            await self._tree.authorise(caller, declared.action)
        return Variant(declared.signature, declared.getter(interface))

    def _property(self, interface_name: str, property_name: str) -> tuple[Interface, Property]:
        for interface in self._interfaces(interface_name):
            if property_name in interface.properties:
                return interface, interface.properties[property_name]
        raise StandardError(names.UNKNOWN_PROPERTY, f"object {self._path} has no such property")

    def _interfaces(self, name: str) -> list[Interface]:
        """The named interface; all of the object for an empty name."""
        found = [interface for interface in self._own if name in ("", interface.name)]
        standard = (names.PROPERTIES, names.INTROSPECTABLE, names.PEER, names.OBJECT_MANAGER)
        if not found and name not in standard:
            raise StandardError(names.UNKNOWN_INTERFACE, f"object {self._path} has no such interface")
        return found


class ObjectManager(Interface):
    name = names.OBJECT_MANAGER

    added = signal("InterfacesAdded", "object_path:o interfaces_and_properties:a{sa{sv}}")
    removed = signal("InterfacesRemoved", "object_path:o interfaces:as")

    def __init__(self, tree: Tree, path: str) -> None:
        self._tree = tree
        self._path = path

    @method(
        "GetManagedObjects",
        gives="object_paths_interfaces_and_properties:a{oa{sa{sv}}}",
        action=Action.READ_ALL,
    )
    def managed_objects(self, caller: Caller) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        return self._tree.managed(self._path)
