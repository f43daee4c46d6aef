"""A checkpoint: what has been accounted for up to one moment, in a file that is there whole or not at all.

A line of JSON that describes what follows, then numpy arrays as bytes, each as long as the line says, and
the CRC-32 of all that in four bytes, the lowest first. It belongs on a tmpfs: it is written at every tick,
and worth nothing after a boot.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import NetmondError

#: The version of all this.
FORMAT = 1

_CHECK = 4  # bytes

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`about` is JSON; arrays are of plain types (numbers, bytes) in one or two dimensions."""

    about: Mapping[str, Any]
    arrays: Arrays


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file. NetmondError: it could not, and what was there before still is."""
    draft = path.with_suffix(".new")
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    header = {
        "format": FORMAT,
        "about": checkpoint.about,
        "arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()],
    }
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb", buffering=0) as file:
            check = _put(file, json.dumps(header).encode() + b"\n", 0)
            for array in arrays.values():
                check = _put(file, array.reshape(-1).view(np.uint8).data, check)
            _put(file, check.to_bytes(_CHECK, "little"), 0)
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()  # it may be the space that is missing
        raise NetmondError(f"cannot write {path}: {error.strerror}") from error


def read(path: Path) -> Checkpoint | None:
    """What was written there, None: nothing. NetmondError: it cannot be used."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return _parse(file.read())
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever damage may lead to
        raise NetmondError(f"cannot use {path}: {error}") from error


def _put(file: io.RawIOBase, data: bytes | memoryview, check: int) -> int:
    """Writes all of it; returns the check of what was written before with that of `data`."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    return zlib.crc32(data, check)


def _parse(data: bytes) -> Checkpoint:
    at = data.index(b"\n") + 1
    header = json.loads(data[:at])
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']}, this version of netmond has {FORMAT}")
    if zlib.crc32(memoryview(data)[:-_CHECK]) != int.from_bytes(data[-_CHECK:], "little"):
        raise ValueError("it is damaged, or cut short")
    arrays = {}
    for name, kind, shape in header["arrays"]:
        array = np.zeros(shape, np.dtype(kind))
        array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8, array.nbytes, at)
        at += array.nbytes
        arrays[name] = array
    return Checkpoint(header["about"], arrays)
