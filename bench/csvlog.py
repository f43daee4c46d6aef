"""Rows a second that the CSV output writes: per-user files, all flows active since the last time.

The real CsvOutput in this process, over snapshots of 20,000 flows, each of which has received and sent: two
rows a flow. The flows are of 1, 53 or 5,000 users: with more of them than may be open at once each file is
opened for its few rows. Files are in a directory of their own; what rotation and the caps cost is in it.

Peer, in turn: a C program that calls fprintf() for each row, to one file (rows.c). It knows neither users
nor deltas nor quoting; one file a user, and rows in the order of time, are what netmond does beyond.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.compiled import answering, compiled
from bench.record import progress
from bench.snapshots import snapshot
from bench.table import Row
from netmond.config import OutputConfig
from netmond.model import Snapshot
from netmond.outputs.csv import CsvOutput

_FLOWS = 20_000
_ROWS = 2 * _FLOWS
_INTERVAL = 10.0  # seconds between two rows of a flow
_USERS = (53, 1, 5_000)


def _of_users(current: Snapshot, count: int) -> Snapshot:
    """The flows are shared out among so many users."""
    flows = current.flows
    uids = (1000 + np.arange(len(flows)) % count).astype(np.uint32)
    return dataclasses.replace(
        current, flows=dataclasses.replace(flows, columns={**flows.columns, "uid": uids})
    )


def _later(current: Snapshot) -> Snapshot:
    """All flows have received and sent, and the next rows are due."""
    flows = dataclasses.replace(current.flows, counters=current.flows.counters + 1000)
    return dataclasses.replace(current, flows=flows, time=current.time + _INTERVAL, tick=current.tick + 1)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


class _Output:
    """The CSV output in a directory of its own, and how fast it was."""

    def __init__(self, directory: Path, users: int) -> None:
        self.users = users
        self.samples: list[float] = []
        self._log_dir = directory / f"log-{users}"
        self._output = CsvOutput()
        self._output.init(OutputConfig(name="csv", log_dir=self._log_dir, state_dir=directory))
        self._current = _of_users(snapshot(_FLOWS), users)
        self._output.write(self._current)

    def write(self) -> None:
        """Write all rows once."""
        self._current = _later(self._current)
        before = _size(self._log_dir)
        began = time.monotonic()
        self._output.write(self._current)
        self.samples.append(_ROWS / (time.monotonic() - began) / 1e3)
        if _size(self._log_dir) == before:
            raise RuntimeError("nothing was written")

    def close(self) -> None:
        """RuntimeError if rows were lost."""
        self._output.close()
        if any(loss.count for loss in self._output.losses()):
            raise RuntimeError(f"rows were lost: {self._output.losses()}")


def benchmark(quick: bool) -> list[Row]:
    """Writes all rows, each way in turn."""
    progress(f"csv: {_ROWS:,} rows at a time")
    theirs = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="netmond-bench-")))
        argv = [str(stack.enter_context(compiled("rows"))), str(directory / "rows"), str(_ROWS)]
        plain = stack.enter_context(answering(argv))
        outputs = [stack.enter_context(closing(_Output(directory, users))) for users in _USERS]
        for _ in range(5 if quick else 21):
            for output in outputs:
                output.write()
            theirs.append(_ROWS / (int(plain.ask("write")) / 1e9) / 1e3)
    return [
        Row(
            what=f"CSV output, {output.users:,} user{'s' if output.users > 1 else ''}",
            samples=output.samples,
            unit="k rows/s",
            against="fprintf() in C for each",
            peer=theirs,
        )
        for output in outputs
    ]
