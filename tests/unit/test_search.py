"""The search for processes behind sockets: when, for which, and what becomes of the answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping

import pytest

from netmond import search
from netmond.errors import KernelError
from netmond.kernel import wire
from netmond.kernel.owners import Process
from netmond.search import OwnerSearch
from tests.unit.fakes import rows
from tests.unit.metering import Bench
from tests.unit.sockets import Socket


class Searching:
    """A meter with sockets older than it, and a search whose answers the test gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench = Bench()
        self.asked: list[list[int]] = []
        self.owners: dict[int, Process] = {}
        self.failure: Exception | None = None
        self.threads: set[threading.Thread] = set()
        self.now = 100.0
        self.search = OwnerSearch(self.bench.meter, self._find)
        monkeypatch.setattr(search, "monotonic", lambda: self.now)

    def _find(self, cookies: Iterable[int]) -> Mapping[int, Process]:
        self.threads.add(threading.current_thread())
        self.asked.append(list(cookies))
        if self.failure:
            raise self.failure
        return self.owners

    def open(self) -> Socket:
        """A socket whose process the meter cannot know, and a packet."""
        socket = self.bench.kernel.open(pid=0, comm=b"", flags=wire.FLOW_OLDER)
        self.bench.kernel.send(socket)
        return socket

    def ticks(self, *moments: float) -> None:
        """A tick at each of these moments, and the end of what it started."""

        async def go() -> None:
            for self.now in moments:
                self.bench.tick()
                self.search.ticked()
                others = asyncio.all_tasks() - {asyncio.current_task()}
                await asyncio.wait_for(asyncio.gather(*others), 20)

        asyncio.run(go())

    def processes(self) -> set[tuple[int, bytes]]:
        return {(pid, comm) for pid, comm in rows(self.bench.flows(), "pid", "comm")}


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Searching:
    return Searching(monkeypatch)


def test_what_is_found_is_learned(searching: Searching) -> None:
    """The flow has its process from then on; the search is done in a thread."""
    socket = searching.open()
    searching.owners = {socket.cookie: Process(pid=79, comm=b"sshd")}

    searching.ticks(100.0)

    assert searching.asked == [[socket.cookie]]
    assert searching.processes() == {(79, b"sshd")}
    assert threading.main_thread() not in searching.threads


def test_each_socket_once(searching: Searching) -> None:
    """One that was not found is not looked for again, however long it is there."""
    first = searching.open()
    searching.ticks(100.0, 110.0, 120.0)
    second = searching.open()
    searching.ticks(130.0)

    assert searching.asked == [[first.cookie], [second.cookie]]
    assert searching.processes() == {(0, b"")}


def test_not_with_every_tick(searching: Searching) -> None:
    """New sockets wait until a few seconds after the last search, and are then looked for together."""
    first = searching.open()
    searching.ticks(100.0)
    others = [searching.open().cookie for _ in range(3)]
    searching.ticks(101.0, 104.9)
    assert searching.asked == [[first.cookie]]
    searching.ticks(105.0)

    assert searching.asked == [[first.cookie], others]


def test_nothing_unknown(searching: Searching) -> None:
    """No search."""
    searching.bench.kernel.send(searching.bench.kernel.open())

    searching.ticks(100.0, 110.0)

    assert searching.asked == []


def test_a_search_that_fails(searching: Searching, caplog: pytest.LogCaptureFixture) -> None:
    """Is logged, and the next one takes place."""
    searching.failure = KernelError("no iterator")
    searching.open()
    searching.ticks(100.0)
    assert "search for the processes behind sockets failed" in caplog.text
    searching.failure, socket = None, searching.open()
    searching.owners = {socket.cookie: Process(pid=79, comm=b"sshd")}

    searching.ticks(110.0)

    assert searching.processes() == {(0, b""), (79, b"sshd")}


def test_closed_before_any_search(searching: Searching) -> None:
    """Nothing to abandon."""
    searching.search.close()
