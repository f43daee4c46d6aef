"""Sockets that the service manager opened and handed over: sd_listen_fds_with_names(3), without the library.

With a unit like this one an administrator gives an output a socket that it could not open itself, such as
one with a port below 1024; ``prometheus`` asks for one of that name before it opens its own::

    # /etc/systemd/system/netmond-export-prometheus.socket
    [Socket]
    ListenStream=443
    FileDescriptorName=prometheus
    Service=netmond-export.service

    [Install]
    WantedBy=sockets.target

It can be started while the exporter does not run; netmond starts that again::

    systemctl stop netmond-export; systemctl start netmond-export-prometheus.socket
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_FIRST = 3  #: SD_LISTEN_FDS_START


def inherited(
    name: str, environ: Mapping[str, str] = os.environ, *, first: int = _FIRST
) -> socket.socket | None:
    """The socket handed over under a name, None if there is none.

    It is a duplicate: an output may close it and, when it is started again, ask once more.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):  # meant for another process
        return None
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    count = environ.get("LISTEN_FDS", "")
    for number, each in enumerate(names[: int(count) if count.isdecimal() else 0]):
        if each == name:
            return socket.socket(fileno=os.dup(first + number))
    return None
