"""The service as a whole: takes its name, answers calls, tells changes, comes back when the bus was lost."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from dbus_next.constants import MessageFlag
from dbus_next.message import Message

from netmond import query
from netmond.bus import messages, names
from netmond.bus.authority import Authority, Callers
from netmond.bus.dispatch import Dispatcher, error_of
from netmond.bus.frames import Head
from netmond.bus.limits import STRANGER, Limits, Running
from netmond.bus.link import FIRST_RETRY, Link
from netmond.bus.logcontrol import LogControl
from netmond.bus.manager import Manager, features
from netmond.bus.marshal import Variant
from netmond.bus.messages import BUS, Outgoing, Remote
from netmond.bus.monitor import Monitor
from netmond.bus.packetlogs import PacketLogs
from netmond.bus.polkit import Polkit
from netmond.bus.sessions import Sessions
from netmond.bus.standard import ObjectManager, Properties
from netmond.bus.target import Targets, properties
from netmond.bus.turns import Turns
from netmond.bus.typed import Signal, StandardError
from netmond.bus.unread import DESCRIPTOR, Unread
from netmond.bus.viewing import Viewing
from netmond.errors import AccessDenied, LimitExceeded, NetmondError
from netmond.model import Network
from netmond.outputs import audit
from netmond.users import Names

log = logging.getLogger(__name__)

#: About the bytes that a bus needs for a message beside its body.
_HEADER = 400

_NO_REPLY = MessageFlag.NO_REPLY_EXPECTED.value
_LIMIT_EXCEEDED = names.ERROR_PREFIX + LimitExceeded.code

#: What the bus tells about connections; our policy lets us ask.
_STATS = Remote(names.DBUS, names.DBUS_PATH, "org.freedesktop.DBus.Debug.Stats")

#: Signals sent in one turn of the event loop.
_BURST = 256


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
        self._callers = Callers(self._credentials)
        self._tasks: set[asyncio.Task[None]] = set()
        self._limits = Limits()
        self._news: deque[tuple[Network, bool]] = deque()
        self._features = monitor.snapshot.features
        self.authority = authority
        self._link = Link(self, address=address, first_retry=first_retry)
        self._polkit = authority.polkit = Polkit(self._link)
        viewing = Viewing(monitor=monitor, names=user_names, authority=authority)
        logs = PacketLogs(monitor=monitor, names=user_names, authority=authority)
        self._turns = Turns(self._link.room)
        self._unread = Unread(self._kept)
        self._dispatcher = Dispatcher(authority, self._turn)
        sessions = Sessions(monitor=monitor, names=user_names, authority=authority)
        manager = Manager(monitor=monitor, viewing=viewing, logs=logs, sessions=sessions)
        self._dispatcher.export(names.ROOT_PATH, manager)
        self._dispatcher.export(names.LOG_CONTROL_PATH, LogControl(monitor=monitor))
        self._dispatcher.export_below(names.TARGETS_PATH, Targets(monitor=monitor))

    @property
    def calls(self) -> int:
        """How many calls are in progress."""
        return self._limits.calls

    async def start(self) -> None:
        """Take the name. Unavailable if there is no bus, AlreadyExists if the name is taken."""
        await self._link.open()

    async def close(self) -> None:
        """Leave the bus; calls in progress get no answer."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._news.clear()
        await self._link.close()

    def ticked(self) -> None:
        """There is a new Snapshot."""
        now = self._monitor.snapshot.features
        if now != self._features:
            self._features = now
            changed = {"Features": Variant("a(sss)", features(self._monitor.snapshot))}
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

    async def _turn(self, uid: int) -> None:
        """Wait until it is this user's turn; LimitExceeded if the user does not read answers."""
        await self._turns.take(uid)
        while self._unread.above(uid):
            if await self._unread.look(uid):
                raise LimitExceeded("too many unread answers; read those to your other calls")
            await self._turns.take(uid)

    async def _kept(self, name: str) -> int:
        """What the bus keeps for a connection that does not read, in bytes; 0 if it does not tell."""
        try:
            (stats,) = await self._link.ask(_STATS, "GetConnectionStats", "s", name)
            return int(stats["OutgoingBytes"].value + DESCRIPTOR * stats["OutgoingFDs"].value)
        except (OSError, LookupError):
            return 0

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
        self._link.send(messages.signal(path, interface.name, signal.name, signal.signature, values))

    async def _credentials(self, name: str) -> Mapping[str, Any]:
        try:
            (credentials,) = await self._link.ask(BUS, "GetConnectionCredentials", "s", name)
        except (OSError, LookupError):
            raise AccessDenied("the message bus does not say who you are") from None
        return {key: variant.value for key, variant in credentials.items()}

    async def arrive(self) -> None:
        """There is a new bus: implements link.Tenant."""
        self._callers.clear()
        self._unread.clear()
        await self._polkit.look()

    def leave(self, name: str) -> None:
        """A connection is gone: implements link.Tenant."""
        self._callers.forget(name)
        self._polkit.forget(name)
        self._unread.forget(name)

    def refuses(self, head: Head, size: int) -> bool:
        """Answers a call that is one too many, before it costs the time to read it."""
        silent = bool(head.flags & _NO_REPLY)
        reason = self._limits.refuses(head.sender, self._user(head.sender), size, silent=silent)
        if reason and not silent:
            self._reply(head, messages.error(head, _LIMIT_EXCEEDED, reason))
        return bool(reason)

    def take(self, call: Message, size: int) -> None:
        """A call came in: implements link.Tenant."""
        self._start(self._answer(call, self._limits.begin(call.sender, self._user(call.sender), size)))

    def _user(self, name: str) -> int:
        caller = self._callers.known(name)
        return STRANGER if caller is None else caller.uid

    async def _answer(self, call: Message, running: Running) -> None:
        try:
            caller = await self._callers.find(call.sender)
            self._limits.identify(running, caller.uid)
            interactive = bool(call.flags & MessageFlag.ALLOW_INTERACTIVE_AUTHORIZATION)
            answer = await self._dispatcher.call(caller.calling(interactive=interactive), call)
            reply = messages.method_return(call, *answer)
        except Exception as error:
            if not isinstance(error, NetmondError | StandardError):
                log.exception("D-Bus call %s.%s failed", call.interface, call.member)
            known = self._callers.known(call.sender)
            if isinstance(error, AccessDenied) and known is not None:
                audit.denied(known.uid, call.path, *_wanted(call), str(error))
            reply = messages.error(call, *error_of(error))
        finally:
            self._limits.end(running)
        self._reply(call, reply)

    def _reply(self, call: Message | Head, reply: Outgoing) -> None:
        if call.flags & _NO_REPLY:
            return
        caller = self._callers.known(call.sender)
        if caller is not None:
            if self._unread.hopeless(caller.uid):
                return  # not even refusals are read
            size = len(reply.encoded) + _HEADER + DESCRIPTOR * len(reply.files)
            self._unread.sent(caller.uid, caller.name, size)
        self._link.send(reply)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _wanted(call: Message) -> tuple[str, str]:
    """Interface and member of a call, or the property it is about; both may be made up."""
    if call.interface == names.PROPERTIES and call.signature.startswith("ss"):
        return call.body[0], call.body[1]
    return call.interface or "", call.member
