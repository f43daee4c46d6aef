"""D-Bus interfaces as declarations: what an `Interface` subclass offers, in which types, to whom.

::

    class Manager(Interface):
        name = "org.netmond1.Manager"
        reloaded = signal("Reloaded", "warnings:as")

        @method("AddTargets", "addresses:as options:a{sv}", "paths:ao", action=Action.MANAGE)
        async def add_targets(self, caller: Caller, addresses: list[str], options: Options) -> list[str]: ...

        @property_("Version", "s", emits="const")
        def version(self) -> str: ...

Methods get the caller and the arguments and return the only result, a tuple of several, or None. Whoever
dispatches a call has checked its signature, and the caller's authority for `action`, beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from dbus_next.signature import Variant

from netmond.bus.authority import Action

F = TypeVar("F", bound=Callable[..., Any])
Emits = Literal["true", "false", "const"]

#: A received a{sv}.
Options = Mapping[str, Variant]


class StandardError(Exception):
    """An error of the D-Bus specification, about the call rather than about netmond."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    name: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    name: str
    takes: tuple[Argument, ...]
    gives: tuple[Argument, ...]
    action: Action | None
    function: Callable[..., Any]

    @property
    def in_signature(self) -> str:
        return "".join(argument.signature for argument in self.takes)

    @property
    def out_signature(self) -> str:
        return "".join(argument.signature for argument in self.gives)


@dataclass(slots=True, kw_only=True)
class Property:
    name: str
    signature: str
    emits: Emits
    action: Action | None
    getter: Callable[[Any], Any]
    setter: Callable[[Any, Any], None] | None = None
    set_action: Action | None = None

    @property
    def access(self) -> str:
        return "read" if self.setter is None else "readwrite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    name: str
    carries: tuple[Argument, ...]

    @property
    def signature(self) -> str:
        return "".join(argument.signature for argument in self.carries)


def method(name: str, takes: str = "", gives: str = "", *, action: Action | None = None) -> Callable[[F], F]:
    """Declare a method; arguments are "name:signature" separated by blanks."""

    def decorate(function: F) -> F:
        function.__dict__["dbus"] = Method(
            name=name, takes=_arguments(takes), gives=_arguments(gives), action=action, function=function
        )
        return function

    return decorate


def property_(name: str, signature: str, *, emits: Emits, action: Action | None = None) -> Callable[[F], F]:
    """Declare a property by its getter; `emits` is the EmitsChangedSignal annotation."""

    def decorate(function: F) -> F:
        function.__dict__["dbus"] = Property(
            name=name, signature=signature, emits=emits, action=action, getter=function
        )
        return function

    return decorate


def setter(getter: Callable[..., Any], *, action: Action) -> Callable[[F], F]:
    """Declare the setter of a property whose getter is declared already."""

    def decorate(function: F) -> F:
        declared: Property = getter.__dict__["dbus"]
        declared.setter, declared.set_action = function, action
        return function

    return decorate


def signal(name: str, carries: str = "") -> Signal:
    """Declare a signal."""
    return Signal(name=name, carries=_arguments(carries))


class Interface:
    """One D-Bus interface of one object; `name` is the interface's."""

    name: ClassVar[str]
    methods: ClassVar[dict[str, Method]]
    properties: ClassVar[dict[str, Property]]
    signals: ClassVar[dict[str, Signal]]

    def __init_subclass__(cls) -> None:
        declared = [getattr(member, "dbus", member) for member in vars(cls).values()]
        cls.methods = {member.name: member for member in declared if isinstance(member, Method)}
        cls.properties = {member.name: member for member in declared if isinstance(member, Property)}
        cls.signals = {member.name: member for member in declared if isinstance(member, Signal)}


def _arguments(text: str) -> tuple[Argument, ...]:
    pairs = (argument.split(":", 1) for argument in text.split())
    return tuple(Argument(name=name, signature=signature) for name, signature in pairs)
