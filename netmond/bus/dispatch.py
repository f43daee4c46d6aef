"""From a path, an interface and a member to a declared method, and from its result or failure to a reply."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from dbus_next.message import Message

from netmond.bus import marshal, names
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.descriptors import Descriptor, opened
from netmond.bus.standard import Introspectable, ObjectManager, Peer, Properties
from netmond.bus.typed import Interface, Method, StandardError
from netmond.errors import LimitExceeded, NetmondError
from netmond.outputs import audit

log = logging.getLogger(__name__)

#: Largest answer in bytes; a message bus disconnects whoever sends more than 32 MiB.
MAX_ANSWER = 24 << 20


class Answer(NamedTuple):
    """What a method returns, as it is sent."""

    signature: str
    encoded: bytearray
    files: tuple[Descriptor, ...]


class Subtree(Protocol):
    """Objects below one path that exist only while somebody asks for them."""

    action: Action  #: what it takes to see which there are

    def find(self, path: str) -> Interface | None:
        """The object at `path`."""

    def labels(self) -> Iterable[str]:
        """The last element of every path."""

    def managed(self) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """Path, and properties by interface, of every object."""


class Dispatcher:
    """Owns the tree of objects. Calls are checked against the declarations before anything sees them.

    `turn` is awaited, with the caller's uid, before work that may take long.
    """

    def __init__(self, authority: Authority, turn: Callable[[int], Awaitable[None]]) -> None:
        self._authority = authority
        self._turn = turn
        self._objects: dict[str, tuple[Interface, ...]] = {}
        self._subtrees: dict[str, Subtree] = {}

    async def authorise(self, caller: Caller, action: Action) -> None:
        """Raise AccessDenied unless the caller may do this."""
        await self._authority.require(caller, action)

    def export(self, path: str, *interfaces: Interface) -> None:
        """Make an object."""
        self._objects[path] = interfaces

    def export_below(self, path: str, subtree: Subtree) -> None:
        """Make the children of `path` whatever `subtree` says they are at the time of a call."""
        self._subtrees[path] = subtree

    async def call(self, caller: Caller, message: Message) -> Answer:
        """The answer to a call. Raises StandardError and NetmondError."""
        await self._turn(caller.uid)
        await self._hide(caller, message)
        interface, method = self._member(message)
        if message.signature != method.in_signature:
            wanted = f"takes {method.in_signature!r}, not {message.signature!r}"
            raise StandardError(names.INVALID_ARGS, f"{interface.name}.{method.name} {wanted}")
        if method.action is not None:
            await self.authorise(caller, method.action)
        result = method.function(interface, caller, *message.body)
        if inspect.isawaitable(result):
            result = await result
        if method.action in (Action.MANAGE, Action.CAPTURE):
            audit.changed(caller.uid, message.path, interface.name, method.name, message.body)
        values = [result] if len(method.gives) == 1 else result or ()
        await self._turn(caller.uid)  # rows are made while they are encoded
        values, files = opened(values)
        encoded = marshal.encode(method.out_signature, values)
        if len(encoded) > MAX_ANSWER:
            raise LimitExceeded("the answer is too large for the message bus; set a limit or filter")
        return Answer(method.out_signature, encoded, files)

    def find(self, path: str) -> tuple[Interface, ...] | None:
        """The interfaces of the object at `path`, beside the standard ones; None if there is none."""
        if path in self._objects:
            return self._objects[path]
        subtree = self._subtrees.get(path.rpartition("/")[0])
        found = subtree.find(path) if subtree is not None else None
        return None if found is None else (found,)

    async def children(self, caller: Caller, path: str) -> list[str]:
        """The next path elements below `path`; those of a subtree only for callers who may see it."""
        prefix = "/" if path == "/" else path + "/"
        known = [
            other[len(prefix) :] for other in (*self._objects, *self._subtrees) if other.startswith(prefix)
        ]
        labels = sorted({other.partition("/")[0] for other in known})
        if path in self._subtrees and await self._authority.may(caller, self._subtrees[path].action):
            labels += self._subtrees[path].labels()
        return labels

    def managed(self, path: str) -> Iterable[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """What the object manager at `path` manages."""
        for parent, subtree in self._subtrees.items():
            if parent.startswith(path + "/"):
                yield from subtree.managed()

    async def _hide(self, caller: Caller, message: Message) -> None:
        """Who may not see which objects a subtree has: one answer for all, existing or not."""
        subtree = self._subtrees.get(message.path.rpartition("/")[0])
        if subtree is not None and message.interface != names.PEER:
            await self.authorise(caller, subtree.action)

    def _member(self, message: Message) -> tuple[Interface, Method]:
        interfaces = self._interfaces(message.path, message.interface)
        if message.interface is not None:
            interfaces = [interface for interface in interfaces if interface.name == message.interface]
            if not interfaces:
                text = f"object {message.path} has no interface {message.interface}"
                raise StandardError(names.UNKNOWN_INTERFACE, text)
        for interface in interfaces:
            if message.member in interface.methods:
                return interface, interface.methods[message.member]
        where = message.interface or f"object {message.path}"
        raise StandardError(names.UNKNOWN_METHOD, f"{where} has no method {message.member}")

    def _interfaces(self, path: str, wanted: str | None) -> list[Interface]:
        if wanted == names.PEER:  # answers on every path, says the specification
            return [Peer()]
        own = self.find(path)
        standard: list[Interface] = [Peer(), Introspectable(self, path, own or ())]
        if own is None:
            prefix = "/" if path == "/" else path + "/"
            if not any(other.startswith(prefix) for other in (*self._objects, *self._subtrees)) and (
                path not in self._subtrees
            ):
                raise StandardError(names.UNKNOWN_OBJECT, f"there is no object {path}")
            return standard
        standard.append(Properties(self, path, own))
        if path == names.ROOT_PATH:
            standard.append(ObjectManager(self, path))
        return [*own, *standard]


def error_of(error: BaseException) -> tuple[str, str]:
    """Name and text under which a failure is told to the caller: nothing of our inside in it."""
    if isinstance(error, StandardError):
        return error.name, str(error)
    if isinstance(error, NetmondError):
        return names.ERROR_PREFIX + error.code, str(error)
    return names.ERROR_PREFIX + NetmondError.code, "netmond failed to answer; its log says why"
