"""As a program (``python3 -m bench.crowd COUNT SERIES``): many UDP sockets that talk over loopback.

Sockets come in pairs, connected to each other, so that each is one flow. All send and receive at once, and
then once in PERIOD seconds. Processes that run side by side need different series (0 to 255).
"""

from __future__ import annotations

import resource
import socket
import sys
import time

PERIOD = 10.0
_AT_ONCE = 50
_TO_AN_ADDRESS = 5000  # pairs: the kernel is slow to find a free port among few
_SPARE = 100  # descriptors


def _pair(series: int, number: int) -> tuple[socket.socket, socket.socket]:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    address = f"127.0.{series}.{1 + number // _TO_AN_ADDRESS}"
    one.bind((address, 0))
    other.bind((address, 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def _exchange(one: socket.socket, other: socket.socket) -> None:
    one.send(b"x" * 101)
    other.send(other.recv(1500))
    one.recv(1500)


def main(count: int, series: int) -> None:
    """Runs until it is ended."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + _SPARE), hard))
    pairs = [_pair(series, number) for number in range(count // 2)]
    for pair in pairs:
        _exchange(*pair)
    due = time.monotonic()
    while True:
        for begin in range(0, len(pairs), _AT_ONCE):
            for pair in pairs[begin : begin + _AT_ONCE]:
                _exchange(*pair)
            due += PERIOD * _AT_ONCE / len(pairs)
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
