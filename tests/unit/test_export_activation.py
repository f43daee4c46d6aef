"""Sockets that the service manager hands over, by their names."""

from __future__ import annotations

import os
import socket

from netmond.export.activation import inherited


def environment(pid: int, *names: str) -> dict[str, str]:
    return {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}


def test_by_name() -> None:
    """The socket of that name, again and again: an output closes what it got, and asks anew."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = environment(os.getpid(), "daemon", "prometheus")
        for _ in range(2):
            found = inherited("prometheus", given, first=server.fileno() - 1)
            assert found is not None
            with found:
                assert found.getsockname() == server.getsockname()
                assert found.family == socket.AF_INET
                assert not found.get_inheritable()


def test_none() -> None:
    """Another name, another process, no service manager, nonsense."""
    assert inherited("push", environment(os.getpid(), "daemon", "prometheus")) is None
    assert inherited("daemon", environment(os.getpid() + 1, "daemon")) is None
    assert inherited("daemon", {}) is None
    assert inherited("daemon", {**environment(os.getpid(), "daemon"), "LISTEN_FDS": "x"}) is None
