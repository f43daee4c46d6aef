"""The record of a run: on what machine, of which commit, how busy it was, and the table."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench.table import Row, table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).with_name("RESULTS.md")

_INTRODUCTION = """\
# Results of the benchmarks

Written by `sudo make bench`; what each row measures, and how, is in the docstrings of `bench/*.py`. Every
figure and its peer were taken in turn in one run, and the ratio is netmond's divided by the peer's. In
brackets: where the median lies with a confidence of 95 %. A budget is met or missed if all of that is on
one side of it; otherwise the run was too noisy to say.
"""


def progress(text: str) -> None:
    """Tells whoever waits what is being done."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _field(file: str, name: str) -> str:
    """The value of the first ``name: value`` in a file of /proc; empty: there is none."""
    for line in Path(file).read_text().splitlines():
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""


def _release() -> str:
    system = platform.freedesktop_os_release()
    version = Path("/etc/debian_version")
    exact = f" ({version.read_text().strip()})" if version.exists() else ""
    return f"{system.get('PRETTY_NAME', 'unknown')}{exact}"


def _commit() -> str:
    """The commit, and whether the measured files differ from it."""
    commit = _said("git", "log", "-1", "--format=%h %s")
    changed = _said("git", "status", "--porcelain", "--", "bpf", "netmond")
    return f"{commit}{' (with uncommitted changes)' if changed else ''}"


def machine() -> dict[str, str]:
    """What is measured, and on what."""
    system = platform.uname()
    memory = int(_field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    processor = _field("/proc/cpuinfo", "model name") or platform.machine()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": _commit(),
        "processor": f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "virtualisation": _said("systemd-detect-virt"),
        "kernel": f"{system.system} {system.release} {system.version} {system.machine}",
        "release": _release(),
        "python": f"{platform.python_version()}, numpy {metadata.version('numpy')}",
        "bcc": _said("dpkg-query", "-W", "-f=${Version}", "python3-bpfcc"),
    }


def service_runs() -> bool:
    """Whether the installed netmond is at work: then off would not be off."""
    return _said("systemctl", "is-active", "netmond") == "active"


class Busy:
    """How busy the machine was meanwhile, with this and with other things; see proc_stat(5)."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._load = os.getloadavg()[0]
        self._ours = _spent()
        self._ticks = _ticks()

    def others(self) -> float:
        """The cores that other things kept busy so far. Children of ours that still run are among them."""
        busy, _ = self._passed()
        return max(0.0, busy - self._spent())

    def described(self) -> dict[str, str]:
        """For the record."""
        busy, stolen = self._passed()
        return {
            "load average before": f"{self._load:.2f}",
            "duration": f"{time.monotonic() - self._began:.0f} s",
            "busy meanwhile": f"{busy:.2f} cores, {self._spent():.2f} of them with the benchmarks"
            f" themselves; {stolen:.3f} cores taken by the host",
        }

    def _passed(self) -> tuple[float, float]:
        """Cores that were busy, and those that the host gave to others."""
        seconds = (time.monotonic() - self._began) * os.sysconf("SC_CLK_TCK")
        passed = [now - before for now, before in zip(_ticks(), self._ticks, strict=True)]
        idle, stolen = sum(passed[3:5]), passed[7]
        return (sum(passed[:8]) - idle - stolen) / seconds, stolen / seconds

    def _spent(self) -> float:
        return (_spent() - self._ours) / (time.monotonic() - self._began)


def _spent() -> float:
    """CPU seconds of this process and of those it waited for."""
    return sum(os.times()[:4])


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]


def text(rows: Iterable[Row], facts: Mapping[str, str]) -> str:
    """The description and the table, as Markdown."""
    described = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    return f"{described}\n\n{table(rows)}\n"


def write(rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    """Leaves both in RESULTS.md."""
    RESULTS.write_text(f"{_INTRODUCTION}\n{text(rows, facts)}")
