"""Processes of sockets, looked for in the meter's table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.path.processes import NOBODY, Processes

_SECOND = 10**9


class Meter:
    """A table of one socket, and how often it was read."""

    def __init__(self) -> None:
        self.table = np.zeros(1, wire.FLOW)
        self.table["cookie"], self.table["pid"], self.table["comm"] = 5, 10, b"one"
        self.reads = 0

    def flows(self) -> NDArray[np.void]:
        self.reads += 1
        return self.table


def _cookies(*numbers: int) -> NDArray[np.uint64]:
    return np.array(numbers, np.uint64)


def test_a_table_is_searched_for_new_sockets_only() -> None:
    meter = Meter()
    processes = Processes(meter.flows)
    for tick in range(10, 20):
        processes.learn(_cookies(5, 5, 6, 0), tick * _SECOND // 10)

    assert (processes.get(5), processes.get(6), processes.get(7)) == ((10, b"one"), NOBODY, NOBODY)
    assert meter.reads == 1


def test_not_all_the_time() -> None:
    """Many new sockets cost ten searches a second, no more."""
    meter = Meter()
    processes = Processes(meter.flows)
    for number in range(2000):
        processes.learn(_cookies(number + 1), 10 * _SECOND + number * 1_000_000)

    assert meter.reads == 20


def test_an_answer_gets_old() -> None:
    """Sockets change hands."""
    meter = Meter()
    processes = Processes(meter.flows)
    processes.learn(_cookies(5), 10 * _SECOND)
    meter.table["comm"] = b"two"
    processes.learn(_cookies(5), 13 * _SECOND)

    assert processes.get(5) == (10, b"two")
