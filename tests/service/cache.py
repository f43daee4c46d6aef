"""What is costly to make and changes rarely: kept outside the checkout, named by its inputs.

Whatever nobody has used for a month goes. Newer entries stay, for they may be those of another checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path("/var/cache/netmond-tests")

_KEPT = 30 * 24 * 3600  #: seconds after the last use, which is an entry's time of modification


def cached(kind: str, inputs: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills, made when these inputs are met for the first time.

    It is complete or not there at all, also after a kill. Runs that want the same kind wait for the first.
    """
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    there = CACHE / f"{kind}-{key}"
    with _lock(kind):
        if there.is_dir():
            os.utime(there)
        else:
            unfinished = CACHE / f"{kind}-{key}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(there)
        _prune(kind)
    return there


def _prune(kind: str) -> None:
    """Deletes what has not been used for long, finished or not."""
    for entry in CACHE.glob(f"{kind}-*/"):
        if entry.stat().st_mtime < time.time() - _KEPT:
            shutil.rmtree(entry)


@contextmanager
def _lock(name: str) -> Iterator[None]:
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
