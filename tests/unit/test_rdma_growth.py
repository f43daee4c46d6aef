"""What RDMA counters have grown by: wraps, resets, steps back, and counters that come and go."""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.rdma.growth import Growth, grown

VALUE = st.integers(0, (1 << 64) - 1)
DATA, ERRORS = ("counters", "port_xmit_data"), ("hw_counters", "out_of_sequence")


def growth(before: int, after: int) -> int:
    return int(grown(np.array([before], np.uint64), np.array([after], np.uint64))[0])


class TestGrown:
    @given(VALUE, VALUE)
    def test_more_than_before(self, one: int, other: int) -> None:
        """A counter that shows more has grown by the difference, however much that is."""
        assert growth(min(one, other), max(one, other)) == abs(one - other)

    @given(st.integers(0, (1 << 32) - 1), st.lists(st.integers(0, (1 << 31) - 1), max_size=30))
    def test_a_counter_of_32_bits(self, start: int, steps: list[int]) -> None:
        """One that wraps at 32 bits is followed over any number of wraps, if it is read twice a round."""
        shown = [count % (1 << 32) for count in accumulate(steps, initial=start)]

        assert [growth(before, after) for before, after in pairwise(shown)] == steps

    @given(st.integers(1 << 32, (1 << 64) - 1), st.lists(st.integers(0, (1 << 31) - 1), max_size=30))
    def test_a_counter_of_64_bits(self, start: int, steps: list[int]) -> None:
        """One that wraps at 64 bits is followed as well."""
        counts = list(accumulate(steps, initial=start))
        pairs = list(pairwise(count % (1 << 64) for count in counts))

        assert [growth(before, after) for before, after in pairs] == steps

    @given(st.integers(0, (1 << 31) - 1), st.data())
    def test_begun_again(self, before: int, data: st.DataObject) -> None:
        """A counter that began again at 0 has grown by what it shows since."""
        after = data.draw(st.integers(0, before // 2))

        assert growth(before, after) == after

    @given(st.integers(1 << 32, (1 << 63) - 1), st.data())
    def test_a_wide_one_begun_again(self, before: int, data: st.DataObject) -> None:
        """So has one with more than 32 bits: it cannot have wrapped at 32."""
        after = data.draw(st.integers(0, before // 2))

        assert growth(before, after) == after

    @given(st.integers(1000, 1 << 62), st.data())
    def test_a_step_back(self, before: int, data: st.DataObject) -> None:
        """A sum over CPUs that is read while it moves may step back a little: that is no growth."""
        back = data.draw(st.integers(1, before // 1000))

        assert growth(before, before - back) == 0

    @given(st.lists(st.tuples(VALUE, VALUE)))
    def test_columns(self, pairs: list[tuple[int, int]]) -> None:
        """Each counter is judged by itself."""
        before = np.array([one for one, _ in pairs], np.uint64)
        after = np.array([other for _, other in pairs], np.uint64)

        assert grown(before, after).tolist() == [growth(one, other) for one, other in pairs]


class Port:
    """A port's counters, read at moments that a test chooses."""

    def __init__(self) -> None:
        self.growth = Growth()

        self.life = 1

    def read(self, now: float, **values: int) -> dict[str, tuple[int, float]]:
        """Total and rate of each counter."""
        names = tuple((DATA if name == "data" else (ERRORS[0], name)) for name in values)
        totals, rates = self.growth.update(
            names, np.array(list(values.values()), np.uint64), now, life=self.life
        )
        return {
            name: (int(total), float(rate)) for name, total, rate in zip(values, totals, rates, strict=True)
        }


@pytest.fixture
def port() -> Port:
    return Port()


class TestGrowth:
    def test_begins_at_nothing(self, port: Port) -> None:
        """What a counter shows when it is first read came before netmond watched."""
        assert port.read(1.0, errors=1000) == {"errors": (0, 0.0)}

    def test_totals_and_rates(self, port: Port) -> None:
        """Totals go on, rates are of the time between two readings."""
        port.read(1.0, errors=10)
        port.read(3.0, errors=14)

        assert port.read(3.5, errors=15) == {"errors": (5, 2.0)}

    def test_words(self, port: Port) -> None:
        """Data counters count words of 4 bytes: totals and rates are in bytes."""
        port.read(0.0, data=100)

        assert port.read(2.0, data=200) == {"data": (400, 200.0)}

    def test_no_time_between(self, port: Port) -> None:
        """Two readings at the same moment have no rate."""
        port.read(1.0, errors=1)

        assert port.read(1.0, errors=5) == {"errors": (4, 0.0)}

    def test_a_counter_that_comes(self, port: Port) -> None:
        """An optional counter that is switched on later begins at nothing, and disturbs no other."""
        port.read(0.0, errors=1)
        port.read(1.0, cnps=50, errors=3)

        assert port.read(2.0, cnps=51, errors=4) == {"cnps": (1, 1.0), "errors": (3, 1.0)}

    def test_a_counter_that_could_not_be_read(self, port: Port) -> None:
        """It goes on from its last value when it is back; its rate is of all the time between."""
        port.read(0.0, drops=10, errors=0)
        port.read(1.0, errors=0)

        assert port.read(4.0, drops=18, errors=0) == {"drops": (8, 2.0), "errors": (0, 0.0)}

    @pytest.mark.parametrize(
        ("before", "after", "total"), [(100, 90, 90), (3 << 30, 5, 5), (100, 130, 30), (100, 0, 0)]
    )
    def test_another_device(self, port: Port, before: int, after: int, total: int) -> None:
        """One of the same name counts from 0 on: no wrap, no step back. Hardware may outlast its driver."""
        port.read(0.0, errors=before)
        port.life = 2

        assert port.read(1.0, errors=after) == {"errors": (total, float(total))}
        assert port.read(2.0, errors=after) == {"errors": (total, 0.0)}

    def test_another_device_of_which_a_counter_comes_later(self, port: Port) -> None:
        """It began at 0 as the others did."""
        port.read(0.0, drops=100, errors=100)
        port.life = 2
        port.read(1.0, errors=1)

        assert port.read(2.0, drops=90, errors=1) == {"drops": (90, 45.0), "errors": (1, 0.0)}

    def test_nothing_to_read(self, port: Port) -> None:
        """A port without any counter is no trouble."""
        assert port.read(0.0) == {}

    def test_given_totals_stay(self, port: Port) -> None:
        """What was returned is not changed by later readings: it is in snapshots."""
        names = (ERRORS,)
        port.growth.update(names, np.array([1], np.uint64), 0.0, life=1)
        totals, rates = port.growth.update(names, np.array([2], np.uint64), 1.0, life=1)

        port.growth.update(names, np.array([9], np.uint64), 2.0, life=1)

        assert (totals.tolist(), rates.tolist()) == ([1], [1.0])
