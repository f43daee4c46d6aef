"""The register of queue pairs: who holds which, and who held those that are gone. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel.rdma_netlink import QueuePair
from netmond.model import NOBODY_UID
from netmond.units import unit_of

#: Seconds for which a queue pair is remembered that is gone: as long as there may be flows of it.
MEMORY = 150.0

#: Queue pair 1 of every port: what is sent to one comes from another (IBTA 1, 3.9.5, general services).
_GSI = 1

#: A queue pair. id: ascending, never used again; device: its place in Census.devices; pid 0: the kernel's
#: own, or unknown; uid NOBODY_UID: unknown; gone: when it was missing first, infinite if it is open.
HOLDER = np.dtype(
    [
        ("id", "u8"),
        ("gone", "f8"),
        ("cgroup", "u8"),
        ("device", "u4"),
        ("port", "u4"),
        ("qpn", "u4"),
        ("remote_qpn", "u4"),
        ("pid", "u4"),
        ("uid", "u4"),
        ("comm", "S16"),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Census:
    """The queue pairs of all devices, those remembered as well; columns of equal length."""

    begun: int = 0  #: ns, CLOCK_MONOTONIC: all that were open then are in it
    devices: tuple[str, ...] = ()
    holders: NDArray[Any] = field(default_factory=lambda: np.zeros(0, HOLDER))
    type: NDArray[Any] = field(default_factory=lambda: np.zeros(0, object))
    state: NDArray[Any] = field(default_factory=lambda: np.zeros(0, object))
    unit: NDArray[Any] = field(default_factory=lambda: np.zeros(0, object))
    reason: str = ""  #: why it lacks something; empty: it does not


class _Who(NamedTuple):
    pid: int = 0
    comm: bytes = b""
    uid: int = NOBODY_UID
    cgroup: int = 0
    unit: str = ""
    final: bool = True  #: nothing more can be found out


class _Entry(NamedTuple):
    id: int
    queue_pair: QueuePair
    who: _Who
    gone: float  #: CLOCK_MONOTONIC in seconds, infinite while it is open


class Register:
    """Takes in one look at the queue pairs after the other."""

    def __init__(
        self, tasks: Callable[[], NDArray[Any]], paths: Callable[[Iterable[int]], Mapping[int, str]]
    ) -> None:
        """tasks: all threads there are, as wire.TASK; KernelError: nobody can tell.
        paths: cgroup ids -> paths, leaving out unknown ones."""
        self._tasks = tasks
        self._paths = paths
        self._ids = count(1)
        self._open: dict[tuple[str, int, int], _Entry] = {}
        self._gone: list[_Entry] = []
        self._last: Sequence[QueuePair] | None = None
        self._reason = ""
        self.census = Census()

    def prepare(self) -> None:
        """Makes ready what names processes: that takes longer than the first of them may live."""
        with suppress(KernelError):  # update() says so, too
            self._tasks()

    def update(self, seen: Sequence[QueuePair], *, begun: int) -> Census:
        """seen: all that are open; begun: when one began to look (ns, CLOCK_MONOTONIC)."""
        now = begun / 1e9
        forgotten = [entry for entry in self._gone if now - entry.gone > MEMORY]
        if seen == self._last and not forgotten and not self._reason:
            self.census = replace(self.census, begun=begun)
            return self.census
        self._gone = [entry for entry in self._gone if now - entry.gone <= MEMORY]
        before, self._open = self._open, {}
        for queue_pair in seen:
            key = _key(queue_pair)
            entry = before.get(key)
            if entry and _same(entry.queue_pair, queue_pair):
                self._open[key] = before.pop(key)._replace(queue_pair=queue_pair)
            else:
                self._open[key] = _Entry(next(self._ids), queue_pair, _Who(final=False), np.inf)
        self._gone += [entry._replace(gone=now) for entry in before.values()]
        self._identify()
        self._last = seen
        self.census = self._taken(begun)
        return self.census

    def _identify(self) -> None:
        """Finds out who holds those of which it is not known yet."""
        self._reason = ""
        new = {key: entry for key, entry in self._open.items() if not entry.who.final}
        threads: Mapping[int, Any] = {}
        if any(entry.queue_pair.pid for entry in new.values()):
            try:
                tasks = self._tasks()
            except KernelError as error:
                self._reason = f"nobody can tell whose queue pairs are: {error}"
                new = {key: entry for key, entry in new.items() if not entry.queue_pair.pid}
            else:
                threads = {int(task["tid"]): task for task in tasks}
        for key, entry in new.items():
            self._open[key] = entry._replace(who=self._holder(entry.queue_pair, threads))

    def _holder(self, queue_pair: QueuePair, threads: Mapping[int, Any]) -> _Who:
        if queue_pair.kernel:  # root's, as the kernel's own sockets are
            return _Who(comm=queue_pair.kernel.encode()[:15], uid=0)
        if queue_pair.pid not in threads:
            return _Who()  # it ended meanwhile
        task = threads[queue_pair.pid]
        cgroup = int(task["cgroup"])
        path = self._paths([cgroup]).get(cgroup, "")
        return _Who(
            pid=int(task["pid"]),
            comm=bytes(task["comm"]),
            uid=int(task["uid"]),
            cgroup=cgroup,
            unit=unit_of(path)[0] if path else "",
        )

    def _taken(self, begun: int) -> Census:
        entries = sorted((*self._open.values(), *self._gone))
        devices = tuple(sorted({entry.queue_pair.device for entry in entries}))
        holders = np.zeros(len(entries), HOLDER)
        for row, (id_, queue_pair, who, gone) in enumerate(entries):
            remote = _GSI if queue_pair.type == "GSI" else queue_pair.remote_qpn
            holders[row] = (
                id_, gone, who.cgroup, devices.index(queue_pair.device), queue_pair.port, queue_pair.qpn,
                remote, who.pid, who.uid, who.comm,
            )  # fmt: skip
        return Census(
            begun=begun,
            devices=devices,
            holders=holders,
            type=_texts(entry.queue_pair.type for entry in entries),
            state=_texts(entry.queue_pair.state for entry in entries),
            unit=_texts(entry.who.unit for entry in entries),
            reason=self._reason,
        )


def _key(queue_pair: QueuePair) -> tuple[str, int, int]:
    """Numbers are those of a device, but for 0 and 1, which each port has; others have no port at first."""
    port = queue_pair.port if queue_pair.qpn <= _GSI else 0
    return queue_pair.device, port, queue_pair.qpn


def _same(one: QueuePair, other: QueuePair) -> bool:
    """Whether it is the same holder's; one that made it anew under the same number cannot be told apart."""
    return (one.pid, one.kernel, one.type) == (other.pid, other.kernel, other.type)


def _texts(values: Iterable[str]) -> NDArray[Any]:
    values = list(values)
    column = np.empty(len(values), object)
    column[:] = values
    return column
