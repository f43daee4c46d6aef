"""Traffic inside the machine: a host at the other end of a cable, and programs of users that talk to it."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service.inside import apt, next_tick, rows, run

#: A program that reads requests and makes traffic; users need not be able to read the source tree.
_SOURCE = (Path(__file__).parents[1] / "kernel/traffic.py").read_text()

_serial = itertools.count(1)

#: No other tier has these: a path sees all network namespaces, and the kernel tier runs beside this one.
NEAR, FAR = "10.61.1.1", "10.61.1.2"
DEVICE = "uplink0"
#: What IPv4, UDP and Ethernet add to a datagram.
IP_UDP = 20 + 8
ETHERNET = 14


#: Packets and bytes in, packets and bytes out.
Figures = tuple[int, int, int, int]
NOTHING: Figures = (0, 0, 0, 0)


def figures(row: Mapping[str, Any]) -> Figures:
    """Those of a row of any list."""
    return int(row["in_packets"]), int(row["in_bytes"]), int(row["out_packets"]), int(row["out_bytes"])


def echoed(count: int, size: int, overhead: int = IP_UDP) -> Figures:
    """The figures of so many datagrams with so much payload, and of their echoes."""
    return count, count * (size + overhead), count, count * (size + overhead)


def of_users() -> dict[str, Figures]:
    """The figures of all users up to now."""
    next_tick()
    return {row["user"]: figures(row) for row in rows("Users")}


def difference(after: Figures, before: Figures) -> Figures:
    a, b, c, d = (new - old for new, old in zip(after, before, strict=True))
    return a, b, c, d


def total(first: Figures, second: Figures) -> Figures:
    a, b, c, d = (one + other for one, other in zip(first, second, strict=True))
    return a, b, c, d


class Program:
    """traffic.py at work: `do("exchange", name="a", count=23)` calls the function of that name there."""

    def __init__(self, *before: str) -> None:
        """before: a command line that runs the rest of its words."""
        self._process = subprocess.Popen(
            [*before, "python3", "-c", _SOURCE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd="/",
        )
        self.pid: int = self._read()

    def do(self, what: str, **arguments: Any) -> Any:
        """What the function returned; AssertionError if it raised."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        answer = self._read()
        assert "error" not in answer, answer["error"]
        return answer["done"]

    def close(self) -> None:
        """Ends the process, and with it its sockets."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class Talker(Program):
    """A user's program, in a unit of its own, with a socket connected to the far host's echo."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.uid = int(run("id", "--user", user).out)
        self.unit = f"{user}-talks-{next(_serial)}.scope"
        super().__init__("systemd-run", "--quiet", "--scope", f"--uid={user}", f"--unit={self.unit}")
        self.port = int(self.do("udp", name="a", peer=[FAR, Far.PORT]))

    def exchange(self, count: int, size: int) -> None:
        """Sends so many datagrams with so many bytes of payload, and receives as many back."""
        self.do("exchange", name="a", count=count, size=size)


class Far(Program):
    """The other host: a namespace with an echo server, at the other end of the machine's only cable."""

    PORT = 7

    def __init__(self) -> None:
        super().__init__("nsenter", "--net=/run/netns/far")
        self.do("echo_server", local=[FAR, self.PORT])

    def close(self) -> None:
        super().close()
        run("ip", "netns", "delete", "far")


def make_far() -> Far:
    """The cable is the machine's default route, so netmond monitors it by itself. Neither ARP nor
    IPv6's own traffic disturbs counts."""
    apt("install", "--no-install-recommends", "iproute2", "procps")
    run("ip", "netns", "add", "far")
    run("ip", "link", "add", DEVICE, "type", "veth", "peer", "name", "far0", "netns", "far")
    run("sysctl", "-q", f"net.ipv6.conf.{DEVICE}.disable_ipv6=1")
    run("nsenter", "--net=/run/netns/far", "sysctl", "-q", "net.ipv6.conf.far0.disable_ipv6=1")
    near = f"""
        link set {DEVICE} address 02:00:00:00:00:01 arp off
        addr add {NEAR}/24 dev {DEVICE}
        link set {DEVICE} up
        neigh add {FAR} lladdr 02:00:00:00:00:02 dev {DEVICE} nud permanent
        route add default via {FAR}
    """
    far = f"""
        link set lo up
        link set far0 address 02:00:00:00:00:02 arp off
        addr add {FAR}/24 dev far0
        link set far0 up
        neigh add {NEAR} lladdr 02:00:00:00:00:01 dev far0 nud permanent
    """
    run("ip", "-batch", "-", text=near)
    run("nsenter", "--net=/run/netns/far", "ip", "-batch", "-", text=far)
    return Far()
