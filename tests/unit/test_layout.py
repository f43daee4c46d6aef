"""Records of an earlier build as those of today: every field where it is now."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpys
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.former import INTERFACE_LAYOUTS, SOCKET_LAYOUTS
from netmond.kernel.layout import Layout

NOW = np.dtype([("bytes", "u8"), ("packets", "u4"), ("note", "u4"), ("comm", "S16")])


def converted(records: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """As a later build sees them: it knows the layout from a file, and the records as bytes."""
    layout = Layout.from_json(json.loads(json.dumps(Layout.of(records.dtype).to_json())))
    return layout.convert(np.frombuffer(records.tobytes(), f"V{records.itemsize}"), dtype)


def test_the_same_layout() -> None:
    """Nothing changes, and it is a copy."""
    records = np.array([(7, 8, 9, b"curl"), (2**64 - 1, 2**32 - 1, 0, bytes(range(1, 17)))], NOW)

    same = converted(records, NOW)

    assert same.tolist() == records.tolist()
    assert not np.shares_memory(same, records)
    assert Layout.of(NOW).convert(records, NOW).tolist() == records.tolist()


def test_another_order() -> None:
    """Fields are found by their names."""
    before = np.dtype([("comm", "S16"), ("note", "u4"), ("bytes", "u8"), ("packets", "u4")])
    records = np.array([(b"curl", 9, 7, 8)], before)

    assert converted(records, NOW).tolist() == [(7, 8, 9, b"curl")]


def test_a_field_is_new() -> None:
    """It begins at zero."""
    before = np.dtype([("bytes", "u8"), ("comm", "S16")])

    assert converted(np.array([(7, b"curl")], before), NOW).tolist() == [(7, 0, 0, b"curl")]


def test_a_field_is_gone() -> None:
    """What it held is left out, and what comes behind it moves up."""
    before = np.dtype([("bytes", "u8"), ("gone", "u8"), ("packets", "u4"), ("note", "u4"), ("comm", "S16")])

    assert converted(np.array([(7, 101, 8, 9, b"curl")], before), NOW).tolist() == [(7, 8, 9, b"curl")]


def test_a_field_is_wider() -> None:
    """Its value stays, text included."""
    before = np.dtype([("bytes", "u4"), ("packets", "u2"), ("note", "u4"), ("comm", "S4")])
    records = np.array([(2**32 - 1, 2**16 - 1, 9, b"curl")], before)

    assert converted(records, NOW).tolist() == [(2**32 - 1, 2**16 - 1, 9, b"curl")]


def test_gaps() -> None:
    """Alignment is no field: it neither comes along nor gets in the way."""
    before = np.dtype(
        {"names": ["packets", "bytes"], "formats": ["u4", "u8"], "offsets": [4, 16], "itemsize": 40}
    )
    records = np.frombuffer(b"\xff" * 4 + b"\x08" + bytes(3) + b"\xff" * 8 + b"\x07" + bytes(23), before)

    assert converted(records, NOW).tolist() == [(7, 8, 0, b"")]


def test_structures_in_structures() -> None:
    """A field is known by its whole name, as `in.bytes`; another structure has another."""
    side = np.dtype([("bytes", "u8"), ("packets", "u8")])
    turned = np.dtype([("packets", "u8"), ("extra", "u8"), ("bytes", "u8")])
    records = np.array([((1, 2), (3, 4))], [("in", side), ("out", side)])

    assert converted(records, np.dtype([("out", turned), ("in", turned)])).tolist() == [
        ((4, 0, 3), (2, 0, 1))
    ]
    assert converted(records, np.dtype([("bytes", "u8"), ("across", side)])).tolist() == [(0, (0, 0))]


@pytest.mark.parametrize(("length", "expected"), [(2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 0, 0])])
def test_arrays(length: int, expected: list[int]) -> None:
    """Each place is a field: a longer array ends with zeros, a shorter one goes without the rest."""
    records = np.array([([1, 2, 3],)], [("class", "u8", 3)])

    assert converted(records, np.dtype([("class", "u8", length)]))["class"].tolist() == [expected]


def test_arrays_of_structures() -> None:
    """As port_counters has them: per class, packets and bytes."""
    before = np.dtype([("class", [("packets", "u8"), ("bytes", "u8")], 2)])
    now = np.dtype([("class", [("bytes", "u8"), ("packets", "u8")], 3), ("stack", "u8")])
    records = np.array([([(1, 10), (2, 20)],)], before)

    (found,) = converted(records, now)

    assert found["class"].tolist() == [(10, 1), (20, 2), (0, 0)]
    assert found["stack"] == 0


def test_no_record() -> None:
    """An empty array of today's type."""
    assert converted(np.zeros(0, [("bytes", "u4")]), NOW).dtype == NOW
    assert len(converted(np.zeros(0, [("bytes", "u4")]), NOW)) == 0


_TYPES = st.one_of(
    numpys.unsigned_integer_dtypes(endianness="="),
    numpys.byte_string_dtypes(endianness="=", min_len=1, max_len=16),
    numpys.array_dtypes(numpys.unsigned_integer_dtypes(endianness="="), max_size=4),
)
_NAMES = st.sampled_from(["bytes", "packets", "in", "out", "class", "comm", "note"])
_STRUCTURES = st.recursive(
    _TYPES,
    lambda inner: st.lists(
        st.tuples(_NAMES, inner), min_size=1, max_size=5, unique_by=lambda each: str(each[0])
    ).map(np.dtype),
    max_leaves=8,
).filter(lambda dtype: dtype.names is not None)


@given(data=st.data(), dtype=_STRUCTURES)
def test_there_and_back(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    """Whatever the structure: to another order of its fields with one more, and back: all is there."""
    names = data.draw(st.permutations(dtype.names or ()))
    other = np.dtype([("more", "u8"), *((name, dtype[name]) for name in names)])
    bytes_ = data.draw(st.binary(min_size=3 * dtype.itemsize, max_size=3 * dtype.itemsize))
    records = np.frombuffer(bytes_, dtype)

    there = converted(records, other)

    assert not there["more"].any()
    assert converted(there, dtype).tobytes() == records.tobytes()


@pytest.mark.parametrize(
    ("layouts", "name", "dtype"),
    [
        (SOCKET_LAYOUTS, "slot", wire.SLOT),
        (SOCKET_LAYOUTS, "flow", wire.FLOW),
        (SOCKET_LAYOUTS, "overflow_key", wire.OVERFLOW_KEY),
        (SOCKET_LAYOUTS, "tally", wire.TALLY),
        (INTERFACE_LAYOUTS, "port_counters", wire.PORT_COUNTERS),
        (INTERFACE_LAYOUTS, "target_counters", wire.TARGET_COUNTERS),
    ],
)
def test_what_is_kept_for_a_later_version(layouts: Any, name: str, dtype: np.dtype[Any]) -> None:
    """JSON that tells where every field of the kernel's records is."""
    layout = Layout.from_json(json.loads(json.dumps(layouts))[name])
    records = np.frombuffer(bytes(number % 251 + 1 for number in range(3 * dtype.itemsize)), dtype)

    same = layout.convert(records, dtype)

    assert layout.size == dtype.itemsize
    assert {field.partition(".")[0].partition("[")[0] for field in layout.fields} == set(dtype.names or ())
    for field in dtype.names or ():
        assert same[field].tobytes() == records[field].tobytes()
