"""A checkpoint: what has been accounted for up to one moment, in a file that is there whole or not at all.

A line of JSON that describes what follows, then numpy arrays as bytes, each as long as the line says, and
a check of all that in four bytes, the lowest first. It belongs on a tmpfs: it is written at every tick,
and worth nothing after a boot.
"""

from __future__ import annotations

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
_SMALL = 1 << 14  # bytes written at once; larger arrays are not copied for that
_OF_NOTHING = bytes(8)  # the sum of no words

Arrays = Mapping[str, NDArray[Any]]


class Encoded(str):
    """JSON as text, in the place of a value of `about` that is the same at every tick."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """`about` is JSON; arrays are of plain types (numbers, bytes) in one or two dimensions."""

    about: Mapping[str, Any]
    arrays: Arrays


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces the file. NetmondError: it could not, and what was there before still is."""
    draft = path.with_suffix(".new")
    arrays = {name: np.ascontiguousarray(array) for name, array in checkpoint.arrays.items()}
    line = _header(checkpoint.about, arrays).encode() + b"\n"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o600), "wb", buffering=_SMALL) as file:
            file.write(line)
            check = zlib.crc32(line)
            for array in arrays.values():
                octets = array.reshape(-1).view(np.uint8)
                file.write(octets.data)
                check = _check(octets, check)
            file.write(check.to_bytes(_CHECK, "little"))
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()  # it may be the space that is missing
        raise NetmondError(f"cannot write {path}: {error.strerror}") from error


def _header(about: Mapping[str, Any], arrays: Arrays) -> str:
    described = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    members = (f"{json.dumps(name)}: {_encoded(value)}" for name, value in about.items())
    return f'{{"format": {FORMAT}, "about": {{{", ".join(members)}}}, "arrays": {json.dumps(described)}}}'


def _encoded(value: Any) -> str:
    return value if isinstance(value, Encoded) else json.dumps(value)


def read(path: Path) -> Checkpoint | None:
    """What was written there, None: nothing. NetmondError: it cannot be used."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return _parse(file.read())
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever damage may lead to
        raise NetmondError(f"cannot use {path}: {error}") from error


def _check(octets: NDArray[np.uint8], before: int) -> int:
    """The check of some octets and of all before them.

    The sum of their 64-bit words finds what changed, and takes a twelfth of the time of a CRC, which would
    be half of what a checkpoint of 100,000 sockets takes.
    """
    if not len(octets):  # on an idle machine most arrays are empty
        return zlib.crc32(_OF_NOTHING, before)
    whole = len(octets) // 8 * 8
    total = np.add.reduce(octets[:whole].view(np.uint64), dtype=np.uint64)
    return zlib.crc32(octets[whole:].tobytes(), zlib.crc32(total.tobytes(), before))


def _parse(data: bytes) -> Checkpoint:
    at = data.index(b"\n") + 1
    header = json.loads(data[:at])
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']}, this version of netmond has {FORMAT}")
    check = zlib.crc32(data[:at])
    arrays = {}
    for name, kind, shape in header["arrays"]:
        array = np.zeros(shape, np.dtype(kind))
        octets = array.reshape(-1).view(np.uint8)
        octets[:] = np.frombuffer(data, np.uint8, array.nbytes, at)
        check = _check(octets, check)
        at += array.nbytes
        arrays[name] = array
    if data[at:] != check.to_bytes(_CHECK, "little"):
        raise ValueError("it is damaged, or cut short")
    return Checkpoint(header["about"], arrays)
