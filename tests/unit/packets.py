"""Records of packets as the kernel makes them, and what surrounds them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.packetlog.owners import Owners
from tests.unit.csvflows import ALICE, packed

CGROUP, UNIT = 23, "session-3.scope"
HERE, THERE = packed("198.51.100.4"), packed("192.0.2.7")
SECOND = 10**9
#: Wall clock minus monotonic clock.
OFFSET = 1_795_231_800 * SECOND


class Flows:
    """A flow table of one socket in each slot, of the generation given."""

    capacity = 64

    def __init__(self) -> None:
        self.rows = np.zeros(self.capacity, wire.FLOW)
        self.rows["generation"] = 1
        self.rows["cgroup"] = CGROUP
        self.rows["pid"] = np.arange(self.capacity) + 4200
        self.rows["comm"] = b"curl"
        self.asked: list[int] = []

    def take(self, places: NDArray[np.intp]) -> NDArray[Any]:
        self.asked += places.tolist()
        rows: NDArray[Any] = self.rows[places]
        return rows


def units(cgroups: Iterable[int]) -> Mapping[int, str]:
    return {cgroup: UNIT for cgroup in cgroups if cgroup == CGROUP}


def owners(flows: Flows | None = None) -> Owners:
    return Owners(flows or Flows(), units)


def packet(
    *,
    size: int = 100,
    out: bool = False,
    at: int = 0,
    uid: int = ALICE,
    slot: int = 11,
    generation: int = 1,
    packets: int = 1,
    protocol: int = 6,
    here: bytes = HERE,
    there: bytes = THERE,
) -> tuple[Any, ...]:
    """One record; at: ns after SECOND."""
    ends = (here, there, 51544, 443) if out else (there, here, 443, 51544)
    return (
        SECOND + at, ends[0], ends[1], size, uid, slot, generation, ends[2], ends[3], packets, protocol,
        wire.PACKET_OUT if out else wire.PACKET_IN,
    )  # fmt: skip


def records(*packets: tuple[Any, ...]) -> NDArray[Any]:
    """As the ring hands them out: a view with other things between."""
    made = np.array(list(packets), wire.PACKET)
    room = np.full((len(made), wire.PACKET.itemsize + 8), random.getrandbits(8), np.uint8)
    view: NDArray[Any] = np.ndarray((len(made),), wire.PACKET, room.data, 8, (room.shape[1],))
    view[:] = made
    return view
