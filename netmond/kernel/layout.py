"""Record layouts as data, so that a newer netmond can read what an older one's programs counted.

A layout tells for each number in a record where it is; names are those of wire.py, with dots between the
levels and an index in brackets. What a name means never changes; fields come and go under new names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of each field: its numpy type, and where it begins, in bytes.
Fields = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A record of `size` bytes."""

    size: int
    fields: Fields

    @staticmethod
    def of(dtype: np.dtype[Any]) -> Layout:
        return Layout(dtype.itemsize, dict(_fields(dtype)))

    @staticmethod
    def from_json(value: Any) -> Layout:
        """Of what json makes of to_json()."""
        size, fields = value
        return Layout(int(size), {name: (str(kind), int(offset)) for name, (kind, offset) in fields.items()})

    def to_json(self) -> Any:
        return [self.size, self.fields]

    def convert(self, records: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A copy of records of this layout in another one, field by field; zero where there was none."""
        raw = np.ascontiguousarray(records).view(f"V{self.size}")
        converted = np.zeros(len(raw), dtype)
        into = converted.view(f"V{dtype.itemsize}")
        for name, (kind, offset) in _fields(dtype):
            if name in self.fields:
                old_kind, old_offset = self.fields[name]
                _column(into, kind, offset)[:] = _column(raw, old_kind, old_offset)
        return converted


def _fields(
    dtype: np.dtype[Any], prefix: str = "", offset: int = 0
) -> Iterator[tuple[str, tuple[str, int]]]:
    """Name, and type and place, of every field that holds a value."""
    if dtype.subdtype is not None:
        element, shape = dtype.subdtype
        for index in range(int(np.prod(shape))):
            yield from _fields(element, f"{prefix}[{index}]", offset + index * element.itemsize)
    elif dtype.fields is not None:
        for name, (kind, at, *_) in dtype.fields.items():
            yield from _fields(kind, f"{prefix}.{name}" if prefix else name, offset + at)
    else:
        yield prefix, (dtype.str, offset)


def _column(raw: NDArray[Any], kind: str, offset: int) -> NDArray[Any]:
    """One field of records given as bytes, live."""
    dtype = np.dtype({"names": ["value"], "formats": [kind], "offsets": [offset], "itemsize": raw.itemsize})
    column: NDArray[Any] = raw.view(dtype)["value"]
    return column
