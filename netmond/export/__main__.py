"""The exporter's process: ``python3 -m netmond.export``, started by netmond-export.socket or by the daemon.

The connection to the daemon is accepted from the socket that the service manager hands over as ``daemon``,
or is standard input. When it is closed, the outputs deliver what they have, and the process ends.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

from netmond.footprint import stay_small

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds to wait for the daemon. It has connected already, unless an administrator's socket started us.
_PATIENCE = 60.0
#: Seconds for the outputs to deliver what they have; the daemon waits a little longer for a child.
_FAREWELL = 3.0


def main() -> int:
    """Exit status: 0 the daemon closed the connection, 1 it sent nonsense, 2 nobody is connected."""
    stay_small(absent=())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which tells us by ending
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Before anything else is imported: a connection that nobody takes would start us again and again.
    try:
        connection, state = _connected()
    except Exception as error:
        print(f"netmond.export: {error}: it is for netmond to start", file=sys.stderr)
        return 2
    # Read what is there already, then it is the end.
    signal.signal(signal.SIGTERM, lambda *_: connection.shutdown(socket.SHUT_RD))
    return _run(connection, state)


def _connected() -> tuple[socket.socket, Path | None]:
    """The connection to the daemon, and the directory for state if it is not the daemon's to say."""
    from netmond.export.activation import inherited
    from netmond.notify import notify

    notify("READY=1")
    listener = inherited("daemon")
    if listener is None:
        return socket.socket(fileno=os.dup(sys.stdin.fileno())), None

    from pathlib import Path

    from netmond.export.serving import newest

    with listener:
        return newest(listener, _PATIENCE), Path(os.environ["STATE_DIRECTORY"])


def _run(connection: socket.socket, state: Path | None) -> int:
    import asyncio
    import logging

    from netmond.export.serving import serve
    from netmond.export.stream import Ended, StreamError
    from netmond.outputs.log import setup_logging
    from netmond.outputs.runner import Runner

    log_control = setup_logging("info")
    log = logging.getLogger("netmond.export")
    runner = Runner()
    status = 0
    try:
        serve(connection, runner, set_level=lambda level: setattr(log_control, "level", level), state=state)
    except (Ended, OSError) as error:
        log.warning("The daemon has gone: %s", error)
    except StreamError as error:
        log.error("What the daemon sent cannot be understood: %s", error)
        status = 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending
    connection.close()
    asyncio.run(runner.close(_FAREWELL))
    return status


if __name__ == "__main__":
    sys.exit(main())
