"""Queue pairs and packets for tests of whose RDMA traffic is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.rdma_netlink import QueuePair
from netmond.model import COUNTERS, NOBODY_UID
from netmond.rdma.owners import Packets
from netmond.rdma.register import Census, Register
from tests.unit.fakes import address

ALICE, BOB = 1234, 1235
CGROUP = 2003
UNIT = "work.service"

#: The process of each user: its number, and that of the thread that made its queue pairs.
PROCESSES = {ALICE: 4243, BOB: 5255}
THREADS = {ALICE: 4244, BOB: 5256}


def tasks() -> NDArray[Any]:
    """A thread of each user."""
    found = np.zeros(len(THREADS), wire.TASK)
    found["uid"], found["tid"], found["pid"] = (
        list(THREADS),
        list(THREADS.values()),
        list(PROCESSES.values()),
    )
    found["cgroup"], found["comm"] = CGROUP, b"ib_write_bw"
    return found


def paths(ids: Iterable[int]) -> Mapping[int, str]:
    return {id_: f"/system.slice/{UNIT}" for id_ in ids if id_ == CGROUP}


def queue_pair(qpn: int, uid: int = ALICE, **more: Any) -> QueuePair:
    """A connected one of a user's on rxe0; NOBODY_UID: of a thread that has ended."""
    pair = QueuePair(
        device="rxe0",
        port=1,
        qpn=qpn,
        remote_qpn=0,
        type="RC",
        state="RTS",
        pid=THREADS.get(uid, 9999),
        kernel="",
    )
    return pair._replace(**more)


def census(*queue_pairs: QueuePair, seconds: float = 100.0) -> Census:
    """A register's first look."""
    return Register(tasks, paths).update(queue_pairs, begun=round(seconds * 1e9))


def packets(*rows: tuple[int, bool, int], uid: int | Sequence[int] = NOBODY_UID) -> Packets:
    """Interface index, whether it went out, and the receiver's queue pair. uid: of all, or of each. Every
    row is between two ends of its own."""
    ifindex, outgoing, qpn = zip(*rows, strict=True) if rows else ((), (), ())
    return Packets(
        ifindex=np.array(ifindex, np.uint32),
        outgoing=np.array(outgoing, np.bool_),
        local=address("192.0.2.1").repeat(len(rows)),
        remote=np.arange(2 * len(rows), dtype=np.uint64).view("V16"),
        qpn=np.array(qpn, np.uint32),
        uid=np.full(len(rows), uid, np.uint32),
    )


def between_the_same(packets: Packets) -> Packets:
    """The same with one remote address."""
    return replace(packets, remote=address("192.0.2.2").repeat(len(packets)))


def deltas(*sizes: int) -> NDArray[np.uint64]:
    """A packet of so many bytes in each row, come in."""
    counters = np.zeros((len(sizes), len(COUNTERS)), np.uint64)
    counters[:, 0::4], counters[:, 1] = 1, sizes
    counters[:, 5] = sizes
    return counters
