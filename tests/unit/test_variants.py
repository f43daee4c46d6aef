"""Variants of a function: marks in its code become values, and descriptors of maps places."""

from __future__ import annotations

import numpy as np
import pytest

from netmond.errors import KernelError
from netmond.kernel.variants import CONTEXT, INSTRUCTION, place_maps, variant

_MARK, _AT = 0x5CA1AB00, 0x6F00


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    return np.array(list(instructions), INSTRUCTION).tobytes()


def read(data: bytes) -> list[tuple[int, ...]]:
    return [tuple(map(int, each)) for each in np.frombuffer(data, INSTRUCTION).tolist()]


def test_constants() -> None:
    """Moves of a mark, of 64 and of 32 bits, and nothing else."""
    before = code(
        (0xB7, 0x02, 0, _MARK),
        (0xB4, 0x03, 0, _MARK + 1),
        (0xB7, 0x04, 0, 7),
        (0x18, 0x05, 0, _MARK),  # half of a constant of 64 bits
    )

    assert read(variant(before, [29, 3], {})) == [
        (0xB7, 0x02, 0, 29),
        (0xB4, 0x03, 0, 3),
        (0xB7, 0x04, 0, 7),
        (0x18, 0x05, 0, _MARK),
    ]


def test_arguments() -> None:
    """A load from the context, the context itself, or nothing."""
    before = code(*((0x79, 0x16, _AT + 8 * number, 0) for number in range(3)), (0x79, 0x16, 8, 0))

    assert read(variant(before, [], {0: 16, 1: CONTEXT})) == [
        (0x79, 0x16, 16, 0),
        (0xBF, 0x16, 0, 0),
        (0xB7, 0x06, 0, 0),
        (0x79, 0x16, 8, 0),
    ]


def test_maps() -> None:
    """Only what refers to a map, and no map that is not handed over."""
    before = code((0x18, 0x11, 0, 23), (0, 0, 0, 0), (0x18, 0x01, 0, 23), (0xB7, 0x01, 0, 23))

    assert read(place_maps(before, {23: 4})) == [
        (0x18, 0x11, 0, 4),
        (0, 0, 0, 0),
        (0x18, 0x01, 0, 23),
        (0xB7, 0x01, 0, 23),
    ]
    with pytest.raises(KernelError, match="not asked for"):
        place_maps(before, {5: 4})
