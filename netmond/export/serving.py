"""The exporter's main loop: what the daemon sends goes to the outputs, how they are goes back."""

from __future__ import annotations

import logging
import select
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from netmond.errors import Unavailable
from netmond.export import encoding, stream
from netmond.notify import notify
from netmond.outputs.runner import Runner

#: Seconds between two signs of life for the service manager while nothing happens.
_IDLE = 10.0


def serve(
    connection: socket.socket, runner: Runner, *, set_level: Callable[[str], None], state: Path | None = None
) -> None:
    """Until the daemon closes the connection. Raises StreamError and OSError if it does so in between.

    state: the directory for what outputs must keep, instead of the one that the daemon names.
    """
    while True:
        wait(connection, None)
        frame = stream.receive(connection)
        if frame is None:
            return
        if frame.kind == encoding.SETUP:
            _set_up(encoding.read_setup(frame), runner, set_level, state)
        elif frame.kind == encoding.SNAPSHOT:
            runner.publish(encoding.read_snapshot(connection, frame))
            encoding.send_status(connection, runner.features(), runner.losses())
        else:
            raise stream.StreamError(f"a frame of unknown kind {frame.kind!r}")


def _set_up(
    setup: encoding.Setup, runner: Runner, set_level: Callable[[str], None], state: Path | None
) -> None:
    set_level(setup.log_level)
    outputs = setup.outputs
    if state is not None:
        outputs = {name: replace(config, state_dir=state) for name, config in outputs.items()}
    for directory in {config.state_dir for config in outputs.values()}:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:  # an output that needs it says so again
            logging.getLogger(__name__).error("Cannot make %s: %s", directory, error.strerror)
    runner.apply(outputs)


def newest(listener: socket.socket, patience: float) -> socket.socket:
    """The connection made last: a daemon that made several has given up the earlier ones.

    Unavailable if there is none within so many seconds.
    """
    if not wait(listener, patience):
        raise Unavailable(f"netmond did not connect within {patience:g} s")
    connection, _ = listener.accept()
    while wait(listener, 0):
        connection.close()
        connection, _ = listener.accept()
    return connection


def wait(readable: socket.socket, patience: float | None) -> bool:
    """Waits for something to read, so long at most, and tells the watchdog meanwhile."""
    poll = select.poll()
    poll.register(readable, select.POLLIN)
    while True:
        notify("WATCHDOG=1")
        step = _IDLE if patience is None else min(_IDLE, patience)
        if poll.poll(1000 * step):
            return True
        if patience is not None:
            patience -= step
            if patience <= 0:
                return False
