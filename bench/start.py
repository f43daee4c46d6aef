"""Start of the real daemon: from exec to READY=1 on a notify socket, programs attached.

In the network namespace and at the cgroup root of this machine, as installed, on a message bus of its own;
files are in the page cache. Cold: programs are compiled. Warm: an earlier daemon was killed (SIGKILL), what
it pinned in a BPF file system is adopted, nothing is compiled.

The time depends on how many cores are free: two compilers work side by side. The CPU time of all processes
up to the same moment does not; on one core a cold start takes at least that.

Peer of the cold start, in turn: a Python that imports bcc and compiles and loads one trivial program, from
exec to its end. Of the warm one: the cold one just before.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from statistics import median

from bench.host import daemon, private_bus, run_directory
from bench.record import progress
from bench.table import AtMost, Row
from netmond.kernel.unit import source_directory

COLD, WARM = AtMost(1.5), AtMost(0.5)
_TRIVIAL = "import bcc; bcc.BPF(text='int f(void *c) { return 0; }').load_func('f', bcc.BPF.CGROUP_SKB)"


def _trivial() -> float:
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(source_directory() / "kheaders")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _TRIVIAL], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def benchmark(quick: bool) -> list[Row]:
    """Starts all of them several times in turn."""
    cold, warm, trivial = [], [], []
    cpu: dict[str, list[float]] = {"cold": [], "warm": []}
    with private_bus() as bus:
        for _ in range(3 if quick else 9):
            progress("start: once more")
            with run_directory() as directory:
                with daemon(bus=bus, run=directory) as netmond:
                    cpu["cold"].append(netmond.start_seconds())
                    cold.append(netmond.seconds_to_ready)
                    os.kill(netmond.pid, signal.SIGKILL)
                with daemon(bus=bus, run=directory) as netmond:
                    cpu["warm"].append(netmond.start_seconds())
                    warm.append(netmond.seconds_to_ready)
            trivial.append(_trivial())
    return [
        Row(
            what="cold start to READY=1",
            samples=cold,
            unit="s",
            against="import bcc + one trivial compile",
            peer=trivial,
            budget=COLD,
            note=f"{median(cpu['cold']):.2f} s of CPU time",
        ),
        Row(
            what="warm start to READY=1, after SIGKILL",
            samples=warm,
            unit="s",
            against="cold start",
            peer=cold,
            budget=WARM,
            note=f"{median(cpu['warm']):.2f} s of CPU time",
        ),
    ]
