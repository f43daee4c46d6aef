"""netmond as an object: one method for each thing it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from netmonctl.agent import text_agent
from netmonctl.calls import (
    LOG_CONTROL,
    LOG_PATH,
    MANAGER,
    PATH,
    PROPERTIES,
    START_TIMEOUT,
    TARGET,
    TIMEOUT,
    Call,
    Transport,
)
from netmonctl.errors import NotAllowed
from netmonctl.systembus import SystemBus


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Rows exactly as netmond delivers them, and what it says about them.

    tick: which reading they are of; watched: seconds since totals began; interval: seconds that rates were
    taken over
    """

    rows: list[dict[str, Any]]
    scope: str = "all"
    total: int = 0
    tick: int = 0
    watched: float = 0.0
    interval: float = 0.0


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
        """What netmond has a list of: Users, Flows, Interfaces, RdmaPorts and so on, as after ``List``."""
        rows, meta = self._manager(f"List{what}", ("a{sv}",), options)
        return Listing(
            rows=rows,
            scope=str(meta.get("scope", "all")),
            total=int(meta.get("total", len(rows))),
            tick=int(meta.get("tick", 0)),
            watched=float(meta.get("time", 0.0) - meta.get("since", 0.0)),
            interval=float(meta.get("rdma_interval", meta.get("interval", 0.0))),
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
    return Client(SystemBus(timeout))
