"""The command netmond: configuration, compilers, then the daemon."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from netmond.config import Config, argument_parser, load
from netmond.errors import NetmondError
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import interface_unit, socket_unit


def main() -> int:
    """Runs until told to stop. Exit status: 0 stopped in order, 1 could not start, 2 wrong usage."""
    # One thread for linear algebra nobody does: each further one costs memory. Before numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = argument_parser().parse_args()
    try:
        config, warnings = load(arguments, os.environ)
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


def _run(arguments: argparse.Namespace, config: Config, warnings: list[str]) -> int:
    # The compilers work while the rest is imported.
    meter, interfaces = config.meter, config.interfaces
    wanted = socket_unit(slots=meter.slots, peers=meter.peers) if meter.enabled else None
    sockets = Compilation(wanted) if wanted else None
    others = Compilation(interface_unit(targets=config.targets.limit, forwarded=interfaces.forwarded))

    import asyncio

    from netmond.assembly import assemble
    from netmond.daemon import Daemon
    from netmond.outputs.log import setup_logging

    log_control = setup_logging(config.daemon.log_level)
    for warning in warnings:
        logging.getLogger("netmond").warning("%s", warning)
    parts = assemble(config, sockets=sockets, interfaces=others)

    async def run() -> None:
        daemon = Daemon(
            config=config,
            parts=parts,
            log_control=log_control,
            read_config=lambda: load(arguments, os.environ),
        )
        await daemon.run()

    asyncio.run(run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
