"""Accounts for what sockets did: from the meter's records to users, units, processes and flows.

Pure: it sees arrays and a clock, never the kernel. One `tick()` reads everything once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Hash, Now, Tallies, rates_of, row_ids
from netmond.attribution import Attribution, Rows
from netmond.flowrows import FlowRows
from netmond.kernel import wire
from netmond.model import RATES, FlowKind, Table
from netmond.passages import Passages, pass_ours
from netmond.peers import Peers
from netmond.slots import Places, Reading, Records, Slots

_NANO = 1e-9


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


class Meter:
    """State between ticks: who has which slot, and the running totals."""

    def __init__(
        self, tables: Tables, *, paths: Callable[[Iterable[int]], Mapping[int, str]], netns: int, idle: float
    ) -> None:
        """paths: cgroup ids -> paths, leaving out unknown ones. netns: cookie of our own network namespace.
        idle: seconds of silence after which a socket gives its slot up."""
        self._tables = tables
        self._netns = netns
        self.set_idle(idle)
        size = tables.slots.capacity
        self._slots = Slots(tables.slots, tables.give_back)
        self._user, self._unit, self._process = (np.zeros(size, np.int32) for _ in range(3))
        self._who = {name: np.zeros(size, wire.FLOW[name]) for name in FlowRows.IDENTITY}
        self._same = False  # sockets and owners are those of the last tick, and so are the next three
        self._rows: tuple[Rows, Rows, Rows]  # of users, units and processes, for each slot in use
        self._unconnected: tuple[Places, NDArray[np.uint64]]  # slots that may have many peers; cookies
        self._names: dict[str, NDArray[Any]]  # columns of the flow table
        self._owners = Attribution(paths)
        self._peers = Peers(tables.peers, size)
        self._overflow = Tallies()
        self._claims = 0.0  # sockets that got a slot, per second of the last tick
        self.passages = Passages()

    def set_idle(self, seconds: float) -> None:
        """How long a socket may be silent before it gives its slot up."""
        self._idle = seconds

    @property
    def owners(self) -> Attribution:
        """Whose it all is; its totals may be made to go on from earlier ones."""
        return self._owners

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """What has been accounted for, as of the last tick. The arrays are live."""
        slots = self._slots.checkpoint()
        top = len(slots["slots.state"])
        return {
            **slots,
            "slots.process": self._process[:top],
            "slots.unit": self._unit[:top],
            **self._peers.checkpoint(top),
            **self._overflow.checkpoint("overflow."),
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]], wait: Callable[[], object] = lambda: None) -> None:
        """Goes on from a checkpoint of the same tables; call before the first tick, after owners.resume().

        wait: returns when every program that runs now has ended.
        """
        self._slots.resume(arrays, wait)
        self._peers.resume(arrays)
        self._overflow.resume(arrays, "overflow.", wire.OVERFLOW_KEY, wire.TALLY)
        live = self._slots.live
        flows = self._tables.flows.take(live)
        for name, column in self._who.items():
            column[live] = flows[name]
        self._user[live] = self._owners.user_rows(flows["uid"])
        self._unit[live] = arrays["slots.unit"][live]  # its control group may be gone
        self._process[live] = arrays["slots.process"][live]  # may have been learned
        processes = [self._owners.process(row) for row in self._process[live].tolist()]
        self._who["pid"][live] = [pid for pid, *_ in processes]
        self._who["comm"][live] = [comm for _, comm, *_ in processes]

    def standing(self, now: Now) -> Usage:
        """How things were at the last tick, or at the checkpoint resumed from. It changes nothing."""
        reading = self._slots.standing()
        self._arrange(reading, now)
        self._peers.place(*self._unconnected)
        return self._usage(now, reading)

    def tick(self, now: Now) -> Usage:
        """Reads the kernel's tables and updates every total. Then `release()` what is no longer needed."""
        self._owners.begin_tick()
        # Peers before slots: the kernel counts in the slot first, so no peer is ahead of its socket.
        self._peers.read()
        self.passages.move(self._tables.detours)
        reading = self._slots.read()
        live = reading.live
        self._claims = np.count_nonzero(reading.claimed) / now.interval if now.interval else 0.0
        if len(reading.changed):
            self._same = False
            self._peers.begin(reading.changed[reading.claimed])
            self._identify(reading.changed, reading.claimed)
        if not self._same:
            fewer = self._owners.forget(self._unit[live], self._process[live])
            if fewer:
                self._unit[live], self._process[live] = fewer
            self._arrange(reading, now)
        self._account(reading)
        self._peers.place(*self._unconnected)
        self._peers.account(now, self._idle, live[reading.ended])
        self._peers.settle_twins(*self._unconnected, self._slots.totals)
        self._account_overflow()
        usage = self._usage(now, reading)
        self._same = not self._slots.retire(reading, now.monotonic_ns, self._idle / _NANO)
        return usage

    def may_fill(self, seconds: float) -> bool:
        """Whether a table of the kernel may run full if it is read only after so many seconds."""
        # A slot comes back two readings after its socket was closed.
        expected = len(self._slots.live) + 2 * seconds * self._claims
        return expected > self._tables.slots.capacity / 2 or self._peers.crowded

    def release(self) -> None:
        """Makes slots free for others that were accounted for, see Slots.release()."""
        self._slots.release()

    def _usage(self, now: Now, reading: Reading) -> Usage:
        users, units, processes = self._rows
        flows = FlowRows()
        self._add_sockets(flows, now, reading)
        self._peers.add_to(flows, now, self._identity)
        self._add_overflow(flows, now)
        return Usage(
            users=self._owners.users_table(users, now),
            units=self._owners.units_table(units, now),
            processes=self._owners.processes_table(processes, now),
            flows=flows,
        )

    def unknown(self) -> NDArray[np.uint64]:
        """Cookies of open sockets whose process the kernel side could not tell."""
        live = self._slots.live
        flags = self._who["flags"][live]
        unknown = wire.FLOW_OLDER | wire.FLOW_ACCEPTED
        cookies: NDArray[np.uint64] = self._who["cookie"][live[flags & unknown != 0]]
        return cookies

    def learn(self, processes: Mapping[int, tuple[int, bytes]]) -> None:
        """Takes in (pid, comm) of sockets by cookie; what they do from now on is accounted to those."""
        live, who = self._slots.live, self._who
        slots = live[np.isin(who["cookie"][live], np.fromiter(processes, np.uint64, len(processes)))]
        if not len(slots):
            return
        who["pid"][slots], who["comm"][slots] = zip(
            *(processes[cookie] for cookie in who["cookie"][slots].tolist()), strict=True
        )
        self._attribute(slots)
        self._same = False

    # -- accounting ----------------------------------------------------------------------------------

    def _identify(self, slots: Places, claimed: NDArray[np.bool_]) -> None:
        flows = self._tables.flows.take(slots)
        for name in ("pid", "comm"):  # may have been learned since
            flows[name][~claimed] = self._who[name][slots[~claimed]]
        for name, column in self._who.items():
            column[slots] = flows[name]
        self._user[slots] = self._owners.user_rows(flows["uid"])
        self._unit[slots] = self._owners.unit_rows(flows["cgroup"])
        self._attribute(slots)

    def _attribute(self, slots: Places) -> None:
        """Finds the processes of slots, by what is known of each."""
        who = self._who
        self._process[slots] = self._owners.process_rows(
            who["pid"][slots], who["comm"][slots], who["uid"][slots], self._unit[slots]
        )

    def _arrange(self, reading: Reading, now: Now) -> None:
        """What depends on whose the sockets are, and not on what they do."""
        live, who = reading.live, self._who
        self._rows = (reading.of(self._user), reading.of(self._unit), reading.of(self._process))
        slots = live[who["flags"][live] & wire.FLOW_UNCONNECTED != 0]
        self._unconnected = slots, who["cookie"][slots]
        self._names = self._identity(live)
        self._names["id"] = self._slots.identity(live)
        self._names["first_seen"] = now.wall_of(who["first_seen"][live])

    def _account(self, reading: Reading) -> None:
        """Adds what moved to whose it is, and to the interfaces it passed."""
        who = self._who
        for moved in reading.moved:
            self._owners.add(moved.deltas, self._process[moved.slots])
            ours = pass_ours(who["netns"][moved.slots], who["flags"][moved.slots], self._netns)
            protocols = who["protocol"][moved.slots[ours]]
            self.passages.add_sockets(moved.deltas[ours], moved.ways[ours], protocols)
        self._owners.settle()

    def _account_overflow(self) -> None:
        self._overflow.update(*self._tables.overflow.read())
        keys = self._overflow.keys
        if len(keys):
            users, units = self._owners.user_rows(keys["uid"]), self._owners.unit_rows(keys["cgroup"])
            self._owners.add_unknown(self._overflow.deltas, users, units)
            self.passages.add(self._overflow.deltas, keys["ifindex"], keys["ifindex"])

    # -- rows ----------------------------------------------------------------------------------------

    def _add_sockets(self, flows: FlowRows, now: Now, reading: Reading) -> None:
        counters = reading.of(self._slots.totals)
        self._peers.take_from(counters, reading.live)
        tcp = reading.tcp.view(np.uint32)
        rates = np.zeros((len(counters), len(RATES)))
        for moved in reading.moved:
            rates[reading.rows(moved.slots)] = rates_of(moved.deltas, now.interval)
        flows.add(
            FlowKind.SOCKET,
            counters,
            rates,
            **self._names,
            last_seen=now.wall_of(reading.last_seen),
            srtt_us=tcp[::2],
            retransmits=tcp[1::2],
            ended=reading.ended,
        )

    def _identity(self, slots: Places) -> dict[str, NDArray[Any]]:
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
