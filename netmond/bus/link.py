"""netmond's place on the message bus: its name, and the way back when the bus was lost.

There are two connections, one that is called and one that calls: answers to our own questions, who a caller
is and what polkit says, so never queue behind what a flood of callers sends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from dbus_next.constants import MessageType, NameFlag, RequestNameReply
from dbus_next.errors import AuthError
from dbus_next.message import Message

from netmond.bus import names
from netmond.bus.connection import Connection
from netmond.bus.frames import Head
from netmond.bus.messages import BUS, Outgoing, Remote
from netmond.errors import AlreadyExists, NetmondError, Unavailable

log = logging.getLogger(__name__)

#: Seconds before the second attempt to return to the bus, and the most between two attempts.
FIRST_RETRY = 0.25
LAST_RETRY = 15.0

#: Connections that end: what is known of them can be forgotten.
_GONE = f"type='signal',sender='{names.DBUS}',interface='{names.DBUS}',member='NameOwnerChanged',arg2=''"


class Tenant(Protocol):
    """Whom the name stands for."""

    async def arrive(self) -> None:
        """There is a new bus, which knows nobody yet."""

    def refuses(self, head: Head, size: int) -> bool:
        """Whether a call of `size` bytes is one too many; it was answered then, and need not be read."""

    def take(self, call: Message, size: int) -> None:
        """A call came in."""

    def leave(self, name: str) -> None:
        """The connection of this unique name is gone."""


class Link:
    """The name org.netmond1 on a message bus; `address` None is the system bus."""

    def __init__(self, tenant: Tenant, *, address: str | None, first_retry: float) -> None:
        self._tenant = tenant
        self._address = address
        self._first_retry = first_retry
        self._called: Connection | None = None
        self._calling: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take the name. Unavailable if there is no bus, AlreadyExists if the name is taken."""
        await self._connect(replace=False)
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Give the name back."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        await self._disconnect()

    async def ask(self, remote: Remote, member: str, signature: str, *values: Any) -> list[Any]:
        """Connection.ask, whichever connection there is."""
        if self._calling is None:
            raise ConnectionError("there is no connection to the message bus")
        return await self._calling.ask(remote, member, signature, *values)

    def tell(self, remote: Remote, member: str, signature: str, *values: Any) -> None:
        """Connection.tell, whichever connection there is."""
        if self._calling is not None:
            self._calling.tell(remote, member, signature, *values)

    def send(self, message: Outgoing) -> None:
        """Send an answer or a signal, if there is a bus."""
        if self._called is not None and self._called.connected:
            self._called.send(message)

    async def room(self) -> None:
        """Wait until the bus takes what is sent, or is gone."""
        if self._called is not None:
            await self._called.room()

    async def _connect(self, *, replace: bool) -> None:
        try:
            self._calling = await Connection.open(self._address)
            self._called = await Connection.open(self._address)
        except (OSError, ValueError, AuthError, TimeoutError) as error:
            await self._disconnect()
            where = self._address or "the system bus"
            raise Unavailable(
                f"cannot connect to D-Bus at {where}: {error or type(error).__name__}"
            ) from None
        try:
            await self._settle(self._called, self._calling, replace)
        except (OSError, LookupError) as error:
            await self._disconnect()
            raise Unavailable(f"cannot become {names.BUS_NAME} on D-Bus: {error}") from None
        except NetmondError:
            await self._disconnect()
            raise

    async def _settle(self, called: Connection, calling: Connection, replace: bool) -> None:
        called.refuses = self._refuses
        called.add_message_handler(self._on_call)
        calling.add_message_handler(self._on_signal)
        await calling.ask(BUS, "AddMatch", "s", _GONE)
        await self._tenant.arrive()
        # That we may be replaced is for ourselves only: the bus lets nobody else own the name.
        flags = NameFlag.DO_NOT_QUEUE | NameFlag.ALLOW_REPLACEMENT
        if replace:
            flags |= NameFlag.REPLACE_EXISTING
        (reply,) = await called.ask(BUS, "RequestName", "su", names.BUS_NAME, int(flags))
        if reply != RequestNameReply.PRIMARY_OWNER.value:
            raise AlreadyExists(f"{names.BUS_NAME} is taken on D-Bus: is another netmond running?")

    async def _disconnect(self) -> None:
        for connection in (self._called, self._calling):
            if connection is not None:
                await connection.close()
        self._called = self._calling = None

    async def _keep(self) -> None:
        """Wait for the bus to go away and return to it, for ever."""
        while self._called is not None and self._calling is not None:
            called = self._called
            ends = [asyncio.create_task(one.ended()) for one in (called, self._calling)]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            log.warning("lost the connection to D-Bus (%s); trying to return", done.pop().result())
            await self._disconnect()
            await self._return(replace=called.stalled)
            log.info("back on D-Bus")

    async def _return(self, *, replace: bool) -> None:
        """`replace`: the bus reads nothing from our last connection, not even that it ended."""
        pause = self._first_retry
        told = ""
        while True:
            try:
                return await self._connect(replace=replace)
            except NetmondError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s; trying again", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)

    def _refuses(self, head: Head, size: int) -> bool:
        """What nobody asked for is dropped: all but calls, and the bus's answers."""
        if head.kind != MessageType.METHOD_CALL.value:
            return head.sender not in (names.DBUS, "")
        return self._tenant.refuses(head, size)

    def _on_call(self, message: Message) -> bool:
        """True if nobody else has to look at the message."""
        if message.message_type is MessageType.METHOD_CALL and self._called is not None:
            self._tenant.take(message, self._called.size)
        return message.message_type is MessageType.METHOD_CALL

    def _on_signal(self, message: Message) -> bool:
        gone = message.message_type is MessageType.SIGNAL and message.member == "NameOwnerChanged"
        if gone and message.sender == names.DBUS and message.signature == "sss" and not message.body[2]:
            self._tenant.leave(message.body[0])
        return message.message_type in (MessageType.SIGNAL, MessageType.METHOD_CALL)
