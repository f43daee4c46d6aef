"""Tells the service manager how the daemon is (sd_notify(3)): one datagram, no library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def be_patient(interval: float, environ: Mapping[str, str] = os.environ) -> None:
    """Makes the watchdog, if there is one, wait for at least three ticks of `interval` seconds.

    What it waits by itself is in $WATCHDOG_USEC, see sd_watchdog_enabled(3), whatever it was told since.
    """
    own = environ.get("WATCHDOG_USEC", "")
    if own.isdecimal():
        notify(f"WATCHDOG_USEC={max(int(own), round(3e6 * interval))}", environ)


def notify(state: str, environ: Mapping[str, str] = os.environ) -> None:
    """Sends a state such as ``READY=1``; does nothing without a service manager that listens."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # Not blocking: a manager that does not read must not stop the daemon.
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_UNIX, kind) as connection:
        try:
            connection.sendto(
                state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address
            )
        except OSError:  # the manager is being restarted, or behind
            return
