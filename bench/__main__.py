"""The benchmarks, one table: ``sudo make bench``, or ``sudo /usr/bin/python3 -m bench [NAME…]``.

A missed budget is said, not failed on: how fast a machine is today is no error. Needs root and a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

from bench import (
    bus,
    capture,
    csvlog,
    footprint,
    interfaces,
    logged,
    meter,
    packet,
    packetlog,
    path,
    rdma,
    start,
    throughput,
    tick,
)
from bench.record import RESULTS, Busy, machine, service_runs, text, write
from bench.table import Row

#: Told whether to be quick, a benchmark returns its rows; its module's docstring says what they are.
BENCHMARKS: dict[str, Callable[[bool], list[Row]]] = {
    "meter": meter.benchmark,
    "logged": logged.benchmark,
    "interfaces": interfaces.benchmark,
    "packet": packet.benchmark,
    "throughput": throughput.benchmark,
    "tick": tick.benchmark,
    "footprint": footprint.benchmark,
    "start": start.benchmark,
    "bus": bus.benchmark,
    "csv": csvlog.benchmark,
    "packetlog": packetlog.benchmark,
    "capture": capture.benchmark,
    "path": path.benchmark,
    "rdma": rdma.benchmark,
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="netmond's benchmarks, as one table")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, []], help="all by default")
    parser.add_argument("--list", action="store_true", help="say what there is to measure")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: rough figures")
    parser.add_argument("--json", action="store_true", help="everything as JSON, samples included")
    parser.add_argument("--write", action="store_true", help=f"leave the table in {RESULTS.name}")
    return parser.parse_args()


def _list() -> None:
    for name, benchmark in BENCHMARKS.items():
        described = sys.modules[benchmark.__module__].__doc__ or ""
        print(f"{name:11} {described.splitlines()[0]}")


def _run(benchmark: Callable[[bool], list[Row]], quick: bool) -> list[Row]:
    """Its rows, which know how busy the machine was with other things."""
    busy = Busy()
    rows = benchmark(quick)
    others = busy.others()
    return [row if row.others is None else replace(row, others=others) for row in rows]


def main() -> int:
    """Runs what is asked for, everything by default. Exit status: 0 done, 1 something could not run."""
    arguments = _arguments()
    if arguments.list:
        _list()
        return 0
    if os.geteuid() != 0:
        print("bench: needs root: sudo make bench", file=sys.stderr)
        return 1
    if service_runs():
        print("bench: netmond.service runs: systemctl stop netmond", file=sys.stderr)
        return 1
    facts, busy = machine(), Busy()
    rows: list[Row] = []
    failed = False
    for name in arguments.names or BENCHMARKS:
        try:
            rows += _run(BENCHMARKS[name], arguments.quick)
        except Exception as error:  # the others are still worth having
            print(f"bench: {name} failed: {error}", file=sys.stderr)
            failed = True
    facts |= busy.described()
    if arguments.json:
        print(json.dumps({"machine": facts, "rows": [row.to_json() for row in rows]}, indent=2))
    else:
        print(text(rows, facts), end="")
    if arguments.write:
        write(rows, facts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
