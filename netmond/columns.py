"""Columns of numpy arrays as keys of rows: their values for chosen rows only, and arrays to sort by."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.model import COUNTERS, IN_BYTES, OUT_BYTES, RATES, Table

Array = NDArray[Any]
Index = NDArray[Any]  # of row numbers
Row = dict[str, Any]

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One key of a list. `values` gives Python values, `keys` arrays to sort by, the first decides."""

    values: Callable[[Index], list[Any]]
    keys: Callable[[Index], tuple[Array, ...]]
    text: bool = False  #: sorts ascending unless reversed, numbers descending
    optional: bool = False  #: a row whose value is None has no such key


View = Mapping[str, Column]


def rows(view: View, index: Index) -> Iterator[Row]:
    """The rows at `index`, made a few at a time, so that a long answer never exists as Python objects."""
    optional = [name for name, column in view.items() if column.optional]
    for start in range(0, len(index), _CHUNK):
        chunk = index[start : start + _CHUNK]
        for values in zip(*(column.values(chunk) for column in view.values()), strict=True):
            row = dict(zip(view, values, strict=True))
            for name in optional:
                if row[name] is None:
                    del row[name]
            yield row


def first(column: Column, index: Index, limit: int, *, reverse: bool) -> Index:
    """The first `limit` (0: all) of `index` in the column's order, ties in the order of `index`."""
    chosen: Index
    keys = column.keys(index)
    if column.text or len(keys) > 1:
        order = np.lexsort(keys[::-1])
        if reverse:  # sorting the mirrored rows and mirroring the result keeps ties in order
            last = len(index) - 1
            order = last - np.lexsort([key[::-1] for key in keys[::-1]])[::-1]
        chosen = index[order[:limit] if limit else order]
        return chosen
    key = keys[0]
    if not reverse:
        key = -key if key.dtype.kind == "f" else ~key
    if 0 < limit < len(key):
        candidates = np.flatnonzero(key <= np.partition(key, limit - 1)[limit - 1])
        chosen = index[candidates[np.argsort(key[candidates], kind="stable")][:limit]]
    else:
        chosen = index[np.argsort(key, kind="stable")]
    return chosen


def address_words(array: Array) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A V16 address column as its high and low 64 bits."""
    words = np.ascontiguousarray(array).view(">u8").reshape(-1, 2).astype(np.uint64)
    return words[:, 0], words[:, 1]


def mapped(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Array:
    """Which addresses are IPv4 ones."""
    four: Array = (high == 0) & (low >> np.uint64(32) == 0xFFFF)
    return four


def known_address(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Array:
    """Which addresses are not "any" of either family."""
    known: Array = ((high | low) != 0) & ~((high == 0) & (low == 0xFFFF << 32))
    return known


def address(array: Array) -> Column:
    """A V16 column as text, empty for "any"; sorted by number."""
    return Column(
        values=lambda index: _address_texts(array[index]),
        keys=lambda index: address_words(array[index]),
        text=True,
    )


def _list(array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def number(array: Array) -> Column:
    """Numbers of any kind."""
    return Column(values=lambda index: _list(array[index]), keys=lambda index: (array[index],))


def text(array: Array) -> Column:
    """An object array of str."""
    return Column(
        values=lambda index: _list(array[index]), keys=lambda index: (array[index].astype(str),), text=True
    )


def command(array: Array) -> Column:
    """Command names as the kernel has them: bytes, up to 15 and a zero."""

    def values(index: Index) -> list[str]:
        return [comm.split(b"\0")[0].decode(errors="replace") for comm in _list(array[index])]

    return Column(values=values, keys=lambda index: (array[index],), text=True)


def named(array: Array, name_of: Callable[[int], str]) -> Column:
    """Numbers shown as names: few different ones, so the names are ranked instead of the rows."""

    def keys(index: Index) -> tuple[Array, ...]:
        codes, inverse = np.unique(array[index], return_inverse=True)
        _, ranks = np.unique([name_of(code) for code in codes.tolist()], return_inverse=True)
        return (ranks[inverse],)

    return Column(values=lambda index: [name_of(code) for code in _list(array[index])], keys=keys, text=True)


def where(there: Array, column: Column) -> Column:
    """A column that only some rows have; text of the others sorts first."""

    def values(index: Index) -> list[Any]:
        known = zip(column.values(index), _list(there[index]), strict=True)
        return [value if is_there else None for value, is_there in known]

    def keys(index: Index) -> tuple[Array, ...]:
        return (there[index], *column.keys(index)) if column.text else column.keys(index)

    return replace(column, values=values, keys=keys, optional=True)


def figures(table: Table, names: Sequence[str] = COUNTERS) -> dict[str, Column]:
    """Counters (the first of them, by `names`), rates and their sums over both directions."""
    counters, rates = table.counters, table.rates
    rate_in, rate_out = RATES.index("in_byte_rate"), RATES.index("out_byte_rate")
    return {
        **{name: number(counters[:, place]) for place, name in enumerate(names)},
        **{name: number(rates[:, place]) for place, name in enumerate(RATES)},
        "bytes": total(counters[:, IN_BYTES], counters[:, OUT_BYTES]),
        "byte_rate": total(rates[:, rate_in], rates[:, rate_out]),
    }


def total(first: Array, *more: Array) -> Column:
    """The sum of columns of numbers."""

    def sums(index: Index) -> Array:
        return reduce(np.add, (part[index] for part in more), first[index])

    return Column(values=lambda index: _list(sums(index)), keys=lambda index: (sums(index),))


def _address_texts(array: Array) -> list[str]:
    raw = array.tobytes()
    return [_address_text(raw[at : at + 16]) for at in range(0, len(raw), 16)]


def _address_text(raw: bytes) -> str:
    if not any(raw) or raw == _MAPPED_PREFIX + bytes(4):
        return ""
    if raw.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)
