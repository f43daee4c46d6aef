"""Rows made in columns are byte for byte those made one by one, whatever is in them."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netmond.model import FlowKind
from netmond.outputs import csvparts, textcolumns
from netmond.outputs.csvparts import Part
from netmond.views import PROTOCOLS
from tests.unit.csvflows import flow, packed, snapshot

_LARGEST = 2**64 - 1
_EDGES = sorted({0, _LARGEST, *(10**power + more for power in range(1, 20) for more in (-1, 0, 1))})

_figures = st.one_of(
    st.just(0),
    st.integers(0, 2000),
    st.integers(0, 1 << 40),
    st.sampled_from(_EDGES),
    st.integers(0, _LARGEST),
)
_addresses = st.one_of(
    st.just(bytes(16)),
    st.binary(min_size=4, max_size=4).map(lambda four: bytes(10) + b"\xff\xff" + four),
    st.binary(min_size=16, max_size=16),
    st.sampled_from(["::1", "::ffff:0:1", "::192.0.2.1", "2001:db8::7", "0.0.0.0", "255.255.255.255"]).map(
        packed
    ),
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff"]), min_size=8, max_size=8).map(b"".join),
)
_commands = st.one_of(
    st.sampled_from([b"", b"curl", b"sixteen letters!", b',"\\\n', b"\xff" * 16, b"in,1,,,1.0", b"a\0b"]),
    st.binary(max_size=16),
)
_units = st.one_of(
    st.sampled_from(["", "nginx.service", "user@1000.service/app.service", "x" * 255, '"\n,\\\udcff\u2028']),
    st.text(max_size=23),
)
_times = st.one_of(
    st.sampled_from([0.0, -1.0, 1e-9, 1e9, 1e10, 2.0**33, 1795231800.25, 999_999_999.999_999_9]),
    st.floats(1_700_000_000, 1_900_000_000),
    st.floats(0, 2e10),
)
_PORTS = st.integers(0, 65535)


@st.composite
def _flows(draw: st.DrawFn) -> dict[str, Any]:
    return flow(
        draw(st.integers(0, _LARGEST)),
        kind=FlowKind.PEER,
        protocol=draw(st.integers(0, 255) | st.sampled_from(sorted(PROTOCOLS))),
        local=draw(_addresses),
        remote=draw(_addresses),
        local_port=draw(_PORTS),
        remote_port=draw(_PORTS),
        pid=draw(st.integers(0, 2**32 - 1)),
        comm=draw(_commands),
        unit_index=draw(st.integers(-1, 3)),
        last_seen=draw(_times),
        counters=draw(st.lists(_figures, min_size=4, max_size=4).filter(any)),
    )


def _both(
    flows: list[dict[str, Any]], units: tuple[str, ...], bounds: list[int], totals: list[tuple[int, int]]
) -> list[list[Part]]:
    """In columns and one by one."""
    seen = snapshot(23.5, *flows, units=units)
    delta = seen.flows.counters[:, :4]
    index = np.arange(len(flows))
    return [make(seen, index, delta, bounds, totals) for make in (csvparts.in_columns, csvparts.one_by_one)]


class TestRows:
    @settings(max_examples=150)
    @given(st.data())
    def test_the_same_bytes(self, data: st.DataObject) -> None:
        """Of several users, with hostile names, all kinds of addresses and times, figures up to 2^64 - 1 and
        totals beyond; what the totals are afterwards is the same, too."""
        counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        flows = data.draw(st.lists(_flows(), min_size=sum(counts), max_size=sum(counts)))
        units = tuple(data.draw(st.lists(_units, min_size=4, max_size=4)))
        total = st.one_of(_figures, st.integers(0, 1 << 70))
        totals = [(data.draw(total), data.draw(total)) for _ in counts]

        in_columns, one_by_one = _both(flows, units, [0, *accumulate(counts)], totals)

        assert in_columns == one_by_one

    @pytest.mark.parametrize("seed", [23, 29])
    def test_many(self, seed: int) -> None:
        """Thousands of ordinary rows, some of which went one way only."""
        random = np.random.default_rng(seed)
        flows = [
            flow(
                number,
                remote=bytes(10) + b"\xff\xff" + random.bytes(4),
                local_port=int(random.integers(65536)),
                pid=int(random.integers(1 << 22)),
                last_seen=1795231800 + 10 * random.random(),
                counters=(random.integers(0, 1 << number % 40 + 1, 4) * random.integers(0, 2, 4)).tolist(),
            )
            for number in range(2003)
        ]  # fmt: skip
        flows = [each for each in flows if any(each["counters"])]

        in_columns, one_by_one = _both(
            flows, ("u",), [0, 1, 701, len(flows)], [(23, 29), (0, 0), (1 << 60, 7)]
        )

        assert in_columns == one_by_one
        assert sum(part.rows for part in in_columns) > 2003

    def test_nothing_but_what_went_one_way(self) -> None:
        """A flow that only received has one row, and lets the other total be as it was."""
        (part,) = _both([flow(1, received=100)], ("u",), [0, 1], [(1, 2)])[0]

        assert (part.rows, part.totals, part.lines.count(b"\n")) == (1, (101, 2), 1)


def _texts(column: textcolumns.Column) -> list[str]:
    """What the words of each row say, one after the other."""
    words, lengths = column.words.T.copy(), column.lengths.T
    return [
        b"".join(
            word.tobytes()[8 - length :] for word, length in zip(row, length_of_row, strict=True)
        ).decode()
        for row, length_of_row in zip(words, lengths, strict=True)
    ]


class TestColumns:
    def test_numbers(self) -> None:
        """Around each power of ten, alone and among others."""
        expected = [f"{number}," for number in _EDGES]

        assert _texts(textcolumns.numbers(np.array(_EDGES, np.uint64))) == expected
        assert [
            _texts(textcolumns.numbers(np.array([number], np.uint64)))[0] for number in _EDGES
        ] == expected
        assert _texts(textcolumns.numbers(np.array([1 << 70, 0], object))) == [f"{1 << 70},", "0,"]

    def test_times_are_rounded_as_python_does(self) -> None:
        """Each representable fraction is; half a nanosecond goes to the even one."""
        halves = 1e9 + (2 * np.arange(-8000, 8000) + 1) / 2**10
        random = np.random.default_rng(23).uniform(1e9, 1e10, 20011)
        for times in (halves[halves >= 1e9], random, np.nextafter([1e9, 1e10, 2e9], 0)):
            assert _texts(textcolumns.times(times)) == [f"{time:.9f}," for time in times.tolist()]

    def test_addresses(self) -> None:
        """IPv4 alone, and with IPv6 and none between."""
        four = ["0.0.0.0", "1.22.255.9", "255.255.255.255", "10.0.100.99"]
        other = ["::1", "2001:db8::7", "fe80:1234:5678:9abc:def0:1234:5678:9abc"]
        for addresses in (four, four + other, other, other[:1] + four):
            column = textcolumns.addresses(
                np.array([*map(packed, addresses), bytes(16)], "V16")[: len(addresses)]
            )
            assert _texts(column) == [f"{address}," for address in addresses]
        assert _texts(textcolumns.addresses(np.zeros(2, "V16"))) == [",", ","]
