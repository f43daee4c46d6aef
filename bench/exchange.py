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
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from bench.testrun import one_cpu
from netmond.kernel import libbpf, links, programs
from netmond.kernel.compile import Compilation, Program
from netmond.kernel.tables import InterfaceTables, SocketTables

_LOOPBACK = 1
_SLOTS, _PEERS, _TARGETS, _FORWARDED = 65536, 16384, 16384, 16384
_PACKETS, _WARM = 5000, 500
_PAYLOAD = b"x" * 64


class _Hooks:
    """The programs, and the places they go to."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup = cgroup
        sockets = programs.socket_unit(slots=_SLOTS, peers=_PEERS)
        interfaces = programs.interface_unit(targets=_TARGETS, forwarded=_FORWARDED)
        empty = Program(name="meter_empty", kind="CGROUP_SKB")
        empty_tc = Program(name="interface_empty", kind="SCHED_CLS")
        compilations = (
            Compilation(replace(sockets, programs=(*sockets.programs, empty))),
            Compilation(replace(interfaces, programs=(*interfaces.programs, empty_tc))),
        )
        meter, interface = (compilation.result() for compilation in compilations)
        SocketTables.open(meter.maps, slots=_SLOTS, peers=_PEERS)
        tables = InterfaceTables.open(interface.maps, targets=_TARGETS, forwarded=_FORWARDED)
        tables.set_port(_LOOPBACK, 0, link_header=14, loopback=True)
        self._meter, self._interface = meter.programs, interface.programs

    def attach(self, state: str) -> ExitStack:
        """off: nothing; empty: the empty programs; netmond: what the daemon attaches. Closing detaches."""
        stack = ExitStack()
        if state == "netmond":
            stack.enter_context(links.attach_meter(self._meter, self._cgroup))
            stack.callback(links.Attachment(self._interface, _LOOPBACK, "auto").close)
        elif state == "empty":
            directory = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, directory)
            for program, target, types in (
                (
                    self._meter["meter_empty"],
                    directory,
                    (programs.CGROUP_INET_INGRESS, programs.CGROUP_INET_EGRESS),
                ),
                (self._interface["interface_empty"], _LOOPBACK, (programs.TCX_INGRESS, programs.TCX_EGRESS)),
            ):
                for attach_type in types:
                    stack.callback(os.close, libbpf.create_link(program, target, attach_type))
        return stack


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


def main(cgroup: Path, kind: str, rounds: int) -> None:
    """Prints what is found and ends."""
    hooks = _Hooks(cgroup)
    sender, receiver = _sockets(kind)
    found: dict[str, list[float]] = {state: [] for state in ("off", "empty", "netmond")}
    with one_cpu():
        for _ in range(rounds):
            for state, samples in found.items():
                with hooks.attach(state):
                    _time(sender, receiver, _WARM)
                    samples.append(_time(sender, receiver, _PACKETS))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
