"""Totals and targets on the disk: taken up at the start, saved every minute and at the end.

Totals are those of one boot, as the kernel's own interface counters are: after the next boot they begin
anew, and only the targets added by hand are still there. A handover (handover.py) knows more, and then they
are not needed; without one what was counted after the last saving is lost if the daemon is killed. Nothing
is counted twice: to what it takes up a run adds what its own programs count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from netmond.accounts import Earlier
from netmond.attribution import Attribution
from netmond.config import TargetsConfig
from netmond.errors import NetmondError
from netmond.model import COUNTERS, Loss, Network, Snapshot, Table
from netmond.query import network_text
from netmond.rdma.usage import Usage
from netmond.state import KINDS, Book, State, load, save
from netmond.targets import Targets

log = logging.getLogger(__name__)

#: Seconds between two savings.
INTERVAL = 60.0


def boot_id(environ: Mapping[str, str]) -> str:
    """What is different after each boot (random(4)), as 32 hexadecimal digits; empty if it cannot be told.

    $NETMOND_BOOT_ID comes from the unit file: /proc/sys cannot be seen from inside its sandbox.
    """
    told = environ.get("NETMOND_BOOT_ID", "")
    if not told:
        try:
            told = Path("/proc/sys/kernel/random/boot_id").read_text()
        except OSError:
            return ""
    return told.strip().replace("-", "")


class Totals:
    """What was saved by the last run, until it is taken up, and the saving. Belongs to one event loop."""

    def __init__(self, directory: Path, *, boot: str, now: float) -> None:
        """Reads what was saved; a file that is no good costs the totals, and a warning."""
        self._directory = directory
        self._current: Callable[[], tuple[Snapshot, Iterable[Network]]] | None = None
        self._now = now
        saved = _usable(directory, boot, now)
        self._boot = boot
        self.since = saved.since  #: Unix time at which counting began, in this run or before
        self._books = dict(saved.books)  # later only those that no part of this run goes on with
        self._due = monotonic() + INTERVAL
        self._turn = asyncio.Lock()
        self._asked = self._saved = self._failures = 0
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def restore_owners(self, owners: Attribution) -> None:
        """Lets totals of users, units and processes go on from those saved."""
        users, units, processes = (self._books[kind] for kind in ("user", "unit", "process"))
        owners.restore(
            Earlier([uid for (uid,) in users.keys], users.counters),
            Earlier([path for (path,) in units.keys], units.counters),
            Earlier(
                [(pid, comm.encode("latin-1"), uid, unit) for pid, comm, uid, unit in processes.keys],
                processes.counters,
            ),
        )

    def restore_rdma(self, usage: Usage) -> None:
        """Lets what users transferred by RDMA go on from what was saved."""
        saved = self._books["rdma"]
        usage.restore(Earlier([uid for (uid,) in saved.keys], saved.counters))

    def restore_targets(self, targets: Targets, config: TargetsConfig) -> None:
        """Adds the targets of the configuration and those saved, which go on from there."""
        saved = self._books["target"]
        known = {ip_network(address): row for row, (address, _, _) in enumerate(saved.keys)}
        by_hand = (network for network, row in known.items() if saved.keys[row][2])
        wanted = list(dict.fromkeys([*config.addresses, *by_hand]))
        if len(wanted) > config.limit:
            log.warning(
                "%d targets exceed [targets] limit = %d: the last are left out", len(wanted), config.limit
            )
        targets.add(wanted[: config.limit], self._now)
        for network in wanted[: config.limit]:
            if network in known:
                row = known[network]
                targets.restore(network, saved.keys[row][1], saved.counters[row])

    def begin(
        self,
        *,
        owners: bool,
        targets: bool,
        rdma: bool,
        current: Callable[[], tuple[Snapshot, Iterable[Network]]],
    ) -> None:
        """From now on saves what `current` gives, the last snapshot and the targets of the configuration, of
        the parts that work; what is of others stays for another start."""
        parts = (("user", "unit", "process"), owners), (("target",), targets), (("rdma",), rdma)
        for kinds, works in parts:
            if works:
                for kind in kinds:
                    self._books.pop(kind)
        self._current = current

    # -- saving --------------------------------------------------------------------------------------

    def ticked(self) -> None:
        """Saves in the background when it is time."""
        if monotonic() >= self._due and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self.save())

    async def save(self) -> None:
        """Returns when what is true now, or later, is on the disk; or cannot be: that is counted and logged.

        Several that ask while the disk is busy are served together.
        """
        self._asked += 1
        wanted = self._asked
        async with self._turn:
            if self._saved >= wanted:
                return
            wanted, self._due = self._asked, monotonic() + INTERVAL
            try:
                if self._current:
                    await asyncio.to_thread(self._write, *self._current())
            except NetmondError as error:
                self._failures += 1
                if not self._failing:
                    log.warning("%s; a restart now would begin with what was saved before", error)
                self._failing = True
            else:
                self._failing = False
            self._saved = wanted

    def losses(self) -> tuple[Loss, ...]:
        """Our line of the loss ledger."""
        meaning = "times the totals could not be saved for the next start: the next time makes up for it"
        return (Loss(name="totals.not-saved", count=self._failures, meaning=meaning),)

    def _write(self, snapshot: Snapshot, configured: Iterable[Network]) -> None:
        """In a thread: nothing here may change what the event loop sees."""
        books = {
            kind: self._books[kind] if kind in self._books else _book(kind, snapshot, configured)
            for kind in KINDS
        }
        save(self._directory, State(boot=self._boot, since=self.since, books=books))


def _usable(directory: Path, boot: str, now: float) -> State:
    """What was saved, as far as it is true in this boot."""
    try:
        saved = load(directory)
    except NetmondError as error:
        log.warning("%s; counting begins anew", error)
        saved = None
    if saved and boot and saved.boot == boot:
        return saved
    if not boot:
        log.warning("Counting begins anew: which boot this is cannot be read from /proc/sys/kernel/random")
    books: dict[str, Book] = {kind: _blank([]) for kind in KINDS}
    if saved:
        by_hand = [key for key in saved.books["target"].keys if key[2]]
        books["target"] = _blank([(address, now, True) for address, _, _ in by_hand])
    return State(boot=boot, since=now, books=books)


def _blank(keys: list[tuple[Any, ...]]) -> Book:
    return Earlier(keys, np.zeros((len(keys), len(COUNTERS)), np.uint64))


def _book(kind: str, snapshot: Snapshot, configured: Iterable[Network]) -> Book:
    """The totals of one kind with their keys as state has them."""
    if kind == "target":
        table = snapshot.targets
        ours = set(map(network_text, configured))
        address, since = _columns(table, "address", "since")
        columns = [address, since, [text not in ours for text in address]]
    elif kind == "user":
        table = snapshot.users
        columns = _columns(table, "uid")
    elif kind == "rdma":
        table = snapshot.rdma.users
        columns = _columns(table, "uid")
    elif kind == "unit":
        table = snapshot.units
        columns = _columns(table, "cgroup")
    else:
        table = snapshot.processes
        pid, comm, uid, unit = _columns(table, "pid", "comm", "uid", "unit_index")
        columns = [pid, [name.decode("latin-1") for name in comm], uid, unit]
    return Earlier(list(zip(*columns, strict=True)), table.counters)


def _columns(table: Table, *names: str) -> list[list[Any]]:
    return [table.columns[name].tolist() for name in names]
