"""How often the kernel has run a BPF program, counted by the kernel itself: bpf(2), BPF_ENABLE_STATS."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from netmond.kernel import libbpf

_BPF_STATS_RUN_TIME = 0  # enum bpf_stats_type


@contextmanager
def counting_runs() -> Iterator[None]:
    """Every run of every program is counted in this block."""
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    switch = library.bpf_enable_stats(_BPF_STATS_RUN_TIME)
    assert switch >= 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        os.close(switch)


def run_count(program: int) -> int:
    """Runs of the program behind a descriptor, while runs were counted."""
    return int(_field(Path(f"/proc/self/fdinfo/{program}").read_text(), "run_cnt"))


def run_counts_of(pid: int) -> dict[str, int]:
    """The same of the programs that a process holds, by their names' first 15 bytes."""
    texts = []
    for path in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            texts.append(path.read_text())
    return {
        libbpf.program_name(int(_field(text, "prog_id"))): int(_field(text, "run_cnt"))
        for text in texts
        if _field(text, "run_cnt")
    }


def _field(text: str, name: str) -> str:
    """A line of proc_pid_fdinfo(5), empty: it is not there."""
    found = re.search(rf"^{name}:\s+(\d+)$", text, re.MULTILINE)
    return found[1] if found else ""
