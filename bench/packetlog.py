"""Rows a second of packet mode: from the kernel's ring to a user's file, a row for each packet.

The real worker in its process, which is on one CPU, and a ring of 16 MiB. A batch are 204,800 packets that
netmond's own program puts into the ring (BPF_PROG_TEST_RUN: TCP and UDP over IPv4 of 64 sockets to as many
addresses); none may be lost. The figure is rows by CPU time of that process, waiting for packets, reports
and writing included; what it costs to compress full files is not.

Peers: C programs that write the very same rows from the same records in memory, with inet_ntop() and
fprintf() for each, on one CPU as well: buffered, and flushed after each row so that the file is live, as
the worker's is (packets.c). That the files are equal is checked. They know neither users nor losses nor a
ring.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy.typing import NDArray

from bench.cable import DEVICES, cable
from bench.compiled import Answering, answering, compiled
from bench.frames import address, frame
from bench.host import DEADLINE, cgroup, daemon, ending
from bench.record import ROOT, progress
from bench.samples import against_itself, among
from bench.table import AtLeast, Row
from bench.testrun import Run, one_cpu
from bench.throughput import iperf3, iperf3_server
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.packet_log import PacketLogTables
from netmond.kernel.programs import PACKET_LOG_MAPS, socket_unit
from netmond.kernel.ring import Ring
from netmond.kernel.tables import SocketTables
from netmond.outputs import logs

_SLOTS, _PEERS, _RING = 65536, 16384, 16 << 20
_FLOWS, _PACKETS = 64, 204_800
_UID = 0  # of the sockets that test runs make
_UNIT, _PID, _PROCESS = "/", 4211, "worker"
_OWNER = f"{_UNIT},{_PID},{_PROCESS}"
_PAUSE = 0.005  # seconds between two looks

BUDGETS = {
    "buffered": (AtLeast(1000), AtLeast(1.0, of_ratio=True)),
    "flushed": (None, AtLeast(2.5, of_ratio=True)),
}


class _Source:
    """Fills the ring as traffic would."""

    def __init__(self, loaded: Loaded) -> None:
        self.descriptor = Ring.create(_RING)
        self.tables = PacketLogTables(loaded.maps)
        self.tables.start(self.descriptor)
        self.tables.set(_UID, 1)
        self._flows = SocketTables.open(loaded.maps, slots=_SLOTS, peers=_PEERS).flows
        self._runs = [
            Run(
                program=loaded.programs[f"meter_{way}"],
                frame=frame(4, address(4, number), "TCP" if number % 4 else "UDP"),
            )
            for number in range(_FLOWS)
            for way in ("egress", "ingress")
        ]

    def fill(self) -> None:
        """A batch; each packet's process is known, as if it had made the socket."""
        with one_cpu():
            for run in self._runs:
                run.time(_PACKETS // len(self._runs))
        flows = self._flows.front(_SLOTS)
        taken = flows["generation"] != 0
        flows["pid"][taken], flows["comm"][taken], flows["cgroup"][taken] = _PID, _PROCESS, 1

    @property
    def lost(self) -> int:
        _, missing = self.tables.unlogged()
        return int(missing["lost"]["in_packets"].sum() + missing["lost"]["out_packets"].sum())


class _Worker:
    """The process, and the daemon's end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
        self.pid = process.pid
        self._stream = connection.makefile("rwb")

    def close(self) -> None:
        self._stream.close()

    def ask(self, do: str, **order: Any) -> None:
        self._stream.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._stream.flush()
        while "accounts" in (answer := json.loads(self._stream.readline())):
            pass
        if "error" in answer:
            raise RuntimeError(answer["error"])

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is in the ring stays there until the block ends."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def spent(self) -> float:
        """Its CPU seconds; see Documentation/scheduler/sched-stats.rst."""
        return (
            sum(
                int(task.joinpath("schedstat").read_text().split()[0])
                for task in Path(f"/proc/{self.pid}/task").iterdir()
            )
            / 1e9
        )


@contextmanager
def _worker(source: _Source, loaded: Loaded, directory: Path) -> Iterator[_Worker]:
    maps = {name: loaded.maps[name] for name in (*PACKET_LOG_MAPS, "flows")}
    options = {setting.key: setting.default for setting in logs.OPTIONS} | {"rotate_size": 1 << 40}
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "netmond.packetlog", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), source.descriptor, *maps.values()),
            cwd=ROOT,
        )
    with ending(process), ours:  # the worker ends when this is closed
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        worker = _Worker(process, ours)
        worker.ask(
            "open",
            ring=source.descriptor,
            maps=maps,
            slots=_SLOTS,
            log_dir=str(directory),
            options=options,
        )
        worker.ask("log", users={_UID: {"every": 1}})
        try:
            yield worker
            worker.ask("stop")
        finally:
            worker.close()


def _emptied(ring: Ring) -> None:
    end = time.monotonic() + DEADLINE
    while ring.waiting:
        if time.monotonic() > end:
            raise RuntimeError("the worker does not empty the ring")
        time.sleep(_PAUSE)


def _peer(stack: ExitStack, directory: Path, records: NDArray[Any], offset: int) -> Answering:
    records.tofile(directory / "records")
    program = stack.enter_context(compiled("packets"))
    argv = [str(program), str(directory / "records"), str(directory / "rows"), str(offset), _OWNER]
    return stack.enter_context(answering(["taskset", "-c", str(max(os.sched_getaffinity(0))), *argv]))


def _check(log: Path, rows: Path) -> float:
    """Both have written the same but for comments, times and totals; returns the size of a row."""

    def without(path: Path) -> list[list[str]]:
        lines = [line.split(",") for line in path.read_text().splitlines()[-_PACKETS:]]
        return [line[:4] + line[7:] for line in lines]

    for mine, other in zip(without(log), without(rows), strict=True):
        if mine != other:
            raise RuntimeError(f"rows differ: {mine} and {other}")
    return rows.stat().st_size / _PACKETS


def benchmark(quick: bool) -> list[Row]:
    """Rows from the ring to a file, and what traffic loses by it."""
    return [*_rows(quick), _traffic(quick)]


def _rows(quick: bool) -> list[Row]:
    """The same batch, in turn by the worker and by both peers."""
    progress(f"packetlog: {_PACKETS:,} packets at a time")
    ours: list[float] = []
    theirs: dict[str, list[float]] = {"buffered": [], "flushed": []}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="netmond-bench-")))
        loaded = Compilation(socket_unit(slots=_SLOTS, peers=_PEERS)).result()
        stack.callback(loaded.close)
        source = _Source(loaded)
        ring = Ring.open(source.descriptor)
        source.fill()
        records = ring.read(_PACKETS).copy()
        ring.release()
        peer = _peer(stack, directory, records, time.time_ns() - time.monotonic_ns())
        worker = stack.enter_context(_worker(source, loaded, directory / "log"))
        log = directory / "log" / "users" / str(_UID) / f"traffic_user_all_{_UID}.log"
        for _ in range(1 + (5 if quick else 21)):  # what the first one pays is not of interest
            log.write_bytes(b"")  # or the disk is full some day
            before = worker.spent()
            with worker.stopped():
                source.fill()
            _emptied(ring)
            ours.append(len(records) / (worker.spent() - before) / 1e3)
            for manner, rates in theirs.items():
                rates.append(len(records) / (int(peer.ask(manner)) / 1e9) / 1e3)
        del ours[0], theirs["buffered"][0], theirs["flushed"][0]
        size = _check(log, directory / "rows")
        if source.lost:
            raise RuntimeError(f"{source.lost} packets were lost")
        source.tables.stop()
    return [
        Row(
            what="packet mode, from ring to file",
            samples=ours,
            unit="k rows/s",
            against=f"inet_ntop() and fprintf() in C for each, {manner}",
            peer=rates,
            budget=budget,
            note=f"{size:.0f} bytes a row",
        )
        for manner, rates in theirs.items()
        for budget in BUDGETS[manner]
        if budget
    ]


def _traffic(quick: bool) -> Row:
    """iperf3 over a veth pair, all of whose packets are logged, against the daemon that logs none."""
    progress("packetlog: iperf3")
    on: list[float] = []
    off: list[float] = []
    rows = lost = 0
    with cable() as ends, cgroup() as group, ExitStack() as stack:
        arguments = "--cgroup", str(group), "-i", DEVICES[0]
        config = f"output.csv.rotate_size = {1 << 30}\n"
        netmond = stack.enter_context(daemon(*arguments, space=ends.near, config=config))
        stack.enter_context(iperf3_server(ends.far, group))
        off.append(iperf3(ends.near, group))
        for _ in range(3 if quick else 15):
            netmond.ctl("log", "on", "root")
            on.append(iperf3(ends.near, group))
            (log,) = json.loads(netmond.ctl("log", "list", "--json=short"))
            rows, lost = rows + log["rows"], lost + log["lost_packets"]
            netmond.ctl("log", "off", "root")
            off.append(iperf3(ends.near, group))
    return Row(
        what="iperf3, TCP, IPv4, each packet logged",
        samples=on,
        unit="Gbit/s",
        against="none logged",
        peer=off,
        paired=among(on, off),
        noise=against_itself(off),
        budget=AtLeast(0.9, of_ratio=True),
        note=f"{rows / len(on):,.0f} rows a turn, {lost} packets counted as lost in all",
    )
