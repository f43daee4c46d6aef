"""What reading RDMA devices takes: 16 devices with two ports and 64 counters each, once a second.

A tree like /sys/class/infiniband, whose counters are links to files of the real sysfs (an interface's
statistics): so the kernel's part of a reading is in it, but no hardware is asked. CPU time is that of the
thread which reads. Twice a minute all devices are opened anew, which is in it too. The second row has 1,024
descriptors, as processes have by default: half of them are for counters, and the other files are opened each
time.

Peer, in turn: Python that opens, reads and closes each file, and nothing else; rdma(8) needs a device.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.record import progress
from bench.table import AtMost, Row
from netmond.rdma.reading import Reader
from tests.unit.rdma_tree import RdmaTree

_DEVICES, _PORTS, _COUNTERS = 16, 2, 64
_DESCRIPTORS = (8_192, 1_024)
_STATISTICS = Path("/sys/class/net/lo/statistics")
_MINUTE = 60  # readings, one a second
_BUDGET = AtMost(1)


def _tree(directory: Path) -> RdmaTree:
    tree = RdmaTree(directory)
    statistics = cycle(sorted(_STATISTICS.iterdir()))
    for device in range(_DEVICES):
        tree.mlx5(f"mlx5_{device}", ports=_PORTS, link_layer="Ethernet", netdevs=(f"eth{device}",) * _PORTS)
        for port in range(1, _PORTS + 1):
            place = tree.port(f"mlx5_{device}", port)
            counters = [
                file for group in ("counters", "hw_counters") for file in sorted((place / group).iterdir())
            ]
            counters = [file for file in counters if file.name != "lifespan"]
            counters += [place / f"hw_counters/more_{number}" for number in range(_COUNTERS - len(counters))]
            for counter in counters:
                counter.unlink(missing_ok=True)
                counter.symlink_to(next(statistics))
    return tree


def _naively(tree: RdmaTree) -> int:
    """The sum of all counters."""
    total = 0
    for port in tree.root.glob("*/ports/*"):
        for group in ("counters", "hw_counters"):
            for file in (port / group).iterdir():
                with open(file) as opened:
                    total += int(opened.read())
    return total


@contextmanager
def _descriptors(limit: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, before[1]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _row(tree: RdmaTree, limit: int, minutes: int) -> Row:
    now = 0.0
    with _descriptors(limit):
        reader = Reader(tree.root, monotonic=lambda: now)
        reader.read()
        ours, theirs = [], []
        for _ in range(minutes):
            began = time.thread_time()
            for _ in range(_MINUTE):
                now += 1.0
                sample = reader.read()
            ours.append(100 * (time.thread_time() - began) / _MINUTE)
            assert sum(len(port.names) for port in sample.ports) == _DEVICES * _PORTS * _COUNTERS
            began = time.thread_time()
            _naively(tree)
            theirs.append(100 * (time.thread_time() - began))
        reader.close()
    return Row(
        what=f"{_DEVICES} RDMA devices, {_PORTS} ports each, {_COUNTERS} counters each; {limit:,} files",
        samples=ours,
        unit="% of a core",
        against="open, read and close each file",
        peer=theirs,
        budget=_BUDGET,
    )


def benchmark(quick: bool) -> list[Row]:
    """A row for each limit of descriptors."""
    minutes = 6 if quick else 20
    progress(f"rdma: {minutes} minutes' readings, in a few seconds")
    with TemporaryDirectory(prefix="netmond-bench-rdma-") as directory:
        tree = _tree(Path(directory))
        return [_row(tree, limit, minutes) for limit in _DESCRIPTORS]
