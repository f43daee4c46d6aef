"""One end of the cable: ``python3 -m netmonctl.selftest.child FD`` does what the selftest tells it.

Requests and answers are JSON messages over a socketpair. It ends with its parent, however that ends: its
sockets, and with the far end the namespace and the cable, go with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from netmonctl.errors import CtlError
from netmonctl.selftest import frames, iproute, witness

_PATIENCE = 5.0  #: seconds for a datagram or a connection
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PACKET_OUTGOING = 4
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_ROOM = 32 << 20  #: bytes for frames that were not looked at yet
_SOL_PACKET, _PACKET_STATISTICS = 263, 6

#: ethtool(8) by its ioctl: SIOCETHTOOL, and the command that sets each feature.
_SIOCETHTOOL = 0x8946
_FEATURES = {"tso": 0x1F, "gso": 0x24, "gro": 0x2C}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def die_with(parent: int) -> None:
    """A change of user makes the kernel forget it (prctl(2)): called again after that."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        sys.exit(1)


def set_features(device: str, **wanted: bool) -> None:
    """Turns segmentation offloads of a device on or off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for name, on in wanted.items():
            value = ctypes.create_string_buffer(struct.pack("=II", _FEATURES[name], on))
            request = struct.pack("16sP8x", device.encode(), ctypes.addressof(value))
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Child:
    """What it can be told; names are those of requests."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._sockets: dict[str, socket.socket] = {}
        self._peers: dict[str, Any] = {}
        self._packets: socket.socket | None = None
        self._sender: socket.socket | None = None
        self._seen: witness.Seen = {}

    # -- being set up ---------------------------------------------------------------------------------

    def unshare(self) -> None:
        """A network namespace of its own, which goes with this process."""
        _check(_libc.unshare(_CLONE_NEWNET))

    def ip(self, lines: list[str]) -> None:
        iproute.batch(*lines)

    def features(self, device: str, wanted: dict[str, bool]) -> None:
        set_features(device, **wanted)

    def watch(self, device: str) -> None:
        """Sees every frame of a device from now on, and may send some: from another socket, since none sees
        its own."""
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        self._packets.bind((device, _ETH_P_ALL))
        self._packets.setblocking(False)
        self._sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._sender.bind((device, 0))

    def become(self, uid: int) -> int:
        """Another user, for good; the pid."""
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        die_with(self._parent)
        return os.getpid()

    # -- traffic --------------------------------------------------------------------------------------

    def udp(self, name: str, local: str, peer: list[Any] | None = None) -> int:
        """A UDP socket, perhaps connected; its port."""
        made = socket.socket(_family(local), socket.SOCK_DGRAM)
        made.bind((local, 0))
        return self._keep(name, made, peer)

    def listen(self, name: str, local: str) -> int:
        made = socket.create_server((local, 0), family=_family(local))
        return self._keep(name, made)

    def connect(self, name: str, local: str, peer: list[Any]) -> int:
        """A TCP connection; the local port."""
        made = socket.socket(_family(local), socket.SOCK_STREAM)
        made.bind((local, 0))
        return self._keep(name, made, peer)

    def accept(self, name: str, listener: str) -> int:
        return self._keep(name, self._sockets[listener].accept()[0])

    def _keep(self, name: str, made: socket.socket, peer: list[Any] | None = None) -> int:
        made.settimeout(_PATIENCE)
        if made.type == socket.SOCK_STREAM:
            # Whoever closes it resets it: nothing is left that would go on without its process.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if peer:
            made.connect(tuple(peer))
        self._sockets[name] = made
        return int(made.getsockname()[1])

    def send(self, name: str, count: int, size: int, to: list[Any] | None = None) -> None:
        """Sends so many times; to an address, the one that was heard last, or the one peer."""
        peer = to or self._peers.get(name)
        for _ in range(count):
            if peer:
                self._sockets[name].sendto(bytes(size), tuple(peer))
            else:
                self._sockets[name].sendall(bytes(size))

    def receive(self, name: str, count: int, size: int) -> None:
        """Receives so many datagrams of a size, or a stream of so many bytes."""
        one = self._sockets[name]
        if one.type == socket.SOCK_STREAM:
            left = size
            while left:
                got = len(one.recv(min(left, 1 << 16)))
                if not got:
                    raise OSError("the connection was closed")
                left -= got
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            return
        for _ in range(count):
            data, self._peers[name] = one.recvfrom(1 << 16)
            if len(data) != size:
                raise OSError(f"a datagram of {len(data)} bytes came, {size} were sent")

    def knock(self, macs: tuple[str, str], ends: tuple[str, str], size: int, arp: int, echo: int) -> None:
        """Asks the other end's kernel, past all sockets: so many ARP and echo requests."""
        assert self._sender is not None
        for _ in range(arp):
            self._sender.send(frames.arp_request(macs[0], *ends))
        for _ in range(echo):
            self._sender.send(frames.echo_request(macs, ends, size))

    # -- the witness ----------------------------------------------------------------------------------

    def seen(self) -> list[list[object]]:
        """All that has passed the watched device so far."""
        assert self._packets is not None
        found = []
        while True:
            try:
                frame, address = self._packets.recvfrom(1 << 16)
            except BlockingIOError:
                break
            found.append((frame, address[2] == _PACKET_OUTGOING))
        _, missed = struct.unpack("=II", self._packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        if missed:
            raise OSError(f"{missed} frames were not seen, for lack of memory")
        witness.tally(found, self._seen)
        return witness.packed(self._seen)


def main(descriptor: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # also sent to us, by a service manager: the parent decides
    child = Child()
    die_with(child._parent)
    with socket.socket(fileno=descriptor) as connection:
        while data := connection.recv(1 << 16):
            request = json.loads(data)
            command: Callable[..., Any] = getattr(child, request.pop("do"))
            try:
                answer = {"done": command(**request)}
            except (CtlError, OSError) as error:
                text = getattr(error, "strerror", None) or str(error)
                answer = {"error": text, "refused": isinstance(error, PermissionError)}
            connection.send(json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
