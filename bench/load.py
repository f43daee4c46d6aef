"""Made-up traffic in the meter's own maps, and what accounting for it costs without numpy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from netmond.kernel.tables import SocketTables

_IN, _OUT = (3, 1500), (2, 104)  # packets and their bytes that a flow has each time


class Load:
    """`count` sockets in the first slots, spread over users, units and processes."""

    def __init__(self, tables: SocketTables, count: int, *, users: int, units: int, processes: int) -> None:
        numbers = np.arange(count)
        flows = tables.flows.front(count)
        flows["cookie"] = numbers + 1
        owners = numbers % processes  # a process has one user and one unit
        flows["cgroup"] = 1 + owners % units
        flows["netns"] = 1
        flows["first_seen"] = time.monotonic_ns()
        addresses = np.zeros((count, 16), np.uint8)
        addresses[:, 10:13] = 255, 255, 10
        flows["local"] = addresses.view("V16")[:, 0]
        addresses[:, 13:] = np.stack([numbers >> shift for shift in (16, 8, 0)], axis=1)
        flows["remote"] = addresses.view("V16")[:, 0]
        flows["local_port"] = 1024 + numbers % 60_000
        flows["remote_port"] = 443
        flows["protocol"] = 6
        flows["generation"] = flows["revision"] = 1
        flows["uid"] = 1000 + owners % users
        flows["pid"] = 2 + owners
        flows["comm"] = b"worker"
        self._slots = tables.slots.front(count)
        for direction in ("in", "out"):
            self._slots[direction]["generation"] = 1
        self._slots["out"]["note"] = 1
        self._flows = flows
        self._who: list[tuple[tuple[str, Any], ...]] = []
        self._where: list[tuple[Any, ...]] = []
        self._last: dict[int, tuple[int, int, int, int]] = {}
        self._sums: dict[tuple[str, Any], list[int]] = {}
        self.bytes_in = 0

    @staticmethod
    def _owner(flow: tuple[int, int, int, bytes]) -> tuple[tuple[str, Any], ...]:
        uid, cgroup, pid, comm = flow
        return ("user", uid), ("unit", cgroup), ("process", (pid, comm, uid, cgroup))

    def grow(self) -> None:
        """Every flow receives and sends, as the kernel's program would count it."""
        now = time.monotonic_ns()
        for direction, (packets, size) in (("in", _IN), ("out", _OUT)):
            side = self._slots[direction]
            side["bytes"] += packets * size
            side["packets"] += packets | packets << 32
            side["last_seen"] = now
        self.bytes_in += len(self._slots) * _IN[0] * _IN[1]

    def loop(self) -> list[dict[str, Any]]:
        """Flows as dictionaries, and totals by user, unit and process, the way Python does it by itself."""
        if not self._who:
            self._know()
        rows = []
        for slot, (received, sent) in enumerate(self._slots.tolist()):
            current = received[4] >> 32, received[2] + received[3], sent[4] >> 32, sent[2] + sent[3]
            rows.append(self._row(slot, current, max(received[5], sent[5])))
        return rows

    def _know(self) -> None:
        """Remembers whose flows these are, as the meter does."""
        self._who = [self._owner(flow) for flow in self._flows[["uid", "cgroup", "pid", "comm"]].tolist()]
        self._where = self._flows[["protocol", "local", "local_port", "remote", "remote_port"]].tolist()

    def _row(self, slot: int, current: tuple[int, int, int, int], last_seen: int) -> dict[str, Any]:
        last = self._last.get(slot, (0, 0, 0, 0))
        self._last[slot] = current
        deltas = [new - old for new, old in zip(current, last, strict=True)]
        for key in self._who[slot]:
            sums = self._sums.setdefault(key, [0, 0, 0, 0])
            for place, delta in enumerate(deltas):
                sums[place] += delta
        return {"where": self._where[slot], "counters": current, "rates": deltas, "last_seen": last_seen}
