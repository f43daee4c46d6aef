"""A connection to a message bus that strangers can talk to without harm.

dbus-next's MessageBus reads until nothing is left, takes messages of any size, drops the connection on a
message it does not know and when the socket's buffer is full, spins when the bus goes away during
authentication, and leaves sockets open. This subclass replaces its reading, writing and ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import socket
from collections import deque
from typing import Any

from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message
from dbus_next.signature import SignatureTree

from netmond.bus import messages, names
from netmond.bus.frames import MAX_MESSAGE, Frames, without_body
from netmond.errors import LimitExceeded

log = logging.getLogger(__name__)

#: Most values in a message taken, of any type and depth.
MAX_VALUES = 30_000

#: Bytes waiting to be sent at which the bus counts as dead.
MAX_QUEUED = 64 << 20

#: Callers choose signatures and dbus-next remembers each; at this many it is made to forget them.
_SIGNATURES = 512

_READ = 1 << 16
_CONNECT_TIMEOUT = 25.0


class _Bounded(Unmarshaller):
    """Reads a message of at most MAX_VALUES values: pure Python takes a microsecond for each."""

    def __init__(self, frame: bytes) -> None:
        super().__init__(io.BytesIO(frame))  # type: ignore[no-untyped-call]
        self._left = MAX_VALUES

    def read_argument(self, type_: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise LimitExceeded("too many values")
        return super().read_argument(type_)  # type: ignore[no-untyped-call]


class _Writer:
    """Sends messages in order, as fast as the socket takes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[tuple[memoryview, asyncio.Future[None] | None]] = deque()
        self._queued = 0
        self._waiting = False

    def schedule_write(self, msg: Message | None = None, future: asyncio.Future[None] | None = None) -> None:
        """Queue a message, if any, and send what can be sent. Nothing is sent before the bus greeted us."""
        if msg is not None:
            data = memoryview(msg._marshall())  # type: ignore[no-untyped-call]
            self._queue.append((data, future))
            self._queued += len(data)
        if self._queued > MAX_QUEUED:
            self._connection._finalize(ConnectionError("the message bus takes no more messages"))
        elif self._connection.connected and not self._waiting:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._queue:
                data, future = self._queue[0]
                sent = self._connection._sock.send(data)
                self._queued -= sent
                if sent < len(data):
                    self._queue[0] = (data[sent:], future)
                    continue
                self._queue.popleft()
                if future is not None and not future.done():
                    future.set_result(None)
        except (BlockingIOError, InterruptedError):
            if not self._waiting:
                self._connection._loop.add_writer(self._connection._fd, self._flush)
            self._waiting = True
        except OSError as error:
            self._connection._finalize(error)
        else:
            if self._waiting:
                self._connection._loop.remove_writer(self._connection._fd)
            self._waiting = False

    def abandon(self, error: Exception) -> None:
        """Fail everything that waits to be sent."""
        for _, future in self._queue:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # nobody has to look at it
        self._queue.clear()


class Connection(MessageBus):
    """A dbus-next MessageBus, hardened. `address` None is the system bus."""

    def __init__(self, address: str | None = None) -> None:
        super().__init__(bus_address=address, bus_type=BusType.SYSTEM)  # type: ignore[arg-type]
        self._out = self._writer = _Writer(self)  # type: ignore[assignment]
        self._frames = Frames()

    @staticmethod
    async def open(address: str | None = None) -> Connection:
        """Connect and authenticate. OSError, ValueError or an AuthError of dbus-next if that fails."""
        connection = Connection(address)
        try:
            await asyncio.wait_for(connection.connect(), _CONNECT_TIMEOUT)
        except BaseException:
            connection._finalize(ConnectionError("could not connect"))
            connection._disconnect_future.exception()  # marks it as seen: the caller gets the real one
            raise
        return connection

    async def ask_bus(self, member: str, signature: str, *values: Any) -> list[Any]:
        """Call a method of the message bus; the body of its answer. ConnectionError, LookupError."""
        if not self.connected:
            raise ConnectionError("there is no connection to the message bus")
        reply = await self.call(messages.call_bus(member, signature, *values))
        if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
            raise LookupError(f"{member}: {reply.body[0] if reply and reply.body else 'no answer'}")
        if reply.sender != names.DBUS:
            raise LookupError(f"{member}: somebody else answered")
        body: list[Any] = reply.body
        return body

    async def close(self) -> None:
        """End the connection; what was queued and fitted into the socket is sent."""
        self.disconnect()
        self._finalize(None)
        await self.ended()

    async def ended(self) -> None:
        """Wait until there is no connection any more, for whatever reason."""
        with contextlib.suppress(Exception):
            await asyncio.shield(self._disconnect_future)

    def disconnect(self) -> None:
        self._user_disconnect = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _setup_socket(self) -> None:
        try:
            super()._setup_socket()  # type: ignore[no-untyped-call]
        except BaseException:
            self._close_socket()
            raise

    async def _auth_readline(self) -> str:
        line = b""
        while not line.endswith(b"\r\n"):
            data = await self._loop.sock_recv(self._sock, 512)
            if not data:
                raise ConnectionError("the message bus closed the connection")
            line += data
        return line[:-2].decode()

    def _message_reader(self) -> None:
        """One read for each turn of the event loop, so that nobody's calls starve the rest of the daemon."""
        try:
            data = self._sock.recv(_READ)
            if not data:
                raise ConnectionError("the message bus closed the connection")
            for frame, large in self._frames.feed(data):
                self._take(frame, large)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._finalize(error)

    def _take(self, frame: bytes, large: bool) -> None:
        if len(SignatureTree._cache) > _SIGNATURES:
            SignatureTree._cache.clear()
        try:
            message = _read(frame)
        except LimitExceeded:
            message, large = _read(without_body(frame)), True
        except Exception as error:
            log.debug("ignored a D-Bus message: %s", error)
            return
        if large and message.message_type is MessageType.METHOD_CALL:
            self._refuse(message)
        else:
            self._on_message(message)  # type: ignore[no-untyped-call]

    def _refuse(self, call: Message) -> None:
        if not call.flags & MessageFlag.NO_REPLY_EXPECTED:
            text = f"the call is too large: at most {MAX_MESSAGE} bytes and {MAX_VALUES} values are taken"
            self.send(messages.error(call, names.ERROR_PREFIX + LimitExceeded.code, text))

    def _finalize(self, err: Exception | None = None) -> None:
        if not self._disconnected:
            super()._finalize(err)  # type: ignore[no-untyped-call]
            self._out.abandon(err or ConnectionError("the connection was closed"))
            self._close_socket()

    def _close_socket(self) -> None:
        for name in ("_stream", "_sock"):
            if hasattr(self, name):
                with contextlib.suppress(OSError):
                    getattr(self, name).close()


def _read(frame: bytes) -> Message:
    message: Message | None = _Bounded(frame).unmarshall()  # type: ignore[no-untyped-call]
    if message is None:
        raise ValueError("the message ends too early")
    return message
