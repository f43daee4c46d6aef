"""What a TCP stream loses when netmond watches: iperf3 over a veth pair between namespaces, on against off.

On: the real daemon meters the cgroup of both ends and monitors the near interface (tc, both directions).
Off: no netmond, nothing attached. Each round goes off, on, off; on is compared with the mean of both offs.
How much the two differ is a row of its own: how far this machine can be trusted today.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.host import cgroup, daemon, ending, inside, namespace, private_bus
from bench.report import Peer, Row, progress

BUDGET = 0.97
_ADDRESSES = "10.23.0.1", "10.23.0.2"
_DEVICE = "near0"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Link:
    near: str
    group: Path
    seconds: int

    def run(self) -> float:
        """Gbit/s of one stream, as iperf3 says."""
        argv = ["iperf3", "--client", _ADDRESSES[1], "--json", "--omit=1", f"--time={self.seconds}"]
        done = subprocess.run(
            inside(argv, space=self.near, group=self.group), capture_output=True, text=True, check=False
        )
        report = json.loads(done.stdout)
        if "error" in report:
            raise RuntimeError(f"iperf3: {report['error']}")
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def _link(seconds: int) -> Iterator[_Link]:
    """A veth pair with an iperf3 server at its far end."""
    with namespace("near") as near, namespace("far") as far, cgroup() as group:
        pair = ["ip", "-netns", near, "link", "add", _DEVICE, "type", "veth", "peer", "far0", "netns", far]
        subprocess.run(pair, check=True)
        for space, device, address in ((near, _DEVICE, _ADDRESSES[0]), (far, "far0", _ADDRESSES[1])):
            subprocess.run(
                ["ip", "-netns", space, "addr", "add", f"{address}/24", "dev", device], check=True
            )
            subprocess.run(["ip", "-netns", space, "link", "set", device, "up"], check=True)
        argv = inside(["iperf3", "--server", "--forceflush"], space=far, group=group)
        quiet = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        with ending(quiet) as server:
            assert server.stdout is not None
            while "Server listening" not in (line := server.stdout.readline()):
                if not line:
                    raise RuntimeError("the iperf3 server ended")
            yield _Link(near=near, group=group, seconds=seconds)


def benchmark(quick: bool) -> list[Row]:
    """Runs a stream off, on and off, some times."""
    before, on, after = [], [], []
    with _link(1 if quick else 3) as link, private_bus() as bus:
        for _ in range(2 if quick else 9):
            progress("throughput: once more off, on, off")
            before.append(link.run())
            with daemon("--cgroup", str(link.group), "-i", _DEVICE, space=link.near, bus=bus):
                on.append(link.run())
            after.append(link.run())
    off = [(one + other) / 2 for one, other in zip(before, after, strict=True)]
    return [
        Row(
            what="iperf3 over veth, TCP, one stream",
            samples=on,
            unit="Gbit/s",
            peers=[Peer(name="off", samples=off)],
            budget=BUDGET,
            at_least=True,
            budget_of_ratio=True,
        ),
        Row(
            what="the same without netmond",
            samples=after,
            unit="Gbit/s",
            peers=[Peer(name="off, just before", samples=before)],
        ),
    ]
