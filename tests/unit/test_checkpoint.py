"""The file between two daemons: whole or not there, and never wrong."""

from __future__ import annotations

import json
import os
import resource
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpys
from numpy.typing import NDArray

from netmond.checkpoint import FORMAT, Arrays, Checkpoint, Encoded, read, write
from netmond.errors import NetmondError
from netmond.kernel import wire

ABOUT: dict[str, Any] = {"boot": "07" * 16, "moment": {"since": 23.5}, "generations": [{"id": 101}]}
ARRAYS: Arrays = {
    "own.slots.last": np.arange(18, dtype=np.uint64).reshape(3, 6),
    "totals.user.uid": np.array([0, 1234], np.uint32),
    "totals.user.counters": np.zeros((0, 8), np.uint64),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sockets.checkpoint"


def found(path: Path) -> Checkpoint:
    checkpoint = read(path)
    assert checkpoint is not None
    return checkpoint


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """In type, shape and every byte; a structured type comes back as plain bytes of its size."""
    return (one.shape, one.itemsize, one.tobytes()) == (other.shape, other.itemsize, other.tobytes())


_KINDS = st.one_of(
    numpys.integer_dtypes(endianness="="),
    numpys.unsigned_integer_dtypes(endianness="="),
    numpys.floating_dtypes(endianness="="),
    numpys.boolean_dtypes(),
    numpys.byte_string_dtypes(endianness="=", min_len=1, max_len=45),
)
_SHAPES = numpys.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=7)
_ARRAYS = st.dictionaries(st.text(max_size=9), numpys.arrays(_KINDS, _SHAPES), max_size=5)
_ABOUT = st.dictionaries(
    st.text(max_size=9), st.recursive(st.none() | st.integers() | st.text(max_size=9), st.lists), max_size=3
)


@given(about=_ABOUT, arrays=_ARRAYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_was_written_is_read(
    path: Path, about: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Arrays of every plain type and shape, in their order, and what is said about them."""
    write(path, Checkpoint(about, arrays))

    checkpoint = found(path)

    assert checkpoint.about == about
    assert list(checkpoint.arrays) == list(arrays)
    for name, array in arrays.items():
        assert checkpoint.arrays[name].dtype == array.dtype
        assert same(checkpoint.arrays[name], array)


def test_what_is_encoded_already(path: Path) -> None:
    """It is written as it is, to the same file as the value would be."""
    write(path, Checkpoint(ABOUT, ARRAYS))
    plain = path.read_bytes()

    write(path, Checkpoint({**ABOUT, "generations": Encoded(json.dumps(ABOUT["generations"]))}, ARRAYS))

    assert path.read_bytes() == plain
    assert found(path).about == ABOUT


def test_large_and_small_arrays(path: Path) -> None:
    """What goes through the buffer and what does not come in order."""
    arrays = {f"{size}": np.arange(size, dtype=np.uint64) for size in (1, 9973, 0, 2, 4001, 3)}
    write(path, Checkpoint({}, arrays))

    assert all(same(found(path).arrays[name], array) for name, array in arrays.items())


@pytest.mark.parametrize("rows", [0, 1, 23])
def test_records(path: Path, rows: int) -> None:
    """Structured ones are there byte by byte, to be seen as what they are."""
    records = np.zeros(rows, wire.FORWARDED_KEY)
    records["source_port"] = range(rows)
    write(path, Checkpoint({}, {"keys": records}))

    again = found(path).arrays["keys"].view(wire.FORWARDED_KEY)
    assert again["source_port"].tolist() == list(range(rows))
    assert same(again, records)


def test_views_of_larger_arrays(path: Path) -> None:
    """Every second row, a column, the other way round: what is seen is what is kept."""
    whole = np.arange(48, dtype=np.uint64).reshape(8, 6)
    views = {"rows": whole[::2], "column": whole[:, 3], "backwards": whole[::-1]}
    write(path, Checkpoint({}, views))

    assert all(same(found(path).arrays[name], view) for name, view in views.items())


def test_what_was_read_can_be_written_to(path: Path) -> None:
    """Accounting goes on in these very arrays."""
    write(path, Checkpoint({}, ARRAYS))
    array = found(path).arrays["totals.user.uid"]

    array += 1

    assert array.tolist() == [1, 1235]


def test_nothing_was_written(path: Path) -> None:
    """There is no checkpoint, which is no error."""
    assert read(path) is None


def test_the_latest_counts(path: Path) -> None:
    """A shorter one leaves nothing of a longer one, nor any other file; only the owner may read it."""
    for size in (1009, 3):
        write(path, Checkpoint({"size": size}, {"array": np.full(size, size)}))

    assert found(path).about == {"size": 3}
    assert found(path).arrays["array"].tolist() == [3, 3, 3]
    assert os.listdir(path.parent) == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


# -- damage ------------------------------------------------------------------------------------------------


def refused(path: Path, data: bytes) -> str:
    """The one line that says why these bytes are no checkpoint."""
    path.write_bytes(data)
    with pytest.raises(NetmondError) as caught:
        read(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"cannot use {path}: ")
    return line


def written(path: Path) -> bytes:
    write(path, Checkpoint(ABOUT, ARRAYS))
    return path.read_bytes()


def test_cut_short_anywhere(path: Path) -> None:
    """However many bytes are missing at the end."""
    whole = written(path)

    for length in range(len(whole)):
        refused(path, whole[:length])


@pytest.mark.parametrize("flipped", [0x01, 0x80, 0xFF])
def test_any_byte_damaged(path: Path, flipped: int) -> None:
    """Whichever it is: of a figure, a name, a type, a shape or the check."""
    whole = written(path)

    for place in range(len(whole)):
        refused(path, whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])


def test_more_than_there_should_be(path: Path) -> None:
    """A byte too many at the end, or two files in one."""
    whole = written(path)

    refused(path, whole + b"\0")
    refused(path, whole + whole)


def test_not_a_checkpoint_at_all(path: Path) -> None:
    """Whatever else may lie there."""
    for data in (b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"[" * 100_000 + b"\n", b"\xff\xfe", bytes(4096)):
        refused(path, data)


def test_one_of_a_later_version(path: Path) -> None:
    """The reason names both formats, also if that version closes its files in another way."""
    line = json.dumps({"format": FORMAT + 1, "sections": []}).encode() + b"\n"
    reason = f"its format is {FORMAT + 1}, this version of netmond has {FORMAT}"

    assert reason in refused(path, line)
    assert reason in refused(path, line + zlib.crc32(line).to_bytes(4, "little"))


# -- what may be in the way --------------------------------------------------------------------------------


def test_a_link_in_the_way_of_reading(path: Path) -> None:
    """It is not followed: nobody else chooses what is read."""
    other = path.with_name("other")
    written(other)
    path.symlink_to(other)

    with pytest.raises(NetmondError, match="cannot use"):
        read(path)


def test_a_link_in_the_way_of_writing(path: Path) -> None:
    """What it points to stays as it is; the link is taken away, so that the next one succeeds."""
    other = path.with_name("other")
    other.write_text("somebody's")
    path.with_suffix(".new").symlink_to(other)

    with pytest.raises(NetmondError, match="cannot write"):
        write(path, Checkpoint(ABOUT, ARRAYS))

    assert other.read_text() == "somebody's"
    write(path, Checkpoint(ABOUT, ARRAYS))
    assert found(path).about == ABOUT


def test_a_link_where_the_file_should_be(path: Path) -> None:
    """It is replaced, not followed."""
    other = path.with_name("other")
    other.write_text("somebody's")
    path.symlink_to(other)

    write(path, Checkpoint(ABOUT, ARRAYS))

    assert other.read_text() == "somebody's"
    assert not path.is_symlink()


def test_no_directory(path: Path) -> None:
    """An error in a line that names the file."""
    lost = path.parent / "nowhere" / path.name

    with pytest.raises(NetmondError, match=f"cannot write {lost}: No such file or directory"):
        write(lost, Checkpoint(ABOUT, ARRAYS))
    assert read(lost) is None


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process may become larger than so many bytes: EFBIG, as a full disk gives ENOSPC.
    (Python ignores SIGXFSZ.)"""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_anywhere(path: Path) -> None:
    """Wherever the space ends: an error, the one before is still there, and nothing takes up space."""
    size = len(written(path))
    whole = path.read_bytes()

    for room in range(size):
        with room_for(room), pytest.raises(NetmondError, match=r"cannot write .*: File too large"):
            write(path, Checkpoint(ABOUT, ARRAYS))
    assert path.read_bytes() == whole
    assert os.listdir(path.parent) == [path.name]

    with room_for(size):
        write(path, Checkpoint(ABOUT, ARRAYS))
