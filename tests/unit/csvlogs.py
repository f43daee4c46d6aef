"""The files of `Logs` in tests: rows of one user, numbered by their totals."""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from netmond.outputs.logs import OPTIONS, Logs
from tests.unit.csvflows import ALICE, START, path_of


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory on a file system that needs no disk: for thousands of files."""
    directory = Path(tempfile.mkdtemp(prefix="netmond-test-", dir="/dev/shm"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def logs(log_dir: Path, **options: Any) -> Iterator[Logs]:
    """The logs below `log_dir`, opened, and closed in the end."""
    opened = Logs()
    opened.open(str(log_dir), {option.key: option.default for option in OPTIONS} | options)
    try:
        yield opened
    finally:
        opened.close()


@lru_cache(maxsize=8)
def rows(first: int, last: int) -> bytes:
    """Rows of 1 byte in each: number n has the totals (n, 0)."""
    return b"".join(
        b"in,1,192.0.2.7,198.51.100.4,%d.000000000,%d,0,1,443,51544,tcp,session-3.scope,4211,curl\n"
        % (START + number, number)
        for number in range(first, last + 1)
    )


def append(logs: Logs, count: int, uid: int = ALICE) -> int:
    """Append so many rows with the next numbers, as a writer does; returns how many are lost."""
    logs.check()
    total = logs.totals(uid)[0]
    return logs.append(uid, rows(total + 1, total + count), count, (total + count, 0), START + total)


def files(log_dir: Path, uid: int = ALICE) -> list[Path]:
    """A user's logs, oldest first; of one that is both plain and compressed the plain one."""
    log = path_of(log_dir, uid)
    old = sorted(log.parent.glob(f"{log.name}-*Z")) + sorted(log.parent.glob(f"{log.name}-*Z.gz"))
    found = {file.name.removesuffix(".gz"): file for file in reversed(old)}
    return [*(found[name] for name in sorted(found)), *([log] if log.exists() else [])]


def numbers(log_dir: Path, uid: int = ALICE) -> list[int]:
    """The numbers of all rows in all files, oldest first; every line must be whole."""
    found = []
    for file in files(log_dir, uid):
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert data.endswith(b"\n") or not data, file
        for line in data.splitlines(keepends=True):
            if not line.startswith(b"direction,"):
                number = int(line.split(b",")[5])
                assert line == rows(number, number)
                found.append(number)
    return found


def used(log_dir: Path) -> int:
    """Bytes in all files."""
    return sum(
        os.lstat(Path(directory, name)).st_size for directory, _, names in os.walk(log_dir) for name in names
    )
