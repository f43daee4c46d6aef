"""The process that empties the ring: waits, reads, has it written, reports, and does what the daemon says.

Orders, each answered with ``{"done": true}`` or ``{"error": …}``::

    open       ring, maps (descriptors), slots; log_dir, options
    configure  log_dir, options: files are opened anew
    expect     users: packets of theirs wait in the ring, and all behind them, until log or forget
    log        users: uid -> writer.Account; missing: uid -> what is told already; position, as reported
    forget     users: expected, but not to be logged
    finish     users: everything up to now is written, their files are closed
    stop       the same for everyone; the process ends

Reports come after each batch, before its room goes back to the kernel: ``position`` (records taken since
the ring was made), ``accounts`` that have changed, and ``lost_rows`` and ``limitation`` of the files. A
worker that is started after a kill gets them back, and goes on from there.

When the daemon's end closes, the worker writes what is in the ring and ends. It holds a lock meanwhile:
the next daemon waits for it before it takes the files.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from typing import Any, ClassVar

from netmond.errors import KernelError, NetmondError
from netmond.kernel import wire
from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.ring import Ring
from netmond.kernel.tables import LongArray
from netmond.model import NOBODY_UID
from netmond.outputs import logs
from netmond.outputs.custody import lock
from netmond.packetlog.owners import Owners
from netmond.packetlog.rows import CHUNK
from netmond.packetlog.writer import Account, Writer
from netmond.units import unit_of
from netmond.worker.control import Control

#: Seconds from the first packet after a rest to its batch, and between two looks at what is missing.
_GATHER, _LOOK = 0.2, 1.0

_FIELDS = tuple(each.name for each in fields(Account))

#: Users whose accounts are reported after each batch; those of more only after each look.
_MANY = 64

#: Seconds that packets which are just being written to the ring may take.
_SUBMIT = 0.5


class Worker:
    """One ring, one reader."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._logs = logs.Logs()
        self._lock = -1
        self._tables: PacketLogTables
        self._ring: Ring | None = None
        self._writer: Writer
        self._descriptor = -1  # of the ring
        self._ready = False  # whose packets are to be taken was said
        self._held: Any = None  # packets read, from the first that has to wait on
        self._position = 0
        self._looked = self._cleaned = 0.0
        self._stopping = False

    def run(self) -> None:
        """Until told to stop, or nobody is there to tell."""
        while not self._stopping:
            self._take_orders()
            if not self._control.is_open:
                self._end_alone()
            elif self._ring is None or not self._ready:
                select.select([self._control], [], [])
            elif self._drain() < CHUNK:
                self._look_if_due()
                self._wait(self._ring)
        self._control.close()

    # -- orders --------------------------------------------------------------------------------------

    def _take_orders(self) -> None:
        for order in self._control.orders():
            do = self._ORDERS[order.pop("do")]
            try:
                do(self, **order)
            except NetmondError as error:
                answer: dict[str, Any] = {"error": str(error)}
            except OSError as error:
                answer = {"error": f"{error.filename or 'the log directory'}: {error.strerror}"}
            else:
                answer = {"done": True}
            self._report()
            self._control.send(answer)

    def _open(
        self, ring: int, maps: dict[str, int], slots: int, log_dir: str, options: dict[str, Any]
    ) -> None:
        self._logs.open(log_dir, options)
        self._lock = lock(log_dir)
        paths = CgroupPaths(find_cgroup2())

        def units(cgroups: Any) -> dict[int, str]:
            return {id_: unit_of(path)[0] for id_, path in paths.look_up(cgroups).items()}

        self._writer = Writer(self._logs, Owners(LongArray(maps["flows"], wire.FLOW, slots), units))
        self._tables = PacketLogTables(maps)
        self._descriptor, self._ring = ring, Ring.open(ring)
        self._position = self._ring.released

    def _configure(self, log_dir: str, options: dict[str, Any]) -> None:
        self._logs.close()
        self._logs.open(log_dir, options)

    def _expect(self, users: list[int]) -> None:
        self._writer.expect(users)
        self._ready = True

    def _forget(self, users: list[int]) -> None:
        self._writer.forget(users)

    def _log(
        self, users: dict[str, Any], missing: dict[str, list[int]] | None = None, position: int | None = None
    ) -> None:
        assert self._ring is not None
        if position is not None:
            # A report did not arrive: what is in the files is not known.
            again = self._ring.released > position
            for account in users.values() if again else ():
                account["totals"] = None
            self._ring.read(max(0, position - self._position))
            self._position = max(position, self._position)
        told = {int(uid): words for uid, words in (missing or {}).items()}
        for uid, account in users.items():
            self._writer.begin(int(uid), Account(**account), told)
        self._ready = True

    def _finish(self, users: list[int]) -> None:
        self._drain_all()
        self._look()
        self._report(at_most=len(self._writer.changed))
        self._writer.finish(users)

    def _stop(self) -> None:
        self._writer.forget()
        self._finish([NOBODY_UID, *self._writer.accounts])
        self._logs.close()
        self._stopping = True

    _ORDERS: ClassVar[dict[str, Callable[..., None]]] = {
        "open": _open,
        "configure": _configure,
        "expect": _expect,
        "log": _log,
        "forget": _forget,
        "finish": _finish,
        "stop": _stop,
    }

    def _end_alone(self) -> None:
        if self._ring is not None:
            self._stop()
        self._stopping = True

    # -- packets -------------------------------------------------------------------------------------

    def _drain(self) -> int:
        """Writes a batch; returns how many packets that was."""
        assert self._ring is not None
        records = self._ring.read(CHUNK) if self._held is None else self._held
        if not len(records):
            return 0
        self._logs.check()
        taken = self._writer.write(records)
        self._held = records[taken:] if taken < len(records) else None
        if taken:
            self._position += taken
            self._report()
        if self._held is None:
            self._ring.release()
        return taken

    def _drain_all(self) -> None:
        """Writes everything that is in the ring at this moment, also what is just being written to it."""
        assert self._ring is not None
        end, patience = self._ring.released + self._ring.waiting, time.monotonic() + _SUBMIT
        while self._ring.released < end and time.monotonic() < patience:
            if self._drain():
                patience = time.monotonic() + _SUBMIT
            elif self._held is not None:
                return

    def _look_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._looked + _LOOK:
            self._looked = now
            self._look()
            self._writer.retry()
            self._report(at_most=len(self._writer.changed))
            if now >= self._cleaned + logs.CLEAN_UP:
                self._cleaned = now
                self._logs.clean_up(time.time(), list(self._writer.accounts))

    def _look(self) -> None:
        with suppress(KernelError):  # the next look sees it all
            self._writer.tell(*self._tables.unlogged())

    def _wait(self, ring: Ring) -> None:
        """Until something is to be done. When packets come, some more are let come."""
        left = max(0.0, self._looked + _LOOK - time.monotonic())
        watched: list[Any] = [self._control]
        if self._held is None:
            watched.append(self._descriptor)
        if self._descriptor in select.select(watched, [], [], left)[0]:
            select.select([self._control], [], [], 0 if ring.waiting > ring.capacity // 8 else _GATHER)

    def _report(self, *, at_most: int = _MANY) -> None:
        """Tells the daemon, unless it is too busy: then the next report says it all."""
        if self._ring is None or not self._control.flush():
            return
        writer = self._writer
        if 0 < len(writer.changed) <= at_most:
            accounts = {
                uid: _as_json(writer.accounts[uid]) for uid in writer.changed if uid in writer.accounts
            }
            writer.changed.clear()
            self._control.send(
                {
                    "position": self._position,
                    "accounts": accounts,
                    "lost_rows": self._logs.lost_rows,
                    "limitation": self._logs.limitation,
                }
            )


def _as_json(account: Account) -> dict[str, Any]:
    """What `Account(**…)` takes; asdict() would copy it all, which takes as long as 50 rows."""
    return {name: getattr(account, name) for name in _FIELDS}
