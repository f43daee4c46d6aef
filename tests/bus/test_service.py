"""The service's own life: its name, a bus that is missing, taken or restarted, callers that come and go."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from netmond.bus.authority import Caller, Callers
from netmond.bus.service import Service
from netmond.errors import AccessDenied, AlreadyExists, Unavailable
from tests.bus import private
from tests.bus.conftest import Host, Start
from tests.bus.private import FakeMonitor, LoopThread, PrivateBus, until
from tests.bus.snapshots import large, small

OPTIONS = ("a{sv}",)


def test_no_bus(start: Start, tmp_path: Path) -> None:
    """One clear error that names the address."""
    with pytest.raises(Unavailable, match=r"cannot connect to D-Bus at unix:path=\S+/nowhere"):
        start(FakeMonitor(small()), f"unix:path={tmp_path}/nowhere")


def test_bad_address(start: Start) -> None:
    """A malformed address is an error of the same kind."""
    with pytest.raises(Unavailable, match="cannot connect"):
        start(FakeMonitor(small()), "carrier-pigeon")


def test_bus_that_hangs_up_during_authentication(loop: LoopThread, start: Start, tmp_path: Path) -> None:
    """dbus-next alone would spin for ever."""
    address = f"{tmp_path}/socket"

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def listen() -> asyncio.AbstractServer:
        return await asyncio.start_unix_server(hang_up, address)

    server = loop.run(listen())
    with pytest.raises(Unavailable, match="cannot connect"):
        start(FakeMonitor(small()), f"unix:path={address}")

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    loop.run(stop())


def test_name_is_taken(host: Host, start: Start) -> None:
    """A second netmond on the same bus says so and leaves the first alone."""
    with pytest.raises(AlreadyExists, match="another netmond"):
        start(FakeMonitor(small()), host.bus.address)


def test_name_may_not_be_owned(host: Host, admin: private.Caller, alice: private.Caller) -> None:
    """The bus policy lets ordinary users be anything but netmond."""
    with pytest.raises(private.CallError, match="AccessDenied"):
        alice.call_bus("RequestName", ("s", "u"), "org.netmond1", 0)


def test_close_gives_the_name_back(bus: PrivateBus, loop: LoopThread, start: Start) -> None:
    """After close another one can start, any number of times; close twice is fine."""
    for _ in range(3):
        service = start(FakeMonitor(small()), bus.address)
        loop.run(service.close())
        loop.run(service.close())


def test_bus_restart(own_bus: PrivateBus, loop: LoopThread, start: Start) -> None:
    """The bus dies and comes back at the same address; so does the service, with all it had."""
    monitor = FakeMonitor(small())
    monitor.have("192.0.2.7")
    service = start(monitor, own_bus.address)

    for _ in range(2):
        own_bus.stop()
        monitor.have("192.0.2.11")
        loop.run(tick(service))
        own_bus.start()
        caller = private.Caller(own_bus.address, private.own_uid())
        caller.wait_for_name()
        assert caller.get("TargetCount") == 2
        assert caller.call("ListTargets", OPTIONS, {})[1]["scope"] == "all"
        caller.close()


async def tick(service: Service) -> None:
    """What the daemon does after each tick, also while there is no bus."""
    service.ticked()
    service.reloaded([])
    service.targets_changed([], [])


def test_callers_are_forgotten_when_they_leave(host: Host) -> None:
    """The credentials of a connection are kept exactly as long as it lasts."""
    callers = host.service._callers
    before = len(callers)

    guests = [private.Caller(host.bus.address, private.own_uid()) for _ in range(3)]
    for guest in guests:
        guest.get("Version")
    assert len(callers) == before + 3
    for guest in guests:
        guest.close()

    until(lambda: len(callers) == before)


def test_many_signals_do_not_end_the_connection(host: Host, admin: private.Caller) -> None:
    """More than the socket's buffer holds, in one turn of the loop; dbus-next alone would disconnect."""

    async def shout() -> None:
        for _ in range(20_000):
            host.service.reloaded(["x" * 99])

    host.loop.run(shout())

    assert admin.get("FlowCount") == 6


@pytest.mark.parametrize("limit", [100, 9973])
def test_large_table(bus: PrivateBus, start: Start, admin: private.Caller, limit: int) -> None:
    """100,000 flows: the answer is cut in the daemon, in order, and tells how many there were."""
    start(FakeMonitor(large()), bus.address)

    rows, meta = admin.call("ListFlows", OPTIONS, {"limit": ["u", limit], "sort": ["s", "in_bytes"]})

    figures = [row["in_bytes"] for row in rows]
    assert (len(rows), meta["total"]) == (limit, 100_000)
    assert figures == sorted(figures, reverse=True)


def test_everything_at_once_is_refused(bus: PrivateBus, start: Start, admin: private.Caller) -> None:
    """An answer that no message holds is LimitExceeded, not a broken connection."""
    start(FakeMonitor(large()), bus.address)

    with pytest.raises(private.CallError, match="set a limit or filter"):
        admin.call("ListFlows", OPTIONS, {"limit": ["u", 0]})

    assert admin.get("FlowCount") == 100_000


def test_groups_come_from_the_user_database_if_the_bus_does_not_tell() -> None:
    """Buses without UnixGroupIDs; a bus that does not know the uid is refused."""

    async def credentials(name: str) -> dict[str, Any]:
        known: dict[str, dict[str, Any]] = {
            ":1.3": {"UnixUserID": 0},
            ":1.5": {"UnixUserID": 7, "UnixGroupIDs": [11, 13]},
            ":1.7": {},
        }
        return known[name]

    async def find(name: str) -> Caller:
        return await Callers(credentials).find(name)

    assert 0 in asyncio.run(find(":1.3")).groups
    assert asyncio.run(find(":1.5")) == Caller(name=":1.5", uid=7, groups=frozenset({11, 13}))
    with pytest.raises(AccessDenied):
        asyncio.run(find(":1.7"))


def test_credentials_are_asked_for_once() -> None:
    """Simultaneous calls share one question; a failed one is asked again; newcomers displace nobody."""
    asked: list[str] = []

    async def credentials(name: str) -> dict[str, Any]:
        asked.append(name)
        await asyncio.sleep(0)
        if asked.count(name) == 1 and name == ":1.0":
            raise AccessDenied("not yet")
        return {"UnixUserID": 7, "UnixGroupIDs": []}

    async def scenario() -> int:
        callers = Callers(credentials)
        with pytest.raises(AccessDenied):
            await callers.find(":1.0")
        await asyncio.gather(*(callers.find(":1.0") for _ in range(3)))
        for number in range(1, 1000):
            await callers.find(f":1.{number}")
        await callers.find(":1.0")
        return len(callers)

    assert asyncio.run(scenario()) == 1000
    assert asked.count(":1.0") == 2
