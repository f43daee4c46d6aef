"""Whose frames are, as pcapng comments: ``user=alice uid=1000 process=curl pid=4211 unit=session-3.scope``.

What is not known is left out, and with it the whole comment if that is all. A value with a blank, a quote or
something unprintable in it stands in double quotes, as JSON has it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.model import NOBODY_UID
from netmond.owner_texts import REMEMBERED, Flows, OwnerTexts
from netmond.units import GONE

_COMMENT = 1  # the code of the option
_LONGEST = 1000  # bytes of a comment: a cgroup's path has up to 4096, which nobody reads
_ALIGNED = 4


def value(text: str) -> str:
    """A name as it stands in a comment."""
    if text and text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _owner(unit: str, pid: int, process: bytes) -> bytes:
    name = process.decode(errors="backslashreplace")
    parts = [f"process={value(name)} pid={pid}"] if pid else []
    parts += [f"unit={value(unit)}"] if unit != GONE else []
    return " ".join(parts).encode()


class Comments:
    """The comments of one batch of frames after another, as options of pcapng (whole, padded)."""

    def __init__(
        self,
        flows: Flows,
        units: Callable[[Iterable[int]], Mapping[int, str]],
        user_name: Callable[[int], str],
    ) -> None:
        """units: names of units by cgroup id, leaving out unknown ones; user_name: or a number as text."""
        self._owners = OwnerTexts(flows, units, _owner, b"")
        self._units = units
        self._user_name = user_name
        self._capacity = flows.capacity
        self._forget()

    def take(self, records: NDArray[Any]) -> NDArray[np.intp]:
        """Which comment (a place in `starts` and `sizes`) each record of wire.FRAME has; 0: none."""
        owners = self._owners.places(records)
        if self._texts is not self._owners.texts or len(self._place_of) > REMEMBERED:
            self._forget()
        slots = np.minimum(records["slot"], self._capacity).astype(np.intp)
        users, cgroups = records["uid"], np.where(owners, 0, records["cgroup"])
        other = np.flatnonzero(
            (self._users.take(slots) != users)
            | (self._owner_of.take(slots) != owners)
            | (self._cgroups.take(slots) != cgroups)
        )
        comments = self._comment_of.take(slots)
        if len(other):
            found = self._look_up(users[other], owners[other], cgroups[other])
            comments[other] = found
            slots = slots[other]  # the next of the same slot are likely to be the same
            self._users[slots], self._owner_of[slots] = users[other], owners[other]
            self._cgroups[slots], self._comment_of[slots] = cgroups[other], found
        return comments

    def _forget(self) -> None:
        """All comments; in the place of each slot, the last beyond them for packets without, is nobody's."""
        places = self._capacity + 1
        self._texts = self._owners.texts
        self._users = np.full(places, NOBODY_UID, np.uint32)
        self._owner_of = np.zeros(places, np.intp)
        self._cgroups = np.zeros(places, np.uint64)
        self._comment_of = np.zeros(places, np.intp)
        self._place_of: dict[tuple[int, int, int], int] = {(NOBODY_UID, 0, 0): 0}
        self.starts = self.sizes = np.zeros(1, np.intp)  #: in `options`, in bytes
        self.options = np.zeros(0, np.uint8)

    def _look_up(
        self, users: NDArray[np.uint32], owners: NDArray[np.intp], cgroups: NDArray[np.uint64]
    ) -> NDArray[np.intp]:
        """The comments of frames of these users, by place in the owners' texts, 0: by cgroup."""
        kinds, cgroup_of = np.unique(cgroups, return_inverse=True)
        # 32 bits of a user, 16 of a place among those remembered and a batch's, 16 of a cgroup in this batch
        keys = cgroup_of.astype(np.uint64) << 48 | owners.astype(np.uint64) << 32 | users
        different, which = np.unique(keys, return_inverse=True)
        wanted = [
            (key & 0xFFFFFFFF, key >> 32 & 0xFFFF, int(kinds[key >> 48])) for key in different.tolist()
        ]
        new = [key for key in wanted if key not in self._place_of]
        if new:
            units = self._units({cgroup for _, _, cgroup in new if cgroup})
            self._add([(key, self._option(*key[:2], units.get(key[2], GONE))) for key in new])
        places: NDArray[np.intp] = np.array([self._place_of[key] for key in wanted], np.intp)[which]
        return places

    def _option(self, uid: int, owner: int, unit: str) -> bytes:
        parts = []
        if uid != NOBODY_UID:
            name = self._user_name(uid)
            parts += [f"user={value(name)} uid={uid}" if name != str(uid) else f"uid={uid}"]
        said = self._texts[owner].decode() or _owner(unit, 0, b"").decode()
        text = " ".join([*parts, said] if said else parts).encode()[:_LONGEST]
        text = text.decode(errors="ignore").encode()  # a character cut in two
        return struct.pack("=HH", _COMMENT, len(text)) + text + bytes(-len(text) % _ALIGNED) if text else b""

    def _add(self, options: list[tuple[tuple[int, int, int], bytes]]) -> None:
        sizes = [len(option) for _, option in options]
        starts = np.cumsum([len(self.options), *sizes[:-1]])
        for key, _ in options:
            self._place_of[key] = len(self._place_of)
        self.options = np.append(
            self.options, np.frombuffer(b"".join(each for _, each in options), np.uint8)
        )
        self.starts, self.sizes = np.append(self.starts, starts), np.append(self.sizes, sizes)
