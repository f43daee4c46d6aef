"""The D-Bus side of netmonctl, and all of it: nothing else here knows that there is a bus.

dbus-next is imported with the first call only, so that ``--help`` and usage errors stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from netmonctl.agent import text_agent
from netmonctl.errors import CtlError, ExitCode, NotAllowed, usage

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

NOT_RUNNING = "netmond is not running; start it: systemctl start netmond"

#: D-Bus type of every option netmond takes.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows exactly as netmond delivers them, and what it says about them."""

    rows: list[dict[str, Any]]
    scope: str = "all"
    total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A job of netmond for us: its number, and the ends of two pipes, which are the caller's to close.

    stream: what it finds; closing it ends the session. progress: a line of JSON each half second.
    """

    number: int
    stream: int
    progress: int


class Client:
    """netmond as an object: one method per thing it does.

    While `interactive`, what is refused is asked for a second time, with a password prompt for whoever sits
    here: once for each call, so that what is repeated does not prompt again and again.
    """

    def __init__(self, transport: Transport) -> None:
        self.interactive = False
        self._transport = transport
        self._asked: list[Call] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()

    def _call(self, call: Call) -> list[Any]:
        try:
            return self._transport.call(call)
        except NotAllowed:
            if not self.interactive or call in self._asked:
                raise
        self._asked.append(call)
        with text_agent():
            return self._transport.call(replace(call, interactive=True))

    def _manager(self, member: str, types: tuple[str, ...] = (), *body: Any) -> Any:
        reply = self._call(Call(PATH, MANAGER, member, types, body))
        return reply[0] if len(reply) == 1 else reply

    def ask(self, call: Call) -> list[Any]:
        """Any call, also to others than netmond, as it is: nobody is asked for a password."""
        return self._transport.call(call)

    def listing(self, what: str, options: Mapping[str, Any]) -> Listing:
        """Users, Units, Processes, Flows, Interfaces, Targets, PacketLogs or Sessions."""
        rows, meta = self._manager(f"List{what}", ("a{sv}",), options)
        return Listing(
            rows=rows, scope=str(meta.get("scope", "all")), total=int(meta.get("total", len(rows)))
        )

    def user(self, uid: int, limit: int) -> dict[str, Any]:
        """One user's row with its top peers, units, processes and flows."""
        return dict(self._manager("GetUser", ("u", "a{sv}"), uid, {"limit": limit}))

    def describe(self) -> dict[str, Any]:
        """The whole status."""
        import json

        return dict(json.loads(self._manager("Describe")))

    def add_targets(self, addresses: Sequence[str]) -> list[str]:
        """All or none; the object paths of the new targets."""
        return list(self._manager("AddTargets", ("as", "a{sv}"), list(addresses), {}))

    def remove_targets(self, addresses: Sequence[str]) -> None:
        self._manager("RemoveTargets", ("as", "a{sv}"), list(addresses), {})

    def reset_targets(self, addresses: Sequence[str]) -> None:
        self._manager("ResetTargets", ("as", "a{sv}"), list(addresses), {})

    def target(self, address: str) -> dict[str, Any]:
        """One target with the keys that a row of the target list has."""
        path = str(self._manager("GetTarget", ("s",), address))
        (values,) = self._call(Call(path, PROPERTIES, "GetAll", ("s",), (TARGET,)))
        return {
            "address": values["Address"],
            "path": path,
            "since": values["Since"] / 1e6,
            "in_packets": values["InPackets"],
            "in_bytes": values["InBytes"],
            "out_packets": values["OutPackets"],
            "out_bytes": values["OutBytes"],
        }

    def monitor_interface(self, name: str, attach: str | None) -> None:
        self._manager("MonitorInterface", ("s", "a{sv}"), name, {"attach": attach} if attach else {})

    def unmonitor_interface(self, name: str) -> None:
        self._manager("UnmonitorInterface", ("s", "a{sv}"), name, {})

    def enable_packet_log(self, uids: Sequence[int], every: int) -> None:
        """Of these users, of everyone if there are none."""
        self._manager("EnablePacketLog", ("au", "a{sv}"), list(uids), {"every": every})

    def disable_packet_log(self, uids: Sequence[int]) -> None:
        """Of these users, of everyone if there are none."""
        self._manager("DisablePacketLog", ("au", "a{sv}"), list(uids), {})

    def open_log(self, uid: int) -> int:
        """A descriptor for reading of the user's log, the caller's to close."""
        return int(self._manager("OpenLog", ("u", "a{sv}"), uid, {}))

    def start_capture(self, options: Mapping[str, Any]) -> Session:
        """Frames as pcapng, from the moment of the answer on."""
        return self._started("StartCapture", options)

    def start_path(self, options: Mapping[str, Any]) -> Session:
        """Packets on their way through the kernel, as lines of JSON."""
        return self._started("StartPath", options)

    def _started(self, member: str, options: Mapping[str, Any]) -> Session:
        call = Call(PATH, MANAGER, member, ("a{sv}",), (options,), patience=START_TIMEOUT)
        number, stream, progress = self._call(call)
        return Session(number=number, stream=stream, progress=progress)

    def stop_session(self, number: int) -> None:
        """What it still holds comes through its stream, which then ends."""
        self._manager("StopSession", ("t", "a{sv}"), number, {})

    def reload(self) -> list[str]:
        """Read the configuration again; its warnings."""
        return list(self._manager("Reload", ("a{sv}",), {}))

    def log_level(self) -> str:
        (level,) = self._call(Call(LOG_PATH, PROPERTIES, "Get", ("s", "s"), (LOG_CONTROL, "LogLevel")))
        return str(level)

    def set_log_level(self, level: str) -> None:
        body = (LOG_CONTROL, "LogLevel", level)
        self._call(Call(LOG_PATH, PROPERTIES, "Set", ("s", "s", "v"), body))


def connect(timeout: float = TIMEOUT) -> Client:
    """A client of the netmond on this machine; the bus is opened with the first call."""
    return Client(_SystemBus(timeout))


class _SystemBus:
    """The system bus, synchronous to its caller, one call at a time."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._loop: Any = None
        self._bus: Any = None
        self._gone: Any = None

    def call(self, call: Call) -> list[Any]:
        _refuse_unsendable(call.body)
        import asyncio

        from dbus_next.constants import MessageFlag, MessageType
        from dbus_next.message import Message

        if self._gone is not None and self._gone.done():
            self.close()
        if self._bus is None:
            self._open()
        message = Message(
            destination=call.destination,
            path=call.path,
            interface=call.interface,
            member=call.member,
            signature="".join(call.types),
            body=[_wrapped(kind, value) for kind, value in zip(call.types, call.body, strict=True)],
            # A question about netmond must not be what starts it.
            flags=MessageFlag.NONE if call.autostart else MessageFlag.NO_AUTOSTART,
        )
        timeout = max(self._timeout, call.patience)
        if call.interactive:
            message.flags |= MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION
            timeout = PERSON_TIMEOUT
        try:
            reply = self._loop.run_until_complete(asyncio.wait_for(self._exchange(message), timeout))
        except TimeoutError:
            who = call.destination.replace(NAME, "netmond")
            raise CtlError(
                f"{who} did not answer within {timeout:.0f} s; see: systemctl status netmond"
            ) from None
        except (OSError, EOFError):
            reply = None
        if reply is None:
            raise CtlError("the connection to the system bus broke; try again", ExitCode.NOT_RUNNING)
        if reply.message_type is MessageType.ERROR:
            text = str(reply.body[0]) if reply.body else ""
            raise translated(reply.error_name, text, call.destination)
        return _results(reply)

    async def _exchange(self, message: Any) -> Any:
        """The reply, or None if the bus goes away: dbus-next may leave a pending call hanging then."""
        import asyncio

        call = asyncio.ensure_future(self._bus.call(message))
        await asyncio.wait({call, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        if call.done():
            return call.result()
        call.cancel()
        return None

    def _open(self) -> None:
        import asyncio

        from dbus_next.errors import AuthError, InvalidAddressError

        self._loop = asyncio.new_event_loop()
        # When the bus dies, dbus-next leaves a failed future that nobody owns; the call reports it anyway.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        try:
            self._bus = self._loop.run_until_complete(asyncio.wait_for(_connected(), self._timeout))
        except (TimeoutError, OSError, EOFError, AuthError, InvalidAddressError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            raise CtlError(
                f"cannot reach the system bus ({reason}); see: systemctl status dbus netmond",
                ExitCode.NOT_RUNNING,
            ) from None
        self._gone = self._loop.create_task(self._bus.wait_for_disconnect())

    def close(self) -> None:
        if self._loop is None:
            return
        if self._bus is not None:
            import asyncio

            if not self._gone.done():
                self._bus.disconnect()
            # Collects the task's exception, too, which asyncio would complain about otherwise.
            self._loop.run_until_complete(asyncio.gather(self._gone, return_exceptions=True))
            # dbus-next shuts its socket down but never closes it.
            self._bus._stream.close()
            self._bus._sock.close()
        self._loop.close()
        self._loop = self._bus = self._gone = None


async def _connected() -> Any:
    from dbus_next.aio.message_bus import MessageBus
    from dbus_next.constants import BusType

    class Bus(MessageBus):
        async def _auth_readline(self) -> str:
            # dbus-next's own spins for ever when the bus hangs up during authentication.
            line = b""
            while not line.endswith(b"\r\n"):
                byte = await self._loop.sock_recv(self._sock, 1)
                if not byte:
                    raise EOFError("it hung up")
                line += byte
            return line[:-2].decode()

    return await Bus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()


def _results(reply: Any) -> list[Any]:
    """The values of an answer; a file is its descriptor, which programs that we start do not get."""
    import os

    for file in reply.unix_fds:
        os.set_inheritable(file, False)
    return [
        reply.unix_fds[value] if kind.signature == "h" else _plain(value)
        for kind, value in zip(reply.signature_tree.types, reply.body, strict=True)
    ]


def _refuse_unsendable(value: Any) -> None:
    """D-Bus strings are UTF-8 without NUL; the bus hangs up on anyone who sends others."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise usage(f"{value!r} is not valid text")
    elif isinstance(value, Mapping):
        _refuse_unsendable(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_unsendable(item)


def _wrapped(kind: str, value: Any) -> Any:
    from dbus_next.signature import Variant

    if kind == "v":
        return Variant("s", value)
    if kind == "a{sv}":
        return {name: Variant(OPTION_TYPES[name], item) for name, item in value.items()}
    return value


def _plain(value: Any) -> Any:
    """The value without D-Bus variants, all the way down."""
    from dbus_next.signature import Variant

    if isinstance(value, Variant):
        return _plain(value.value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
