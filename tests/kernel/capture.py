"""What passed a device, as tcpdump saw it: the witness that netmond's figures are compared with."""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import struct
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Link, Namespace, Process

_CLONE_NEWNET = 0x40000000
_ETHERTYPE_EXPERIMENTAL = 0x88B5  # IEEE Std 802, local experimental
_SNAP = 160  # bytes kept of a frame
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_OPTIONS = (0, 60)  # headers of IPv6 before another: hop-by-hop and destination options


@contextmanager
def entered(space: Namespace) -> Iterator[None]:
    """Sockets made in this block belong to the namespace (setns(2), this thread only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(space.file) as there:
        assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), _CLONE_NEWNET) == 0


def send_frames(space: Namespace, device: str, frames: Iterable[bytes]) -> None:
    """Sends frames from a device as they are."""
    with entered(space), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, 0))
        for frame in frames:
            sender.send(frame)


class Packet(NamedTuple):
    """An IP packet; `size` is its length on the wire from the IP header on."""

    source: str
    destination: str
    protocol: int
    source_port: int
    destination_port: int
    size: int
    payload: int  # bytes behind the TCP or UDP header
    flags: int  # of TCP
    sequence: int
    acknowledgement: int
    vlan: int  # 0: no tag


class Figures(NamedTuple):
    """The counters that both sides of a comparison have."""

    in_packets: int
    in_bytes: int
    out_packets: int
    out_bytes: int

    def __add__(self, other: tuple[object, ...]) -> Figures:
        return Figures(*(a + b for a, b in zip(self, other, strict=True)))  # type: ignore[operator]

    def __sub__(self, other: tuple[int, ...]) -> Figures:
        return Figures(*(a - b for a, b in zip(self, other, strict=True)))


NOTHING = Figures(0, 0, 0, 0)


class Capture:
    """A tcpdump at the far end of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._file = link.far.machine.directory / f"{secrets.token_hex(4)}.pcap"
        argv = ["tcpdump", "-i", link.far_device, "-w", str(self._file), "-s", str(_SNAP)]
        argv += ["-U", "--immediate-mode", "-B", "65536", "-Z", "root", "-n"]
        self._process: Process = link.far.machine.start(link.far.command(argv))
        assert self._process.popen.stdout is not None
        for line in self._process.popen.stdout:
            if "listening on" in line:
                return
        raise AssertionError("tcpdump did not start")

    def stop(self) -> list[Packet]:
        """Everything up to now, in the order of the wire."""
        mark = secrets.token_bytes(16)
        ends = bytes.fromhex("020000000001020000000002")
        frame = ends + struct.pack("!H", _ETHERTYPE_EXPERIMENTAL) + mark
        send_frames(self._link.near, self._link.near_device, [frame])
        eventually(lambda: mark in _tail(self._file), "tcpdump has written the last frame")
        self._process.popen.send_signal(signal.SIGINT)
        said, _ = self._process.popen.communicate(timeout=DEADLINE)
        assert "\n0 packets dropped by kernel" in said, said
        return list(read_packets(self._file.read_bytes()))


def _tail(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 4096))
        return opened.read()


def read_packets(pcap: bytes) -> Iterator[Packet]:
    """The IP packets of a capture file (little endian, Ethernet)."""
    at = 24
    while at < len(pcap):
        kept = int.from_bytes(pcap[at + 8 : at + 12], "little")
        frame = pcap[at + 16 : at + 16 + kept]
        at += 16 + kept
        packet = _packet(frame)
        if packet is not None:
            yield packet


def _packet(frame: bytes) -> Packet | None:
    (kind,) = struct.unpack_from("!H", frame, 12)
    ip = frame[14:]
    vlan = 0
    if kind == 0x8100:  # a tag of IEEE Std 802.1Q
        vlan, kind = struct.unpack_from("!HH", frame, 14)
        ip = frame[18:]
    if kind == 0x0800:
        header = (ip[0] & 15) * 4
        (size,) = struct.unpack_from("!H", ip, 2)
        protocol = ip[9]
        source, destination = (socket.inet_ntop(socket.AF_INET, ip[n : n + 4]) for n in (12, 16))
        first = not int.from_bytes(ip[6:8], "big") & 0x1FFF
    elif kind == 0x86DD:
        header, protocol = 40, ip[6]
        size = 40 + int.from_bytes(ip[4:6], "big")
        while protocol in _OPTIONS:
            header, protocol = header + (ip[header + 1] + 1) * 8, ip[header]
        source, destination = (socket.inet_ntop(socket.AF_INET6, ip[n : n + 16]) for n in (8, 24))
        first = True
    else:
        return None
    ports = (0, 0)
    payload, flags, sequence, acknowledgement = size - header, 0, 0, 0
    if protocol == socket.IPPROTO_TCP and first:
        one, other, sequence, acknowledgement, offset, flags = struct.unpack_from("!HHIIBB", ip, header)
        ports = (one, other)
        payload -= (offset >> 4) * 4
    elif protocol == socket.IPPROTO_UDP and first:
        one, other = struct.unpack_from("!HH", ip, header)
        ports = (one, other)
        payload -= 8
    return Packet(
        source, destination, protocol, *ports, size, payload, flags, sequence, acknowledgement, vlan
    )


def figures(packets: Iterable[Packet], here: Set[str]) -> Figures:
    """What these packets are to the host with the given addresses."""
    counted = [0, 0, 0, 0]
    for packet in packets:
        place = 2 if packet.source in here else 0
        counted[place] += 1
        counted[place + 1] += packet.size
    return Figures(*counted)


def of_sockets(packets: Iterable[Packet], here: Set[str]) -> tuple[list[Packet], list[Packet]]:
    """TCP segments that a socket of this host sent or received, and those after its end.

    Whoever closes first keeps no socket: once its FIN is acknowledged and its process has closed, a
    "mini-socket" of the kernel in TIME_WAIT answers for the rest of the connection. It has no owner, and
    cgroup programs do not see it. What comes after that is in the second list; at most the other side's
    FIN and its acknowledgement. (If close() is still at work in that moment, the socket still sees them.)
    """
    connections: dict[tuple[str, int, str, int], _Connection] = {}
    alive: list[Packet] = []
    late: list[Packet] = []
    for packet in packets:
        if packet.source in here:
            key = packet.source, packet.source_port, packet.destination, packet.destination_port
        else:
            key = packet.destination, packet.destination_port, packet.source, packet.source_port
        connection = connections.get(key)
        if connection is None or (packet.flags & _SYN and connection.gone):
            connection = connections[key] = _Connection()
        (late if connection.gone else alive).append(packet)
        connection.see(packet, outgoing=packet.source in here)
    return alive, late


class _Connection:
    """The end of one connection as its local side goes through it."""

    def __init__(self) -> None:
        self._end = -1  # acknowledgement number that covers our FIN
        self._last = False  # only our acknowledgement of their FIN is missing
        self.gone = False

    def see(self, packet: Packet, *, outgoing: bool) -> None:
        if packet.flags & _RST or (outgoing and self._last):
            self.gone = True
        elif outgoing and packet.flags & _FIN:
            self._end = (packet.sequence + packet.payload + 1) & 0xFFFFFFFF
        elif not outgoing and packet.flags & _ACK and packet.acknowledgement == self._end:
            if packet.flags & _FIN:
                self._last = True
            else:
                self.gone = True
