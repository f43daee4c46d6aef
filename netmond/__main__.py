"""The command netmond: configuration, compilers, then the daemon.

Imports are inside the functions: what the daemon must not load has to be kept out before anything else,
and the compilers shall be at work while the rest is imported.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from netmond.footprint import stay_small

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from netmond.config import Config


def main() -> int:
    """Runs until told to stop. Exit status: 0 stopped in order, 1 could not start, 2 wrong usage."""
    stay_small()
    from netmond.config import argument_parser, load
    from netmond.errors import NetmondError

    arguments = argument_parser().parse_args()
    try:
        config, warnings = load(arguments, os.environ)
        if arguments.detach:
            return _detach(config, arguments.detach)
        return _check(config, warnings) if arguments.check else _run(arguments, config, warnings)
    except NetmondError as error:
        print(f"netmond: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _check(config: Config, warnings: list[str]) -> int:
    from netmond.outputs import protocol

    for warning in [*warnings, *protocol.check(config)]:
        print(f"netmond: warning: {warning}", file=sys.stderr)
    print("The configuration is good.")
    return 0


def _detach(config: Config, when: str) -> int:
    from netmond.handover import ALWAYS, UNIT_VARIABLE, detach, was_stopped

    unit, result = os.environ.get(UNIT_VARIABLE, ""), os.environ.get("SERVICE_RESULT", "")
    if when == "if-stopped" and (config.daemon.keep_counting == ALWAYS or not was_stopped(unit, result)):
        return 0
    detach(config.daemon.run_dir)
    return 0


def _make_directory(directory: Path) -> None:
    """Makes one of the daemon's own directories, where no service manager has."""
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        # Not fatal: counting goes on; whoever needs the directory says so again.
        print(f"netmond: cannot make {directory}: {error.strerror}", file=sys.stderr)


def _run(arguments: argparse.Namespace, config: Config, warnings: list[str]) -> int:
    from netmond.handover import ALWAYS, RESTART, UNIT_VARIABLE, Handover, RunDirectory
    from netmond.kernel.programs import interface_unit, socket_unit
    from netmond.outputs.log import setup_logging
    from netmond.totals import Totals, boot_id

    log_control = setup_logging(config.daemon.log_level)
    boot, meter, keep = boot_id(os.environ), config.meter, config.daemon.keep_counting
    run = RunDirectory(config.daemon.run_dir, keep=keep)
    sockets = None
    if meter.enabled:
        sockets = Handover(socket_unit(slots=meter.slots, peers=meter.peers, cgroup=meter.cgroup), run, boot)
    else:
        run.abandon("sockets")
    interfaces = Handover(
        interface_unit(targets=config.targets.limit, forwarded=config.interfaces.forwarded), run, boot
    )

    import asyncio
    import logging
    import time

    from netmond.assembly import assemble
    from netmond.config import load
    from netmond.daemon import Daemon
    from netmond.outputs import protocol

    for warning in [*warnings, *protocol.check(config)]:
        logging.getLogger("netmond").warning("%s", warning)
    for directory in (config.daemon.state_dir, config.daemon.log_dir):
        _make_directory(directory)
    now = time.time()
    totals = Totals(config.daemon.state_dir, boot=boot, now=now)
    parts = assemble(config, totals, run, sockets=sockets, interfaces=interfaces)

    async def run_daemon() -> None:
        daemon = Daemon(
            config=config,
            parts=parts,
            log_control=log_control,
            read_config=lambda: load(arguments, os.environ),
            totals=totals,
            started=now,
        )
        await daemon.run()

    try:
        asyncio.run(run_daemon())
    finally:
        # The unit ends the counting itself if it was stopped, and not if it is restarted.
        parts.close(leave=keep == ALWAYS or (keep == RESTART and UNIT_VARIABLE in os.environ))
    return 0


if __name__ == "__main__":
    sys.exit(main())
