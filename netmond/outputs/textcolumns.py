"""Columns of numbers, times, addresses and texts as lines, without a Python object for each row.

Text is held in words of 8 bytes: up to 8 characters at the end of a word count, whatever stands before
them. So a number is its digits with leading zeros, taken four at a time from a table, and no step looks at
a single row. `lines` lays the words of all rows into one buffer, column by column from the last to the
first, each where it ends: what a word has too much is overwritten by the one before it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORD = 8  # bytes
_NANO = 10**9
_MAPPED = bytes(10) + b"\xff\xff"
_ANY = bytes(16)


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Text of some rows: words (n, rows) from left to right, and how many characters of each count."""

    words: NDArray[np.uint64]
    lengths: NDArray[np.uint8]

    def take(self, rows: NDArray[np.intp]) -> Column:
        """Some of the rows, in any order, also several times."""
        return Column(self.words.take(rows, axis=1), self.lengths.take(rows, axis=1))


def _table(texts: Iterable[bytes], dtype: str) -> NDArray[Any]:
    """Texts that end where the items of an array end. One by one: a list of 65,536 would leave Python with
    1 MB that it does not give back."""
    size = np.dtype(dtype).itemsize
    return np.fromiter((text.rjust(size) for text in texts), f"S{size}").view(dtype)


def _split(lengths: NDArray[np.intp], words: int) -> NDArray[np.uint8]:
    """How many of so many characters (n) are in each of some words: (words, n)."""
    before = _WORD * np.arange(words)[::-1]
    return np.minimum(np.maximum(lengths - before[:, None], 0), _WORD).astype(np.uint8)


_FOUR = _table((b"%04d" % number for number in range(10_000)), "u4")
_THREE = _table((b"%03d," % number for number in range(1000)), "u4")
_THREE_AND_POINT = _table((b"%03d." % number for number in range(1000)), "u4")
_POWERS = np.array([10**digits for digits in range(1, 20)], np.uint64)
_NUMBER_LENGTHS = _split(np.arange(1, 21) + 1, 3)  # of digits, less one
_TIME_LENGTHS = np.array([[7], [8], [6]], np.uint8)

_OCTETS = _table([b"%d." % octet for octet in range(256)], "<u8")
_COMMA_FOR_POINT = np.uint64((ord(".") ^ ord(",")) << 56)
_OCTET_LENGTHS = np.array([len(str(octet)) + 1 for octet in range(256)], np.uint8)


def numbers(values: NDArray[Any]) -> Column:
    """Whole numbers (rows,) from 0 on, with a comma behind each.

    uint64, or Python's own in an array of objects: those are slow, but have no bounds.
    """
    if values.dtype == object:
        return texts([b"%d," % value for value in values.tolist()])
    least, most = values.min(), values.max()
    count = 1 + (most >= 10**7) + (most >= 10**15)
    halves = np.empty((count, len(values), 2), np.uint32)
    alike = _POWERS.searchsorted(least, "right") == _POWERS.searchsorted(most, "right")
    digits = _POWERS.searchsorted(values[:1] if alike else values, "right")  # less one
    lengths = np.broadcast_to(_NUMBER_LENGTHS[-count:].take(digits, axis=1), (count, len(values)))
    unit, table = 1000, _THREE  # the last word has three digits less: the comma
    for word in reversed(range(count)):
        above = values // (unit * 10_000)
        lower = (values - above * (unit * 10_000)).view(np.int64)
        upper = lower // unit
        halves[word, :, 0] = _FOUR.take(upper)
        halves[word, :, 1] = table.take(lower - upper * unit)
        values, unit, table = above, 10_000, _FOUR
    return Column(halves.view(np.uint64)[..., 0], lengths)


def small_numbers(values: NDArray[np.unsignedinteger[Any]]) -> Column:
    """Numbers of 16 bits (rows,), with a comma behind each: from a table, in a third of the time."""
    words, lengths = _small_numbers()
    places = values.astype(np.intp)
    return Column(words.take(places)[None], lengths.take(places)[None])


@cache
def _small_numbers() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    column = numbers(np.arange(1 << 16, dtype=np.uint64))
    return column.words[0].copy(), column.lengths[0].copy()


def times(seconds: NDArray[np.float64]) -> Column:
    """Unix times (rows,) with nine decimals, rounded as Python does, and a comma behind each."""
    if not (seconds.min() >= _NANO and seconds.max() < 10 * _NANO):
        return texts([b"%.9f," % value for value in seconds.tolist()])  # before 2001, after 2286
    whole = seconds.astype(np.int64)
    # Exact: the fraction has at most 23 bits, and 10**9 is a number of 21 bits times 2**9.
    return _times(whole, np.rint((seconds - whole) * _NANO).astype(np.int64))


def exact_times(nanoseconds: NDArray[np.int64]) -> Column:
    """Unix times in whole nanoseconds (rows,), as seconds with nine decimals, and a comma behind each."""
    second = int(nanoseconds.min()) // _NANO
    same = int(nanoseconds.max()) // _NANO == second
    whole = np.array([second]) if same else nanoseconds // _NANO
    nanos = nanoseconds - whole * _NANO
    if not (whole.min() >= _NANO and whole.max() < 10 * _NANO):
        return texts([b"%d.%09d," % divmod(value, _NANO) for value in nanoseconds.tolist()])
    return _times(whole, nanos)


def _times(whole: NDArray[np.int64], nanos: NDArray[np.int64]) -> Column:
    """Seconds of ten digits, of each row or of all, and what is beyond them."""
    thousands, tens_of_us = whole // 1000, nanos // 100_000
    first, last = thousands // 10_000, nanos - tens_of_us * 100_000
    upper = last // 1000
    halves = np.empty((3, len(nanos), 2), np.uint32)
    halves[0, :, 0] = _FOUR.take(first)
    halves[0, :, 1] = _FOUR.take(thousands - first * 10_000)
    halves[1, :, 0] = _THREE_AND_POINT.take(whole - thousands * 1000)
    halves[1, :, 1] = _FOUR.take(tens_of_us)
    halves[2, :, 0] = _FOUR.take(upper)
    halves[2, :, 1] = _THREE.take(last - upper * 1000)
    words = halves.view(np.uint64)[..., 0]
    return Column(words, np.broadcast_to(_TIME_LENGTHS, words.shape))


def addresses(packed: NDArray[np.void]) -> Column:
    """Addresses V16 (rows,) as text, none for "any", with a comma behind each."""
    groups = packed.view(">u2").reshape(-1, _GROUPS)
    upper, lower = groups[:, -2].astype(np.intp), groups[:, -1].astype(np.intp)
    pairs, pair_lengths = _octet_pairs()
    words = np.stack((pairs.take(upper), pairs.take(lower) ^ _COMMA_FOR_POINT))
    lengths = np.stack((pair_lengths.take(upper), pair_lengths.take(lower)))
    quarters = packed.view("<u4").reshape(-1, 4)
    other = (quarters[:, 0] | quarters[:, 1] | quarters[:, 2] ^ 0xFFFF0000).nonzero()[0]
    if not len(other):
        return Column(words, lengths)
    column = Column(*(np.zeros((_GROUPS, len(packed)), kind) for kind in (np.uint64, np.uint8)))
    column.words[-2:], column.lengths[-2:] = words, lengths
    column.words[:, other], column.lengths[:, other] = _addresses6(packed[other])
    other = other[(quarters[other, :3] == 0).all(axis=1)]
    if len(other):  # "any", ::1, and those that end as IPv4 does
        named = looked_up(packed[other].tolist(), lambda key: f"{address(key)},".encode())
        column.lengths[:, other] = 0
        count = len(named.words)
        column.words[-count:, other], column.lengths[-count:, other] = named.words, named.lengths
    return column


@cache
def _octet_pairs() -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Two octets by the number of 16 bits they are: words that end in a point, and their lengths."""
    first, second = np.divmod(np.arange(1 << 16), 256)
    front = _OCTETS[first] >> 8 * _OCTET_LENGTHS[second].astype(np.uint64)
    return front | _OCTETS[second], _OCTET_LENGTHS[first] + _OCTET_LENGTHS[second]


def _addresses6(packed: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Words and lengths (8, rows) of IPv6 addresses as RFC 5952 writes them, a word for each group.

    The longest run of zeros is left out: of its groups the first is a colon, or two in front of all; the
    address' last group is the comma then.
    """
    groups = packed.view(">u2").reshape(-1, _GROUPS).T.astype(np.uint16)
    in_run = _runs()[:, np.packbits(groups == 0, axis=0)[0]]
    digits = _hexadecimal().take(groups).astype(np.uint64) << 24 | _GROUP_ENDS
    natural = 2 + (groups > 0xF) + (groups > 0xFF) + (groups > 0xFFF)
    run = in_run != _NO_RUN
    return np.where(run, _RUN_TEXTS, digits), np.where(run, in_run, natural.astype(np.uint8))


_GROUPS, _NO_RUN = 8, 0xFF
_GROUP_ENDS = _table([b":"] * 7 + [b","], "<u8")[:, None] >> 56 << 56
_RUN_TEXTS = _table([8 * b":"] * 7 + [7 * b":" + b","], "<u8")[:, None]


@cache
def _hexadecimal() -> NDArray[np.uint32]:
    """Four digits for each number of 16 bits."""
    return _table((b"%4x" % number for number in range(1 << 16)), "<u4")


@cache
def _runs() -> NDArray[np.uint8]:
    """For each pattern of groups that are zero (the first is the highest bit), how many characters each
    group (8, patterns) has in the run that is left out."""
    lengths = np.full((_GROUPS, 256), _NO_RUN, np.uint8)
    for pattern in range(256):
        runs = [match.span() for match in re.finditer("1{2,}", f"{pattern:08b}")]
        for begin, end in sorted(runs, key=lambda span: span[0] - span[1])[:1]:
            lengths[begin:end, pattern] = 0
            lengths[begin, pattern] = 2 if begin == 0 else 1
            if end == _GROUPS:
                lengths[-1, pattern] = 1
    return lengths


@lru_cache(maxsize=4096)
def address(packed: bytes) -> str:
    """An address of 16 bytes as text; empty for "any"."""
    if packed == _ANY:
        return ""
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


def looked_up(keys: Sequence[bytes], text: Callable[[bytes], bytes]) -> Column:
    """What `text` makes of each key (rows,); it is asked once for each that is different."""
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return texts(list(map(text, places))).take(
        np.fromiter(map(places.__getitem__, keys), np.intp, len(keys))
    )


def texts(values: Sequence[bytes]) -> Column:
    """Texts (rows,) of any length, as they are."""
    lengths = np.array(list(map(len, values)), np.intp)
    count = -(-int(lengths.max()) // _WORD)
    words = np.frombuffer(b"".join([value.rjust(count * _WORD) for value in values]), np.uint64)
    return Column(words.reshape(len(values), count).T, _split(lengths, count))


def lines(first: Sequence[Column], second: Sequence[Column]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """All rows of these columns as one text, and where each of them ends in it.

    Each row has at least 8 characters in the first columns, and in the second.
    """
    total = np.zeros(first[0].words.shape[1], np.uint32)
    for column in (*first, *second):
        for length in column.lengths:
            total += length
    ends = total.cumsum(dtype=np.intp)
    at = ends.copy()  # where the next word of each row ends
    buffer = np.empty(_WORD + int(ends[-1]), np.uint8)  # in front is room for what is too much
    # One begins at each byte.
    words: NDArray[np.uint64] = np.ndarray(len(buffer) - _WORD + 1, np.uint64, buffer, strides=(1,))
    _lay(second, words, at)
    last = words[ends]
    _lay(first, words, at)
    words[ends] = last  # what the next row's first words have too much was laid over it
    return buffer[_WORD:], ends


def _lay(columns: Sequence[Column], words: NDArray[np.uint64], at: NDArray[np.intp]) -> None:
    for column in reversed(columns):
        for word, length in zip(column.words[::-1], column.lengths[::-1], strict=True):
            words[at] = word
            at -= length
