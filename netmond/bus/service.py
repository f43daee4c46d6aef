"""The service as a whole: takes its name, answers calls, tells changes, comes back when the bus was lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from dbus_next.constants import MessageFlag, MessageType, NameFlag, RequestNameReply
from dbus_next.errors import AuthError
from dbus_next.message import Message

from netmond import query
from netmond.bus import messages, names
from netmond.bus.authority import Authority, Callers
from netmond.bus.connection import Connection
from netmond.bus.dispatch import Dispatcher, error_of
from netmond.bus.logcontrol import LogControl
from netmond.bus.manager import Manager, features
from netmond.bus.marshal import Variant
from netmond.bus.monitor import Monitor
from netmond.bus.standard import ObjectManager, Properties
from netmond.bus.target import Targets, properties
from netmond.bus.typed import Signal, StandardError
from netmond.bus.viewing import Viewing
from netmond.errors import AccessDenied, AlreadyExists, LimitExceeded, NetmondError, Unavailable
from netmond.model import Network
from netmond.users import Names

log = logging.getLogger(__name__)

#: Calls in progress, of one connection and of all.
MAX_CALLS_EACH = 32
MAX_CALLS = 1024

#: Seconds before the second attempt to return to the bus, and the most between two attempts.
FIRST_RETRY = 0.25
LAST_RETRY = 15.0

#: Signals sent in one turn of the event loop.
_BURST = 256

#: Connections that end: their credentials can be forgotten.
_GONE = f"type='signal',sender='{names.DBUS}',interface='{names.DBUS}',member='NameOwnerChanged',arg2=''"


class Service:
    """org.netmond1 on a message bus; `address` None is the system bus. Implements monitor.Listener."""

    def __init__(
        self,
        monitor: Monitor,
        user_names: Names,
        authority: Authority,
        *,
        address: str | None = None,
        first_retry: float = FIRST_RETRY,
    ) -> None:
        self._monitor = monitor
        self._address = address
        self._first_retry = first_retry
        self._callers = Callers(self._credentials)
        self._connection: Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls: Counter[str] = Counter()
        self._news: deque[tuple[Network, bool]] = deque()
        self._features = features(monitor.snapshot)
        viewing = Viewing(monitor=monitor, names=user_names, authority=authority)
        self._dispatcher = Dispatcher(authority.require)
        self._dispatcher.export(names.ROOT_PATH, Manager(monitor=monitor, viewing=viewing))
        self._dispatcher.export(names.LOG_CONTROL_PATH, LogControl(monitor=monitor))
        self._dispatcher.export_below(names.TARGETS_PATH, Targets(monitor=monitor))

    async def start(self) -> None:
        """Take the name. Unavailable if there is no bus, AlreadyExists if the name is taken."""
        connection = await self._connect()
        self._keeper = asyncio.create_task(self._keep(connection))

    async def close(self) -> None:
        """Leave the bus; calls in progress get no answer."""
        tasks = [*self._tasks, *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = None
        self._news.clear()
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    def ticked(self) -> None:
        """There is a new Snapshot."""
        now = features(self._monitor.snapshot)
        if now != self._features:
            self._features = now
            changed = {"Features": Variant("a(sss)", now)}
            self._emit(names.ROOT_PATH, Properties, Properties.changed, names.MANAGER, changed, [])

    def targets_changed(self, added: Sequence[Network], removed: Sequence[Network]) -> None:
        """Targets came and went; removed ones are told first."""
        told = bool(self._news)
        self._news += [(network, False) for network in removed]
        self._news += [(network, True) for network in added]
        if self._news and not told:
            self._start(self._announce())

    def reloaded(self, warnings: Sequence[str]) -> None:
        """The configuration was read again."""
        self._emit(names.ROOT_PATH, Manager, Manager.reloaded, list(warnings))

    async def _announce(self) -> None:
        """Tell all news in order, from the manager's path, a few at a time: there may be 10,000."""
        sent = 0
        while self._news:
            network, added = self._news[0]
            address, since = query.network_text(network), self._monitor.targets().get(network)
            path = names.target_path(address)
            if not added:
                self._emit(names.ROOT_PATH, ObjectManager, ObjectManager.removed, path, [names.TARGET])
            elif since is not None:  # else it is gone again, which is the next news
                told = properties(address, since, [0, 0, 0, 0])
                self._emit(names.ROOT_PATH, ObjectManager, ObjectManager.added, path, told)
            self._news.popleft()
            sent += 1
            if sent % _BURST == 0:
                await asyncio.sleep(0)

    def _emit(self, path: str, interface: Any, signal: Signal, *values: Any) -> None:
        if self._connection is not None and self._connection.connected:
            message = messages.signal(path, interface.name, signal.name, signal.signature, values)
            self._connection.send(message)

    async def _connect(self) -> Connection:
        try:
            connection = await Connection.open(self._address)
        except (OSError, ValueError, AuthError, TimeoutError) as error:
            where = self._address or "the system bus"
            raise Unavailable(
                f"cannot connect to D-Bus at {where}: {error or type(error).__name__}"
            ) from None
        try:
            connection.add_message_handler(self._on_message)
            self._callers.clear()
            self._connection = connection
            await connection.ask_bus("AddMatch", "s", _GONE)
            reply = await connection.ask_bus("RequestName", "su", names.BUS_NAME, int(NameFlag.DO_NOT_QUEUE))
        except (OSError, LookupError) as error:
            await connection.close()
            raise Unavailable(f"cannot become {names.BUS_NAME} on D-Bus: {error}") from None
        if RequestNameReply(reply[0]) not in (
            RequestNameReply.PRIMARY_OWNER,
            RequestNameReply.ALREADY_OWNER,
        ):
            await connection.close()
            raise AlreadyExists(f"{names.BUS_NAME} is taken on D-Bus: is another netmond running?")
        return connection

    async def _keep(self, connection: Connection) -> None:
        """Wait for the bus to go away and return to it, for ever."""
        while True:
            await connection.ended()
            log.warning("lost the connection to D-Bus; trying to return")
            connection = await self._return()
            log.info("back on D-Bus")

    async def _return(self) -> Connection:
        pause = self._first_retry
        told = ""
        while True:
            try:
                return await self._connect()
            except NetmondError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s; trying again", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY)

    async def _credentials(self, name: str) -> Mapping[str, Any]:
        try:
            if self._connection is None:
                raise ConnectionError
            (credentials,) = await self._connection.ask_bus("GetConnectionCredentials", "s", name)
        except (OSError, LookupError):
            raise AccessDenied("the message bus does not say who you are") from None
        return {key: variant.value for key, variant in credentials.items()}

    def _on_message(self, message: Message) -> bool:
        """True if nobody else has to look at the message."""
        if message.message_type is MessageType.METHOD_CALL:
            self._on_call(message)
            return True
        if message.message_type is MessageType.SIGNAL and message.member == "NameOwnerChanged":
            if message.sender == names.DBUS and message.signature == "sss" and not message.body[2]:
                self._callers.forget(message.body[0])
            return True
        return False

    def _on_call(self, call: Message) -> None:
        if self._calls[call.sender] >= MAX_CALLS_EACH or self._calls.total() >= MAX_CALLS:
            text = f"too many calls at once; wait for answers, {MAX_CALLS_EACH} may be in progress"
            self._reply(call, messages.error(call, names.ERROR_PREFIX + LimitExceeded.code, text))
            return
        self._calls[call.sender] += 1
        self._start(self._answer(call))

    async def _answer(self, call: Message) -> None:
        try:
            caller = await self._callers.find(call.sender)
            signature, encoded = await self._dispatcher.call(caller, call)
            reply = messages.method_return(call, signature, encoded)
        except Exception as error:
            if not isinstance(error, NetmondError | StandardError):
                log.exception("D-Bus call %s.%s failed", call.interface, call.member)
            reply = messages.error(call, *error_of(error))
        finally:
            self._calls[call.sender] -= 1
            if not self._calls[call.sender]:
                del self._calls[call.sender]
        self._reply(call, reply)

    def _reply(self, call: Message, reply: Message) -> None:
        wanted = not call.flags & MessageFlag.NO_REPLY_EXPECTED
        if wanted and self._connection is not None and self._connection.connected:
            self._connection.send(reply)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
