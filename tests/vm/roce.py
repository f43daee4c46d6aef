"""Two soft-RoCE devices (rdma_rxe) on the two ends of a cable, and the tools that send over it as users.

Both ends are in the first network namespace: the driver has its UDP socket nowhere else. A route to each
end's address by the other end makes packets cross the cable, since the driver looks routes up by device.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.deadline import eventually
from tests.service.inside import PATIENCE, ctl, rows, run, show, systemctl

MTU = 1024  #: of the path: the largest of RDMA's that fits into 1500 bytes
#: Bytes of headers (InfiniBand Architecture Specification 1, chapter 9, annex A17). In every packet: IPv4,
#: UDP, base transport and checksum; in some: where a write goes, and what is acknowledged.
COMMON, RETH, AETH = 20 + 8 + 12 + 4, 16, 4
ETHERNET = 14

_HW_COUNTERS = "/sys/class/infiniband/{}/ports/1/hw_counters"
_Program = subprocess.Popen[str]

#: What ibv_rc_pingpong says it moved both ways, and ib_write_bw: bytes of a message, messages.
_BYTES = re.compile(r"^(\d+) bytes in ", re.MULTILINE)
_MESSAGES = re.compile(r"^ *(\d+) +(\d+) +[\d.]+ +[\d.]+\s", re.MULTILINE)
_QP = re.compile(r"^\s*(local|remote) address:.*?QPN (0x\w+).*?PSN (0x\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class End:
    """One end of the cable, and who uses its device."""

    device: str
    netdev: str
    address: str
    mac: str
    user: str

    @property
    def unit(self) -> str:
        """The unit of the user's programs."""
        return f"{self.user}-rdma.service"

    def counters(self) -> dict[str, int]:
        """Those of the device, as the kernel says."""
        files = Path(_HW_COUNTERS.format(self.device)).iterdir()
        return {file.name: int(file.read_text()) for file in files if file.name != "lifespan"}

    def gid(self) -> int:
        """The index of its IPv4 address among the device's GIDs."""
        ours = "".join(f"{int(part):02x}" for part in self.address.split("."))
        gids = Path(f"/sys/class/infiniband/{self.device}/ports/1/gids")
        for index in range(16):
            if (gids / str(index)).read_text().strip().replace(":", "").endswith(f"ffff{ours}"):
                return index
        return -1


CLIENT = End("rxe0", "roce0", "198.51.100.1", "02:00:00:00:00:11", "frank")
SERVER = End("rxe1", "roce1", "198.51.100.2", "02:00:00:00:00:12", "erin")
ENDS = (CLIENT, SERVER)


def make_cable() -> None:
    """The cable, monitored, with a device on each end, and nothing on it but RDMA."""
    run("ip", "link", "add", CLIENT.netdev, "type", "veth", "peer", "name", SERVER.netdev)
    for end in ENDS:
        settings = ("accept_local=1", "rp_filter=0")
        run("sysctl", "-q", *(f"net.ipv4.conf.{end.netdev}.{setting}" for setting in settings))
        run("sysctl", "-q", f"net.ipv6.conf.{end.netdev}.disable_ipv6=1")
        batch = f"""
            link set {end.netdev} address {end.mac} arp off
            addr add {end.address}/32 dev {end.netdev}
            link set {end.netdev} up
        """
        run("ip", "-batch", "-", text=batch)
    for end, other in (ENDS, ENDS[::-1]):
        batch = f"""
            route add {other.address} dev {end.netdev} src {end.address}
            neigh add {other.address} lladdr {other.mac} dev {end.netdev} nud permanent
        """
        run("ip", "-batch", "-", text=batch)
        ctl("interface", "add", end.netdev)
    run("modprobe", "rdma_rxe")
    for end in ENDS:
        add_device(end)


def add_device(end: End) -> None:
    """Makes the device of an end, ready for use."""
    run("rdma", "link", "add", end.device, "type", "rxe", "netdev", end.netdev)
    eventually(lambda: end.gid() >= 0, f"{end.device} has its address")
    run("udevadm", "settle")


def remove_cable() -> None:
    for end in ENDS:
        run("rdma", "link", "delete", end.device, check=False)
        ctl("interface", "remove", end.netdev)
    run("ip", "link", "delete", CLIENT.netdev)


@dataclass(frozen=True, slots=True)
class Report:
    """What a tool says."""

    queue_pair: int  #: its own one
    sequence: int  #: number of the first packet that it sends
    payload: int  #: bytes that were moved, both ways together

    @classmethod
    def of(cls, text: str) -> Report:
        pairs = {whose: (int(number, 16), int(first, 16)) for whose, number, first in _QP.findall(text)}
        assert "local" in pairs, text
        if both := _BYTES.search(text):
            return cls(*pairs["local"], int(both[1]))
        messages = _MESSAGES.search(text)
        assert messages, text
        return cls(*pairs["local"], int(messages[1]) * int(messages[2]))


def pingpong(messages: int, size: int) -> tuple[Report, Report]:
    """Sends messages there and back; the reports of client and server."""
    return _measure("ibv_rc_pingpong", "-g", f"--iters={messages}", f"--size={size}")


def write(messages: int, size: int) -> tuple[Report, Report]:
    """Writes into the server's memory; the reports of client and server."""
    # Whoever computes slowly is not to be asked again after a while: 20 stands for four seconds.
    return _measure("ib_write_bw", "-x", f"--iters={messages}", f"--size={size}", "--qp-timeout=20")


def _measure(tool: str, gid: str, *words: str) -> tuple[Report, Report]:
    with _running(tool, gid, *words) as (client, server):
        said = [program.communicate(timeout=PATIENCE)[0] for program in (client, server)]
        assert [client.returncode, server.returncode] == [0, 0], said
    return Report.of(said[0]), Report.of(said[1])


@contextmanager
def endless() -> Iterator[None]:
    """The client writes into the server's memory until the block is left."""
    with _running("ib_write_bw", "-x", "--run_infinitely", "--size=4096", "--qp-timeout=20"):
        yield


@contextmanager
def _running(
    tool: str, gid: str, *words: str
) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """A tool at both ends: client and server."""
    server = _program(SERVER, tool, f"{gid}{SERVER.gid()}", *words)
    try:
        eventually(lambda: run("ss", "-Htln", "sport", "=", ":18515").out, f"{tool} listens")
        client = _program(CLIENT, tool, f"{gid}{CLIENT.gid()}", *words, "127.0.0.1")
        try:
            yield client, server
        finally:
            _end(CLIENT, client)
    finally:
        _end(SERVER, server)


def _program(end: End, tool: str, *words: str) -> _Program:
    unit = ("--collect", f"--unit={end.unit}", f"--uid={end.user}", "--property=LimitMEMLOCK=infinity")
    argv = ["systemd-run", "--quiet", "--pipe", "--wait", *unit, tool, f"--ib-dev={end.device}", *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _end(end: End, program: _Program) -> None:
    if program.poll() is None:
        systemctl("kill", "--signal=KILL", end.unit, check=False)
    program.wait()
    eventually(lambda: show("ActiveState", end.unit) == "inactive", f"{end.unit} is gone")
    if program.stdout is not None:
        program.stdout.close()


def pairs_in_kernel() -> dict[str, tuple[int, int, int]]:
    """By device, the queue pair that is connected: its number, the other's, and the pid; by rdma(8)."""
    found = json.loads(run("rdma", "-j", "resource", "show", "qp").out)
    ready = [pair for pair in found if pair["type"] == "RC" and pair["state"] in ("RTS", "RTR")]
    return {pair["ifname"]: (pair["lqpn"], pair["rqpn"], pair["pid"]) for pair in ready}


def flows() -> list[dict[str, Any]]:
    """All flows of RoCE."""
    return [row for row in rows("Flows") if row["kind"] == "roce"]
