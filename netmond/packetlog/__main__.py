"""The worker as a program: ``python3 -m netmond.packetlog DESCRIPTOR``, that of the socket to the daemon.

The descriptors that its first order names are inherited, too.
"""

from __future__ import annotations

import signal
import socket
import sys

from netmond.footprint import keep_memory, stay_small


def main() -> int:
    """Runs until the daemon says so or is gone."""
    stay_small()
    # A service manager, or Ctrl-C, tells all processes at once: this one ends when the daemon has.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from netmond.outputs.log import setup_logging
    from netmond.packetlog.worker import Worker
    from netmond.worker.control import Control

    keep_memory()
    setup_logging("info")
    Worker(Control(socket.socket(fileno=int(sys.argv[1])))).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
