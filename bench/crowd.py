"""As a program (``python3 -m bench.crowd COUNT``): many connected UDP sockets that talk over loopback.

Sockets come in pairs, connected to each other, so that each is one flow; every one sends now and then.
"""

from __future__ import annotations

import resource
import socket
import sys
import time

_AT_ONCE = 50
_PAUSE = 0.02  # seconds: each of 10,000 sockets sends every two seconds
_SPARE = 100  # descriptors


def _pair() -> tuple[socket.socket, socket.socket]:
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0))
    other.bind(("127.0.0.1", 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    return one, other


def main(count: int) -> None:
    """Runs until it is ended."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + _SPARE), hard))
    pairs = [_pair() for _ in range(count // 2)]
    while True:
        for number, (one, other) in enumerate(pairs):
            one.send(b"x" * 101)
            other.send(other.recv(1500))
            one.recv(1500)
            if number % _AT_ONCE == 0:
                time.sleep(_PAUSE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
