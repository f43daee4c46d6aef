"""The other side: a listener for lines, which a test starts, stops and makes slow, and a real rsyslogd."""

from __future__ import annotations

import json
import os
import queue
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from netmond.export.address import Address
from netmond.outputs import exported
from tests.kernel.deadline import DEADLINE

#: Below those that the kernel gives to whoever asks for any (ip_local_port_range): else a connection takes
#: the port before its listener does, or who looks whether somebody listens is connected to himself.
_PORTS = range(16384, 32768)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of loopback at which nobody listens, and that nobody gets by chance."""
    for port in random.sample(_PORTS, 100):
        with socket.socket(socket.AF_INET, kind) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter's process gets time to start and to end: a busy machine makes no failure of it."""
    monkeypatch.setattr(exported, "_PATIENCE", DEADLINE)
    monkeypatch.setattr(exported, "_FAREWELL", DEADLINE)


class Listener:
    """Takes connections at one address and reads lines from them, until it is stopped."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.connections = 0  #: taken so far
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._socket: socket.socket | None = None

    def start(self, *, reads: bool = True) -> None:
        """Listen. Who does not read takes connections and leaves all data in a small buffer."""
        if self.address.scheme == "unix":
            Path(self.address.path).unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(self.address.path)
        else:
            self._socket = socket.socket(socket.AF_INET)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not reads:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._socket.bind((self.address.host, self.address.port))
        self._socket.listen()
        if reads:
            self._closing, self._threads = threading.Event(), []
            self._run(self._accept, self._socket, self._closing)

    def stop(self) -> None:
        """Close the socket and all connections, as a process that dies. What came before can be taken."""
        if self._socket is None:
            return
        self._closing.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE)
        self._socket.close()
        self._socket = None

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next lines, as many as given; AssertionError if they do not come."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            try:
                found.append(json.loads(self._lines.get(timeout=DEADLINE)))
            except queue.Empty:
                raise AssertionError(f"{count} lines expected, {len(found)} came: {found}") from None
        return found

    def take_unread(self) -> list[dict[str, Any]]:
        """The whole lines that a connection brought which nobody read and the other end has closed."""
        assert self._socket is not None
        connection, _ = self._socket.accept()
        data = b""
        with connection, suppress(ConnectionResetError):
            while more := connection.recv(1 << 16):
                data += more
        return [json.loads(line) for line in data.split(b"\n")[:-1]]

    def ready(self) -> list[dict[str, Any]]:
        """All lines that have come so far."""
        return self.take(self._lines.qsize())

    def is_empty(self) -> bool:
        return self._lines.empty()

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listening: socket.socket, closing: threading.Event) -> None:
        while not closing.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            self._run(self._read, connection, closing)

    def _read(self, connection: socket.socket, closing: threading.Event) -> None:
        """Until the other end or this one closes; half a line at the end is nobody's."""
        rest = b""
        with connection:
            connection.settimeout(0.02)
            while not closing.is_set():
                try:
                    data = connection.recv(1 << 16)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._lines.put(line)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


_RSYSLOG = """\
global(workDirectory="{directory}" processInternalMessages="on")
module(load="imtcp")
module(load="imudp")
module(load="imuxsock" SysSock.Use="off")
module(load="mmpstrucdata")
input(type="imtcp" address="127.0.0.1" port="{tcp}")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imuxsock" Socket="{directory}/log" UseSpecialParser="off" IgnoreTimestamp="off")
template(name="json" type="list" option.jsonf="on") {{
    property(outname="priority" name="pri-text" format="jsonf")
    property(outname="time" name="timereported" dateformat="rfc3339" format="jsonf")
    property(outname="host" name="hostname" format="jsonf")
    property(outname="app" name="app-name" format="jsonf")
    property(outname="pid" name="procid" format="jsonf")
    property(outname="id" name="msgid" format="jsonf")
    property(outname="text" name="msg" format="jsonf")
    property(outname="version" name="protocol-version" format="jsonf")
    property(outname="input" name="inputname" format="jsonf")
    property(outname="data" name="$!rfc5424-sd" format="jsonf")
}}
action(type="mmpstrucdata")
action(type="ompipe" pipe="{directory}/pipe" template="json")
"""


class Rsyslogd:
    """An instance of rsyslogd of its own. What it understood of a message comes back through a pipe."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
        self.addresses = {
            "tcp": Address("tcp", "127.0.0.1", tcp),
            "udp": Address("udp", "127.0.0.1", udp),
            "unix": Address("unix", path=str(directory / "log")),
        }
        (directory / "rsyslog.conf").write_text(_RSYSLOG.format(directory=directory, tcp=tcp, udp=udp))
        os.mkfifo(directory / "pipe")
        self._pipe = os.open(directory / "pipe", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self) -> None:
        """Until it takes messages: then it says that it started."""
        program = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
        assert program, "install the package rsyslog"
        self._process = subprocess.Popen(
            [program, "-n", "-f", self._directory / "rsyslog.conf", "-i", self._directory / "pid"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while "start" not in self._take("rsyslogd")["text"]:
            pass  # the end of the one before

    def stop(self, number: int = signal.SIGKILL) -> None:
        """End it; AssertionError if it complained of anything."""
        if self._process is None:
            return
        self._process.send_signal(number)
        _, complaints = self._process.communicate(timeout=DEADLINE)
        self._process = None
        assert complaints == b""

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next messages of netmond, with their structured data as ``data``."""
        return [self._take("netmond") for _ in range(count)]

    def ready(self) -> list[dict[str, Any]]:
        """All messages of netmond that have come so far."""
        found = []
        while (told := self._next("netmond", patience=0)) is not None:
            found.append(told)
        return found

    def __enter__(self) -> Rsyslogd:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            os.close(self._pipe)

    def _take(self, app: str) -> dict[str, Any]:
        told = self._next(app, DEADLINE)
        assert told is not None, f"nothing came from rsyslogd; so far: {self._rest!r}"
        return told

    def _next(self, app: str, patience: float) -> dict[str, Any] | None:
        """The next message of a program; None if none comes within so many seconds."""
        while (line := self._line(patience)) is not None:
            told: dict[str, Any] = json.loads(line)
            if told["app"] == "rsyslogd":
                assert told["priority"] == "syslog.info", f"rsyslogd complains: {told['text']}"
            if told["app"] == app:
                told["data"] = json.loads(told["data"] or "{}")
                return told
        return None

    def _line(self, patience: float) -> bytes | None:
        while b"\n" not in self._rest:
            if not select.select([self._pipe], [], [], patience)[0]:
                return None
            self._rest += os.read(self._pipe, 1 << 16)
        line, _, self._rest = self._rest.partition(b"\n")
        return line
