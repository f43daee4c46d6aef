"""A BPF ring buffer of records of any size, read in batches as numpy arrays."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.ring import BUSY, HEADER, RingBuffer

#: Records of one length in a row from which on they are looked at together, and how many at first.
_ROW, _FIRST_LOOK = 16, 64


class FrameRing(RingBuffer):
    """Frames that the kernel captures: wire.FRAME and the bytes of each."""

    def read(self, limit: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Up to `limit` records that come next, the oldest first; no more are begun after `size` bytes.

        A part of the ring, good until release(), and where in it each record begins.
        """
        start, end = self._position & (self._size - 1), min(self._unread, self._size)
        self._order()
        lengths, pieces = self._lengths, [np.zeros(0, np.int64)]
        singles: list[int] = []
        at = count = row = last = 0
        while at < min(end, size) and count < limit:
            length = lengths[(start + at) >> 2]
            if length & BUSY:
                break
            stride = (HEADER + length + 7) & ~7
            row = row + 1 if length == last else 0
            last = length
            if row < _ROW:
                singles.append(at + HEADER)
                at, count = at + stride, count + 1
                continue
            most = min((end - at) // stride, -(-(size - at) // stride), limit - count)
            run = self._run(start + at, length, stride, most)
            pieces += [np.array(singles, np.int64), np.arange(run, dtype=np.int64) * stride + at + HEADER]
            singles = []
            at, count = at + run * stride, count + run
        self._order()
        self._position += at
        return self._data[start : start + at], np.concatenate([*pieces, np.array(singles, np.int64)])

    @property
    def filled(self) -> float:
        """How much of it holds what was not read, 0 to 1."""
        return self._unread / self._size

    @cached_property
    def _lengths(self) -> memoryview:
        """The ring as words, some of which are headers; faster for single ones than numpy."""
        return self._data.data.cast("I")

    def _run(self, start: int, length: int, stride: int, most: int) -> int:
        """How many records of one length there are in a row, at least one."""
        look = _FIRST_LOOK
        while True:  # most rows are short or very long
            count = min(look, most)
            headers: NDArray[np.uint32] = np.ndarray((count,), np.uint32, self._data.data, start, (stride,))
            others = headers != length
            if others.any():
                return int(others.argmax())
            if count == most:
                return count
            look *= 8


def field(data: NDArray[np.uint8], places: NDArray[np.int64], name: str) -> NDArray[Any]:
    """One field of the records (wire.FRAME) at these places."""
    assert wire.FRAME.fields is not None
    kind, offset, *_ = wire.FRAME.fields[name]
    size = kind.itemsize
    column: NDArray[Any] = np.ndarray((len(data) // size,), kind, data.data)
    found: NDArray[Any] = column[(places + offset) // size]
    return found
