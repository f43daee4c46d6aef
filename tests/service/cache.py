"""What is costly to make and changes rarely: kept outside the checkout, named by its inputs."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path("/var/cache/netmond-tests")


def cached(kind: str, inputs: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills, made when these inputs are met for the first time.

    It is complete or not there at all, also after a kill. Runs that want the same one wait for the first.
    """
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    there = CACHE / f"{kind}-{key}"
    with _lock(f"{kind}-{key}"):
        if not there.is_dir():
            unfinished = CACHE / f"{kind}-{key}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(there)
    return there


@contextmanager
def _lock(name: str) -> Iterator[None]:
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
