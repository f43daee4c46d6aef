"""Rows a second that the CSV output writes: per-user files, all flows active since the last time.

The real CsvOutput in this process, over snapshots of 20,000 flows of 53 users, each of which has received
and sent: two rows a flow. Files are in a directory of their own; what rotation and the caps cost is in it.

Peer, in turn: a C program that calls fprintf() for each row, to one file (rows.c). It knows neither users
nor deltas nor quoting; one file a user, and rows in the order of time, are what netmond does beyond.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

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


def _later(current: Snapshot) -> Snapshot:
    """All flows have received and sent, and the next rows are due."""
    flows = dataclasses.replace(current.flows, counters=current.flows.counters + 1000)
    return dataclasses.replace(current, flows=flows, time=current.time + _INTERVAL, tick=current.tick + 1)


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def benchmark(quick: bool) -> list[Row]:
    """Writes all rows, both ways in turn."""
    progress(f"csv: {_ROWS:,} rows at a time")
    ours, theirs = [], []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="netmond-bench-")))
        argv = [str(stack.enter_context(compiled("rows"))), str(directory / "rows"), str(_ROWS)]
        plain = stack.enter_context(answering(argv))
        output = CsvOutput()
        log_dir, state_dir = directory / "log", directory / "state"
        output.init(OutputConfig(name="csv", log_dir=log_dir, state_dir=state_dir))
        stack.callback(output.close)
        current = snapshot(_FLOWS)
        output.write(current)
        for _ in range(5 if quick else 21):
            current = _later(current)
            before = _size(log_dir)
            began = time.monotonic()
            output.write(current)
            ours.append(_ROWS / (time.monotonic() - began) / 1e3)
            if _size(log_dir) == before:
                raise RuntimeError("nothing was written")
            theirs.append(_ROWS / (int(plain.ask("write")) / 1e9) / 1e3)
        if any(loss.count for loss in output.losses()):
            raise RuntimeError(f"rows were lost: {output.losses()}")
    return [
        Row(
            what="CSV output",
            samples=ours,
            unit="k rows/s",
            against="fprintf() in C for each",
            peer=theirs,
        )
    ]
