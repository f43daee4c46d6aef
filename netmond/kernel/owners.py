"""Who holds a socket, asked from outside: for sockets older than the meter and those that changed hands.

Cookie -> inode by sock_diag(7); inode -> process by the links in /proc/PID/fd. Takes milliseconds to
a second on a big machine: call it from a worker thread.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from netmond.errors import KernelError
from netmond.kernel import netlink

_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, ext, states, id
_COOKIE_AT = (
    4 + 40
)  # in struct inet_diag_msg: after family, state, timer, retrans, ports, addresses, interface
_COOKIE = struct.Struct("=II")
_INODE_AT = 4 + 48 + 16  # after expires, rqueue, wqueue, uid
_INODE = struct.Struct("=I")
_ALL_STATES = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    pid: int
    comm: bytes


def inodes_of_cookies() -> dict[int, int]:
    """Socket cookie -> inode for the sockets of this network namespace that a process holds."""
    found: dict[int, int] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_RAW):
            request = _REQUEST.pack(family, protocol, 0, _ALL_STATES)
            try:
                for answer in netlink.dump(netlink.SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request):
                    low, high = _COOKIE.unpack_from(answer, _COOKIE_AT)
                    (inode,) = _INODE.unpack_from(answer, _INODE_AT)
                    if inode:
                        found[high << 32 | low] = inode
            except KernelError:  # this protocol's diag module is not there
                continue
    return found


def _pids() -> Iterator[int]:
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def _sockets(pid: int) -> Iterator[int]:
    """Inodes of the sockets a process has open; none if it is gone or may not be looked at."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            link = os.readlink(f"{directory}/{name}")
        except OSError:  # closed since
            continue
        if link.startswith("socket:["):
            yield int(link[8:-1])


def _comm(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n")[:16]
    except OSError:
        return b""


def find_owners(cookies: Iterable[int]) -> dict[int, Process]:
    """The process behind each socket that can be found; of several holders the youngest, as with workers
    that share what their parent opened."""
    inodes = inodes_of_cookies()
    wanted = {inodes[cookie]: cookie for cookie in cookies if cookie in inodes}
    owners: dict[int, Process] = {}
    if not wanted:
        return owners
    for pid in sorted(_pids()):
        for inode in _sockets(pid):
            if inode in wanted:
                owners[wanted[inode]] = Process(pid=pid, comm=_comm(pid))
    return owners
