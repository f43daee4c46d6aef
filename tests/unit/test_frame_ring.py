"""Reading frames of any size from a ring: in order, not before they are written, around the end."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.frame_ring import FrameRing, field

SIZE = 1 << 16
BUSY = 1 << 31


class Kernel:
    """The other side, as kernel/bpf/ringbuf.c has it: reserves, writes, commits, fails when it is full."""

    def __init__(self, begun_at: int = 0) -> None:
        self.consumer = np.full(1, begun_at, np.uint64)
        self.producer = np.full(1, begun_at, np.uint64)
        self.data = np.zeros(2 * SIZE, np.uint8)
        self.ring = FrameRing(self.consumer, self.producer, self.data, SIZE)
        self.open: dict[int, int] = {}  #: length of what is reserved, by place

    def reserve(self, captured: int) -> int | None:
        """Where the record of a frame begins; None: there is no room."""
        at, length = int(self.producer[0]), wire.FRAME.itemsize + captured
        end = at + (8 + length + 7 & ~7)
        if end - int(self.consumer[0]) > SIZE - 1:
            return None
        self.open[at] = length
        self._store(at, np.array([length | BUSY, 0], np.uint32).view(np.uint8))
        self.producer[0] = end
        return at

    def commit(self, at: int, number: int) -> None:
        """Writes a frame that consists of its number's lowest byte."""
        length = self.open.pop(at)
        record = np.zeros(1, wire.FRAME)
        record["time"], record["captured"] = number, length - wire.FRAME.itemsize
        content = np.full(length - wire.FRAME.itemsize, number & 255, np.uint8)
        self._store(at + 8, np.concatenate([record.view(np.uint8), content]))
        self._store(at, np.array([length], np.uint32).view(np.uint8))

    def put(self, number: int, captured: int) -> bool:
        at = self.reserve(captured)
        if at is not None:
            self.commit(at, number)
        return at is not None

    def _store(self, at: int, data: NDArray[np.uint8]) -> None:
        """Both mappings show what is written to one of them."""
        places = (at + np.arange(len(data))) % SIZE
        self.data[places] = self.data[places + SIZE] = data


def numbers(kernel: Kernel, limit: int = 10_000, size: int = SIZE) -> list[int]:
    """Of the frames that are there, all of whose bytes are right."""
    data, places = kernel.ring.read(limit, size)
    found = [int(number) for number in field(data, places, "time")]
    for place, number, captured in zip(places, found, field(data, places, "captured"), strict=True):
        content = data[place + wire.FRAME.itemsize :][:captured]
        assert len(content) == captured
        assert (content == number & 255).all()
    return found


def test_frames_of_one_size_and_of_others() -> None:
    """Rows of equal ones, long and short, and each of another size, come in the same order."""
    kernel = Kernel()
    sizes = [*[60] * 100, 61, 62, 1500, *[40] * 17, *range(30), *[60] * 16, 3000]
    for number, size in enumerate(sizes):
        assert kernel.put(number, size)

    assert numbers(kernel) == list(range(len(sizes)))
    assert numbers(kernel) == []
    assert kernel.ring.filled == 0


@pytest.mark.parametrize("equal", [True, False])
def test_limits(equal: bool) -> None:
    """No more than so many frames, and none begun after so many bytes; the next look goes on there."""
    kernel = Kernel()
    for number in range(100):
        assert kernel.put(number, 96 if equal else 96 + number % 3)

    assert numbers(kernel, limit=7) == list(range(7))
    assert numbers(kernel, limit=40) == list(range(7, 47))
    assert numbers(kernel, size=1) == [47]
    assert numbers(kernel, size=2000) == list(range(48, 62 if equal else 61))  # 152 bytes each, or some 160


def test_not_before_it_is_written() -> None:
    """A frame that is still being written is waited for, and so is all behind it."""
    kernel = Kernel()
    assert kernel.put(0, 10)
    at = kernel.reserve(20)
    assert at is not None
    assert kernel.put(2, 20)

    assert numbers(kernel) == [0]
    assert kernel.ring.filled > 0
    kernel.commit(at, 1)
    assert numbers(kernel) == [1, 2]


def test_one_that_is_written_in_a_row_of_equal_ones() -> None:
    """The row ends there."""
    kernel = Kernel()
    for number in range(100):
        assert kernel.put(number, 50)
    at = kernel.reserve(50)
    assert at is not None
    for number in range(101, 200):
        assert kernel.put(number, 50)

    assert numbers(kernel) == list(range(100))
    kernel.commit(at, 100)
    assert numbers(kernel) == list(range(100, 200))


@pytest.mark.parametrize("seed", range(20))
def test_everything_arrives_once(seed: int) -> None:
    """Whatever comes, and however it is read, over many rounds: in order, with every byte, nothing twice."""
    chance = random.Random(seed)
    kernel = Kernel(begun_at=(1 << 40) + chance.randrange(SIZE // 8) * 8)
    expected: deque[int] = deque()
    number = 0
    for _ in range(60):
        size = chance.randrange(1600)
        for _ in range(chance.randrange(120)):
            if chance.random() < 0.1:
                size = chance.randrange(1600)
            if not kernel.put(number, size):
                break
            expected.append(number)
            number += 1
        for found in numbers(kernel, chance.choice([1, 20, 1000]), chance.choice([100, SIZE])):
            assert found == expected.popleft()
        if chance.random() < 0.8:
            kernel.ring.release()
    assert number > 500
