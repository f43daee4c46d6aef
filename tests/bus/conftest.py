"""Fixtures: one private bus and its callers for all tests, a fresh fake daemon and service for each."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from netmond.bus.authority import Authority
from netmond.bus.service import Service
from netmond.sessions import supervisor
from netmond.users import Names
from tests.bus import snapshots
from tests.bus.private import DEADLINE, Caller, FakeMonitor, LoopThread, PrivateBus, unavailable

#: The group that stands for "netmond": one that every Debian has, or of our own if we cannot choose.
GROUP = "operator" if os.geteuid() == 0 else grp.getgrgid(os.getegid()).gr_name

#: The user proxy, see ALICE.
MEMBER = 13

FAST_RETRY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A running service and what is around it."""

    loop: LoopThread
    monitor: FakeMonitor
    service: Service
    bus: PrivateBus


#: Starts the real service over a fake daemon on the bus at an address.
Start = Callable[[FakeMonitor, str], Service]


def _started(loop: LoopThread, monitor: FakeMonitor, address: str) -> Service:
    async def begin() -> Service:
        service = Service(monitor, names, Authority(group=GROUP), address=address, first_retry=FAST_RETRY)
        await service.start()
        monitor.listener = service
        return service

    names = Names()
    for user in pwd.getpwall():  # known from the start: an answer does not wait long for a name
        names.lookup(user.pw_uid)
    return loop.run(begin())


@pytest.fixture(autouse=True)
def _patient_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers get time to obey, and to end with the daemon: a busy machine makes no failure of it."""
    for name in ("_OBEY", "_LAST"):
        monkeypatch.setattr(supervisor, name, DEADLINE - 5.0)  # less than who asks for it waits


def _need_dbus_daemon() -> None:
    if shutil.which("dbus-daemon") is None:
        unavailable("needs dbus-daemon (Debian package dbus-daemon)")


@pytest.fixture(scope="session")
def bus() -> Iterator[PrivateBus]:
    _need_dbus_daemon()
    private = PrivateBus()
    private.start()
    yield private
    private.remove()


@pytest.fixture
def own_bus() -> Iterator[PrivateBus]:
    """A bus for one test, to be stopped and started."""
    _need_dbus_daemon()
    private = PrivateBus()
    private.start()
    yield private
    private.remove()


@pytest.fixture(scope="session")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def start(loop: LoopThread) -> Iterator[Start]:
    """Starts services and closes them in the end."""
    started: list[tuple[Service, FakeMonitor]] = []

    def begin(monitor: FakeMonitor, address: str) -> Service:
        started.append((_started(loop, monitor, address), monitor))
        return started[-1][0]

    yield begin
    for service, monitor in started:
        loop.run(service.close())
        loop.run(monitor.sessions.close())


@pytest.fixture
def host(bus: PrivateBus, loop: LoopThread, start: Start) -> Host:
    """The service over the small snapshot."""
    monitor = FakeMonitor(snapshots.small())
    return Host(loop=loop, monitor=monitor, service=start(monitor, bus.address), bus=bus)


@pytest.fixture(scope="session")
def caller_as(bus: PrivateBus) -> Iterator[Callable[..., Caller]]:
    """Makes callers of other users; needs root."""
    with ExitStack() as stack:

        def make(uid: int, *groups: int) -> Caller:
            if os.geteuid() != 0:
                unavailable("calling as other users needs root")
            caller = Caller(bus.address, uid, groups)
            stack.callback(caller.close)
            return caller

        yield make


@pytest.fixture(scope="session")
def admin(bus: PrivateBus) -> Iterator[Caller]:
    """Whoever runs the tests; may do everything."""
    caller = Caller(bus.address, os.geteuid())
    yield caller
    caller.close()


@pytest.fixture(scope="session")
def alice(caller_as: Callable[..., Caller]) -> Caller:
    """An ordinary user with traffic."""
    return caller_as(snapshots.ALICE)


@pytest.fixture(scope="session")
def bob(caller_as: Callable[..., Caller]) -> Caller:
    """Another one."""
    return caller_as(snapshots.BOB)


@pytest.fixture(scope="session")
def member(caller_as: Callable[..., Caller]) -> Caller:
    """An ordinary user in netmond's group."""
    return caller_as(MEMBER, grp.getgrnam(GROUP).gr_gid)


@pytest.fixture
def fresh_caller(host: Host) -> Iterator[Caller]:
    """One for a single test, to be closed or to listen to signals."""
    caller = Caller(host.bus.address, os.geteuid())
    yield caller
    caller.close()
