"""The bounds that keep one user from taking netmond from the others: calls, turns, unread answers."""

from __future__ import annotations

import asyncio

import pytest

from netmond.bus.limits import (
    MAX_BYTES_STRANGERS,
    MAX_BYTES_USER,
    MAX_CALLS,
    MAX_CALLS_EACH,
    MAX_CALLS_EACH_SILENT,
    MAX_CALLS_EACH_STRANGER,
    MAX_CALLS_STRANGERS,
    MAX_CALLS_USER,
    STRANGER,
    Limits,
)
from netmond.bus.turns import Turns
from netmond.bus.unread import MAX_UNREAD, Unread
from netmond.errors import LimitExceeded

ROOT, ALICE, BOB = 0, 5, 9


def refused(limits: Limits, sender: str, user: int, size: int = 100, *, silent: bool = False) -> bool:
    """Whether this call would be one too many."""
    return limits.refuses(sender, user, size, silent=silent) != ""


def test_connection() -> None:
    """One connection may have 32 calls, 8 while it is a stranger's; an answered call makes room."""
    limits = Limits()
    calls = [limits.begin(":1.7", ALICE, 100) for _ in range(MAX_CALLS_EACH)]
    for _ in range(MAX_CALLS_EACH_STRANGER):
        limits.begin(":1.9", STRANGER, 100)

    assert refused(limits, ":1.7", ALICE)
    assert refused(limits, ":1.9", STRANGER)
    limits.end(calls[0])
    assert not refused(limits, ":1.7", ALICE)


def test_calls_without_answer() -> None:
    """A bus does not limit those, so only four of one connection are carried out at a time; root's all."""
    limits = Limits()
    for _ in range(MAX_CALLS_EACH_SILENT):
        limits.begin(":1.7", ALICE, 100)
        limits.begin(":1.9", ROOT, 100)

    assert refused(limits, ":1.7", ALICE, silent=True)
    assert not refused(limits, ":1.7", ALICE)
    assert not refused(limits, ":1.9", ROOT, silent=True)


def test_user() -> None:
    """One user may have 64 calls over all connections, which are nobody else's business."""
    limits = Limits()
    for number in range(MAX_CALLS_USER):
        limits.begin(f":1.{number}", ALICE, 100)

    assert refused(limits, ":1.1000", ALICE)
    assert not refused(limits, ":1.1001", BOB)
    assert not refused(limits, ":1.1002", ROOT)


def test_size() -> None:
    """One user may have 4 MiB of calls; small ones are always taken."""
    limits = Limits()
    limits.begin(":1.7", ALICE, MAX_BYTES_USER - 10_000)

    assert refused(limits, ":1.8", ALICE, 10_001)
    assert not refused(limits, ":1.8", ALICE, 10_000)
    limits.begin(":1.7", ALICE, 10_000)
    assert not refused(limits, ":1.8", ALICE, 4096)
    assert not refused(limits, ":1.9", BOB, 1 << 20)


def test_root_is_never_refused_on_account_of_others() -> None:
    """However many users fill netmond."""
    limits = Limits()
    for number in range(MAX_CALLS):
        limits.begin(f":1.{number}", 1000 + number // MAX_CALLS_USER, 30_000)

    assert refused(limits, ":1.5000", BOB)
    assert refused(limits, ":1.5000", BOB, 1 << 20)
    assert not refused(limits, ":1.5001", ROOT, 1 << 20)


def test_strangers() -> None:
    """The 256 connections a bus lets a user have cannot fill what is meant for strangers."""
    limits = Limits()
    for connection in range(256):
        for _ in range(MAX_CALLS_EACH_STRANGER):
            limits.begin(f":1.{connection}", STRANGER, 100)

    assert 256 * MAX_CALLS_EACH_STRANGER < MAX_CALLS_STRANGERS
    assert not refused(limits, ":1.1000", STRANGER)
    assert refused(limits, ":1.1000", STRANGER, MAX_BYTES_STRANGERS)


def test_identified() -> None:
    """As soon as the bus has told whose a call is, that user's limits hold; the stranger's place is free."""
    limits = Limits()
    for number in range(MAX_CALLS_USER):
        limits.begin(f":1.{number}", ALICE, 100)
    late, of_bob = limits.begin(":1.1000", STRANGER, 100), limits.begin(":1.1001", STRANGER, 100)

    with pytest.raises(LimitExceeded):
        limits.identify(late, ALICE)
    limits.identify(of_bob, BOB)

    assert of_bob.user == BOB
    limits.end(late)
    limits.end(of_bob)
    assert limits.calls == MAX_CALLS_USER
    assert limits._users == {ALICE: MAX_CALLS_USER}
    assert limits._bytes == {ALICE: 100 * MAX_CALLS_USER}


def test_users_take_turns() -> None:
    """Whoever has many calls waits for his own; one piece of work runs in each pass of the loop."""
    done: list[int] = []
    passes: list[int] = []

    async def scenario() -> None:
        passed = 0

        async def room() -> None:
            return None

        async def work(turns: Turns, user: int) -> None:
            await turns.take(user)
            done.append(user)
            passes.append(passed)

        turns = Turns(room)
        tasks = [asyncio.create_task(work(turns, user)) for user in (ALICE, ALICE, ALICE, BOB, ROOT)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            passed += 1

    asyncio.run(scenario())

    assert done == [ALICE, BOB, ROOT, ALICE, ALICE]
    assert len(set(passes)) == len(passes)


def test_no_turn_without_room() -> None:
    """While the bus takes nothing, no answer is made; who was cancelled in the meantime is passed over."""

    async def scenario() -> list[bool]:
        open_ = asyncio.Event()

        async def room() -> None:
            await open_.wait()

        turns = Turns(room)
        first, second = asyncio.create_task(turns.take(ALICE)), asyncio.create_task(turns.take(ALICE))
        for _ in range(5):
            await asyncio.sleep(0)
        waited = [first.done(), second.done()]
        first.cancel()
        open_.set()
        await asyncio.wait_for(second, 20)
        return waited

    assert asyncio.run(scenario()) == [False, False]


def test_unread() -> None:
    """What was sent counts until the bus says that it was read; the bus is asked at most once a second."""
    kept = {":1.1": MAX_UNREAD, ":1.2": 100}
    asked: list[str] = []
    now = 0.0

    async def ask(name: str) -> int:
        asked.append(name)
        return kept[name]

    async def scenario() -> None:
        nonlocal now
        unread = Unread(ask, lambda: now)
        unread.sent(ALICE, ":1.1", MAX_UNREAD)
        assert not unread.above(ALICE)
        unread.sent(ALICE, ":1.2", 1000)
        unread.sent(ROOT, ":1.3", 1 << 30)
        assert unread.above(ALICE)
        assert not unread.above(ROOT)
        assert not unread.above(BOB)

        assert await unread.look(ALICE)
        assert await unread.look(ALICE)
        assert asked == [":1.1", ":1.2"]
        assert not unread.hopeless(ALICE)
        unread.sent(ALICE, ":1.2", MAX_UNREAD)
        assert unread.hopeless(ALICE)
        now, kept[":1.1"] = 1.0, 0
        assert not await unread.look(ALICE)
        unread.sent(ALICE, ":1.2", 3 * MAX_UNREAD)
        assert not unread.hopeless(ALICE)

        unread.sent(ALICE, ":1.2", 2 * MAX_UNREAD)
        unread.forget(":1.2")
        assert not unread.above(ALICE)

    asyncio.run(scenario())
