"""Snapshots of made-up flows: 53 users, 61 units, 2,003 processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.model import Snapshot, Table

_USERS, _UNITS, _PROCESSES = 53, 61, 2003
_TIME = 1.7e9


def snapshot(count: int) -> Snapshot:
    """So many open flows, each of which has exchanged something."""
    random = np.random.default_rng(23)
    owners = random.integers(0, _PROCESSES, count)
    flows = Table(
        columns={
            "id": np.arange(count, dtype=np.uint64),
            "kind": np.zeros(count, np.uint8),
            "protocol": random.choice(np.array([6, 17], np.uint8), count),
            "traffic": np.zeros(count, np.uint8),
            "opcode": np.zeros(count, np.uint8),
            "qpn": np.zeros(count, np.uint32),
            "pkey": np.zeros(count, np.uint16),
            "psn": np.zeros(count, np.uint32),
            "local": _addresses(random.integers(0, 256, count)),
            "remote": _addresses(random.integers(0, 1 << 24, count)),
            "local_port": random.integers(1024, 65536, count).astype(np.uint16),
            "remote_port": random.choice(np.array([22, 53, 443], np.uint16), count),
            "ifindex": np.ones(count, np.uint32),
            "uid": (1000 + owners % _USERS).astype(np.uint32),
            "pid": (2 + owners).astype(np.uint32),
            "comm": np.full(count, b"worker", "S16"),
            "unit_index": (owners % _UNITS).astype(np.int32),
            "first_seen": np.full(count, _TIME),
            "last_seen": np.full(count, _TIME),
            "srtt_us": random.integers(0, 99_999, count).astype(np.uint32),
            "retransmits": np.zeros(count, np.uint32),
            "ended": np.zeros(count, np.bool_),
        },
        counters=random.integers(0, 1 << 40, (count, 8)).astype(np.uint64),
        rates=random.random((count, 4)),
    )
    numbers, texts = np.zeros(0, np.uint32), np.zeros(0, object)
    users = Table(
        columns={
            "uid": np.arange(1000, 1000 + _USERS, dtype=np.uint32),
            "flows": np.ones(_USERS, np.uint32),
        },
        counters=np.zeros((_USERS, 8), np.uint64),
        rates=np.zeros((_USERS, 4)),
    )
    return Snapshot(
        tick=1,
        time=_TIME,
        interval=1.0,
        since=_TIME,
        users=users,
        units=Table.empty(unit=texts, slice=texts, cgroup=texts, flows=numbers),
        processes=Table.empty(pid=numbers, comm=np.zeros(0, "S16"), uid=numbers, unit=texts, flows=numbers),
        flows=flows,
        interfaces=Table.empty(ifindex=numbers),
        targets=Table.empty(address=texts, since=np.zeros(0)),
        unit_names=tuple(f"unit{number}.service" for number in range(_UNITS)),
    )


def _addresses(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """10.0.0.0 and so many more."""
    mapped = np.zeros((len(numbers), 16), np.uint8)
    mapped[:, 10:13] = 255, 255, 10
    mapped[:, 13:] = np.stack([numbers >> shift for shift in (16, 8, 0)], axis=1)
    return mapped.view("V16")[:, 0]
