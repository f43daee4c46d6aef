"""The worker's end of the socket to the daemon."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from netmond.worker.control import Control


@pytest.fixture
def ends() -> Iterator[tuple[Control, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Control(ours), theirs


def test_orders_in_pieces(ends: tuple[Control, socket.socket]) -> None:
    """A line counts when it is whole; without any there is nothing to do."""
    control, daemon = ends
    assert list(control.orders()) == []
    daemon.sendall(b'{"do": "expect", "users": [1]}\n{"do": "st')
    assert list(control.orders()) == [{"do": "expect", "users": [1]}]
    daemon.sendall(b'op"}\n')
    assert list(control.orders()) == [{"do": "stop"}]
    assert control.is_open
    daemon.close()
    assert list(control.orders()) == []
    assert not control.is_open


def test_a_daemon_that_is_busy(ends: tuple[Control, socket.socket]) -> None:
    """Nothing waits for it, no line is torn, and the last answer arrives."""
    control, daemon = ends
    count = 0
    while control.flush():
        control.send({"position": count, "accounts": {"1": "x" * 1000}})
        count += 1
    control.send({"done": True})
    daemon.settimeout(20)
    received = daemon.recv(1 << 20)
    control.close()
    while piece := daemon.recv(1 << 20):
        received += piece

    lines = [json.loads(line) for line in received.splitlines()]
    assert [line.get("position") for line in lines] == [*range(count), None]
