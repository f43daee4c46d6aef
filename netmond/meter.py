"""Accounts for what sockets did: from the meter's records to users, units, processes and flows.

Pure: it sees arrays and a clock, never the kernel. One `tick()` reads everything once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import WORDS, Hash, Now, Tallies, as_words, rates_of, row_ids, unfold
from netmond.attribution import Attribution
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import COUNTERS, RATES, FlowKind, Table
from netmond.passages import WAYS, Passages, pass_ours
from netmond.peers import Peers

_PIECE = 2048  # rows accounted for at a time
_GIVEN_BACK_AT_ONCE = 64
_BLOCK = 1024  # slots looked at beyond the highest one ever used
_CROWDED = 7 / 8  # share of slots or rows in use from which silent ones are given up sooner
_IDLE_IF_CROWDED = 30.0  # seconds
_NANO = 1e-9

#: Words of a slot seen as u8, see struct direction, beside those that `last` keeps.
_IN_STATE, _OUT_STATE = (wire.word_of(wire.SLOT, way, "generation") for way in ("in", "out"))
_IN_LAST_SEEN, _OUT_LAST_SEEN = (wire.word_of(wire.SLOT, way, "last_seen") for way in ("in", "out"))
_IN_TCP = wire.word_of(wire.SLOT, "in", "srtt_us")

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_RELEASED = np.uint64(wire.SLOT_RELEASED)
_FREE = np.uint64(wire.SLOT_FREE << 32)


class Records(Protocol):
    """An array shared with the kernel: kernel.tables.LongArray, or one in a test."""

    capacity: int

    def front(self, length: int) -> NDArray[Any]: ...

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]: ...


class Tables(Protocol):
    """What the meter shares: kernel.tables.SocketTables, or arrays in a test."""

    @property
    def slots(self) -> Records: ...

    @property
    def flows(self) -> Records: ...

    @property
    def peers(self) -> Hash: ...

    @property
    def overflow(self) -> Hash: ...

    @property
    def detours(self) -> Hash: ...

    def give_back(self, slots: NDArray[np.uint32]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Usage:
    """What a tick found: tables as in model.Snapshot, `flows` still open for rows from elsewhere."""

    users: Table
    units: Table
    processes: Table
    flows: FlowRows
    unit_names: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Sockets:
    """What a tick read of the slots in use, row by row."""

    counters: NDArray[np.uint64]
    rates: NDArray[np.float64]
    last_seen: NDArray[np.uint64]
    tcp: NDArray[np.uint64]  #: round trip time in the low half, retransmits in the high one
    quiet: NDArray[np.bool_]  #: did nothing
    released: NDArray[np.bool_]  #: was closed by its process
    ended: NDArray[np.bool_]  #: was cut off a tick ago: these are the last figures

    @staticmethod
    def empty(length: int) -> _Sockets:
        return _Sockets(
            np.empty((length, len(COUNTERS)), np.uint64),
            np.empty((length, len(RATES))),
            np.empty(length, np.uint64),
            np.empty(length, np.uint64),
            np.empty(length, np.bool_),
            np.empty(length, np.bool_),
            np.empty(length, np.bool_),
        )


class Meter:
    """State between ticks: what each slot held last time, and the running totals."""

    def __init__(
        self, tables: Tables, *, paths: Callable[[Iterable[int]], Mapping[int, str]], netns: int, idle: float
    ) -> None:
        """paths: cgroup ids -> paths, leaving out unknown ones. netns: cookie of our own network namespace.
        idle: seconds of silence after which a socket gives its slot up."""
        self._tables = tables
        self._netns = netns
        self.set_idle(idle)
        size = tables.slots.capacity
        self._extent = 0
        self._words = as_words(tables.slots.front(min(_BLOCK, size)))
        self._state = np.zeros(size, np.uint64)  # generation and, in the high half, revision; 0: not ours
        self._last = np.zeros((size, WORDS), np.uint64)
        self._totals = np.zeros((size, len(COUNTERS)), np.uint64)
        self._doomed = np.zeros(size, np.bool_)  # cut off from its socket: given back at the next tick
        self._user, self._unit, self._process = (np.zeros(size, np.int32) for _ in range(3))
        self._who = {name: np.zeros(size, wire.FLOW[name]) for name in FlowRows.IDENTITY}
        self._same = False  # the rows are those of the last tick, and so are these columns of theirs
        self._names: dict[str, NDArray[Any]] = {}
        self._returnable = np.zeros(0, np.intp)  # slots that are nobody's, not free for others yet
        self._owners = Attribution(paths)
        self._peers = Peers(tables.peers, size)
        self._overflow = Tallies()
        self.passages = Passages()

    def set_idle(self, seconds: float) -> None:
        """How long a socket may be silent before it gives its slot up."""
        self._idle_ns = seconds / _NANO

    @property
    def owners(self) -> Attribution:
        """Whose it all is; its totals may be made to go on from earlier ones."""
        return self._owners

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """What has been accounted for, as of the last tick. The arrays are live."""
        used = np.flatnonzero(self._state[: self._extent])
        top = int(used[-1]) + 1 if len(used) else 0
        return {
            "slots.state": self._state[:top],
            "slots.last": self._last[:top],
            "slots.totals": self._totals[:top],
            "slots.process": self._process[:top],
            "slots.unit": self._unit[:top],
            "slots.returnable": self._returnable,
            **self._peers.checkpoint(top),
            **self._overflow.checkpoint("overflow."),
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]], wait: Callable[[], object] = lambda: None) -> None:
        """Goes on from a checkpoint of the same tables; call before the first tick, after owners.resume().

        A slot that was cut off then is so still: its socket has found another, or will.
        wait: returns when every program that runs now has ended.
        """
        top, idle = len(arrays["slots.state"]), arrays["slots.returnable"]
        while self._extent <= max(top - 1, idle.max(initial=-1)) and self._map_more():
            pass
        self._state[:top] = arrays["slots.state"]
        self._last[:top] = arrays["slots.last"]
        self._totals[:top] = arrays["slots.totals"]
        self._peers.resume(arrays)
        self._overflow.resume(arrays, "overflow.", wire.OVERFLOW_KEY, wire.TALLY)
        live = np.flatnonzero(self._state[: self._extent])
        flows = self._tables.flows.take(live)
        for name, column in self._who.items():
            column[live] = flows[name]
        self._user[live] = self._owners.user_rows(flows["uid"])
        self._unit[live] = arrays["slots.unit"][live]  # its control group may be gone
        self._process[live] = arrays["slots.process"][live]  # may have been learned
        processes = [self._owners.process(row) for row in self._process[live].tolist()]
        self._who["pid"][live] = [pid for pid, *_ in processes]
        self._who["comm"][live] = [comm for _, comm, *_ in processes]
        self._doomed[live] = self._words[live, _IN_STATE] & _LOW == 0
        self._extend()
        idle = idle[self._words[idle, _IN_STATE] == 0]
        if len(idle):
            wait()  # one that was given back may just be claimed
        self._returnable = idle[self._words[idle, _IN_STATE] == 0]

    def standing(self, now: Now) -> Usage:
        """How things were at the last tick, or at the checkpoint resumed from. It changes nothing."""
        live = np.flatnonzero(self._state[: self._extent])
        sockets = _Sockets.empty(len(live))
        sockets.counters[:] = self._totals[live]
        sockets.rates[:] = 0
        records = self._words[live]
        sockets.last_seen[:] = np.maximum(records[:, _IN_LAST_SEEN], records[:, _OUT_LAST_SEEN])
        sockets.tcp[:] = records[:, _IN_TCP]
        sockets.ended[:] = False
        self._peers.place(*self._unconnected())
        return self._usage(now, live, sockets)

    def tick(self, now: Now) -> Usage:
        """Reads the kernel's tables and updates every total. Then `release()` what is no longer needed."""
        self._owners.begin_tick()
        # Peers before slots: the kernel counts in the slot first, so no peer is ahead of its socket.
        self._peers.read()
        self.passages.move(self._tables.detours)
        live = self._recognise()
        fewer = self._owners.forget(self._unit[live], self._process[live])
        if fewer:
            self._unit[live], self._process[live] = fewer
            self._same = False
        sockets = self._account(live, now)
        unconnected = self._unconnected()
        self._peers.place(*unconnected)
        self._peers.account(now, self._idle_ns * _NANO, live[sockets.ended])
        self._peers.settle_twins(*unconnected, self._totals)
        self._account_overflow()
        usage = self._usage(now, live, sockets)
        self._retire(live, sockets, now)
        return usage

    def release(self) -> None:
        """Gives slots back that were accounted for, for good: whoever keeps checkpoints, keeps one first.

        A mark tells a later start that they were; those between mark and stack at SIGKILL stay unused.
        """
        slots, self._returnable = self._returnable[::-1], self._returnable[:0]
        for start in range(0, len(slots), _GIVEN_BACK_AT_ONCE):
            piece = slots[start : start + _GIVEN_BACK_AT_ONCE]
            self._words[piece, _IN_STATE] = _FREE
            self._tables.give_back(piece.astype(np.uint32))

    def _usage(self, now: Now, live: NDArray[np.intp], sockets: _Sockets) -> Usage:
        flows = FlowRows()
        self._peers.take_from(sockets.counters, live)
        self._add_sockets(flows, now, live, sockets)
        self._peers.add_to(flows, now, self._identity)
        self._add_overflow(flows, now)
        return Usage(
            users=self._owners.users_table(self._user[live], now),
            units=self._owners.units_table(self._unit[live], now),
            processes=self._owners.processes_table(self._process[live], now),
            flows=flows,
            unit_names=self._owners.unit_names,
        )

    def unknown(self) -> NDArray[np.uint64]:
        """Cookies of open sockets whose process the kernel side could not tell."""
        live = np.flatnonzero(self._state[: self._extent])
        flags = self._who["flags"][live]
        unknown = wire.FLOW_OLDER | wire.FLOW_ACCEPTED
        cookies: NDArray[np.uint64] = self._who["cookie"][live[flags & unknown != 0]]
        return cookies

    def learn(self, processes: Mapping[int, tuple[int, bytes]]) -> None:
        """Takes in (pid, comm) of sockets by cookie; what they do from now on is accounted to those."""
        live = np.flatnonzero(self._state[: self._extent])
        cookies = self._who["cookie"][live]
        for slot in live[np.isin(cookies, np.fromiter(processes, np.uint64, len(processes)))]:
            pid, comm = processes[int(self._who["cookie"][slot])]
            self._who["pid"][slot], self._who["comm"][slot] = pid, comm
            uid, unit = int(self._who["uid"][slot]), int(self._unit[slot])
            self._process[slot] = self._owners.process_rows([pid], [comm], [uid], [unit])[0]
            self._same = False

    # -- reading -------------------------------------------------------------------------------------

    def _extend(self) -> None:
        """Maps as many slots as were ever used, and some beyond to notice the next."""
        while self._words[self._extent :, _IN_STATE].any() and self._map_more():
            pass

    def _map_more(self) -> bool:
        """Takes in what is mapped, and maps some more; False: that is all there is."""
        self._extent = len(self._words)
        if self._extent == self._tables.slots.capacity:
            return False
        ahead = self._extent + max(_BLOCK, self._extent // 8)
        ahead = min(ahead, self._tables.slots.capacity)
        self._words = as_words(self._tables.slots.front(ahead))
        return True

    def _recognise(self) -> NDArray[np.intp]:
        """Finds out about slots that changed hands; returns the numbers of all that are in use."""
        self._extend()
        state = self._state[: self._extent]
        generation = self._words[: self._extent, _IN_STATE] & _LOW
        seen = generation | self._words[: self._extent, _OUT_STATE] & ~_LOW
        changed = np.flatnonzero((generation != 0) & (seen != state))
        new = (seen[changed] ^ state[changed]) & _LOW != 0
        claimed = changed[new]
        self._same &= not len(changed)
        self._last[claimed] = 0
        self._totals[claimed] = 0
        self._peers.begin(claimed)
        state[changed] = seen[changed]
        if len(changed):
            self._identify(changed, new)
        return np.flatnonzero(state)

    def _identify(self, slots: NDArray[np.intp], claimed: NDArray[np.bool_]) -> None:
        flows = self._tables.flows.take(slots)
        for name in ("pid", "comm"):  # may have been learned since
            flows[name][~claimed] = self._who[name][slots[~claimed]]
        for name, column in self._who.items():
            column[slots] = flows[name]
        self._user[slots] = self._owners.user_rows(flows["uid"])
        self._unit[slots] = self._owners.unit_rows(flows["cgroup"])
        columns = (
            flows["pid"].tolist(),
            flows["comm"].tolist(),
            flows["uid"].tolist(),
            self._unit[slots].tolist(),
        )
        self._process[slots] = self._owners.process_rows(*columns)

    # -- accounting ----------------------------------------------------------------------------------

    def _account(self, live: NDArray[np.intp], now: Now) -> _Sockets:
        """Adds what each slot did since the last tick; in pieces, for the sake of the CPU's caches."""
        sockets = _Sockets.empty(len(live))
        for start in range(0, len(live), _PIECE):
            piece = slice(start, start + _PIECE)
            slots = live[piece]
            records = self._words[slots]
            current = records[:, wire.SLOT_COUNTED]
            deltas = unfold(current - self._last[slots])
            self._last[slots] = current
            totals = self._totals[slots] + deltas
            self._totals[slots] = totals
            busy = deltas.any(axis=1)
            grown = deltas[busy]
            rows = slots[busy]
            self._owners.add(grown, self._user[rows], self._unit[rows], self._process[rows])
            ours = pass_ours(self._who["netns"][rows], self._who["flags"][rows], self._netns)
            ways = records[:, WAYS][busy]
            self.passages.add_slots(grown[ours], ways[ours], self._who["protocol"][rows[ours]])
            sockets.counters[piece] = totals
            sockets.rates[piece] = rates_of(deltas, now.interval)
            sockets.last_seen[piece] = np.maximum(records[:, _IN_LAST_SEEN], records[:, _OUT_LAST_SEEN])
            sockets.tcp[piece] = records[:, _IN_TCP]
            sockets.quiet[piece] = ~busy
            sockets.released[piece] = records[:, _IN_STATE] >> _HALF & _RELEASED != 0
            sockets.ended[piece] = self._doomed[slots]
        return sockets

    def _unconnected(self) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """The slots of sockets that may have many peers, and their cookies."""
        live = np.flatnonzero(self._state[: self._extent])
        slots = live[self._who["flags"][live] & wire.FLOW_UNCONNECTED != 0]
        return slots, self._who["cookie"][slots]

    def _account_overflow(self) -> None:
        self._overflow.update(*self._tables.overflow.read())
        keys = self._overflow.keys
        if len(keys):
            users, units = self._owners.user_rows(keys["uid"]), self._owners.unit_rows(keys["cgroup"])
            self._owners.add(self._overflow.deltas, users, units)
            self.passages.add(self._overflow.deltas, keys["ifindex"], keys["ifindex"])

    # -- rows ----------------------------------------------------------------------------------------

    def _add_sockets(self, flows: FlowRows, now: Now, live: NDArray[np.intp], sockets: _Sockets) -> None:
        if not self._same:
            self._names = self._identity(live)
            self._names["id"] = self._state[live] << _HALF | live.astype(np.uint64)
            self._names["first_seen"] = now.wall_of(self._who["first_seen"][live])
        flows.add(
            FlowKind.SOCKET,
            sockets.counters,
            sockets.rates,
            **self._names,
            last_seen=now.wall_of(sockets.last_seen),
            srtt_us=sockets.tcp & _LOW,
            retransmits=sockets.tcp >> _HALF,
            ended=sockets.ended,
        )

    def _identity(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        """The columns that a slot lends to its own row and to those of its peers."""
        at_home = self._who["netns"][slots] == self._netns
        columns = {name: self._who[name][slots] for name in FlowRows.SHARED}
        columns["ifindex"] = np.where(at_home, columns["ifindex"], 0)
        columns["unit_index"] = self._unit[slots]
        return columns

    def _add_overflow(self, flows: FlowRows, now: Now) -> None:
        keys, values = self._overflow.keys, self._overflow.values
        if not len(keys):
            return
        flows.add(
            FlowKind.OVERFLOW,
            self._overflow.totals,
            rates_of(self._overflow.deltas, now.interval),
            id=row_ids(keys),
            uid=keys["uid"],
            unit_index=self._owners.unit_rows(keys["cgroup"]),
            ifindex=keys["ifindex"],
            first_seen=now.wall_of(values["first_seen"]),
            last_seen=now.wall_of(values["last_seen"]),
        )

    # -- giving back ---------------------------------------------------------------------------------

    def _retire(self, live: NDArray[np.intp], sockets: _Sockets, now: Now) -> None:
        """Lets go of what was cut off a tick ago, and cuts off what is closed or silent.

        A slot whose generation is 0 is no longer its socket's: see the top of bpf/sockets.c.
        """
        done = live[sockets.ended]
        self._same = not len(done)
        if len(done):
            self._state[done] = 0
            self._doomed[done] = False
            self._returnable = np.concatenate([self._returnable, done])
        limit = self._idle_ns
        if len(live) > self._tables.slots.capacity * _CROWDED:
            limit = min(limit, _IDLE_IF_CROWDED / _NANO)
        idle = now.monotonic_ns - sockets.last_seen.astype(np.int64) > limit
        doomed = live[sockets.quiet & ~sockets.ended & (sockets.released | idle)]
        self._words[doomed, _IN_STATE] = 0
        self._words[doomed, _OUT_STATE] = 0
        self._doomed[doomed] = True
