"""The meter's records of sockets, in an array shared with the kernel: who came and went, what moved. Pure.

A slot's life is told at the top of bpf/sockets.c. Here it is in use from the tick that finds it claimed; cut
off from its socket when that is closed or silent; read for the last time a tick later; then free, once what
it came to is kept somewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.accounts import WORDS, as_words, unfold
from netmond.kernel import wire
from netmond.model import COUNTERS

_PIECE = 2048  # slots looked at together, for the sake of the CPU's caches
_GIVEN_BACK_AT_ONCE = 64
_BLOCK = 1024  # slots looked at beyond the highest one ever used
_CROWDED = 7 / 8  # share of slots in use from which silent ones are given up sooner
_IDLE_IF_CROWDED = 30_000_000_000  # ns
#: Ns of silence after which a closed socket's connection is taken to be over too. What comes later claims
#: another slot, and so makes another row.
_LAST_WORDS = 250_000_000

#: Words of a slot seen as u8, see struct direction, beside those that are counted.
_IN_STATE, _OUT_STATE = (wire.word_of(wire.SLOT, way, "generation") for way in ("in", "out"))
_IN_LAST_SEEN, _OUT_LAST_SEEN = (wire.word_of(wire.SLOT, way, "last_seen") for way in ("in", "out"))
_IN_TCP = wire.word_of(wire.SLOT, "in", "srtt_us")
_WAYS = [wire.word_of(wire.SLOT, way, "ifindex") for way in ("in", "out")]

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_RELEASED = np.uint64(wire.SLOT_RELEASED << 32)
_FREE = np.uint64(wire.SLOT_FREE << 32)

_NO_SLOTS, _NO_FLAGS = np.zeros(0, np.intp), np.zeros(0, np.bool_)

Places = NDArray[np.intp]


class Records(Protocol):
    """An array shared with the kernel: kernel.tables.LongArray, or one in a test."""

    capacity: int

    def front(self, length: int) -> NDArray[Any]: ...

    def take(self, places: Places) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Some slots (n,) that counted; what, counters (n, 8); the interfaces it passed, in and out (n, 2)."""

    slots: Places
    deltas: NDArray[np.uint64]
    ways: NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reading:
    """What one pass over the slots found.

    live: the n slots in use; last_seen (ns, monotonic), tcp (round trip time in the low half, retransmits in
    the high one), released (closed by its process), ended (cut off a tick ago: these are the last figures):
    of each of them.
    changed: slots with another owner than before, of whatever kind; claimed: which of those have another
    socket.
    moved: all that counted something, piece by piece; they are in use.
    """

    live: Places
    last_seen: NDArray[np.uint64]
    tcp: NDArray[np.uint64]
    released: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    changed: Places
    claimed: NDArray[np.bool_]
    moved: Sequence[Moved]

    def of(self, column: NDArray[Any]) -> NDArray[Any]:
        """Of a column with a row for each slot a copy of those in use."""
        return column[: len(self.live)].copy() if _dense(self.live) else column[self.live]

    def rows(self, slots: Places) -> Places:
        """Where among `live` these are."""
        return slots if _dense(self.live) else np.searchsorted(self.live, slots)


def _dense(live: Places) -> bool:
    """Whether these are all slots from the first one on, as they are most of the time: that is faster."""
    return not len(live) or bool(live[-1] == len(live) - 1)


class Slots:
    """What each slot held at the last reading, and its total since it was claimed."""

    def __init__(self, records: Records, give_back: Callable[[NDArray[np.uint32]], None]) -> None:
        """give_back: makes slots free for other sockets."""
        self._records = records
        self._give_back = give_back
        size = records.capacity
        self.totals = np.zeros((size, len(COUNTERS)), np.uint64)  #: counters since it was claimed, by slot
        self._extent = 0
        self._words = as_words(records.front(min(_BLOCK, size)))
        self._state = np.zeros(size, np.uint64)  # generation and, in the high half, revision; 0: not in use
        self._last = np.zeros((size, WORDS), np.uint64)
        self._cut_off = np.zeros(size, np.bool_)
        self._returnable = np.zeros(0, np.intp)  # nobody's, not free for others yet

    @property
    def live(self) -> Places:
        """The slots in use."""
        return np.flatnonzero(self._state[: self._extent])

    def identity(self, slots: Places) -> NDArray[np.uint64]:
        """A number for each socket that never comes again in this boot."""
        return self._state[slots] << _HALF | slots.astype(np.uint64)

    def checkpoint(self) -> dict[str, NDArray[Any]]:
        """What has been read, to `resume` from. The arrays are live."""
        live = self.live
        top = int(live[-1]) + 1 if len(live) else 0
        return {
            "slots.state": self._state[:top],
            "slots.last": self._last[:top],
            "slots.totals": self.totals[:top],
            "slots.returnable": self._returnable,
        }

    def resume(self, arrays: Mapping[str, NDArray[Any]], wait: Callable[[], object]) -> None:
        """Goes on from a checkpoint of the same array.

        A slot that was cut off then is so still: its socket has found another, or will.
        wait: returns when every program that runs now has ended.
        """
        top, idle = len(arrays["slots.state"]), arrays["slots.returnable"]
        while self._extent <= max(top - 1, idle.max(initial=-1)) and self._map_more():
            pass
        self._state[:top] = arrays["slots.state"]
        self._last[:top] = arrays["slots.last"]
        self.totals[:top] = arrays["slots.totals"]
        live = self.live
        self._cut_off[live] = self._words[live, _IN_STATE] & _LOW == 0
        self._extend()
        idle = idle[self._words[idle, _IN_STATE] == 0]
        if len(idle):
            wait()  # one that was given back may just be claimed
        self._returnable = idle[self._words[idle, _IN_STATE] == 0]

    def standing(self) -> Reading:
        """How slots stand, as far as they were read. It changes nothing."""
        live = self.live
        words = self._words[live]
        no = np.zeros(len(live), np.bool_)
        return Reading(
            live=live,
            last_seen=np.maximum(words[:, _IN_LAST_SEEN], words[:, _OUT_LAST_SEEN]),
            tcp=words[:, _IN_TCP].copy(),
            released=no,
            ended=no,
            changed=_NO_SLOTS,
            claimed=_NO_FLAGS,
            moved=(),
        )

    def read(self) -> Reading:
        """Takes in what the kernel has now. A slot that did nothing costs no more than a look at it."""
        self._extend()
        last_seen, tcp = np.empty(self._extent, np.uint64), np.empty(self._extent, np.uint64)
        released = np.empty(self._extent, np.bool_)
        changed, claimed, moved = [], [], []
        for start in range(0, self._extent, _PIECE):
            piece = slice(start, min(start + _PIECE, self._extent))
            words = self._words[piece].copy()  # the kernel goes on counting
            np.maximum(words[:, _IN_LAST_SEEN], words[:, _OUT_LAST_SEEN], out=last_seen[piece])
            tcp[piece] = words[:, _IN_TCP]
            released[piece] = words[:, _IN_STATE] & _RELEASED != 0
            slots, new = self._recognise(piece, words)
            if len(slots):
                changed.append(slots)
                claimed.append(new)
            rows = np.flatnonzero(self._differ(piece, words))
            if len(rows):
                moved.append(self._add(rows + start, words[rows]))
        live = self.live
        return Reading(
            live=live,
            last_seen=last_seen[live],
            tcp=tcp[live],
            released=released[live],
            ended=self._cut_off[live],
            changed=np.concatenate([_NO_SLOTS, *changed]),
            claimed=np.concatenate([_NO_FLAGS, *claimed]),
            moved=moved,
        )

    def retire(self, reading: Reading, now: int, idle: float) -> bool:
        """Lets go of what was cut off a tick ago; cuts off what is silent for longer than `idle`, or closed
        and silent.

        Times in ns, monotonic. Returns whether any slot is no longer in use.
        """
        done = reading.live[reading.ended]
        if len(done):
            self._state[done] = 0
            self._cut_off[done] = False
            self._returnable = np.concatenate([self._returnable, done])
        if len(reading.live) > self._records.capacity * _CROWDED:
            idle = min(idle, _IDLE_IF_CROWDED)
        silence = now - reading.last_seen.astype(np.int64)
        silence[reading.last_seen == 0] = 0  # just claimed
        limit = np.full(len(silence), idle)
        limit[reading.released] = _LAST_WORDS
        given_up = (silence > limit) & ~reading.ended
        slots = reading.live[given_up]
        # In this order: what a kill comes between is not cut off, as the next daemon sees it.
        self._words[slots, _OUT_STATE] = 0
        self._words[slots, _IN_STATE] = 0
        self._cut_off[slots] = True
        return len(done) > 0

    def release(self) -> None:
        """Gives slots back that were accounted for, for good: whoever keeps checkpoints, keeps one first.

        A mark tells a later start that they were; those between mark and stack at SIGKILL stay unused.
        """
        slots, self._returnable = self._returnable[::-1], self._returnable[:0]
        for start in range(0, len(slots), _GIVEN_BACK_AT_ONCE):
            piece = slots[start : start + _GIVEN_BACK_AT_ONCE]
            self._words[piece, _IN_STATE] = _FREE
            self._give_back(piece.astype(np.uint32))

    def _extend(self) -> None:
        """Maps as many slots as were ever used, and some beyond to notice the next."""
        while self._words[self._extent :, _IN_STATE].any() and self._map_more():
            pass

    def _map_more(self) -> bool:
        """Takes in what is mapped, and maps some more; False: that is all there is."""
        self._extent = len(self._words)
        if self._extent == self._records.capacity:
            return False
        ahead = self._extent + max(_BLOCK, self._extent // 8)
        self._words = as_words(self._records.front(min(ahead, self._records.capacity)))
        return True

    def _recognise(self, piece: slice, words: NDArray[np.uint64]) -> tuple[Places, NDArray[np.bool_]]:
        """The slots that changed hands, and which of them have another socket: those begin anew."""
        generation, state = words[:, _IN_STATE] & _LOW, self._state[piece]
        seen = generation | words[:, _OUT_STATE] & ~_LOW
        rows = np.flatnonzero((generation != 0) & (seen != state))
        new = (seen[rows] ^ state[rows]) & _LOW != 0
        slots = rows + piece.start
        self._last[slots[new]] = 0
        self.totals[slots[new]] = 0
        state[rows] = seen[rows]
        return slots, new

    def _differ(self, piece: slice, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which slots in use count otherwise than at the last reading."""
        last, differ = self._last[piece], np.zeros(len(words), np.bool_)
        for column, word in enumerate(wire.SLOT_COUNTED):
            differ |= words[:, word] != last[:, column]
        differ &= self._state[piece] != 0
        return differ

    def _add(self, slots: Places, words: NDArray[np.uint64]) -> Moved:
        """Adds what slots counted beyond the last reading to their totals."""
        counted = words[:, wire.SLOT_COUNTED]
        deltas = unfold(counted - self._last[slots])
        self._last[slots] = counted
        self.totals[slots] += deltas
        return Moved(slots, deltas, words[:, _WAYS] & _LOW)
