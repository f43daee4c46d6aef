"""As a program (``python3 -m bench.pace NEAR FAR ADDRESS PORT RATE``): datagrams at a rate, until ended.

From one network namespace to another (their names); each is read there. A line says when they flow.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

_CLONE_NEWNET = 0x40000000
_TICK = 0.01  # seconds
_SIZE = 64


def _socket(space: str) -> socket.socket:
    """One of a namespace, in which the process is from then on."""
    descriptor = os.open(f"/run/netns/{space}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {space}")
    os.close(descriptor)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def main(near: str, far: str, address: str, port: int, rate: int) -> None:
    """Sends and reads."""
    there = _socket(far)
    there.bind((address, port))
    here = _socket(near)
    here.connect((address, port))
    sent, began = 0, time.monotonic()
    print("flows", flush=True)
    while True:
        for _ in range(round((time.monotonic() - began) * rate) - sent):
            here.send(bytes(_SIZE))
            there.recv(_SIZE)
            sent += 1
        time.sleep(_TICK)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
