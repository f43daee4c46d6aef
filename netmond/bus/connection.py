"""A connection to a message bus that strangers can talk to without harm.

dbus-next's MessageBus reads until nothing is left, takes messages of any size, drops the connection on a
message it does not know and when the socket's buffer is full, spins when the bus goes away during
authentication, and leaves sockets open. This subclass replaces its reading, writing and ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.message import Message

from netmond.bus import descriptors, messages, names
from netmond.bus.descriptors import Descriptor
from netmond.bus.frames import MAX_MESSAGE, Frames, Head, head_of, without_body
from netmond.bus.messages import Outgoing, Remote
from netmond.bus.reading import MAX_VALUES, read
from netmond.errors import LimitExceeded

log = logging.getLogger(__name__)

#: Bytes waiting to be sent at which the bus counts as dead.
MAX_QUEUED = 64 << 20

#: Bytes waiting to be sent above which no more answers should be made.
FULL = 1 << 20

#: Seconds without a byte taken after which the bus counts as dead; a busy one may need some. A dbus-daemon
#: stops reading from whoever sent 127 MiB that receivers have not fetched; a new connection begins at zero.
STALLED = 30.0

_READ = 1 << 16

#: Seconds that may be spent at a time on messages that are refused.
_FLOOD = 0.02
_CONNECT_TIMEOUT = 25.0


class Refused(LookupError):
    """A call of ours was answered with the D-Bus error `name`."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _Waiting(NamedTuple):
    """A message to be sent, or the rest of one."""

    data: memoryview
    files: tuple[Descriptor, ...]
    future: asyncio.Future[None] | None


class _Writer:
    """Sends messages in order, as fast as the socket takes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: deque[_Waiting] = deque()
        self._queued = 0
        self._stalled: asyncio.TimerHandle | None = None  # while the socket takes nothing
        self.room = asyncio.Event()
        self.room.set()

    def schedule_write(self, msg: Message | None = None, future: asyncio.Future[None] | None = None) -> None:
        """Queue a message, if any, and send what can be sent. Nothing is sent before the bus greeted us."""
        if msg is not None:
            data = memoryview(msg._marshall())  # type: ignore[no-untyped-call]
            files = msg.files if isinstance(msg, Outgoing) else ()
            self._queue.append(_Waiting(data, files, future))
            self._queued += len(data)
        if self._queued > MAX_QUEUED:
            self._give_up()
        elif self._connection.connected and self._stalled is None:
            self._flush()
        self._tell_room()

    def _flush(self) -> None:
        try:
            while self._queue:
                data, files, future = self._queue[0]
                sent = descriptors.send(self._connection._sock, data, files)
                self._queued -= sent
                self._taken()
                if sent < len(data):
                    self._queue[0] = _Waiting(data[sent:], (), future)
                    continue
                self._queue.popleft()
                if future is not None and not future.done():
                    future.set_result(None)
        except (BlockingIOError, InterruptedError):
            if self._stalled is None:
                loop = self._connection._loop
                loop.add_writer(self._connection._fd, self._flush)
                self._stalled = loop.call_later(STALLED, self._give_up)
        except OSError as error:
            self._connection._finalize(error)
        self._tell_room()

    def _tell_room(self) -> None:
        if self._queued > FULL:
            self.room.clear()
        else:
            self.room.set()

    def _taken(self) -> None:
        """The socket took something: it does not stall."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
            self._connection._loop.remove_writer(self._connection._fd)

    def _give_up(self) -> None:
        self._connection.stalled = True
        self._connection._finalize(ConnectionError("the message bus takes no more messages"))

    def abandon(self, error: Exception) -> None:
        """Fail everything that waits to be sent, and let nobody wait for room."""
        if self._stalled is not None:
            self._stalled.cancel()
        for waiting in self._queue:
            if waiting.future is not None and not waiting.future.done():
                waiting.future.set_exception(error)
                waiting.future.exception()  # nobody has to look at it
        self._queue.clear()
        self._queued = 0
        self.room.set()


class Connection(MessageBus):
    """A dbus-next MessageBus, hardened. `address` None is the system bus.

    It can send descriptors and receives none: those that come with a message are closed by the kernel,
    because it is read with recv(2).
    """

    def __init__(self, address: str | None = None) -> None:
        super().__init__(bus_address=address, bus_type=BusType.SYSTEM, negotiate_unix_fd=True)  # type: ignore[arg-type]
        self._out = self._writer = _Writer(self)  # type: ignore[assignment]
        self._frames = Frames()
        #: Told of each message before it is read, with its size; true if it need not be read.
        self.refuses: Callable[[Head, int], bool] = lambda head, size: False
        self.stalled = False  #: whether it ended because the bus read nothing any more
        #: Bytes of the message that is being handled.
        self.size = 0

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

    async def ask(self, remote: Remote, member: str, signature: str, *values: Any) -> list[Any]:
        """Call a method of somebody else; the body of the answer. ConnectionError, Refused.

        There is no time limit: cancel the call to give it up. Answers
        nobody asked for are kept back by the bus: its rules let only requested ones through.
        """
        if not self.connected:
            raise ConnectionError("there is no connection to the message bus")
        call = messages.call(remote, member, signature, values)
        call.serial = self.next_serial()
        try:
            reply = await self.call(call)
        finally:
            # dbus-next would remember a call that was given up for ever
            self._method_return_handlers.pop(call.serial, None)
        if reply is None:
            raise ConnectionError("the connection to the message bus was closed")
        if reply.message_type is not MessageType.METHOD_RETURN:
            text = str(reply.body[0]) if reply.signature == "s" else "no reason given"
            raise Refused(reply.error_name, text)
        body: list[Any] = reply.body
        return body

    def tell(self, remote: Remote, member: str, signature: str, *values: Any) -> None:
        """Call a method whose answer does not matter, if there is a connection."""
        if self.connected:
            call = messages.call(remote, member, signature, values)
            call.flags = MessageFlag.NO_REPLY_EXPECTED
            self.send(call)

    async def room(self) -> None:
        """Wait until the bus takes what is sent, or is gone."""
        await self._out.room.wait()

    async def close(self) -> None:
        """End the connection; what was queued and fitted into the socket is sent."""
        self.disconnect()
        self._finalize(None)
        await self.ended()

    async def ended(self) -> str:
        """Wait until there is no connection any more; why."""
        try:
            await asyncio.shield(self._disconnect_future)
        except Exception as error:
            return str(error)
        return "it was closed"

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
        """One read for each turn of the event loop, so that nobody's calls starve the rest of the daemon.

        A few more while all is refused: what floods us must be gone sooner than the bus delivers more.
        """
        end = self._loop.time() + _FLOOD
        try:
            taken = False
            while not taken and self._loop.time() < end:
                data = self._sock.recv(_READ)
                if not data:
                    raise ConnectionError("the message bus closed the connection")
                for frame, large in self._frames.feed(data):
                    taken |= self._take(frame, large)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError) as error:
            self._finalize(error)

    def _take(self, frame: bytes, large: bool) -> bool:
        """Whether the message was read."""
        if self.refuses(head_of(frame), len(frame)):
            return False
        self.size = len(frame)
        try:
            message = read(frame)
        except LimitExceeded:
            message, large = read(without_body(frame)), True
        except Exception as error:
            log.debug("ignored a D-Bus message: %s", error)
            return True
        if large and message.message_type is MessageType.METHOD_CALL:
            self._refuse(message)
        else:
            self._on_message(message)  # type: ignore[no-untyped-call]
        return True

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
