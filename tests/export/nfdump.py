"""A real collector: nfcapd on a loopback port, and what nfdump reads from its files."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.kernel.deadline import DEADLINE, eventually

#: Half of what nfcapd's socket may hold here, in bytes: Linux doubles it.
_BUFFER = 212992

Record = dict[str, Any]


def need(program: str, package: str) -> None:
    """Without it the test is skipped."""
    if shutil.which(program, path="/usr/bin:/usr/sbin") is None:
        pytest.skip(f"needs {program} (Debian package {package})")


class Nfcapd:
    """Collects while the context lasts; then `records` are to be had."""

    def __init__(
        self, directory: Path, port: int, around: Callable[[list[str]], list[str]] = lambda argv: argv
    ) -> None:
        """around: changes the command line, to run it elsewhere."""
        need("nfcapd", "nfdump")
        self.port = port
        self._around = around
        self._directory = directory
        self._log = directory.with_name(f"{directory.name}.log")

    def __enter__(self) -> Nfcapd:
        self._directory.mkdir()
        where = ["-b", "127.0.0.1", "-p", f"{self.port}", "-B", f"{_BUFFER}"]
        argv = self._around(["nfcapd", *where, "-w", f"{self._directory}", "-t", "3600"])
        with self._log.open("w") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        eventually(lambda: self._is_open() or self._process.poll() is not None, "nfcapd listens")
        assert self._process.poll() is None, self._log.read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It looks at all that has come before it ends."""
        if kind is None:
            self.drain()
        self._process.terminate()
        self._process.wait(DEADLINE)

    def drain(self) -> None:
        """Wait until it has read what has come. AssertionError: it could not keep up, or is gone."""
        eventually(lambda: self._queued() == 0, "nfcapd has read everything")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def records(self) -> list[Record]:
        """All it has stored."""
        argv = ["nfdump", "-R", f"{self._directory}", "-o", "json"]
        done = subprocess.run(argv, check=True, capture_output=True, text=True)
        records: list[Record] = [] if "No matching flows" in done.stdout else json.loads(done.stdout)
        return records

    def sequence_failures(self) -> int:
        """How often a message was not the next one of its domain."""
        argv = ["nfdump", "-R", f"{self._directory}", "-I"]
        lines = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()
        (line,) = (line for line in lines if line.startswith("Sequence failures:"))
        return int(line.split(":")[1])

    def _is_open(self) -> bool:
        return bool(self._sockets())

    def _queued(self) -> int:
        """Bytes that wait in its socket."""
        ((queued, drops),) = self._sockets()
        assert drops == 0, "nfcapd's socket has dropped messages"
        return queued

    def _sockets(self) -> list[tuple[int, int]]:
        """Of UDP sockets at the port, the bytes that wait and how many datagrams were dropped, proc(5)."""
        lines = Path(f"/proc/{self._process.pid}/net/udp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        of_port = [row for row in rows if row[1].endswith(f":{self.port:04X}")]
        return [(int(row[4].split(":")[1], 16), int(row[12])) for row in of_port]


def packets_and_bytes(records: Iterable[Record], *keys: str) -> Counter[tuple[Any, ...]]:
    """Sums by the values of some keys, an address of either family being ``src_addr`` and ``dst_addr``."""
    sums: Counter[tuple[Any, ...]] = Counter()
    for record in records:
        for end in ("src", "dst"):
            record[f"{end}_addr"] = record.get(f"{end}4_addr", record.get(f"{end}6_addr"))
        of = tuple(record[key] for key in keys)
        sums[*of, "packets"] += record["in_packets"]
        sums[*of, "bytes"] += record["in_bytes"]
    return sums
