"""Whose it is: users, units and processes, each with a row and running totals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import Accounts, Earlier, Key, Now, distinct
from netmond.model import Table
from netmond.units import GONE, unit_of

_UNITS_AT_MOST, _PROCESSES_AT_MOST = 8192, 8192

Rows = NDArray[np.int32]
Columns = dict[str, NDArray[Any]]
_Unit = tuple[str, str, str]  # unit, slice, cgroup
_Process = tuple[int, bytes, int, int]  # pid, comm, uid, unit row
_GONE: _Unit = (GONE, "", "")
_PROCESS = np.dtype([("pid", "u4"), ("uid", "u4"), ("comm", "S16"), ("unit", "i8")])


class Attribution:
    """Row numbers for owners of traffic, and what each row came to."""

    def __init__(self, paths: Callable[[Iterable[int]], Mapping[int, str]]) -> None:
        """paths: cgroup ids -> paths, leaving out unknown ones."""
        self._paths = paths
        self._users: Accounts[int] = Accounts()
        self._units: Accounts[_Unit] = Accounts()
        self._processes: Accounts[_Process] = Accounts()
        self._user_of: Rows = np.zeros(0, np.int32)  # by process row, as far as they are known already
        self._unit_of: Rows = np.zeros(0, np.int32)
        self._columns: dict[str, tuple[int, Columns]] = {}  # of tables, until there are more keys

    def restore(self, users: Earlier[int], units: Earlier[str], processes: Earlier[_Process]) -> None:
        """Lets totals go on from those of an earlier run.

        Units are known by cgroup path; the unit of a process is its place among `units`.
        """
        self._users.restore(users)
        rows = self._units.restore(Earlier([_unit(path) for path in units.keys], units.counters)).tolist()
        self._processes.restore(
            Earlier(
                [(pid, comm, uid, rows[unit]) for pid, comm, uid, unit in processes.keys], processes.counters
            )
        )

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """All totals with their owners, in the order of their rows."""
        uids, units, processes = self._users, self._units, self._processes
        pid, comm, uid, unit = zip(*processes.keys, strict=True) if len(processes) else ((), (), (), ())
        paths = b"\0".join(cgroup.encode(errors="surrogateescape") for _, _, cgroup in units.keys)
        return {
            "user.uid": np.array(uids.keys, np.uint32),
            "user.counters": uids.counters,
            "unit.paths": np.frombuffer(paths, np.uint8),  # with a NUL between them
            "unit.counters": units.counters,
            "process.pid": np.array(pid, np.uint32),
            "process.comm": np.array(comm, "S16"),
            "process.uid": np.array(uid, np.uint32),
            "process.unit": np.array(unit, np.int32),
            "process.counters": processes.counters,
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]], *, counters: bool = True) -> None:
        """Takes the rows, and the totals unless `counters` is False, of a checkpoint. There are none yet."""
        of = {
            kind: arrays[f"{kind}.counters"] if counters else np.zeros_like(arrays[f"{kind}.counters"])
            for kind in ("user", "unit", "process")
        }
        paths = arrays["unit.paths"].tobytes().decode(errors="surrogateescape").split("\0")
        processes = zip(
            *(arrays[f"process.{name}"].tolist() for name in ("pid", "comm", "uid", "unit")), strict=True
        )
        self.restore(
            Earlier(arrays["user.uid"].tolist(), of["user"]),
            Earlier(paths[: len(of["unit"])], of["unit"]),
            Earlier(list(processes), of["process"]),
        )

    def include(self, other: Attribution) -> None:
        """Adds the totals of another, row by row."""
        self.restore(
            Earlier(other._users.keys, other._users.counters),
            Earlier([cgroup for _, _, cgroup in other._units.keys], other._units.counters),
            Earlier(other._processes.keys, other._processes.counters),
        )

    def process(self, row: int) -> _Process:
        """Who a row of processes stands for."""
        return self._processes.keys[row]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names by unit row."""
        return tuple(unit for unit, _, _ in self._units.keys)

    def user_rows(self, uids: NDArray[np.uint32]) -> Rows:
        distinct, inverse = np.unique(uids, return_inverse=True)
        return np.array([self._users.row(uid) for uid in distinct.tolist()], np.int32)[inverse]

    def unit_rows(self, cgroups: NDArray[np.uint64]) -> Rows:
        """Rows of cgroup ids; those that cannot be found any more share one."""
        distinct, inverse = np.unique(cgroups, return_inverse=True)
        paths = self._paths(distinct.tolist())
        rows = [self._units.row(_unit(paths.get(cgroup, ""))) for cgroup in distinct.tolist()]
        return np.array(rows, np.int32)[inverse]

    def process_rows(
        self, pids: NDArray[np.uint32], comms: NDArray[Any], uids: NDArray[np.uint32], units: Rows
    ) -> Rows:
        keys = np.zeros(len(pids), _PROCESS)
        keys["pid"], keys["uid"], keys["comm"], keys["unit"] = pids, uids, comms, units
        first, inverse = distinct(keys)
        rows = [self._processes.row((pid, comm, uid, unit)) for pid, uid, comm, unit in keys[first].tolist()]
        return np.array(rows, np.int32)[inverse]

    def begin_tick(self) -> None:
        self._users.begin_tick()
        self._units.begin_tick()
        self._processes.begin_tick()

    def add(self, deltas: NDArray[np.uint64], processes: Rows) -> None:
        """Adds differences (n, 8) to processes, given as rows."""
        self._processes.add(processes, deltas)

    def settle(self) -> None:
        """Adds what was added to processes in this tick to the user and the unit of each; call once."""
        new = self._processes.keys[len(self._user_of) :]
        if new:
            users, units = [self._users.row(key[2]) for key in new], [key[3] for key in new]
            self._user_of = np.concatenate([self._user_of, np.array(users, np.int32)])
            self._unit_of = np.concatenate([self._unit_of, np.array(units, np.int32)])
        grown = np.flatnonzero(self._processes.latest.any(axis=1))
        self.add_unknown(self._processes.latest[grown], self._user_of[grown], self._unit_of[grown])

    def add_unknown(self, deltas: NDArray[np.uint64], users: Rows, units: Rows) -> None:
        """Adds differences (n, 8) to users and units; nobody knows the process."""
        self._users.add(users, deltas)
        self._units.add(units, deltas)

    def forget(self, units: Rows, processes: Rows) -> tuple[Rows, Rows] | None:
        """Merges units, and processes, that have no socket any more, when that frees a fair share of many.

        units, processes: rows of the sockets there are. Returns their new ones; None: nothing has changed.
        """
        unit_used = _used_of_many(units, len(self._units), _UNITS_AT_MOST)
        if unit_used is not None:
            rows = self._units.fold(
                [key if unit_used[row] else _GONE for row, key in enumerate(self._units.keys)]
            )
            units = rows[units]
            processes = self._processes.fold(
                [(pid, comm, uid, int(rows[unit])) for pid, comm, uid, unit in self._processes.keys]
            )[processes]
        used = _used_of_many(processes, len(self._processes), _PROCESSES_AT_MOST)
        if used is not None:
            processes = self._processes.fold(
                [key if used[row] else (0, b"", *key[2:]) for row, key in enumerate(self._processes.keys)]
            )[processes]
        if unit_used is None and used is None:
            return None
        self._user_of = self._unit_of = np.zeros(0, np.int32)
        self._columns.clear()
        return units, processes

    def users_table(self, rows: Rows, now: Now) -> Table:
        """As in model.Snapshot; rows: one for each open socket. So the two below."""
        return self._table("users", self._users, rows, now, lambda keys: {"uid": np.array(keys, np.uint32)})

    def units_table(self, rows: Rows, now: Now) -> Table:
        names = ("unit", "slice", "cgroup")
        return self._table(
            "units",
            self._units,
            rows,
            now,
            lambda keys: {name: _texts(key[place] for key in keys) for place, name in enumerate(names)},
        )

    def processes_table(self, rows: Rows, now: Now) -> Table:
        units = self._units.keys
        return self._table(
            "processes",
            self._processes,
            rows,
            now,
            lambda keys: {
                "pid": np.array([key[0] for key in keys], np.uint32),
                "comm": np.array([key[1] for key in keys], "S16"),
                "uid": np.array([key[2] for key in keys], np.uint32),
                "unit": _texts(units[key[3]][0] for key in keys),
                "unit_index": np.array([key[3] for key in keys], np.int32),
            },
        )

    def _table(
        self,
        kind: str,
        accounts: Accounts[Key],
        rows: Rows,
        now: Now,
        columns_of: Callable[[list[Key]], Columns],
    ) -> Table:
        length, columns = self._columns.get(kind, (-1, {}))
        if length != len(accounts):
            columns = columns_of(accounts.keys)
            self._columns[kind] = len(accounts), columns
        flows = np.bincount(rows, minlength=len(accounts)).astype(np.uint32)
        return Table(
            columns={**columns, "flows": flows},
            counters=accounts.counters,
            rates=accounts.rates(now.interval),
        )


def _unit(path: str) -> _Unit:
    """The key of a cgroup path, of an empty one if it could not be found."""
    return (*unit_of(path), path) if path else _GONE


def _used_of_many(rows: Rows, length: int, at_most: int) -> NDArray[np.bool_] | None:
    """Which of `length` rows are used; None unless they are too many and a quarter could go."""
    if length <= at_most:
        return None
    used = np.zeros(length, np.bool_)
    used[rows] = True
    return used if np.count_nonzero(~used) > length // 4 else None


def _texts(values: Iterable[str]) -> NDArray[Any]:
    values = list(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
