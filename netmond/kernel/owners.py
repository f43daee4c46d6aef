"""Who holds a socket, asked from outside: for sockets older than the meter and those that changed hands.

A BPF iterator walks the open files of all processes, in all network namespaces. The links in /proc/PID/fd
would tell the same, but reading those of others takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, with which
a daemon could as well be root, and a hundred times as long.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from netmond.kernel import libbpf, wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    pid: int
    comm: bytes


def find_owners(program: int, cookies: Iterable[int]) -> dict[int, Process]:
    """The process behind each socket that a process has open; of several holders the youngest, as with
    workers that share what their parent opened.

    program: descriptor of the loaded iterator. KernelError: it cannot be run.
    """
    output = libbpf.iterate(program)
    held = np.frombuffer(output, wire.HELD_SOCKET, len(output) // wire.HELD_SOCKET.itemsize)
    wanted = held[np.isin(held["cookie"], np.fromiter(cookies, np.uint64))]
    wanted = wanted[np.argsort(wanted["started"], kind="stable")]  # numbers of processes begin anew some day
    return {int(row["cookie"]): Process(pid=int(row["pid"]), comm=bytes(row["comm"])) for row in wanted}
