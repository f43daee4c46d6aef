"""What the service manager hears (sd_notify(3))."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from netmond.notify import be_patient, notify


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """A service manager's socket; receiving from it never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.setblocking(False)
        yield listening


def test_a_path(tmp_path: Path) -> None:
    """One datagram with the state as it is, on a socket in the file system."""
    path = str(tmp_path / "notify")
    with manager(path) as listening:
        notify("READY=1\nSTATUS=23 flows", {"NOTIFY_SOCKET": path})

        assert listening.recv(4096) == b"READY=1\nSTATUS=23 flows"


def test_an_abstract_address() -> None:
    """A leading @ stands for the zero byte of an abstract socket; a later one for itself."""
    name = f"netmond-test@{uuid4()}"
    with manager(f"\0{name}") as listening:
        notify("WATCHDOG=1", {"NOTIFY_SOCKET": f"@{name}"})

        assert listening.recv(4096) == b"WATCHDOG=1"


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the address is that of the process's environment."""
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    with manager(path) as listening:
        notify("STOPPING=1")

        assert listening.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:9"}])
def test_no_manager(environ: dict[str, str]) -> None:
    """Without one that listens on a Unix socket nothing happens."""
    notify("READY=1", environ)


def test_a_manager_that_is_gone(tmp_path: Path) -> None:
    """A manager being restarted is no reason to stop."""
    notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_a_manager_that_does_not_read(tmp_path: Path) -> None:
    """A full queue never makes the daemon wait."""
    path = str(tmp_path / "notify")
    with manager(path) as listening:
        for _ in range(1009):
            notify("WATCHDOG=1", {"NOTIFY_SOCKET": path})

        assert listening.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("own", "interval", "said"),
    [
        ("30000000", 1.0, b"WATCHDOG_USEC=30000000"),
        ("30000000", 10.5, b"WATCHDOG_USEC=31500000"),
        ("2000000", 0.7, b"WATCHDOG_USEC=2100000"),
    ],
)
def test_a_watchdog_waits_for_three_ticks(tmp_path: Path, own: str, interval: float, said: bytes) -> None:
    """At least, and no shorter than the unit file says: also when the interval was longer for a while."""
    path = str(tmp_path / "notify")
    with manager(path) as listening:
        be_patient(interval, {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": own})

        assert listening.recv(4096) == said


@pytest.mark.parametrize("environ", [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}])
def test_no_watchdog(tmp_path: Path, environ: dict[str, str]) -> None:
    """Nothing is said about one where there is none."""
    path = str(tmp_path / "notify")
    with manager(path) as listening:
        be_patient(60.0, {"NOTIFY_SOCKET": path, **environ})

        with pytest.raises(BlockingIOError):
            listening.recv(4096)
