"""BPF ring buffers, and one of records of one size, read in batches as numpy arrays.

The kernel's format (Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c): a page with the reader's position,
a page with the writers', and the data, mapped twice in a row so that no record is cut at the end. Positions
count bytes and only grow. A record is a header of 8 bytes, the first four its length and two flags, and the
data, in all a multiple of 8.
"""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from netmond.errors import KernelError
from netmond.kernel import libbpf, wire

HEADER = 8
BUSY = 1 << 31  # BPF_RINGBUF_BUSY_BIT: reserved, not yet written

#: From one record to the next
STRIDE = HEADER + wire.PACKET.itemsize

_R = TypeVar("_R", bound="RingBuffer")


class RingBuffer:
    """What every reader of a ring does; there is one for each ring.

    What it reads is a view of the ring itself; release() gives its room back to the kernel.
    """

    def __init__(
        self, consumer: NDArray[np.uint64], producer: NDArray[np.uint64], data: NDArray[np.uint8], size: int
    ) -> None:
        """consumer, producer: one position each; data: `size` bytes, twice."""
        self._consumer = consumer
        self._producer = producer
        self._data = data
        self._size = size
        self._position = int(consumer[0])
        self._fence = threading.Lock()
        self._fence.acquire()

    @staticmethod
    def create(size: int) -> int:
        """The descriptor of a new ring; size: bytes, a power of two and whole pages. KernelError."""
        return libbpf.map_create(
            libbpf.MAP_TYPE_RINGBUF, "packet_ring", key_size=0, value_size=0, entries=size
        )

    @classmethod
    def open(cls: type[_R], descriptor: int) -> _R:
        """Maps a ring, which stays the caller's to close. KernelError."""
        size = libbpf.map_capacity(descriptor)
        page = mmap.PAGESIZE
        try:
            ours = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            theirs = mmap.mmap(descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError as error:
            raise KernelError(f"cannot map a ring buffer: {os.strerror(error.errno or 0)}") from error
        return cls(
            np.frombuffer(ours, np.uint64, 1),
            np.frombuffer(theirs, np.uint64, 1),
            np.frombuffer(theirs, np.uint8, 2 * size, offset=page),
            size,
        )

    def release(self) -> None:
        """Gives the room of all that was read back to the kernel."""
        self._order()
        self._consumer[0] = self._position

    @property
    def _unread(self) -> int:
        """Bytes behind what was read, records that are still being written among them."""
        return int(self._producer[0]) - self._position

    def _order(self) -> None:
        """Keeps memory accesses before it from being done after those behind it, where the CPU would.

        x86 never does so with loads, nor with a store after a load. On arm64 this orders: giving a lock back
        is a store-release, taking it a load-acquire, and these two never change places (Arm Architecture
        Reference Manual, B2.3 "Barrier-ordered-before").
        """
        self._fence.release()
        self._fence.acquire()


class Ring(RingBuffer):
    """Records of one size: of packets that the kernel logs, in a class derived from it of another kind."""

    record: ClassVar[np.dtype[Any]] = wire.PACKET
    stride: ClassVar[int] = STRIDE

    def __init_subclass__(cls) -> None:
        cls.stride = HEADER + cls.record.itemsize

    @property
    def capacity(self) -> int:
        """Records that fit in."""
        return self._size // self.stride

    @property
    def released(self) -> int:
        """Records whose room was given back since the ring was made."""
        return int(self._consumer[0]) // self.stride

    @property
    def waiting(self) -> int:
        """Records in the ring that were not released, those still being written among them."""
        return (int(self._producer[0]) - int(self._consumer[0])) // self.stride

    def read(self, limit: int) -> NDArray[Any]:
        """Up to `limit` records that come next, the oldest first: a view of dtype `record`, good until
        release(). Empty: none is wholly written."""
        count = min(self._unread // self.stride, limit)
        start = self._position & (self._size - 1)
        self._order()
        headers = self._column(np.dtype(np.uint32), start, count)
        busy = np.flatnonzero(headers & np.uint32(BUSY))
        if len(busy):
            count = int(busy[0])
        self._order()
        records = self._column(self.record, start + HEADER, count)
        self._position += count * self.stride
        return records

    def _column(self, dtype: np.dtype[Any], start: int, count: int) -> NDArray[Any]:
        """What lies at the same place in each of `count` records."""
        return np.ndarray((count,), dtype, self._data.data, start, (self.stride,))
