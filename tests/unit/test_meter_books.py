"""The books close: whatever sockets do, and whenever the meter looks, every byte is counted once."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from netmond.meter import Usage
from netmond.model import COUNTERS, FlowKind, Table
from tests.unit.fakes import moment
from tests.unit.metering import IDLE, PATHS, Bench
from tests.unit.sockets import Kernel, Socket

_USERS = st.sampled_from([0, 1000, 1234])
_CGROUPS = st.sampled_from([1, 2, 3])
_SIZES = st.integers(0, 70_000)
_SEGMENTS = st.integers(1, 45)
_PEERS = st.integers(1, 5)
_HEADERS = 40

Figures = NDArray[np.uint64]


def nothing() -> Figures:
    return np.zeros(len(COUNTERS), np.uint64)


def sums(table: Table, column: str) -> dict[object, list[int]]:
    """The counters of a table added up by a column."""
    totals: dict[object, Figures] = {}
    for key, counters in zip(table.columns[column].tolist(), table.counters, strict=True):
        totals[key] = totals.get(key, nothing()) + counters
    return as_lists(totals)


def as_lists(totals: dict[object, Figures]) -> dict[object, list[int]]:
    return {key: figures.tolist() for key, figures in totals.items() if figures.any()}


@dataclass
class Ledger:
    """What was really sent, by user, unit and process."""

    users: dict[object, Figures] = field(default_factory=dict)
    units: dict[object, Figures] = field(default_factory=dict)
    processes: dict[object, Figures] = field(default_factory=dict)

    def enter(self, socket: Socket, figures: Figures, *, has_slot: bool) -> None:
        """Without a slot no process is known."""
        entries: list[tuple[dict[object, Figures], object]] = [
            (self.users, socket.uid),
            (self.units, PATHS[socket.cgroup]),
        ]
        if has_slot:
            entries.append((self.processes, socket.pid))
        for totals, key in entries:
            totals[key] = totals.get(key, nothing()) + figures


class Sockets(RuleBasedStateMachine):
    """Sockets open, speak, connect, change hands and close in any order; the meter ticks at any time."""

    slots, peers, overflow = 5, 256, 64
    leaked = 0  #: slots that nobody gets any more

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(slots=self.slots, peers=self.peers, overflow=self.overflow)
        self.kernel: Kernel = self.bench.kernel
        self.open: list[Socket] = []
        self.closed: list[Socket] = []
        self.ledger = Ledger()
        self.ended = nothing()  # the last figures of every row that has gone

    @initialize()
    def first_look(self) -> None:
        self.look()

    # -- what happens --------------------------------------------------------------------------------

    @rule(uid=_USERS, cgroup=_CGROUPS, unconnected=st.booleans())
    def opens(self, uid: int, cgroup: int, unconnected: bool) -> None:
        pid = 100 + len(self.open) + len(self.closed)
        self.open.append(self.kernel.open(uid, cgroup=cgroup, pid=pid, unconnected=unconnected))

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data(), size=_SIZES, segments=_SEGMENTS, outward=st.booleans(), peer=_PEERS)
    def speaks(self, data: st.DataObject, size: int, segments: int, outward: bool, peer: int) -> None:
        self.transfer(data.draw(st.sampled_from(self.open)), size, segments, outward, peer)

    @precondition(lambda self: bool(self.closed))
    @rule(data=st.data(), size=_SIZES, outward=st.booleans(), peer=_PEERS)
    def speaks_after_it_was_closed(self, data: st.DataObject, size: int, outward: bool, peer: int) -> None:
        self.transfer(data.draw(st.sampled_from(self.closed)), size, 1, outward, peer)

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data())
    def closes(self, data: st.DataObject) -> None:
        socket = data.draw(st.sampled_from(self.open))
        self.open.remove(socket)
        self.closed.append(socket)
        self.kernel.close(socket)

    @precondition(lambda self: any(socket.unconnected for socket in self.open))
    @rule(data=st.data(), succeeds=st.booleans())
    def connects(self, data: st.DataObject, succeeds: bool) -> None:
        socket = data.draw(st.sampled_from([socket for socket in self.open if socket.unconnected]))
        self.kernel.reconnect(socket, unconnected=not succeeds)

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data(), uid=_USERS)
    def is_accepted(self, data: st.DataObject, uid: int) -> None:
        """A moment after a tick, since within one the bytes of both owners go to the second."""
        child = self.kernel.accept(data.draw(st.sampled_from(self.open)))
        self.transfer(child, 1009, 1, False, 1)
        self.ticks(0.5)
        self.kernel.hand_over(child, uid)
        self.transfer(child, 2003, 1, True, 1)
        self.ticks(0.5)
        self.open.append(child)

    @rule(seconds=st.sampled_from([0.1, 1.0, 31.0, IDLE + 1]))
    def ticks(self, seconds: float) -> None:
        self.kernel.now += seconds
        self.look()

    @precondition(lambda self: bool(self.open))
    @rule(data=st.data(), size=_SIZES, outward=st.booleans(), peer=_PEERS)
    def speaks_while_the_meter_reads(self, data: st.DataObject, size: int, outward: bool, peer: int) -> None:
        """The table of peers was read already, the slots were not."""
        socket = data.draw(st.sampled_from(self.open))
        self.kernel.now += 1
        self.kernel.peers.after_read = lambda: self.transfer(socket, size, 1, outward, peer)
        self.look()
        self.kernel.peers.after_read = lambda: None

    # -- what must hold ------------------------------------------------------------------------------

    @invariant()
    def no_slot_is_lost(self) -> None:
        """Every slot is free or somebody's."""
        held = np.count_nonzero(self.kernel.slots.array["in"]["generation"])
        cut_off = np.count_nonzero(self.bench.meter._slots._cut_off)
        assert self.kernel.free + held + cut_off == self.slots

    def teardown(self) -> None:
        """Everything is closed and silent: the books are those of the ledger, and all slots are free."""
        for socket in self.open:
            self.kernel.close(socket)
        for seconds in (1.0, 1.0, IDLE + 1, 1.0, 1.0, 1.0):
            self.ticks(seconds)
        usage = self.bench.tick()

        assert sums(usage.users, "uid") == as_lists(self.ledger.users)
        assert sums(usage.units, "cgroup") == as_lists(self.ledger.units)
        assert sums(usage.processes, "pid") == as_lists(self.ledger.processes)
        assert self.kernel.free + self.leaked == self.slots
        assert len(self.kernel.peers) == 0
        assert not usage.users.columns["flows"].any()
        assert set(usage.flows.table().columns["kind"].tolist()) <= {FlowKind.OVERFLOW.value}

    # -- how -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """A tick; rows are disjoint: those that go on and those that have ended are all there is."""
        usage = self.usage()
        flows = usage.flows.table()
        ended = flows.columns["ended"]
        self.ended += flows.counters[ended].sum(axis=0, dtype=np.uint64)
        everything = self.ended + flows.counters[~ended].sum(axis=0, dtype=np.uint64)
        ids = flows.columns["id"].tolist()

        assert len(ids) == len(set(ids))
        assert everything.tolist() == usage.users.counters.sum(axis=0, dtype=np.uint64).tolist()
        assert usage.users.counters.sum() == usage.units.counters.sum()

    def usage(self) -> Usage:
        usage = self.bench.meter.tick(moment(self.kernel.now))
        self.bench.meter.release()
        return usage

    def transfer(self, socket: Socket, size: int, segments: int, outward: bool, peer: int) -> None:
        before = self.kernel.losses["meter.no-slot-packets"]
        self.kernel.transfer(socket, size, outward=outward, segments=segments, headers=_HEADERS, peer=peer)
        has_slot = self.kernel.losses["meter.no-slot-packets"] == before
        wire, stack = [segments, size + (segments - 1) * _HEADERS], [1, size]
        figures = np.array(
            [0, 0, *wire, 0, 0, *stack] if outward else [*wire, 0, 0, *stack, 0, 0], np.uint64
        )
        self.ledger.enter(socket, figures, has_slot=has_slot)


class ScarceSockets(Sockets):
    """The same where slots and rows for peers run out all the time."""

    slots, peers = 2, 2


#: The same examples in every run; the books of 60 lives of a machine, 40 events each.
_SETTINGS = settings(max_examples=60, stateful_step_count=40)


def test_books_close() -> None:
    """After every tick rows are disjoint; in the end users, units and processes have what was sent."""
    run_state_machine_as_test(Sockets, settings=_SETTINGS)  # type: ignore[no-untyped-call]


def test_books_close_when_everything_is_scarce() -> None:
    """Also when most sockets find no slot and most peers no row."""
    run_state_machine_as_test(ScarceSockets, settings=_SETTINGS)  # type: ignore[no-untyped-call]
