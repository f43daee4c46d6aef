"""Two hundred connections of a hostile user: netmond runs on in bounded memory, and others are answered."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netmond.bus import connection, link, marshal, names
from netmond.bus.limits import MAX_CALLS_EACH, MAX_CALLS_USER
from netmond.bus.marshal import Variant
from netmond.bus.unread import MAX_UNREAD
from tests.bus.conftest import Host, Start
from tests.bus.fakepolkit import YES, FakePolkit
from tests.bus.private import (
    DEADLINE,
    Caller,
    CallError,
    Crowd,
    FakeMonitor,
    LoopThread,
    PrivateBus,
    outcome,
    unavailable,
    until,
)
from tests.bus.snapshots import ALICE, large, small
from tests.bus.test_hostile import frame, manager_frame

OPTIONS = ("a{sv}",)
CROWD = 200

#: What the hostile may make netmond grow by: all the limits on calls, answers and what waits to be sent.
MEMORY = 100 << 20

HELLO = frame(1, "", b"", member="Hello", path=names.DBUS_PATH, interface=names.DBUS, destination=names.DBUS)
EVERYTHING = bytes(marshal.encode("a{sv}", [{"limit": Variant("u", 0), "scope": "own"}]))


@pytest.fixture
def crowd_on(bus: PrivateBus) -> Iterator[Callable[..., Crowd]]:
    """Makes crowds of the user games, alice."""
    crowds: list[Crowd] = []
    if os.geteuid() != 0:
        unavailable("calling as other users needs root")

    def make(count: int = CROWD) -> Crowd:
        crowds.append(Crowd(bus.address, ALICE, count, HELLO))
        return crowds[-1]

    yield make
    for crowd in crowds:
        crowd.close()


class Pulse:
    """How late an event of the service's loop was at worst: the tick is one like it.

    In seconds of work that the loop's thread did before it, for on a busy machine all are late; one that
    came after `DEADLINE` is later than any work.
    """

    def __init__(self, loop: LoopThread) -> None:
        self.worst = 0.0
        self._task = asyncio.run_coroutine_threadsafe(self._beat(), loop.loop)

    async def _beat(self) -> None:
        while True:
            begun, worked = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.02)
            late = time.monotonic() - begun
            self.worst = max(self.worst, time.thread_time() - worked if late < DEADLINE else late)

    def stop(self) -> None:
        self._task.cancel()


@pytest.fixture
def pulse(loop: LoopThread) -> Iterator[Pulse]:
    found = Pulse(loop)
    yield found
    found.stop()


def resident() -> int:
    """Bytes of memory of this process, in which the service lives."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def rich(rows: int) -> FakeMonitor:
    """Alice has many flows."""
    snapshot = large(rows)
    snapshot.flows.columns["uid"][:] = ALICE
    return FakeMonitor(snapshot)


def test_stuck_clients(
    bus: PrivateBus, start: Start, admin: Caller, crowd_on: Callable[..., Crowd], pulse: Pulse
) -> None:
    """They ask for 600 MB and read nothing: root is answered, the loop runs, memory is bounded."""
    service = start(rich(1000), bus.address)
    before, crowd = resident(), crowd_on()

    crowd.send(b"".join(manager_frame(10 + n, "ListFlows", "a{sv}", EVERYTHING) for n in range(3)))
    for _ in range(20):
        assert admin.get("FlowCount") == 1000
    until(lambda: service.calls == 0)

    assert admin.call("ListFlows", OPTIONS, {"limit": ["u", 5]})[1]["total"] == 1000
    assert resident() - before < MEMORY
    assert pulse.worst < 2.0


def test_large_arguments(host: Host, admin: Caller, crowd_on: Callable[..., Crowd], pulse: Pulse) -> None:
    """10 MB from each of twenty: refused unread, whatever else goes on."""
    numbers = struct.pack("<I", 10_000_000) + bytes(10_000_000)
    before, crowd = resident(), crowd_on(20)

    crowd.send(manager_frame(7, "AddTargets", "ay", numbers))

    assert admin.get("FlowCount") == 6
    assert crowd.read("org.netmond1.Error.LimitExceeded", 1) == 20
    assert resident() - before < MEMORY
    assert pulse.worst < 2.0


def test_nonsense(host: Host, admin: Caller, crowd_on: Callable[..., Crowd], pulse: Pulse) -> None:
    """Wrong signatures, unknown objects and members, from two hundred at once: each call gets its error."""
    crowd = crowd_on()
    where: dict[str, Any] = {"interface": names.MANAGER, "destination": names.BUS_NAME, "member": "Describe"}

    crowd.send(
        manager_frame(7, "ListFlows", "s", b"\x01\0\0\0x\0")
        + manager_frame(9, "Divine")
        + frame(11, "", b"", path="/org/netmond1/nothing", **where)
    )

    assert admin.get("FlowCount") == 6
    assert crowd.read("rror.", 3) == 3 * CROWD
    until(lambda: host.service.calls == 0)
    assert pulse.worst < 2.0


def test_calls_of_one_user(
    host: Host, admin: Caller, bob: Caller, loop: LoopThread, caller_as: Callable[..., Caller]
) -> None:
    """Over all connections a user may have 64 calls in progress; others may have theirs meanwhile."""
    polkit = FakePolkit(loop, host.bus.address)
    polkit.silent = YES
    polkit.start()
    guests = [caller_as(ALICE) for _ in range(3)]
    for guest in guests:
        guest.get("Version")  # from now on netmond knows whose they are

    async def shut() -> asyncio.Event:
        host.monitor.gate = asyncio.Event()
        return host.monitor.gate

    async def open_(gate: asyncio.Event) -> None:
        gate.set()

    gate = loop.run(shut())
    try:
        for guest in guests[:2]:
            fill(host, guest)
        assert host.service.calls == MAX_CALLS_USER

        with pytest.raises(CallError, match="too many calls of one user at once"):
            guests[2].get("Version")
        assert bob.get("Version") == admin.get("Version") == "7.11.13"
    finally:
        loop.run(open_(gate))
        until(lambda: host.service.calls == 0)
        polkit.stop()
        for guest in guests:
            guest.close()


def fill(host: Host, guest: Caller) -> None:
    """Have as many calls in progress as one connection may, a few at a time: polkit is asked about each."""
    for _ in range(MAX_CALLS_EACH // 4):
        expected = host.monitor.held + 4
        guest.burst(4, 0, "Reload", OPTIONS, {})
        until(lambda: host.monitor.held == expected)  # noqa: B023


def test_unread_answers(
    bus: PrivateBus, start: Start, admin: Caller, crowd_on: Callable[..., Crowd], alice: Caller
) -> None:
    """Whoever leaves too much unread gets no more, on no connection, until it is read or given up."""
    start(rich(3000), bus.address)
    hoarder = crowd_on(1)
    hoarder.send(b"".join(manager_frame(10 + n, "ListFlows", "a{sv}", EVERYTHING) for n in range(8)))
    asked = {"scope": ["s", "own"]}

    refused = "org.netmond1.Error.LimitExceeded"
    until(lambda: outcome(lambda: alice.call("ListFlows", OPTIONS, asked)) == refused)
    assert len(admin.call("ListFlows", OPTIONS, {"limit": ["u", 3000]})[0]) == 3000

    hoarder.close()
    until(lambda: outcome(lambda: alice.call("ListFlows", OPTIONS, asked)) == "ok")
    for _ in range(1 + MAX_UNREAD // 2_000_000):  # whoever reads may have any amount
        assert len(alice.call("ListFlows", OPTIONS, asked | {"limit": ["u", 3000]})[0]) == 3000


def test_bus_that_reads_nothing(
    own_bus: PrivateBus, loop: LoopThread, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bus that takes nothing for a while is left and entered anew, even if it still holds the old name."""
    monkeypatch.setattr(connection, "STALLED", 0.3)
    monkeypatch.setattr(link, "LAST_RETRY", 0.1)
    service = start(FakeMonitor(small()), own_bus.address)
    old = service._link._called
    caller = Caller(own_bus.address, os.geteuid())

    async def shout() -> None:
        for _ in range(20_000):
            service.reloaded(["x" * 99])

    own_bus.signal(signal.SIGSTOP)
    loop.run(shout())
    until(lambda: service._link._called is not old)
    own_bus.signal(signal.SIGCONT)

    until(lambda: outcome(lambda: caller.get("Version")) == "ok")
    caller.close()
