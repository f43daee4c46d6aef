"""The way to netmond over D-Bus, and all of it: nothing else here knows that there is a bus.

dbus-next is imported with the first call only, so that ``--help`` and usage errors stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netmonctl.calls import NAME, OPTION_TYPES, PERSON_TIMEOUT, Call, Typed, translated
from netmonctl.errors import CtlError, ExitCode, usage


class SystemBus:
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
        return {
            name: Variant(*item) if isinstance(item, Typed) else Variant(OPTION_TYPES[name], item)
            for name, item in value.items()
        }
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
