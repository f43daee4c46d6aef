"""The file in which totals and targets outlast the daemon: written whole or not at all, read or refused.

Lines of JSON. The first describes the file, the last carries the CRC-32 of all before it. Between them a
line for each total: its kind, what it is of, and its counters in the order of model.COUNTERS. What it is of:

``target``   address or prefix; Unix time since when it counts; whether it was added by hand
``user``     user id
``unit``     path of the control group, empty for all that could not be found
``process``  pid; command, a character for each byte; user id; number of its unit's line, from 0
``rdma``     user id: what the user transferred by RDMA
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from netmond.accounts import Earlier
from netmond.errors import NetmondError
from netmond.model import COUNTERS

#: The version of all this.
FORMAT = 1

#: In the order of the file: what finds no room in it is at the end.
KINDS = ("target", "user", "rdma", "unit", "process")

#: Most bytes of all but the last line. 10,000 users, units, processes and targets take five million.
MAX_BYTES = 64 << 20

FILE = "state.jsonl"

Book = Earlier[tuple[Any, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Totals of one boot."""

    boot: str  #: the boot's id, empty if it is not known
    since: float  #: Unix time at which counting began
    books: Mapping[str, Book]  #: of each kind in KINDS


def load(directory: Path) -> State | None:
    """What was saved there, None if nothing was.

    NetmondError: it cannot be used. The file is then kept under another name, for whoever wants to know.
    """
    path = directory / FILE
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            return _parse(file)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever damage may lead to
        aside = path.with_suffix(".unusable")
        with suppress(OSError):
            path.replace(aside)
        raise NetmondError(f"cannot use the saved totals: {error}; they are kept in {aside}") from error


def save(directory: Path, state: State) -> None:
    """Replaces what was saved. NetmondError: it could not, and what was saved before still is."""
    path = directory / FILE
    draft = path.with_suffix(".new")
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(draft, flags, 0o640), "wb") as file:
            file.writelines(_framed(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise NetmondError(f"cannot save the totals in {directory}: {error.strerror}") from error


def _framed(state: State) -> Iterator[bytes]:
    """The lines of the file, made one by one: there may be 100,000."""
    size = check = 0
    for value in _values(state):
        line = _line(value)
        size += len(line)
        if size > MAX_BYTES:
            break
        check = zlib.crc32(line, check)
        yield line
    yield _line({"crc32": check})


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _values(state: State) -> Iterator[Any]:
    yield {"format": FORMAT, "boot": state.boot, "since": state.since}
    for kind in KINDS:
        book = state.books[kind]
        for key, counters in zip(book.keys, book.counters, strict=True):
            yield [kind, *key, *counters.tolist()]


def _parse(lines: Iterable[bytes]) -> State:
    header: dict[str, Any] = {}
    keys: dict[str, list[tuple[Any, ...]]] = {kind: [] for kind in KINDS}
    counters = {kind: array("Q") for kind in KINDS}
    check = 0
    for line in lines:
        value = json.loads(line)
        if "crc32" in value:
            if value["crc32"] != check:
                break
            books = {kind: Earlier(keys[kind], _matrix(counters[kind])) for kind in KINDS}
            return State(boot=header["boot"], since=header["since"], books=books)
        check = zlib.crc32(line, check)
        if not header:
            header = value
            if header["format"] != FORMAT:
                raise ValueError(f"their format is {header['format']}, this version of netmond has {FORMAT}")
        else:
            keys[value[0]].append(tuple(value[1 : -len(COUNTERS)]))
            counters[value[0]].extend(value[-len(COUNTERS) :])
    raise ValueError("the file is damaged")


def _matrix(counters: array[int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.array(counters, np.uint64).reshape(-1, len(COUNTERS))
