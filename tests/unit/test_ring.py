"""Reading a ring buffer: records in order, not before they are written, around the end and again."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.ring import STRIDE, Ring

SIZE = 4096
ROOM = SIZE // STRIDE  #: 56 records, and 64 bytes that are never a whole one
BUSY = 1 << 31


class Kernel:
    """The other side, as kernel/bpf/ringbuf.c has it: reserves, writes, commits, fails when it is full."""

    def __init__(self, *, begun_at: int = 0) -> None:
        self.consumer = np.full(1, begun_at, np.uint64)
        self.producer = np.full(1, begun_at, np.uint64)
        self.data = np.zeros(2 * SIZE, np.uint8)
        self.ring = Ring(self.consumer, self.producer, self.data, SIZE)

    def reserve(self) -> int | None:
        """Where the record begins; None: there is no room."""
        at = int(self.producer[0])
        if at + STRIDE - int(self.consumer[0]) > SIZE - 1:
            return None
        self._store(at, np.array([wire.PACKET.itemsize | BUSY, 0], np.uint32).view(np.uint8))
        self.producer[0] = at + STRIDE
        return at

    def commit(self, at: int, number: int) -> None:
        """Writes a record that has this number in it."""
        record = np.zeros(1, wire.PACKET)
        record["time"], record["bytes"], record["direction"] = number, number % 1500, number % 2
        self._store(at + 8, record.view(np.uint8))
        self._store(at, np.array([wire.PACKET.itemsize], np.uint32).view(np.uint8))

    def put(self, number: int) -> bool:
        at = self.reserve()
        if at is not None:
            self.commit(at, number)
        return at is not None

    def _store(self, at: int, data: NDArray[np.uint8]) -> None:
        """Both mappings show what is written to one of them."""
        places = (at + np.arange(len(data))) % SIZE
        self.data[places] = self.data[places + SIZE] = data


def numbers(kernel: Kernel, limit: int = 1000) -> list[int]:
    return list(kernel.ring.read(limit)["time"].tolist())


def test_nothing_yet() -> None:
    """An empty ring has no records, and giving none back changes nothing."""
    kernel = Kernel()

    assert numbers(kernel) == []
    kernel.ring.release()
    assert (kernel.ring.waiting, int(kernel.consumer[0])) == (0, 0)


def test_records_come_in_order_with_all_fields() -> None:
    """What the kernel wrote is what is read, field by field, without a copy."""
    kernel = Kernel()
    for number in (1001, 1002, 1003):
        kernel.put(number)

    rows = kernel.ring.read(10)

    assert rows.dtype == wire.PACKET
    assert rows[["time", "bytes", "direction"]].tolist() == [
        (1001, 1001, 1),
        (1002, 1002, 0),
        (1003, 1003, 1),
    ]
    assert np.shares_memory(rows, kernel.data)


def test_one_that_is_being_written_holds_up_those_behind_it() -> None:
    """Order is kept: what another CPU has finished already waits for the one before."""
    kernel = Kernel()
    kernel.put(1)
    slow = kernel.reserve()
    kernel.put(3)

    assert slow is not None
    assert numbers(kernel) == [1]
    assert numbers(kernel) == []
    assert kernel.ring.waiting == 3
    kernel.commit(slow, 2)
    assert numbers(kernel) == [2, 3]


def test_room_is_given_back_by_release_alone() -> None:
    """What was read stays as it is until then, however many times is read."""
    kernel = Kernel()
    while kernel.put(7):
        pass

    assert len(kernel.ring.read(20)) == 20
    assert len(kernel.ring.read(1000)) == kernel.ring.waiting - 20 == ROOM - 20
    assert not kernel.put(8)
    kernel.ring.release()
    assert kernel.ring.waiting == 0
    assert kernel.put(8)
    assert numbers(kernel) == [8]


def test_limit() -> None:
    """No more than asked for; the next ones come the next time."""
    kernel = Kernel()
    for number in range(5):
        kernel.put(number)

    assert [numbers(kernel, 2), numbers(kernel, 2), numbers(kernel, 2)] == [[0, 1], [2, 3], [4]]


def test_a_reader_goes_on_where_the_one_before_released() -> None:
    """Its position is in the ring: what another has read but not given back comes again."""
    kernel = Kernel()
    for number in range(5):
        kernel.put(number)
    kernel.ring.read(2)
    kernel.ring.release()
    kernel.ring.read(2)

    second = Ring(kernel.consumer, kernel.producer, kernel.data, SIZE)

    assert second.read(10)["time"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("begun_at", [0, SIZE * 1009, (1 << 32) - SIZE, 1 << 62])
def test_around_the_end_and_again(begun_at: int) -> None:
    """Any mixture of reserving, committing out of order, reading and releasing, through thousands of
    records: what comes out is what went in, in the order of reservation."""
    random_ = random.Random(begun_at)
    kernel = Kernel(begun_at=begun_at)
    expected: deque[int] = deque()
    open_: list[tuple[int, int]] = []
    found: list[int] = []
    number = 0
    while number < 5000:
        action = random_.random()
        if action < 0.55:
            at = kernel.reserve()
            if at is not None:
                open_.append((at, number))
                expected.append(number)
                number += 1
        elif action < 0.9 and open_:
            kernel.commit(*open_.pop(random_.randrange(len(open_))))
        else:
            found += numbers(kernel, random_.randint(1, ROOM))
            if random_.random() < 0.7:
                kernel.ring.release()
    for at, each in open_:
        kernel.commit(at, each)
    found += numbers(kernel)

    assert found == list(expected)
