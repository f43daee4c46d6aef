"""Wall-clock times of events."""

from __future__ import annotations

from netmond.path.clock import WallClock


class Machine:
    """Two clocks; reading one takes 100 ns."""

    def __init__(self) -> None:
        self.now, self.ahead = 5 * 10**9, 1_700_000_000 * 10**9

    def monotonic(self) -> int:
        self.now += 100
        return self.now

    def wall(self) -> int:
        return self.monotonic() + self.ahead


def test_the_difference_is_what_it_was() -> None:
    """As long as nobody sets the clock, all times have the same, whatever the measurement says."""
    machine = Machine()
    clock = WallClock(machine.wall, machine.monotonic)
    first = clock.offset()
    machine.now += 10**9

    assert abs(first - machine.ahead) <= 100
    assert clock.offset() == first


def test_a_clock_that_is_set() -> None:
    """Forward and back, by as little as can be seen."""
    machine = Machine()
    clock = WallClock(machine.wall, machine.monotonic)
    clock.offset()
    for step in (3600 * 10**9, -1_000, 10**9):
        machine.ahead += step
        assert abs(clock.offset() - machine.ahead) <= 100
