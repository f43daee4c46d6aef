"""What tells the kernel whose packets to log, and where to; see packet_rings in bpf/sockets.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import libbpf, wire
from netmond.kernel.programs import LOGGED_USERS
from netmond.kernel.tables import HashTable

_RING = np.zeros(1, np.uint32)  # the key of the only one
_NOTHING = np.zeros(1, wire.UNLOGGED)


class PacketLogTables:
    """The maps of the packet log. User space alone writes whose packets are logged, the kernel alone what is
    missing in the logs: nobody overwrites what another counts.
    """

    def __init__(self, maps: Mapping[str, int]) -> None:
        """maps: descriptors by name, which stay the caller's."""
        self._rings = maps["packet_rings"]
        self._users = maps["logged_users"]
        self._unlogged = HashTable(maps["unlogged"], np.dtype(np.uint32), wire.UNLOGGED, LOGGED_USERS)
        # For users that find no room of their own.
        libbpf.map_insert(maps["unlogged"], _key(wire.EVERYONE), _NOTHING)

    @staticmethod
    def open(maps: Mapping[str, int]) -> PacketLogTables | None:
        """None: this kernel cannot log packets, the notes of what was loaded say why."""
        return PacketLogTables(maps) if "packet_rings" in maps else None

    def start(self, ring: int) -> None:
        """Packets go into this ring from now on, and no other; a descriptor, see Ring.create()."""
        libbpf.map_update(self._rings, _RING, np.array([ring], np.uint32))

    def stop(self) -> None:
        """Nothing is logged any more. When this returns, the last packet is in the ring."""
        libbpf.map_delete(self._rings, _RING)

    def clear(self) -> None:
        """Nothing is logged and nobody is set, whatever an earlier daemon has left."""
        self.stop()
        for key in libbpf.map_keys(self._users, np.zeros(1, np.uint32)):
            libbpf.map_delete(self._users, np.frombuffer(key, np.uint32))

    def set(self, uid: int, every: int) -> None:
        """Logs one in `every` packets of a user, 0: none. wire.EVERYONE: of all for whom nothing is set."""
        libbpf.map_update(self._users, _key(uid), np.array([every], np.uint32))

    def remove(self, uid: int) -> None:
        """Undoes set()."""
        libbpf.map_delete(self._users, _key(uid))

    def unlogged(self) -> tuple[NDArray[np.uint32], NDArray[Any]]:
        """What is missing in the logs since the programs were loaded: users, and wire.UNLOGGED for each.

        wire.EVERYONE among them stands for users that found no room in this table.
        """
        users, missing = self._unlogged.read()
        return users.astype(np.uint32), missing


def _key(uid: int) -> NDArray[np.uint32]:
    return np.array([uid], np.uint32)
