"""How far figures were told, and what has grown since: exactly, also over a restart of the exporter.

The sum of all differences is the total, from the moment on at which counting began. So that a new process
goes on, what was taken is kept in a file. It is written when a batch is in the spool: a process that is
killed in that moment repeats the differences of one batch, and one that lost the file repeats all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netmond import checkpoint
from netmond.checkpoint import Checkpoint
from netmond.errors import NetmondError
from netmond.model import Feature, Table
from netmond.outputs.deltas import WRITTEN, Deltas

log = logging.getLogger(__name__)

_NONE = (0,) * WRITTEN


class Progress:
    """The figures taken last: of flows by id, of everything else by kind and key."""

    def __init__(self, since: float) -> None:
        self.since = since  #: Snapshot.since: figures that count from another moment are others
        self.time = since  #: wall clock of the last batch
        self.flows = Deltas(forwarded=True)
        self.features: dict[str, Feature] = {}  #: as told; a new process tells all of them
        self._books: dict[str, dict[str, tuple[int, ...]]] = {}

    def take(
        self, kind: str, keys: Sequence[str], table: Table
    ) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
        """Rows that exchanged anything since they were taken last, and what: columns as deltas.WRITTEN.

        `keys` name the table's rows. A missing row is forgotten; one whose figures went back counts anew.
        """
        book = self._books.get(kind, {})
        now = table.counters[:, :WRITTEN]
        before = np.array([book.get(key, _NONE) for key in keys], np.uint64).reshape(-1, WRITTEN)
        delta = np.where((now < before).any(axis=1, keepdims=True), now, now - before)
        self._books[kind] = dict(zip(keys, map(tuple, now.tolist()), strict=True))
        rows = np.flatnonzero(delta.any(axis=1))
        return rows, delta[rows]

    def count(self, kind: str, counts: Mapping[str, int]) -> dict[str, int]:
        """By how much single counts grew since then; those that did."""
        book = self._books.get(kind, {})
        self._books[kind] = {key: (count,) for key, count in counts.items()}
        before = {key: book.get(key, (0,))[0] for key in counts}
        grown = {
            key: count - before[key] if count >= before[key] else count for key, count in counts.items()
        }
        return {key: more for key, more in grown.items() if more}

    def save(self, path: Path) -> None:
        """NetmondError: a new process would repeat what this one took since it was saved last."""
        ids, taken = self.flows.taken()
        about = {"since": self.since, "time": self.time, "books": self._books}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        checkpoint.write(path, Checkpoint(about, {"ids": ids, "taken": taken}))


def load(path: Path) -> Progress | None:
    """What was saved there, None if nothing was, or nothing that can be used, which is logged."""
    try:
        saved = checkpoint.read(path)
        if saved is None:
            return None
        progress = Progress(saved.about["since"])
        progress.time = saved.about["time"]
        progress.flows.resume(saved.arrays["ids"], saved.arrays["taken"])
        progress._books = {
            kind: {key: tuple(counts) for key, counts in book.items()}
            for kind, book in saved.about["books"].items()
        }
    except (NetmondError, LookupError, TypeError, AttributeError) as error:
        log.warning("Differences are taken anew, from where counting began: %s", error)
        return None
    return progress
