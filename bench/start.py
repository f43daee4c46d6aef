"""Cold start of the real daemon: from exec to READY=1 on a notify socket, programs compiled and attached.

In the network namespace and at the cgroup root of this machine, as installed, on a message bus of its own;
files are in the page cache.

The time depends on how many cores are free: two compilers work side by side. The CPU time of all processes
up to the same moment does not; on one core a start takes at least that.

Peer, in turn: a Python that imports bcc and compiles and loads one trivial program, from exec to its end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from bench.host import daemon, private_bus
from bench.report import Peer, Row, progress
from netmond.kernel.compile import source_directory

BUDGET = 1.5
_TRIVIAL = "import bcc; bcc.BPF(text='int f(void *c) { return 0; }').load_func('f', bcc.BPF.CGROUP_SKB)"


def _trivial() -> float:
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(source_directory() / "kheaders")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", _TRIVIAL], env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def benchmark(quick: bool) -> list[Row]:
    """Starts both several times in turn."""
    ours, theirs, cpu = [], [], []
    with private_bus() as bus:
        for _ in range(3 if quick else 5):
            progress("start: once more")
            with daemon(bus=bus) as netmond:
                cpu.append(netmond.cpu_seconds())
                ours.append(netmond.seconds_to_ready)
            theirs.append(_trivial())
    peer = Peer(name="import bcc + one trivial compile", samples=theirs)
    return [
        Row(what="cold start to READY=1", samples=ours, unit="s", budget=BUDGET, peers=[peer]),
        Row(what="cold start to READY=1, CPU time", samples=cpu, unit="s"),
    ]
