"""ListFlows on D-Bus: the top 100 of 100,000 flows, from the call to the last byte of the answer.

The real Service in a process of its own (listing.py) on a bus of its own. The caller writes the call to its
socket and waits for the answer's last byte; it does not take the answer apart, which is the client's time.
Sorted by bytes as by default, sorted by a text key, and filtered by user and port first.

Peers, in turn: the same list of 1,000 flows, and Ping of the same service, the time the bus takes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from dbus_next.message import Message
from dbus_next.signature import Variant

from bench.host import ending, private_bus
from bench.report import ROOT, Peer, Row, progress

BUDGET = 50.0
_COUNT, _FEWER = 100_000, 1_000
_NAME, _PATH, _MANAGER = "org.netmond1", "/org/netmond1", "org.netmond1.Manager"
_QUESTIONS: Mapping[str, Mapping[str, tuple[str, str | int]]] = {
    "by bytes": {},
    "by unit": {"sort": ("s", "unit")},
    "of one user and port": {"user": ("s", "1007"), "port": ("q", 443)},
}
_METHOD_RETURN = 2


class _Caller:
    """A connection to the bus that counts bytes instead of reading them."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30.0)
        self._socket.connect(address.partition("unix:path=")[2].partition(",")[0])
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        self._socket.recv(512)
        self._socket.sendall(b"BEGIN\r\n")
        self._serial = 0
        self._buffer = b""
        self.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"))

    def close(self) -> None:
        self._socket.close()

    def call(self, message: Message) -> float:
        """ms until the answer is there. RuntimeError: it is an error."""
        self._serial += 1
        message.serial = self._serial
        data = message._marshall()  # type: ignore[no-untyped-call]
        began = time.monotonic()
        self._socket.sendall(data)
        while True:
            answer = self._receive()
            if answer[1] != 4:  # a signal: the bus tells us our name
                break
        took = time.monotonic() - began
        if answer[1] != _METHOD_RETURN:
            raise RuntimeError(f"{message.member}: {answer!r}")
        return took * 1e3

    def _receive(self) -> bytes:
        """One whole message, see the D-Bus specification."""
        while len(self._buffer) < 16 or len(self._buffer) < self._length():
            more = self._socket.recv(1 << 20)
            if not more:
                raise RuntimeError("the bus has closed the connection")
            self._buffer += more
        length = self._length()
        message, self._buffer = self._buffer[:length], self._buffer[length:]
        return message

    def _length(self) -> int:
        body, fields = (int.from_bytes(self._buffer[at : at + 4], "little") for at in (4, 12))
        return 16 + (fields + 7) // 8 * 8 + body


@contextmanager
def _caller(count: int) -> Iterator[_Caller]:
    with private_bus() as address, ExitStack() as stack:
        argv = [sys.executable, "-m", "bench.listing", str(count)]
        environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address}
        service = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        stack.enter_context(ending(service))
        assert service.stdout is not None
        if not service.stdout.readline():
            raise RuntimeError("the service ended")
        caller = _Caller(address)
        stack.callback(caller.close)
        yield caller


def _list(options: Mapping[str, tuple[str, str | int]]) -> Message:
    body = [{name: Variant(signature, value) for name, (signature, value) in options.items()}]
    return Message(_NAME, _PATH, _MANAGER, "ListFlows", signature="a{sv}", body=body)


def benchmark(quick: bool) -> list[Row]:
    """Asks both services all questions in turn."""
    progress(f"bus: lists of {_COUNT:,} flows")
    many: dict[str, list[float]] = {question: [] for question in _QUESTIONS}
    few: dict[str, list[float]] = {question: [] for question in _QUESTIONS}
    ping: list[float] = []
    with _caller(_COUNT) as ours, _caller(_FEWER) as fewer:
        for number in range(6 if quick else 31):
            for question, options in _QUESTIONS.items():
                for caller, samples in ((ours, many), (fewer, few)):
                    took = caller.call(_list(options))
                    if number:  # the first call pays for what is remembered
                        samples[question].append(took)
            ping.append(ours.call(Message(_NAME, _PATH, "org.freedesktop.DBus.Peer", "Ping")))
    return [
        Row(
            what=f"ListFlows, top 100 of {_COUNT:,}, {question}",
            samples=many[question],
            unit="ms",
            budget=BUDGET,
            peers=[Peer(name=f"of {_FEWER:,}", samples=few[question]), Peer(name="Ping", samples=ping)],
        )
        for question in _QUESTIONS
    ]
