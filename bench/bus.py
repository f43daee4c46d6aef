"""Questions on D-Bus against the number of flows, from the call to the last byte of the answer.

The real Service in a process of its own (listing.py) on a bus of its own, over 1,000, 10,000 and 100,000
flows. The caller writes the call to its socket and waits for the answer's last byte; it does not take the
answer apart, which is the client's time. ListFlows asks for the top 100: sorted by bytes as by default,
sorted by a text key, and filtered by user and port first; ListUsers for all 53.

Peers, in turn: Ping of the same service, the time the bus takes; and the same question about ten times fewer
flows, for how the cost grows.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import product
from statistics import median

from dbus_next.message import Message
from dbus_next.signature import Variant

from bench.host import ending, private_bus
from bench.record import ROOT, progress
from bench.samples import exponent, ratios
from bench.table import AtMost, Row

BUDGET = AtMost(50)
_COUNTS = (1_000, 10_000, 100_000)
_NAME, _PATH, _MANAGER = "org.netmond1", "/org/netmond1", "org.netmond1.Manager"
_PEER = "org.freedesktop.DBus.Peer"
_BY_BYTES, _USERS = "ListFlows, by bytes", "ListUsers"
_QUESTIONS: Mapping[str, tuple[str, Mapping[str, tuple[str, str | int]]]] = {
    _BY_BYTES: ("ListFlows", {}),
    "ListFlows, by unit": ("ListFlows", {"sort": ("s", "unit")}),
    "ListFlows, of one user and port": ("ListFlows", {"user": ("s", "1007"), "port": ("q", 443)}),
    _USERS: ("ListUsers", {}),
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


def _call(question: str) -> Message:
    member, options = _QUESTIONS[question]
    body = [{name: Variant(signature, value) for name, (signature, value) in options.items()}]
    return Message(_NAME, _PATH, _MANAGER, member, signature="a{sv}", body=body)


def benchmark(quick: bool) -> list[Row]:
    """Asks all services all questions in turn."""
    progress(f"bus: lists of up to {_COUNTS[-1]:,} flows")
    took: dict[tuple[str, int], list[float]] = {key: [] for key in product(_QUESTIONS, _COUNTS)}
    ping: list[float] = []
    with ExitStack() as stack:
        callers = {count: stack.enter_context(_caller(count)) for count in _COUNTS}
        for number in range(8 if quick else 41):
            for (question, count), samples in took.items():
                milliseconds = callers[count].call(_call(question))
                if number:  # the first call pays for what is remembered
                    samples.append(milliseconds)
            ping.append(callers[_COUNTS[-1]].call(Message(_NAME, _PATH, _PEER, "Ping")))
    most = _COUNTS[-1]
    return [
        *(_row(question, most, took[question, most], "Ping", ping[1:]) for question in _QUESTIONS),
        *(
            _row(question, count, took[question, count], f"of {count // 10:,}", took[question, count // 10])
            for question, count in product((_BY_BYTES, _USERS), _COUNTS[1:])
        ),
    ]


def _row(question: str, count: int, samples: list[float], against: str, peer: list[float]) -> Row:
    growth = exponent(median(ratios(samples, peer)), 10)
    return Row(
        what=f"{question}, {count:,} flows",
        samples=samples,
        unit="ms",
        against=against,
        peer=peer,
        budget=BUDGET if count == _COUNTS[-1] and against == "Ping" else None,
        note="" if against == "Ping" else f"n^{growth:.2f}",
    )
