"""Who holds a socket, and where packets leave this machine: what the kernel says, asked for real."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netmond.errors import KernelError
from netmond.kernel import programs
from netmond.kernel.compile import Compilation
from netmond.kernel.owners import Process, find_owners

ROOT = Path(__file__).parents[2]
_SO_COOKIE = 57  # include/uapi/asm-generic/socket.h


@pytest.fixture(scope="module")
def program() -> Iterator[int]:
    """The loaded iterator over open files."""
    loaded = Compilation(programs.socket_unit(slots=16, peers=16)).result()
    assert loaded.notes == ()
    yield loaded.programs[programs.OWNERS_PROGRAM]
    loaded.close()


def cookie_of(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), sys.byteorder)


def bound(family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    found = socket.socket(family, kind)
    found.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    return found


@pytest.mark.parametrize(
    "open_",
    [
        lambda: bound(socket.AF_INET, socket.SOCK_DGRAM),
        lambda: bound(socket.AF_INET6, socket.SOCK_DGRAM),
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    ],
    ids=["UDP", "UDP over IPv6", "TCP", "raw"],
)
def test_the_process_behind_a_socket(program: int, open_: Callable[[], socket.socket]) -> None:
    """A socket is found by its cookie, with the process that has it open; others are not made up."""
    with open_() as ours:
        cookie = cookie_of(ours)
        found = find_owners(program, [cookie, 1 << 60])

    comm = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
    assert found == {cookie: Process(pid=os.getpid(), comm=comm)}
    assert find_owners(program, [cookie]) == {}, "closed since"


_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")  # proc_sys_kernel(5)


@pytest.fixture
def lowest_pid_next() -> Iterator[None]:
    """The next process gets the lowest number that is free, as after the highest has been given."""
    before = _LAST_PID.read_text()
    _LAST_PID.write_text("1")
    yield
    _LAST_PID.write_text(before)


@pytest.mark.usefixtures("lowest_pid_next")
def test_the_youngest_of_several(program: int) -> None:
    """A worker that inherited the socket is told, not the parent that opened it, whatever their numbers."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        cookie = cookie_of(ours)
        worker = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[ours.fileno()])
        found = find_owners(program, [cookie])
        worker.communicate()

    assert worker.pid < os.getpid(), "the older has the higher number"
    assert found[cookie].pid == worker.pid


_ELSEWHERE = """
import socket
ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(int.from_bytes(ours.getsockopt(socket.SOL_SOCKET, 57, 8), "little"), flush=True)
input()
"""


def test_in_another_network_namespace(program: int) -> None:
    """Containers' sockets are found as well."""
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", _ELSEWHERE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout
        cookie = int(other.stdout.readline())
        found = find_owners(program, [cookie])
        other.communicate("\n")

    assert found[cookie].pid == other.pid


def test_not_an_iterator() -> None:
    """What cannot be run is an error in one line."""
    with pytest.raises(KernelError, match="cannot attach an iterator: "):
        find_owners(0, [1])


_ROUTES = """
set -e
for name in up1 up2 up3 up4; do
    ip link add $name type veth peer name $name-far
    ip link set $name-far up
    ip link set $name up
done
ip address add 192.0.2.1/24 dev up1
ip address add 198.51.100.1/24 dev up2
ip route add unreachable default metric 9999
ip route add default via 192.0.2.2 table 77
ip route add 203.0.113.0/24 via 198.51.100.2
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("true", set()),
        ("ip route add default via 192.0.2.2", {"up1"}),
        ("ip route add default nexthop via 192.0.2.2 nexthop via 198.51.100.2", {"up1", "up2"}),
        ("ip -6 route add default dev up3", {"up3"}),
        ("ip route add default dev up4 scope link; ip -6 route add default dev up3", {"up3", "up4"}),
    ],
    ids=["none", "one", "split", "IPv6", "both"],
)
def test_default_routes(command: str, expected: set[str]) -> None:
    """Interfaces of the main table's default routes; other tables, prefixes and dead ends do not count."""
    script = (
        "import json, socket; from netmond.kernel.devices import default_route_devices as found;"
        "print(json.dumps([socket.if_indextoname(index) for index in found()]))"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f'{_ROUTES}{command}; exec "$0" -c "$1"', sys.executable, script],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )

    assert set(json.loads(done.stdout)) == expected
