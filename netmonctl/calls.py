"""A call to netmond as a value, what carries it, and the errors that it can end with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from netmonctl.errors import CtlError, ExitCode, NotAllowed

NAME = "org.netmond1"
PATH = "/org/netmond1"
MANAGER = "org.netmond1.Manager"
TARGET = "org.netmond1.Target"
LOG_PATH = "/org/freedesktop/LogControl1"
LOG_CONTROL = "org.freedesktop.LogControl1"
PROPERTIES = "org.freedesktop.DBus.Properties"

TIMEOUT = 25.0  #: seconds, as libdbus and sd-bus wait
PERSON_TIMEOUT = 330.0  #: seconds, if a person types a password: netmond gives up after 300
START_TIMEOUT = 270.0  #: seconds, if netmond compiles first, which takes it two: it gives up after 240

#: In place of a user's number: of RDMA that nobody can be named for.
NOBODY_UID = 0xFFFFFFFF

NOT_RUNNING = "netmond is not running; start it: systemctl start netmond"

#: D-Bus type of every option netmond takes, unless its value says otherwise: see Typed.
OPTION_TYPES = {
    "sort": "s",
    "reverse": "b",
    "limit": "u",
    "scope": "s",
    "user": "s",
    "unit": "s",
    "pid": "u",
    "protocol": "s",
    "port": "q",
    "peer": "s",
    "interface": "s",
    "kind": "s",
    "traffic_type": "s",
    "device": "s",
    "active": "b",
    "monitored": "b",
    "attach": "s",
    "every": "u",
    # Of a capture and of a path; those of one name mean the same with both.
    "interfaces": "as",
    "direction": "s",
    "filter": "s",
    "users": "au",
    "units": "as",
    "processes": "as",
    "pids": "au",
    "snaplen": "u",
    "count": "t",
    "duration": "d",
    "buffer": "t",
    "comments": "b",
    "addresses": "as",
    "ports": "aq",
    "protocols": "as",
    "drops": "b",
    "stages": "as",
    "rate": "u",
    "mode": "s",
    "interval": "d",
}


class Typed(NamedTuple):
    """The value of an option that has another D-Bus type here than under this name elsewhere."""

    type: str
    value: Any


#: Error names, without the org.netmond1.Error. or org.freedesktop.DBus.Error. before them.
EXIT_CODES = {
    "InvalidArgs": ExitCode.USAGE,
    "AccessDenied": ExitCode.NOT_ALLOWED,
    "AuthFailed": ExitCode.NOT_ALLOWED,
    "NotFound": ExitCode.UNKNOWN_OBJECT,
    "NoSuchTarget": ExitCode.UNKNOWN_OBJECT,
    "NoSuchUser": ExitCode.UNKNOWN_OBJECT,
    "NoSuchInterface": ExitCode.UNKNOWN_OBJECT,
    "NoSuchLog": ExitCode.UNKNOWN_OBJECT,
    "NoSuchSession": ExitCode.UNKNOWN_OBJECT,
    "UnknownObject": ExitCode.UNKNOWN_OBJECT,
    "ServiceUnknown": ExitCode.NOT_RUNNING,
    "NameHasNoOwner": ExitCode.NOT_RUNNING,
    "NoReply": ExitCode.NOT_RUNNING,
}

#: Our words for what the bus, not netmond, says.
BUS_TEXTS = {
    "ServiceUnknown": NOT_RUNNING,
    "NameHasNoOwner": NOT_RUNNING,
    "NoReply": "netmond stopped before it answered; see: systemctl status netmond",
    "UnknownMethod": "this netmond does not know the request; upgrade netmond and restart it",
    "UnknownInterface": "this netmond does not know the request; upgrade netmond and restart it",
    "AccessDenied": "the bus forbids talking to netmond; run as root, or reinstall the netmond package",
}


def translated(error_name: str, text: str, destination: str = NAME) -> CtlError:
    """The error a person sees for a D-Bus error; what others than netmond say stays as it is."""
    prefix, _, name = error_name.rpartition(".")
    foreign = prefix != "org.netmond1.Error"
    message = BUS_TEXTS.get(name, text) if foreign and destination == NAME else text
    if not foreign and name == "AccessDenied":
        return NotAllowed(text or "not allowed; run as root or join group netmond")
    return CtlError(message or error_name, EXIT_CODES.get(name, ExitCode.FAILURE))


@dataclass(frozen=True, slots=True)
class Call:
    """One method call; `types` has one complete type per element of `body`.

    `interactive`: whoever is asked for a password may take the time to type it.
    `destination`: whom it goes to, if not netmond; `autostart`: the bus may start it.
    `patience`: seconds that it may take, if that is more than usual.
    """

    path: str
    interface: str
    member: str
    types: tuple[str, ...] = ()
    body: tuple[Any, ...] = ()
    interactive: bool = False
    destination: str = NAME
    autostart: bool = False
    patience: float = 0.0


class Transport(Protocol):
    """Carries calls to netmond: plain Python values in and out, errors as CtlError.

    A file among the results is a descriptor, which is the caller's to close.
    """

    def call(self, call: Call) -> list[Any]: ...

    def close(self) -> None: ...
