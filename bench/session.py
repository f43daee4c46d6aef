"""The worker of a session, started for a benchmark as the daemon would, and its programs' share of time."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.host import DEADLINE, ending, inside
from bench.record import ROOT

_libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


class Session:
    """One that runs."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self._control = control.makefile("rwb")

    def ask(self, do: str, **order: Any) -> None:
        """RuntimeError: what the worker has against an order."""
        self._control.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._control.flush()
        while "figures" in (answer := json.loads(self._control.readline())):
            pass
        if "error" in answer:
            raise RuntimeError(answer["error"])

    def figures(self) -> dict[str, float]:
        """The next report, which comes within half a second."""
        report = json.loads(self._control.readline())
        if "end" in report:
            raise RuntimeError(f"the session ended: {report['end']}")
        found: dict[str, float] = report["figures"]
        return found

    def worked(self) -> int:
        """CPU time in ns: of the process, and of its programs in the kernel while these are timed."""
        return cpu_time(self.pid) + sum(map(_run_time, self._programs()))

    def close(self) -> None:
        self._control.close()

    def _programs(self) -> set[int]:
        found = set()
        for file in Path(f"/proc/{self.pid}/fdinfo").iterdir():
            with suppress(FileNotFoundError):
                found |= {int(number) for number in re.findall(r"^prog_id:\s*(\d+)", file.read_text(), re.M)}
        return found


def cpu_time(pid: int) -> int:
    """ns of all threads of a process, see proc_pid_schedstat in the kernel's sched-stats.rst."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks)


def _run_time(program: int) -> int:
    descriptor = _libbpf.bpf_prog_get_fd_by_id(program)
    if descriptor < 0:
        return 0
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    finally:
        os.close(descriptor)
    found = re.search(r"^run_time_ns:\s*(\d+)", text, re.M)
    return int(found[1]) if found else 0


@contextmanager
def timed_programs() -> Iterator[None]:
    """The kernel measures how long each BPF program runs (bpf(2), BPF_ENABLE_STATS), at some ns a run."""
    switch = _libbpf.bpf_enable_stats(0)  # BPF_STATS_RUN_TIME
    if switch < 0:
        raise OSError(ctypes.get_errno(), "cannot have programs timed")
    try:
        yield
    finally:
        os.close(switch)


@contextmanager
def session(module: str, *, space: str = "", **options: Any) -> Iterator[Session]:
    """A worker (``python3 -m MODULE``), attached until the block ends; another process reads its lines."""
    control, theirs = socket.socketpair()
    stream, end = os.pipe()
    told, progress = os.pipe()
    given = {"stream": end, "progress": progress}
    argv = [sys.executable, "-m", module, str(theirs.fileno())]
    with control, ending(subprocess.Popen(["cat"], stdin=stream, stdout=subprocess.DEVNULL)):
        worker = subprocess.Popen(
            inside(argv, space=space), cwd=ROOT, pass_fds=(theirs.fileno(), *given.values())
        )
        theirs.close()
        for descriptor in (stream, end, progress):
            os.close(descriptor)
        control.settimeout(DEADLINE)
        made = Session(worker.pid, control)
        try:
            made.ask("start", options=options, given=given)
            yield made
        finally:
            made.close()
            control.close()  # which ends it
            worker.wait(DEADLINE)
            os.close(told)
