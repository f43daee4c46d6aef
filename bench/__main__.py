"""The benchmarks, one table: ``sudo /usr/bin/python3 -m bench [--quick] [--write] [NAME…]``.

A missed budget is said, not failed on: how fast a machine is today is no error. Needs root.
"""

from __future__ import annotations

import argparse
import os
import sys

from bench import bus, interfaces, memory, meter, packet, start, throughput, tick
from bench.report import RESULTS, Benchmark, Row, machine, table, write

BENCHMARKS: dict[str, Benchmark] = {
    "meter": meter.benchmark,
    "interfaces": interfaces.benchmark,
    "packet": packet.benchmark,
    "memory": memory.benchmark,
    "start": start.benchmark,
    "tick": tick.benchmark,
    "throughput": throughput.benchmark,
    "bus": bus.benchmark,
}


def main() -> int:
    """Runs what is asked for, everything by default. Exit status: 0 done, 1 something could not run."""
    parser = argparse.ArgumentParser(prog="bench", description="netmond's benchmarks")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", choices=[*BENCHMARKS, []], help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: rough figures")
    parser.add_argument("--write", action="store_true", help=f"leave the table in {RESULTS.name}")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        print("bench: needs root: sudo /usr/bin/python3 -m bench", file=sys.stderr)
        return 1
    facts = machine()
    rows: list[Row] = []
    failed = False
    for name in arguments.names or BENCHMARKS:
        try:
            rows += BENCHMARKS[name](arguments.quick)
        except Exception as error:  # the others are still worth having
            print(f"bench: {name} failed: {error}", file=sys.stderr)
            failed = True
    print("\n".join(f"{name}: {value}" for name, value in facts), table(rows), sep="\n\n")
    if arguments.write:
        write(rows, facts)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
