"""Whenever a meter is thrown away, another one goes on from what was kept: every byte is counted once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray

from netmond.accounts import Now
from netmond.kernel import wire
from netmond.kernel.layout import Layout
from netmond.meter import Meter, Tables, Usage
from netmond.model import FlowKind
from tests.unit.fakes import Hash, Records, moment, rows
from tests.unit.metering import ALICE, IDLE, Bench, paths
from tests.unit.sockets import HOME, Kernel
from tests.unit.test_meter_books import Sockets, nothing

Arrays = dict[str, NDArray[Any]]

_NO_SLOT = 0xFFFFFFFF


class Killed(Exception):
    """The daemon is no more."""


class Watched:
    """One of the kernel's tables; every access is told."""

    def __init__(self, table: Records | Hash, tell: Callable[[], None]) -> None:
        self._table, self._tell = table, tell
        self.capacity = table.capacity

    def __getattr__(self, name: str) -> Any:
        """front(), take() and read(): told before and after."""
        method = getattr(self._table, name)

        def watched(*arguments: Any) -> Any:
            self._tell()
            result = method(*arguments)
            self._tell()
            return result

        return watched


class Mortal:
    """meter.Tables of a daemon that is killed just before or after one of its accesses to the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._left: int | None = None
        self.slots: Any = Watched(kernel.slots, self._tell)
        self.flows: Any = Watched(kernel.flows, self._tell)
        self.peers: Any = Watched(kernel.peers, self._tell)
        self.overflow: Any = Watched(kernel.overflow, self._tell)
        self.detours: Any = Watched(kernel.detours, self._tell)

    def kill(self, after: int) -> None:
        """Lets it live for so many accesses more, two for each: before and after."""
        self._left = after

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        self._tell()
        self._kernel.give_back(slots)
        self._tell()

    def _tell(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed


class Converted:
    """meter.Records of a former build with another layout."""

    def __init__(self, records: Records, dtype: np.dtype[Any]) -> None:
        self._dtype = records.array.dtype
        self._layout = Layout.of(dtype)
        self._array = Layout.of(self._dtype).convert(records.array, dtype)
        self.capacity = records.capacity

    def front(self, length: int) -> NDArray[Any]:
        return self._layout.convert(self._array[:length], self._dtype)

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]:
        return self.front(self.capacity)[places]


def turned_round(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same fields in the opposite order, after one that nobody knows any more."""
    return np.dtype([("unknown", "u8"), *((name, dtype[name]) for name in reversed(dtype.names or ()))])


class Former:
    """meter.Tables of a build that was replaced, as kernel.former has them: converted, without peers."""

    def __init__(self, kernel: Kernel) -> None:
        self.slots = Converted(kernel.slots, turned_round(wire.SLOT))
        self.flows = Converted(kernel.flows, turned_round(wire.FLOW))
        self.peers = Hash(wire.PEER_KEY, wire.TALLY, 1)
        self.overflow = kernel.overflow
        self.detours = Hash(wire.DETOUR_KEY, wire.TALLY, 1)

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        raise AssertionError("nobody takes them any more")


@dataclass(frozen=True)
class Kept:
    """What the checkpoint says: totals of all builds; of each its kernel side and what of it they hold."""

    totals: Arrays
    builds: tuple[tuple[Kernel, Arrays], ...]  #: the last is the one at work


def copies(arrays: Arrays) -> Arrays:
    """As they are in a file: structured ones as plain bytes."""
    return {name: np.array(array).view(array.dtype.str) for name, array in arrays.items()}


def meter_over(tables: Tables) -> Meter:
    return Meter(tables, paths=paths, netns=HOME, idle=IDLE)


def successor(kept: Kept, tables: Tables, wait: Callable[[], object] = lambda: None) -> Meter:
    """As assembly and succession.MeterSuccession do it."""
    *former, (_, own) = kept.builds
    meter = meter_over(tables)
    meter.owners.resume(kept.totals)
    meter.resume(own, wait)
    for kernel, arrays in former:
        other = meter_over(Former(kernel))
        other.owners.resume(kept.totals, counters=False)
        other.resume({name: array for name, array in arrays.items() if not name.startswith("peers.")})
        other.tick(Now(monotonic_ns=0, wall=0.0, interval=0.0))
        meter.owners.include(other.owners)
    return meter


class Handovers(Sockets):
    """Daemons come and go while sockets do what they do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept({}, ((self.kernel, {}),))
        self.leaked = 0  # slots that were marked as free and never came there: for good, see Meter.release()
        self.settled = self.ended  # of what had ended, that which was kept
        self.live()

    @rule()
    def is_killed_at_rest(self) -> None:
        """Between two ticks."""
        self.starts()

    @rule(after=st.integers(0, 40), seconds=st.sampled_from([1.0, 31.0, IDLE + 1]))
    def is_killed_at_work(self, after: int, seconds: float) -> None:
        """In the middle of a tick or of giving slots back, or when both were done already; the file is
        written in between."""
        self.kernel.now += seconds
        self.tables.kill(after)
        with suppress(Killed):
            usage = self.bench.meter.tick(moment(self.kernel.now))
            self.keeps()
            self.has_ended(usage)
            self.bench.meter.release()
        self.starts()

    @rule()
    def is_killed_before_it_could_say_so(self) -> None:
        """The tick is done, its checkpoint is not."""
        self.bench.meter.tick(moment(self.kernel.now))
        self.starts()

    @rule()
    def is_killed_before_slots_are_free(self) -> None:
        """The checkpoint says that they are nobody's any more."""
        usage = self.bench.meter.tick(moment(self.kernel.now))
        self.keeps()
        self.has_ended(usage)
        self.starts()

    @rule(after=st.integers(0, 12))
    def is_killed_again(self, after: int) -> None:
        """While it takes up what there is."""
        self.live()
        self.tables.kill(after)
        with suppress(Killed):
            successor(self.kept, self.tables)
        self.starts()

    @rule()
    def is_replaced(self) -> None:
        """By a build that counts in other maps: all sockets are older than it, and their owners unknown."""
        kernel = Kernel(slots=self.slots, peers=self.peers, overflow=self.overflow)
        kernel.now = self.kernel.now
        empty = copies(meter_over(kernel).checkpoint())
        self.kept = replace(self.kept, builds=(*self.kept.builds, (kernel, empty)))
        for socket in (*self.open, *self.closed):
            socket.ticket, socket.epoch = (_NO_SLOT, 0), 0
            socket.flags, socket.pid = wire.FLOW_OLDER, 0
        self.bench.kernel = self.kernel = kernel
        self.leaked = 0
        self.starts()

    @invariant()
    def no_slot_is_lost(self) -> None:
        """Every slot is free or somebody's, or about to be free."""
        meter = self.bench.meter
        held = np.count_nonzero(self.kernel.slots.array["in"]["generation"])
        between = np.count_nonzero(meter._slots._cut_off) + len(meter._slots._returnable)
        assert self.kernel.free + held + between + self.leaked == self.slots

    # -- how -----------------------------------------------------------------------------------------

    def live(self) -> None:
        self.tables = Mortal(self.kernel)
        self.bench.meter = meter_over(self.tables)

    def usage(self) -> Usage:
        usage = self.bench.meter.tick(moment(self.kernel.now))
        self.keeps()
        self.bench.meter.release()
        return usage

    def keeps(self) -> None:
        meter = self.bench.meter
        self.kept = Kept(copies(meter.owners.checkpoint()), ((self.kernel, copies(meter.checkpoint())),))

    def look(self) -> None:
        super().look()
        self.settled = self.ended.copy()

    def has_ended(self, usage: Usage) -> None:
        flows = usage.flows.table()
        self.ended += flows.counters[flows.columns["ended"]].sum(axis=0, dtype=np.uint64)
        self.settled = self.ended.copy()

    def starts(self) -> None:
        marked = np.flatnonzero(self.kernel.slots.array["in"]["note"] == wire.SLOT_FREE)
        self.leaked = len(set(marked.tolist()) - set(self.kernel._free))
        self.live()
        self.bench.meter = successor(self.kept, self.tables)
        if len(self.kept.builds) > 1:  # new rows for everybody
            self.ended = self.bench.meter.owners.checkpoint()["user.counters"].sum(axis=0, dtype=np.uint64)
        else:
            self.ended = self.settled + self.taken_out()

    def taken_out(self) -> NDArray[np.uint64]:
        """The rows of peers that went in a tick nobody knows of."""
        ((_, arrays),) = self.kept.builds
        if not len(arrays["peers.keys"]):
            return nothing()
        begun = dict(
            zip(
                (key.tobytes() for key in arrays["peers.keys"]),
                arrays["peers.values"].view(wire.TALLY)["first_seen"].tolist(),
                strict=True,
            )
        )
        there = {key: int(value["first_seen"][0]) for key, value in self.kernel.peers.rows.items()}
        gone = np.array([there.get(key) != moment_ for key, moment_ in begun.items()])
        lost: NDArray[np.uint64] = arrays["peers.totals"][gone].sum(axis=0, dtype=np.uint64)
        return lost


class ScarceHandovers(Handovers):
    """The same where slots and rows for peers run out all the time."""

    slots, peers = 2, 2


#: The same examples in every run.
_SETTINGS = settings(max_examples=60, stateful_step_count=40)


def test_books_close() -> None:
    """Users, units and processes have what was sent, no slot is lost, and at every tick rows are disjoint,
    whenever the meter is thrown away and whether the next one is of the same build or of another."""
    run_state_machine_as_test(Handovers, settings=_SETTINGS)  # type: ignore[no-untyped-call]


def test_books_close_when_everything_is_scarce() -> None:
    """Also when most sockets find no slot and most peers no row."""
    run_state_machine_as_test(ScarceHandovers, settings=_SETTINGS)  # type: ignore[no-untyped-call]


def kept_of(bench: Bench) -> Kept:
    meter = bench.meter
    return Kept(copies(meter.owners.checkpoint()), ((bench.kernel, copies(meter.checkpoint())),))


def test_rows_are_those_that_were_kept() -> None:
    """Before its first tick a meter shows what the last one showed, rates apart."""
    bench = Bench()
    web, dns = bench.kernel.open(ALICE), bench.kernel.open(unconnected=True)
    bench.kernel.send(web, 1009)
    for peer in (1, 2):
        bench.kernel.send(dns, 101, peer=peer)
    before = bench.tick()

    meter = successor(kept_of(bench), bench.kernel)
    after = meter.standing(moment(bench.kernel.now))

    names = ("id", "kind", "uid", "pid", "comm", "local", "remote", "remote_port", "out_bytes", "first_seen")
    assert rows(after.flows.table(), *names) == rows(before.flows.table(), *names)
    assert rows(after.users, "uid", "flows", "out_bytes") == rows(before.users, "uid", "flows", "out_bytes")
    assert rows(after.units, "cgroup", "flows") == rows(before.units, "cgroup", "flows")
    assert meter.owners.unit_names == bench.meter.owners.unit_names
    assert not after.flows.table().rates.any()


def test_who_was_found_stays_known() -> None:
    """The process of an older socket need not be searched for again."""
    bench = Bench()
    bench.kernel.send(bench.kernel.open(ALICE, flags=wire.FLOW_OLDER), 101)
    bench.tick()
    (cookie,) = bench.meter.unknown().tolist()
    bench.meter.learn({cookie: (4711, b"sshd")})
    bench.tick()

    bench.meter = successor(kept_of(bench), bench.kernel)

    assert rows(bench.flows(), "pid", "comm", "out_bytes") == [(4711, b"sshd", 101)]


def test_a_unit_that_is_gone_meanwhile() -> None:
    """What its last packets were is accounted to it, although nobody could find its path any more."""
    bench = Bench()
    socket = bench.kernel.open(cgroup=2)
    bench.kernel.send(socket, 101)
    bench.tick()
    kept = kept_of(bench)
    bench.kernel.send(socket, 13)

    bench.meter = Meter(bench.kernel, paths=lambda ids: {}, netns=HOME, idle=IDLE)
    bench.meter.owners.resume(kept.totals)
    bench.meter.resume(kept.builds[0][1])

    assert rows(bench.tick().units, "cgroup", "out_bytes") == [
        ("/user.slice/user-1000.slice/session-3.scope", 114)
    ]


def test_many_slots() -> None:
    """As many as were ever in use are mapped at once, also if only the last of them are still."""
    bench = Bench(slots=5000)
    sockets = [bench.kernel.open() for _ in range(4321)]
    for socket in sockets:
        bench.kernel.send(socket, 100)
    bench.tick()
    for socket in sockets[:-1]:
        bench.kernel.close(socket)
    for _ in range(3):
        bench.tick()
    assert bench.kernel.free == 4999

    bench.meter = successor(kept_of(bench), bench.kernel)
    bench.kernel.send(sockets[-1], 7)

    assert rows(bench.flows(), "out_bytes") == [(107,)]
    assert bench.kernel.free == 4999


def retired(bench: Bench) -> Kept:
    """What is kept when all slots are nobody's any more and are about to be given back."""
    sockets = [bench.kernel.open() for _ in range(bench.kernel.slots.capacity)]
    for socket in sockets:
        bench.kernel.send(socket, 101)
    bench.tick()
    for socket in sockets:
        bench.kernel.close(socket)
    bench.tick()
    bench.meter.tick(moment(bench.kernel.now))
    assert bench.kernel.free == 0
    return kept_of(bench)


def test_slots_on_their_way_back() -> None:
    """The next meter gives them back, if the last one did not get so far: each once, the lowest on top."""
    bench = Bench(slots=3000)

    bench.meter = successor(retired(bench), bench.kernel)
    bench.tick()

    assert bench.kernel.given_back == list(range(2999, -1, -1))


def test_a_slot_that_was_given_back_is_being_claimed() -> None:
    """The program has cleared it, and not yet written who has it: it is not given back a second time."""
    bench = Bench(slots=1)
    kept = retired(bench)
    bench.meter.release()
    socket = bench.kernel.open()
    bench.kernel.send(socket, 13)
    halves = [bench.kernel.slots.array.copy()]
    bench.kernel.slots.array[:] = np.zeros(1, wire.SLOT)

    def wait() -> None:
        bench.kernel.slots.array[:] = halves.pop()

    bench.meter = successor(kept, bench.kernel, wait)

    assert rows(bench.flows(), "out_bytes") == [(13,)]
    assert bench.kernel.given_back == [0]


@pytest.mark.parametrize("again", [False, True])
def test_a_peer_that_comes_back_between_two_daemons(again: bool) -> None:
    """Its row was taken out by a tick that nobody knows of: it begins anew, and is in no way negative."""
    bench = Bench()
    socket = bench.kernel.open(unconnected=True)
    bench.kernel.send(socket, 1009, segments=5, peer=1)
    bench.tick()
    kept = kept_of(bench)
    bench.kernel.peers.rows.clear()
    bench.kernel.now += 1
    if again:
        bench.kernel.send(socket, 7, peer=1)

    bench.meter = successor(kept, bench.kernel)

    flows = bench.flows()
    assert flows.counters.max() <= 1016 + 4 * 40
    assert flows.rates.max() <= 7
    assert rows(flows, "kind", "out_bytes")[1:] == ([(FlowKind.PEER, 7)] if again else [])
