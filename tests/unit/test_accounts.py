"""The arithmetic that all accounting shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from netmond import accounts
from netmond.accounts import (
    Accounts,
    Earlier,
    Now,
    Tallies,
    as_words,
    distinct,
    rates_of,
    row_ids,
    sum_by,
    unfold,
)
from netmond.kernel import wire
from tests.unit.fakes import SECOND, Hash, address

MAX = 2**64


def words(*values: int) -> NDArray[np.uint64]:
    """One row of kernel words, wrapped to 64 bits."""
    return np.array([[value % MAX for value in values]], np.uint64)


def deltas(*rows: int) -> NDArray[np.uint64]:
    """Rows of counters that all hold one number."""
    return np.array([[row] * 8 for row in rows], np.uint64)


def places(*numbers: int) -> NDArray[np.int32]:
    return np.array(numbers, np.int32)


def test_unfold_splits_the_packed_words() -> None:
    """Wire bytes are base and surplus, stack bytes the base; packets are the two halves of a word."""
    counters = unfold(words(1009, 31, 7 | 11 << 32, 2003, 0, 13 | 17 << 32))

    assert counters.tolist() == [[11, 1040, 17, 2003, 7, 1009, 13, 2003]]


def test_unfold_survives_a_wrapping_low_half() -> None:
    """The stack packets' overflow into the wire packets' half does not show in a difference."""
    before = 0xFFFFFFFE | 5 << 32
    after = before + 3 * (1 | 41 << 32)

    assert after % 2**32 == 1
    assert unfold(words(0, 0, after, 0, 0, 0) - words(0, 0, before, 0, 0, 0))[0, [0, 4]].tolist() == [123, 3]


def test_unfold_survives_a_wrapping_high_half() -> None:
    """Nor does the wire packets' own overflow."""
    before = 7 | 0xFFFFFFFF << 32
    after = before + (1 | 43 << 32)

    difference = words(0, 0, 0, 0, 0, after) - words(0, 0, 0, 0, 0, before)

    assert unfold(difference)[0, [2, 6]].tolist() == [43, 1]


def test_rates_are_per_second_of_the_interval() -> None:
    """Only the wire counters have rates, in the order of model.RATES."""
    rates = rates_of(np.array([[3, 5, 7, 11, 13, 17, 19, 23]], np.uint64), 0.5)

    assert rates.tolist() == [[6.0, 10.0, 14.0, 22.0]]


def test_no_time_no_rate() -> None:
    """Two ticks at the same moment divide nothing by zero."""
    assert rates_of(deltas(3, 5), 0.0).tolist() == [[0.0] * 4] * 2


def test_sum_by_row_number() -> None:
    """Rows that nobody added to are zero; large numbers stay exact."""
    sums = sum_by(places(2, 0, 2), deltas(2**50 + 1, 3, 2**50 + 2), 4)

    assert sums[:, 0].tolist() == [3, 0, 2**51 + 3, 0]
    assert sums.dtype == np.uint64


def test_wall_clock_of_a_kernel_time() -> None:
    """Kernel times are moments in the past of the monotonic clock; zero means never and stays zero."""
    now = Now(monotonic_ns=50 * SECOND, wall=5000.0, interval=1.0)

    assert now.wall_of(np.array([47 * SECOND, 0], np.uint64)).tolist() == [4997.0, 0.0]


def test_as_words_copies_nothing() -> None:
    """What is written through the words is in the records."""
    records = np.zeros(3, wire.SLOT)
    as_words(records)[1, 0] = 29

    assert records["in"]["generation"].tolist() == [0, 29, 0]


class TestAccounts:
    """Running totals by key."""

    def test_a_row_stays(self) -> None:
        """A key keeps its row number and its figures however many others come after it."""
        accounts: Accounts[str] = Accounts()
        accounts.add(np.array([accounts.row("first")], np.int32), deltas(7))
        others = [accounts.row(f"key {number}") for number in range(997)]
        accounts.add(np.array(others, np.int32), deltas(*range(997)))

        assert accounts.row("first") == 0
        assert others == list(range(1, 998))
        assert accounts.counters[:, 0].tolist() == [7, *range(997)]

    def test_rates_are_of_the_last_tick_only(self) -> None:
        """begin_tick() ends what rates are taken over; totals go on."""
        accounts: Accounts[int] = Accounts()
        row = accounts.row(1234)
        accounts.row(4321)
        accounts.add(np.array([row], np.int32), deltas(7))
        accounts.begin_tick()
        accounts.add(np.array([row, row], np.int32), deltas(2, 3))

        assert accounts.counters[:, 0].tolist() == [12, 0]
        assert accounts.rates(2.0)[:, 0].tolist() == [2.5, 0.0]

        accounts.begin_tick()

        assert accounts.rates(2.0).sum() == 0

    def test_counters_are_a_copy(self) -> None:
        """A snapshot does not change when counting goes on."""
        accounts: Accounts[int] = Accounts()
        accounts.add(np.array([accounts.row(1)], np.int32), deltas(7))
        taken = accounts.counters
        accounts.add(places(0), deltas(11))

        assert taken[0, 0] == 7

    def test_nothing_to_add(self) -> None:
        """Empty differences are fine, also before there is a key."""
        accounts: Accounts[int] = Accounts()
        accounts.add(places(), deltas())

        assert len(accounts) == 0
        assert accounts.counters.shape == (0, 8)

    def test_folding_merges_totals_and_rates(self) -> None:
        """Keys that become one add up; the answer tells where each old row went."""
        accounts: Accounts[str] = Accounts()
        accounts.add(np.array([accounts.row(key) for key in "abcd"], np.int32), deltas(2, 3, 5, 7))
        accounts.begin_tick()
        accounts.add(places(1, 3), deltas(11, 13))

        moved = accounts.fold(["a", "rest", "c", "rest"])

        assert accounts.keys == ["a", "rest", "c"]
        assert moved.tolist() == [0, 1, 2, 1]
        assert accounts.counters[:, 0].tolist() == [2, 34, 5]
        assert accounts.rates(1.0)[:, 0].tolist() == [0.0, 24.0, 0.0]
        assert accounts.row("rest") == 1
        assert accounts.row("e") == 3


class TestTallies:
    """Rows of a hash that come and go."""

    def table(self) -> Hash:
        return Hash(wire.OVERFLOW_KEY, wire.TALLY, 64)

    def grow(self, table: Hash, uid: int, size: int) -> None:
        value = table.at(uid=uid, cgroup=1)
        assert value is not None
        value["in_bytes"] += np.uint64(size)

    def found(self, tallies: Tallies) -> dict[int, tuple[int, int]]:
        """uid -> total and difference of received bytes."""
        pairs = zip(tallies.totals[:, 1].tolist(), tallies.deltas[:, 1].tolist(), strict=True)
        return dict(zip(tallies.keys["uid"].tolist(), pairs, strict=True))

    def test_totals_follow_a_key_wherever_it_stands(self) -> None:
        """The kernel returns a hash in any order; a row is known by its key."""
        table, tallies = self.table(), Tallies()
        for uid in (1, 2, 3):
            self.grow(table, uid, uid * 100)
        tallies.update(*table.read())
        table.rows = dict(reversed(table.rows.items()))
        self.grow(table, 2, 7)
        tallies.update(*table.read())

        assert self.found(tallies) == {1: (100, 0), 2: (207, 7), 3: (300, 0)}

    def test_a_key_that_went_away_begins_anew(self) -> None:
        """A row no longer there is forgotten: its successor under the same key does not inherit."""
        table, tallies = self.table(), Tallies()
        self.grow(table, 1, 100)
        tallies.update(*table.read())
        table.rows.clear()
        tallies.update(*table.read())
        self.grow(table, 1, 5)
        tallies.update(*table.read())

        assert self.found(tallies) == {1: (5, 5)}

    def test_the_final_value_of_a_row_counts(self) -> None:
        """What came between reading the hash and taking a row out is in its last total and difference."""
        table, tallies = self.table(), Tallies()
        self.grow(table, 1, 100)
        self.grow(table, 2, 200)
        tallies.update(*table.read())
        self.grow(table, 2, 9)
        final = table.take(tallies.keys[1:2])
        assert final is not None
        tallies.finish(1, final)

        assert self.found(tallies) == {1: (100, 100), 2: (209, 209)}

        self.grow(table, 2, 3)
        tallies.update(*table.read())

        assert self.found(tallies) == {1: (100, 0), 2: (3, 3)}

    def test_an_empty_hash(self) -> None:
        """No rows, no fuss."""
        tallies = Tallies()
        tallies.update(*self.table().read())

        assert len(tallies) == 0
        assert tallies.totals.shape == (0, 8)


def test_row_ids_tell_rows_apart_and_never_look_like_a_slot() -> None:
    """All fields of a key go into its id, the same key has the same one, and the highest bit is set."""

    def key(**fields: Any) -> NDArray[Any]:
        row = np.zeros(1, wire.PEER_KEY)
        row["cookie"], row["remote"], row["remote_port"] = 1009, address("192.0.2.1"), 53
        for name, value in fields.items():
            row[name] = value
        return row

    variants = [key(), key(cookie=1013), key(remote=address("192.0.2.2")), key(remote_port=54)]
    ids = row_ids(np.concatenate(variants))

    assert len(set(ids.tolist())) == len(variants)
    assert (ids >> np.uint64(63)).tolist() == [1] * len(variants)
    assert row_ids(key()).tolist() == ids[:1].tolist()


def test_row_ids_rarely_collide() -> None:
    """A hundred thousand peers of one socket, in sequence as scans make them, have different ids."""
    keys = np.zeros(100_003, wire.PEER_KEY)
    keys["cookie"] = 1009
    keys["remote_port"] = np.arange(len(keys)) % 60_000
    keys["remote"] = (np.arange(len(keys), dtype=">u8") // 60_000).astype(">u8").view("V8").astype("V16")

    assert len(np.unique(row_ids(keys))) == len(keys)


@pytest.mark.parametrize(
    "mix", [row_ids, lambda keys: np.zeros(len(keys), np.uint64)], ids=["", "all the same"]
)
def test_distinct(
    monkeypatch: pytest.MonkeyPatch, mix: Callable[[NDArray[Any]], NDArray[np.uint64]]
) -> None:
    """Each key has the number of its like, also if somebody finds keys that mix to the same."""
    monkeypatch.setattr(accounts, "row_ids", mix)
    keys = np.array(
        [(7, b"a"), (7, b"b"), (9, b"a"), (7, b"a"), (7, b"b")], [("pid", "u8"), ("comm", "S16")]
    )

    first, inverse = distinct(keys)

    assert sorted(first.tolist()) == [0, 1, 2]
    assert (keys[first][inverse] == keys).all()


def test_distinct_of_nothing() -> None:
    """Is nothing."""
    first, inverse = distinct(np.zeros(0, [("pid", "u8")]))

    assert len(first) == len(inverse) == 0


def test_restored_totals_go_on() -> None:
    """Their rows are told; what is counted is added to them, and only that is in rates."""
    accounts: Accounts[str] = Accounts()
    accounts.row("here already")
    rows = accounts.restore(Earlier(["a", "b"], deltas(1009, 2**64 - 24)))
    assert rows.tolist() == [1, 2]
    assert accounts.rates(1.0).sum() == 0
    accounts.begin_tick()
    accounts.add(places(2, 0), deltas(23, 7))

    assert accounts.keys == ["here already", "a", "b"]
    assert accounts.counters[:, 0].tolist() == [7, 1009, 2**64 - 1]
    assert accounts.rates(1.0)[:, 0].tolist() == [7.0, 0.0, 23.0]


def test_restoring_nothing() -> None:
    """A first run."""
    accounts: Accounts[str] = Accounts()

    assert accounts.restore(Earlier([], deltas().reshape(0, 8))).tolist() == []
    assert len(accounts) == 0


def test_restoring_many() -> None:
    """More than there was room for at first."""
    accounts: Accounts[int] = Accounts()
    accounts.restore(Earlier(list(range(1009)), deltas(*range(1009))))

    assert accounts.counters[:, 3].tolist() == list(range(1009))
