"""What the bus tests are made of: a private bus, callers of any user, a fake daemon."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from netmond.bus import names
from netmond.bus.monitor import Listener
from netmond.config import defaults
from netmond.errors import AlreadyExists, NoSuchInterface, NoSuchLog, NoSuchTarget, NotFound, Unavailable
from netmond.model import NOBODY_UID, Network, PacketLog, Session, Snapshot
from netmond.sessions.supervisor import Sessions, Shared
from tests.bus.background import Background
from tests.bus.worker import KINDS

T = TypeVar("T")
DEADLINE = 30.0
_PAUSE = 0.005
ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging" / "dbus"

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>{address}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
    <allow send_interface="org.freedesktop.PolicyKit1.AuthenticationAgent"/>
  </policy>
  <include>{policy}</include>
  <policy user="{uid}">
    <allow own="org.netmond1"/>
    <allow receive_sender="org.netmond1"/>
  </policy>
</busconfig>
"""


def own_uid() -> int:
    """Whoever runs the tests."""
    return os.geteuid()


def unavailable(reason: str) -> NoReturn:
    """Skip, but not where everything has to run."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class PrivateBus(Background):
    """A dbus-daemon with a system bus's default rules and netmond's policy; whoever tests is like root."""

    def __init__(self) -> None:
        super().__init__("netmond-bus-")
        self.address = f"unix:path={self.directory}/system_bus_socket"
        policy = PACKAGING / "org.netmond1.conf"
        config = _CONFIG.format(address=self.address, policy=policy, uid=os.geteuid())
        (self.directory / "bus.conf").write_text(config)

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = ["dbus-daemon", f"--config-file={self.directory}/bus.conf", "--nofork", "--nopidfile"]
        self.launch([*command, "--print-address=1"], ready="unix:")

    def stop(self) -> None:
        """Kill it."""
        super().stop()
        (self.directory / "system_bus_socket").unlink(missing_ok=True)


class CallError(Exception):
    """A call was answered with an error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Caller:
    """A client of the bus in a process of its own, as `uid` with `groups`."""

    def __init__(self, address: str, uid: int, groups: Sequence[int] = ()) -> None:
        self.uid = uid
        self._lock = threading.Lock()
        source = (Path(__file__).parent / "caller.py").read_text()
        become: dict[str, Any] = {}
        if os.geteuid() == 0:
            become = {"user": uid, "group": uid, "extra_groups": list(groups)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            **become,
        )
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self.name: str = json.loads(self._process.stdout.readline())

    def call(
        self,
        member: str,
        types: Sequence[str] = (),
        *values: Any,
        path: str = names.ROOT_PATH,
        interface: str | None = names.MANAGER,
        destination: str = names.BUS_NAME,
        flags: int = 0,
    ) -> Any:
        """The value of the only result, a list of several, None for none; raises CallError."""
        reply = self._ask("call", member, types, values, path, interface, destination, flags=flags)
        if reply is None:
            return None
        if "error" in reply:
            raise CallError(reply["error"], reply["text"])
        body = reply["body"]
        return body[0] if len(body) == 1 else body or None

    def burst(
        self, count: int, refused: int, member: str, types: Sequence[str], *values: Any, flags: int = 0
    ) -> list[str]:
        """Make the same call `count` times at once; the error names of the first `refused` answers."""
        where = (names.ROOT_PATH, names.MANAGER, names.BUS_NAME)
        more: dict[str, Any] = {"count": count, "refused": refused, "flags": flags}
        result: list[str] = self._ask("burst", member, types, values, *where, **more)
        return result

    def get(self, property_: str, path: str = names.ROOT_PATH, interface: str = names.MANAGER) -> Any:
        """The value of a property."""
        types = ("s", "s")
        return self.call("Get", types, interface, property_, path=path, interface=names.PROPERTIES)

    def listen(self, rule: str) -> None:
        """Receive signals that match `rule`."""
        self.call_bus("AddMatch", ("s",), rule)

    def call_bus(self, member: str, types: Sequence[str] = (), *values: Any) -> Any:
        """Call the bus itself."""
        where: dict[str, Any] = {"path": names.DBUS_PATH, "interface": names.DBUS, "destination": names.DBUS}
        return self.call(member, types, *values, **where)

    def signal(self, deadline: float = DEADLINE) -> Any:
        """The next signal: path, name, body."""
        return self._ask("signal", "", (), (), deadline=deadline)

    def signals(self, count: int) -> list[Any]:
        """The next `count` signals."""
        found: list[Any] = self._ask("signals", "", (), (), deadline=DEADLINE, count=count)
        return found

    def wait_for_name(self) -> None:
        """Wait until netmond is on the bus."""
        self.listen(f"sender='{names.DBUS}',member='NameOwnerChanged',arg0='{names.BUS_NAME}'")
        while not self.call_bus("NameHasOwner", ("s",), names.BUS_NAME):
            self.signal()

    def take(self, number: int) -> int:
        """A file that came with an answer, as a descriptor of ours; the process closes its own."""
        mine = os.open(f"/proc/{self.pid}/fd/{number}", os.O_RDONLY)
        self._ask("close", "", (), (), number=number)
        return mine

    def kill(self) -> None:
        """End the process, and with it all that it holds, without a word to the bus."""
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE)
        self._process.stdout.close()

    def _ask(
        self,
        do: str,
        member: str,
        types: Sequence[str],
        values: Sequence[Any],
        path: str = "",
        interface: str | None = None,
        destination: str = "",
        **more: Any,
    ) -> Any:
        request = {"do": do, "member": member, "types": types, "values": values, "path": path, "flags": 0}
        request |= {"interface": interface, "destination": destination, **more}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class RawCaller:
    """A connection that sends bytes as they are given, and only receives when asked."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(address.removeprefix("unix:path="))
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        assert self._socket.recv(512).startswith(b"OK ")
        self._socket.sendall(b"BEGIN\r\n")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def receive_until(self, text: bytes) -> bytes:
        """Everything received up to and including a read that completed `text`."""
        data = b""
        while text not in data:
            more = self._socket.recv(65536)
            assert more, data
            data += more
        return data

    def close(self) -> None:
        self._socket.close()


class Crowd:
    """Many connections of user `uid`, which read nothing unless they are told."""

    def __init__(self, address: str, uid: int, count: int, hello: bytes) -> None:
        source = (Path(__file__).parent / "crowd.py").read_text()
        path = address.removeprefix("unix:path=")
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, path, str(count), base64.b64encode(hello).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            user=uid,
            group=uid,
            extra_groups=[],
        )
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline()) == "ready"

    def send(self, data: bytes) -> None:
        """Each sends this."""
        self._ask(do="send", data=base64.b64encode(data).decode())

    def read(self, text: str, times: int) -> int:
        """Each reads until it has received `text` so many times; how often all of them did."""
        return int(self._ask(do="read", text=text, times=times))

    def close(self) -> None:
        """Disconnect all, and end the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class FakeMonitor:
    """The daemon, played from memory. Keeps the Monitor protocol's promises and tells its listener."""

    version = "7.11.13"
    log_level = "info"
    log_target = "journal"

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.listener: Listener | None = None
        self.done: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.held = 0  #: calls that wait at the gate
        self._targets: dict[Network, float] = {}
        self.logs: dict[int, PacketLog] = {}
        self.log_directory: Path | None = None
        self.config = defaults()
        self.sessions = Sessions(lambda: self.config, Shared(), KINDS)

    def look(self) -> Snapshot:
        return self.snapshot

    def have(self, address: str) -> None:
        """There is a target, without anybody having been told."""
        self._targets[ip_network(address)] = 1700.5

    def forget_all(self) -> None:
        """There is no target any more, likewise."""
        self._targets.clear()

    def targets(self) -> Mapping[Network, float]:
        return self._targets

    async def add_targets(self, networks: Sequence[Network]) -> None:
        await self._begin("add", *map(str, networks))
        for network in networks:
            if network in self._targets:
                raise AlreadyExists(f"{network} is a target already")
        self._targets |= dict.fromkeys(networks, 1700.5)
        self._tell(networks, ())

    async def remove_targets(self, networks: Sequence[Network]) -> None:
        await self._begin("remove", *map(str, networks))
        self._known(networks)
        for network in networks:
            del self._targets[network]
        self._tell((), networks)

    async def reset_targets(self, networks: Sequence[Network]) -> None:
        await self._begin("reset", *map(str, networks))
        self._known(networks)

    async def monitor_interface(self, name: str, attach: str) -> None:
        await self._begin("monitor", name, attach)
        if name not in [link.name for link in self.snapshot.links.values()]:
            raise NoSuchInterface(f"there is no interface {name}")
        if attach == "xdp":
            raise Unavailable(f"{name} has no native XDP; use attach=tc")

    async def unmonitor_interface(self, name: str) -> None:
        await self._begin("unmonitor", name)

    def list_packet_logs(self) -> Sequence[PacketLog]:
        return list(self.logs.values())

    async def enable_packet_log(self, uids: Sequence[int] | None, every: int) -> None:
        await self._begin("log", uids, every)
        self.logs |= {uid: PacketLog(uid=uid, every=every, since=1800.5) for uid in uids or (NOBODY_UID,)}

    async def disable_packet_log(self, uids: Sequence[int] | None) -> None:
        await self._begin("log off", uids)
        for uid in list(self.logs) if uids is None else uids:
            if uid not in self.logs:
                raise NotFound(f"packets of user {uid} are not logged")
            del self.logs[uid]

    def open_log(self, uid: int) -> int:
        try:
            return os.open(f"{self.log_directory}/{uid}.log", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchLog(f"user {uid} has no log yet") from None

    def list_sessions(self) -> Sequence[Session]:
        return self.sessions.infos()

    async def start_session(self, kind: str, uid: int, options: Mapping[str, Any]) -> tuple[int, int, int]:
        await self._begin(f"start {kind}")
        return await self.sessions.start(kind, uid, options)

    async def stop_session(self, number: int) -> None:
        await self.sessions.stop(number)

    async def reload(self) -> list[str]:
        await self._begin("reload")
        warnings = ["netmond.toml: unknown key colour"]
        if self.listener is not None:
            self.listener.reloaded(warnings)
        return warnings

    async def _begin(self, *what: Any) -> None:
        if self.gate is not None:
            self.held += 1
            await self.gate.wait()
            self.held -= 1
        if self.failure is not None:
            raise self.failure
        self.done.append(what)

    def _known(self, networks: Sequence[Network]) -> None:
        for network in networks:
            if network not in self._targets:
                raise NoSuchTarget(f"{network} is not a target")

    def _tell(self, added: Sequence[Network], removed: Sequence[Network]) -> None:
        if self.listener is not None:
            self.listener.targets_changed(added, removed)


class LoopThread:
    """An event loop in a thread of its own, where the service lives."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the loop and wait for the result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def pass_time(self, seconds: float) -> None:
        """All that waits in the loop for some time to be over has waited so much longer."""
        now = self.loop.time

        def later() -> None:
            self.loop.time = lambda: now() + seconds  # type: ignore[assignment]

        self.loop.call_soon_threadsafe(later)

    def close(self) -> None:
        """End the loop and the thread."""
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()


def code(error: CallError) -> str:
    """The last part of an error name of netmond's own."""
    assert error.name.startswith(names.ERROR_PREFIX), error
    assert "\n" not in error.text, error
    return error.name.removeprefix(names.ERROR_PREFIX)


def outcome(call: Callable[[], Any]) -> str:
    """How a call ended: "ok" or the name of the error."""
    try:
        call()
    except CallError as error:
        return error.name
    return "ok"


def until(condition: Callable[[], bool]) -> None:
    """Poll until the condition holds, with a deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(_PAUSE)  # who waits leaves the processor to the one that is waited for
