"""As a program (``python3 -m bench.exchange CGROUP KIND ROUNDS``): what a packet over loopback costs.

Runs in the cgroup given and a network namespace of its own. Prints JSON: for ``off``, ``empty`` and
``netmond`` the CPU time of a packet in ns, once a round.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

from bench.attach import Place, attach, empty_places
from bench.loaded import load
from bench.testrun import one_cpu
from netmond.kernel import programs
from netmond.kernel.role import Role

_LOOPBACK = 1
_PACKETS, _WARM = 5000, 500
_PAYLOAD = b"x" * 64
_OURS = {
    "meter_ingress": programs.CGROUP_INET_INGRESS,
    "meter_egress": programs.CGROUP_INET_EGRESS,
    "interface_ingress": programs.TCX_INGRESS,
    "interface_egress": programs.TCX_EGRESS,
}


def _places() -> dict[str, list[Place]]:
    """What is attached in each state."""
    loaded = load()
    loaded.interfaces.set_port(_LOOPBACK, 0, Role(link_header=14, loopback=True))
    ours = [Place(loaded.descriptors[name], attach_type) for name, attach_type in _OURS.items()]
    return {"off": [], "empty": empty_places(loaded.descriptors), "netmond": ours}


def _sockets(kind: str) -> tuple[socket.socket, socket.socket]:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for end in (sender, receiver):
        end.bind(("127.0.0.1", 0))
    sender.connect(receiver.getsockname())
    if kind == "connected":
        receiver.connect(sender.getsockname())
    return sender, receiver


def _time(sender: socket.socket, receiver: socket.socket, packets: int) -> float:
    began = time.thread_time_ns()
    for _ in range(packets):
        sender.send(_PAYLOAD)
        receiver.recv(100)
    return (time.thread_time_ns() - began) / packets


def main(group: Path, kind: str, rounds: int) -> None:
    """Prints what is found and ends."""
    places, cgroup = _places(), os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    sender, receiver = _sockets(kind)
    found: dict[str, list[float]] = {state: [] for state in places}
    with one_cpu():
        for _ in range(rounds):
            for state, samples in found.items():
                with attach(places[state], cgroup, _LOOPBACK):
                    _time(sender, receiver, _WARM)
                    samples.append(_time(sender, receiver, _PACKETS))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
