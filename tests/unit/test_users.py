"""Names of users: remembered, looked up off the loop, and understood the other way round."""

from __future__ import annotations

import asyncio
import threading

import pytest

from netmond.errors import LimitExceeded, NoSuchUser
from netmond.model import NOBODY_UID
from netmond.users import PENDING, Names

DEADLINE = 30.0


class Directory:
    """A name service that notes what it was asked, and where; it answers when the gate is open."""

    def __init__(self) -> None:
        self.names = {1009: "alice", 1013: "bob"}
        self.asked: list[int | str] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.now = 100.0

    def name_of(self, uid: int) -> str:
        self.threads.add(threading.get_ident())
        self.asked.append(uid)
        assert self.gate.wait(DEADLINE)
        return self.names[uid]

    def uid_of(self, name: str) -> int:
        self.threads.add(threading.get_ident())
        self.asked.append(name)
        assert self.gate.wait(DEADLINE)
        return {known: uid for uid, known in self.names.items()}[name]

    def cache(self, **more: int) -> Names:
        """A cache in front of it that forgets after 10 seconds."""
        return Names(ttl=10.0, clock=lambda: self.now, name_of=self.name_of, uid_of=self.uid_of, **more)


def test_outside_a_loop_names_are_found_at_once() -> None:
    """Blocking is harmless there; an unknown uid is its number."""
    directory = Directory()
    names = directory.cache()

    assert [names.lookup(uid) for uid in (1009, 1013, 1009, 7919)] == ["alice", "bob", "alice", "7919"]
    assert directory.asked == [1009, 1013, 7919]


def test_in_a_loop_nothing_blocks() -> None:
    """The number is given until another thread has found the name; one question for all who ask."""
    directory = Directory()

    async def scenario() -> tuple[str, str]:
        names = directory.cache()
        directory.gate.clear()
        early = names.lookup(1009)
        names.lookup(1009)
        directory.gate.set()
        await names.prefetch([1009], DEADLINE)
        late = names.lookup(1009)
        names.close()
        return early, late

    assert asyncio.run(scenario()) == ("1009", "alice")
    assert directory.asked == [1009]
    assert threading.get_ident() not in directory.threads


def test_prefetch_gives_up() -> None:
    """A name service that hangs costs the deadline, not for ever."""
    directory = Directory()

    async def scenario() -> str:
        names = directory.cache()
        directory.gate.clear()
        await names.prefetch([1009, NOBODY_UID], 0.01)
        directory.gate.set()
        name = names.lookup(1009)
        names.close()
        return name

    assert asyncio.run(scenario()) == "1009"
    assert NOBODY_UID not in directory.asked


def test_an_outdated_name_is_given_while_it_is_renewed() -> None:
    """After the TTL the old name is still the answer, once."""
    directory = Directory()

    async def scenario() -> list[str]:
        names = directory.cache()
        await names.prefetch([1009], DEADLINE)
        directory.names[1009] = "alicia"
        directory.now += 11
        found = [names.lookup(1009)]
        await names.prefetch([], DEADLINE)
        found.append(names.lookup(1009))
        names.close()
        return found

    assert asyncio.run(scenario()) == ["alice", "alicia"]


def test_the_cache_is_bounded() -> None:
    """The oldest name makes room."""
    directory = Directory()
    names = directory.cache(size=1)

    for uid in (1009, 1013, 1009):
        names.lookup(uid)

    assert directory.asked == [1009, 1013, 1009]


def test_waiting_lookups_are_bounded() -> None:
    """A name service that hangs does not collect work without end."""
    directory = Directory()

    async def scenario() -> None:
        names = directory.cache()
        directory.gate.clear()
        for uid in range(2 * PENDING):
            names.lookup(uid)
        waiting = [asyncio.create_task(names.uid("alice")) for _ in range(PENDING)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded):
            await names.uid("bob")
        directory.gate.set()
        assert await asyncio.gather(*waiting) == [1009] * PENDING
        names.close()

    asyncio.run(scenario())
    assert len(directory.asked) == 2 * PENDING


def test_bytes_that_are_no_text_become_replacement_characters() -> None:
    """The user database may hold anything; what we pass on is valid text."""
    names = Names(name_of=lambda uid: b"al\xffce".decode(errors="surrogateescape"))

    assert names.lookup(1009) == "al\N{REPLACEMENT CHARACTER}ce"


def test_what_people_call_a_user() -> None:
    """Login names and numbers; a number need not have a name."""
    directory = Directory()

    async def scenario() -> list[int]:
        names = directory.cache()
        found = [await names.uid(text) for text in ("alice", "1013", "0", "7919")]
        names.close()
        return found

    assert asyncio.run(scenario()) == [1009, 1013, 0, 7919]
    assert directory.asked == ["alice"]


@pytest.mark.parametrize(
    "text", ["carol", "", "-1", "4294967295", "99999999999999999999", "1_000", "\N{SUPERSCRIPT TWO}"]
)
def test_nobody(text: str) -> None:
    """What is neither a name nor a possible uid is NoSuchUser."""

    async def scenario() -> None:
        names = Directory().cache()
        try:
            await names.uid(text)
        finally:
            names.close()

    with pytest.raises(NoSuchUser):
        asyncio.run(scenario())


def test_the_real_user_database() -> None:
    """Without injected lookups the system's own is asked."""

    async def scenario() -> int:
        names = Names()
        uid = await names.uid("root")
        names.close()
        return uid

    assert Names().lookup(0) == "root"
    assert asyncio.run(scenario()) == 0
