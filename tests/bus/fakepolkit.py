"""A polkit for tests: says what it is told to say, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from dbus_next.aio.message_bus import MessageBus
from dbus_next.constants import MessageFlag, MessageType
from dbus_next.message import Message

from netmond.bus.polkit import NAME
from tests.bus.private import LoopThread

YES, NO, CHALLENGE = (True, False), (False, False), (False, True)


class Question(NamedTuple):
    """One CheckAuthorization."""

    kind: str
    name: str
    action: str
    interactive: bool
    cancellation: str


class FakePolkit:
    """Owns polkit's name on a bus while started. `silent`, `interactive`: what it answers; None is never."""

    def __init__(self, loop: LoopThread, address: str) -> None:
        self.silent: tuple[bool, bool] | None = NO
        self.interactive: tuple[bool, bool] | None = NO
        self.error: tuple[str, str] | None = None
        self.questions: list[Question] = []
        self.cancelled: list[str] = []
        self._loop = loop
        self._address = address
        self._bus: MessageBus | None = None

    def start(self) -> None:
        """Come onto the bus."""
        self._loop.run(self._start())

    def stop(self) -> None:
        """Die, whatever is unanswered."""
        self._loop.run(self._stop())

    async def _start(self) -> None:
        self._bus = await MessageBus(bus_address=self._address).connect()
        self._bus.add_message_handler(self._handle)
        await self._bus.request_name(NAME)

    async def _stop(self) -> None:
        if self._bus is not None:
            self._bus.disconnect()  # type: ignore[no-untyped-call]
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
            self._bus._stream.close()
            self._bus._sock.close()
            self._bus = None
        await asyncio.sleep(0)

    def _handle(self, message: Message) -> Message | bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        if message.member == "CancelCheckAuthorization":
            assert message.flags & MessageFlag.NO_REPLY_EXPECTED
            self.cancelled.append(message.body[0])
            return True
        return self._check(message)

    def _check(self, message: Message) -> Message | bool:
        assert (message.member, message.signature) == ("CheckAuthorization", "(sa{sv})sa{ss}us")
        (kind, subject), action, details, flags, cancellation = message.body
        assert details == {}
        assert {key: value.signature for key, value in subject.items()} == {"name": "s"}
        self.questions.append(Question(kind, subject["name"].value, action, flags == 1, cancellation))
        if self.error is not None:
            return Message.new_error(message, *self.error)
        answer: Any = self.interactive if flags == 1 else self.silent
        if answer is None:
            return True
        return Message.new_method_return(message, "(bba{ss})", [[*answer, {}]])
