"""Traffic on request: a program that runs in a namespace, as any user, and does what a test tells it.

Reads one JSON request a line ({"do": NAME, ...arguments}), answers with one JSON line when it is done.
It must not import anything of ours: other users cannot read this source tree.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import select
import selectors
import socket
import struct
import sys
import termios
import threading
import time
from typing import Any

_DEADLINE = 20.0
_UDP_SEGMENT = 103
_SO_ZEROCOPY, _MSG_ZEROCOPY = 60, 0x4000000
_ECHO = {4: (socket.IPPROTO_ICMP, 8), 6: (socket.IPPROTO_ICMPV6, 128)}

sockets: dict[str, socket.socket] = {}


class _SaidAlready(Exception):
    """Another process has answered the request."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _configure(made: socket.socket, options: list[list[Any]] | None) -> None:
    """Sets options of a socket: level, name, and an integer or bytes in hexadecimal."""
    for level, name, value in options or []:
        made.setsockopt(level, name, bytes.fromhex(value) if isinstance(value, str) else value)


def udp(
    name: str,
    peer: list[Any] | None = None,
    local: list[Any] | None = None,
    options: list[list[Any]] | None = None,
) -> int:
    """Opens a UDP socket, bound and connected as wished; returns its port."""
    made = socket.socket(_family((peer or local or ["0.0.0.0"])[0]), socket.SOCK_DGRAM)
    made.settimeout(_DEADLINE)
    _configure(made, options)
    if local:
        made.bind(tuple(local))
    if peer:
        made.connect(tuple(peer))
    sockets[name] = made
    return int(made.getsockname()[1])


def rename(name: str) -> None:
    """Gives this process another name (PR_SET_NAME of prctl(2))."""
    ctypes.CDLL(None).prctl(15, name.encode())


def connect(name: str, peer: list[Any]) -> None:
    """Connects a socket that there is (UDP: once more)."""
    sockets[name].connect(tuple(peer))


def disconnect(name: str) -> None:
    """Makes a connected UDP socket an unconnected one again (connect(2) with AF_UNSPEC)."""
    nobody = struct.pack("=H14x", socket.AF_UNSPEC)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sockets[name].fileno(), nobody, len(nobody)) == 0, os.strerror(ctypes.get_errno())


def tcp(name: str, peer: list[Any], room: int = 0, options: list[list[Any]] | None = None) -> int:
    """Opens a TCP connection, perhaps with much room for what it sends; returns the local port."""
    made = socket.socket(_family(peer[0]), socket.SOCK_STREAM)
    made.settimeout(_DEADLINE)
    _configure(made, options)
    made.connect(tuple(peer))
    if room:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sockets[name] = made
    return int(made.getsockname()[1])


def listen(name: str, local: list[Any], room: int = 0, options: list[list[Any]] | None = None) -> int:
    """Opens a TCP listener, whose connections may have little room to receive; returns its port."""
    dual = local[0] == "::"
    sockets[name] = socket.create_server(
        tuple(local), family=_family(local[0]), backlog=512, dualstack_ipv6=dual
    )
    sockets[name].settimeout(_DEADLINE)
    _configure(sockets[name], options)
    if room:
        sockets[name].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    return int(sockets[name].getsockname()[1])


def accept(name: str, listener: str) -> None:
    """Accepts one connection."""
    sockets[name], _ = sockets[listener].accept()
    sockets[name].settimeout(_DEADLINE)


def fork(uid: int) -> int:
    """Hands the rest of the requests to a child that is another user; returns its pid."""
    ready, done = os.pipe()
    child = os.fork()
    if child:
        os.close(done)
        os.read(ready, 1)  # until the child is who it shall be
        print(json.dumps({"done": child}), flush=True)
        os.waitpid(child, 0)
        sys.exit(0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.close(done)
    raise _SaidAlready


def exchange(name: str, count: int = 1, size: int = 100) -> None:
    """Sends messages one after the other and waits for the echo of each."""
    for _ in range(count):
        sockets[name].sendall(bytes(size))
        answer(name, 1, size, back=False)


def answer(name: str, count: int = 1, size: int = 100, back: bool = True) -> None:
    """Receives messages of a size and sends each back."""
    for _ in range(count):
        left = size
        while left:
            received = sockets[name].recv(left)
            assert received, "the connection was closed"
            left -= len(received)
        if back:
            sockets[name].sendall(bytes(size))
    _acknowledge(name)


def _acknowledge(name: str) -> None:
    """TCP may keep its last acknowledgement back for 40 ms; a test that counts wants it now."""
    if sockets[name].type == socket.SOCK_STREAM:
        sockets[name].setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def send(name: str, count: int = 1, size: int = 100, to: list[list[Any]] | None = None) -> None:
    """Sends messages and waits for nothing; to each of some peers if the socket is not connected."""
    for peer in to or [None]:  # type: ignore[list-item]
        for _ in range(count):
            if peer:
                sockets[name].sendto(bytes(size), tuple(peer))
            else:
                sockets[name].sendall(bytes(size))


def spray(prefix: str, senders: int, count: int, size: int) -> None:
    """Sends so many messages as fast as it can, from one of some sockets after the other."""
    message = bytes(size)
    for number in range(count):
        sockets[f"{prefix}{number % senders}"].send(message)


def climb(name: str, count: int, largest: int, start: int = 0) -> None:
    """Sends so many messages as fast as it can, each a byte longer than the one before; after the largest an
    empty one. start: how many messages went before."""
    message = memoryview(bytes(largest))
    for number in range(start, start + count):
        sockets[name].send(message[: number % (largest + 1)])


def spray_on(name: str, size: int) -> None:
    """Sends as fast as it can until the next request is there."""
    message, requests = bytes(size), select.poll()
    requests.register(sys.stdin, select.POLLIN)
    while not requests.poll(0):
        for _ in range(100):
            sockets[name].send(message)


def spray_until_error(name: str, size: int) -> None:
    """Sends as fast as it can for as long as it goes."""
    message = bytes(size)
    with contextlib.suppress(OSError):
        while True:
            sockets[name].send(message)


def send_file(name: str, size: int) -> None:
    """Sends a file of that size by sendfile(2)."""
    with os.fdopen(os.memfd_create("file"), "wb") as file:
        file.truncate(size)
        sockets[name].sendfile(file, 0, size)


def send_zerocopy(name: str, size: int) -> None:
    """Sends a buffer that the kernel does not copy (MSG_ZEROCOPY of send(2)), and waits until it is free."""
    one = sockets[name]
    one.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
    data, sent, calls = memoryview(bytes(size)), 0, 0
    while sent < size:
        sent += one.send(data[sent:], _MSG_ZEROCOPY)
        calls += 1
    done, ready = 0, select.poll()
    ready.register(one, 0)  # errors are always reported
    while done < calls:
        ready.poll(_DEADLINE * 1000)
        _, control, _, _ = one.recvmsg(0, 256, socket.MSG_ERRQUEUE)
        # struct sock_extended_err: which of the calls are done (linux/errqueue.h)
        first, last = struct.unpack_from("=II", control[0][2], 8)
        done += last - first + 1


def send_segmented(name: str, size: int, segment: int, to: list[Any] | None = None) -> None:
    """Sends one buffer that the kernel cuts into datagrams (UDP_SEGMENT, udp(7))."""
    control = [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", segment))]
    peer = [tuple(to)] if to else []
    sockets[name].sendmsg([bytes(size)], control, 0, *peer)


def unacknowledged(name: str) -> int:
    """Bytes of a TCP connection that the other side has not acknowledged (SIOCOUTQ of tcp(7))."""
    return int(struct.unpack("=i", fcntl.ioctl(sockets[name], termios.TIOCOUTQ, bytes(4)))[0])


def retransmissions(name: str) -> int:
    """How many segments of a TCP connection were sent again (tcpi_total_retrans of linux/tcp.h)."""
    information = sockets[name].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=I", information, 100)[0])


def close(name: str) -> None:
    sockets.pop(name).close()


def close_all() -> None:
    while sockets:
        sockets.popitem()[1].close()


def drain(name: str, count: int) -> None:
    """Receives that many messages."""
    for _ in range(count):
        sockets[name].recv(1 << 16)
    _acknowledge(name)


def finish(name: str) -> None:
    """Waits for the other side to close, then closes."""
    while sockets[name].recv(1 << 16):
        pass
    close(name)


def hang_up(name: str) -> None:
    """Ends a TCP connection, and waits until the other side has done so: its last packet was exchanged."""
    sockets[name].shutdown(socket.SHUT_WR)
    finish(name)


def many(prefix: str, count: int, peer: list[Any], exchanges: int, size: int = 100) -> None:
    """Opens so many connected UDP sockets; each exchanges messages, all stay open."""
    for number in range(count):
        udp(f"{prefix}{number}", peer)
    for number in range(count):
        exchange(f"{prefix}{number}", exchanges, size)


def take_turns(prefix: str, count: int, turns: int, size: int) -> None:
    """Exchanges one message on each of some sockets, then again, so many times."""
    for _ in range(turns):
        for number in range(count):
            exchange(f"{prefix}{number}", 1, size)


def from_many(count: int, peer: list[Any], network: str, exchanges: int, size: int = 100) -> None:
    """Talks to a server from so many addresses of a network, one exchange after the other."""
    for number in range(1, count + 1):
        name = f"from{number}"
        last = f":{number:x}" if ":" in network else f".{number // 250}.{number % 250 + 1}"
        udp(name, peer, [network + last, 0])
        exchange(name, exchanges, size)
        close(name)


def storm(peer: list[Any], count: int, size: int) -> None:
    """Connects, sends, receives as much, and lets the server close first; so many times."""
    request = bytes(size)
    family = _family(peer[0])
    for _ in range(count):
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.connect(tuple(peer))
            one.send(request)
            while one.recv(4096):
                pass


def storm_for(peer: list[Any], seconds: float, size: int) -> int:
    """storm() for a time; returns how many connections that were."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        storm(peer, 101, size)
        count += 101
    return count


def flit_for(peer: list[Any], seconds: float, size: int) -> int:
    """For a time opens UDP sockets, of which each exchanges one message; returns how many that were."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        udp("flit", peer)
        exchange("flit", 1, size)
        close("flit")
        count += 1
    return count


def refused(peer: list[Any], count: int) -> int:
    """Tries to connect where nobody listens; how often that was refused."""
    times = 0
    for _ in range(count):
        with socket.socket(_family(peer[0]), socket.SOCK_STREAM) as one:
            one.settimeout(_DEADLINE)
            times += one.connect_ex(tuple(peer)) == errno.ECONNREFUSED
    return times


def short_server(local: list[Any]) -> int:
    """Serves storm() in the background: an answer as long as the request, then close."""
    listener = socket.create_server(tuple(local), family=_family(local[0]), backlog=1024)

    def serve() -> None:
        while True:
            with listener.accept()[0] as one:
                one.send(one.recv(4096))

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def echo_server(local: list[Any]) -> int:
    """Sends back whatever comes, over UDP and TCP, in the background; returns the port."""
    stream, datagrams = _both(local)
    threading.Thread(target=_echo, args=(stream, datagrams), daemon=True).start()
    return int(stream.getsockname()[1])


def _both(local: list[Any]) -> tuple[socket.socket, socket.socket]:
    """A TCP listener and a UDP socket at the same port. Of those the kernel chooses for the one, some may be
    taken for the other."""
    while True:
        stream = socket.create_server(tuple(local), family=_family(local[0]), backlog=1024)
        datagrams = socket.socket(_family(local[0]), socket.SOCK_DGRAM)
        try:
            datagrams.bind((local[0], stream.getsockname()[1]))
        except OSError as error:
            stream.close()
            datagrams.close()
            if local[1] or error.errno != errno.EADDRINUSE:
                raise
        else:
            return stream, datagrams


def _echo(stream: socket.socket, datagrams: socket.socket) -> None:
    selector = selectors.DefaultSelector()
    selector.register(stream, selectors.EVENT_READ)
    selector.register(datagrams, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready is datagrams:
                data, peer = datagrams.recvfrom(1 << 16)
                datagrams.sendto(data, peer)
            elif ready is stream:
                selector.register(stream.accept()[0], selectors.EVENT_READ)
            else:
                try:
                    data = ready.recv(1 << 16)
                except OSError:
                    data = b""
                if data:
                    ready.sendall(data)
                else:
                    selector.unregister(ready)
                    ready.close()


def ping(address: str, count: int, size: int, raw: bool = False) -> None:
    """Sends echo requests and waits for each reply, by a ping socket or a raw one (icmp(7), raw(7))."""
    version = 6 if ":" in address else 4
    protocol, request = _ECHO[version]
    kind = socket.SOCK_RAW if raw else socket.SOCK_DGRAM
    with socket.socket(_family(address), kind, protocol) as one:
        one.settimeout(_DEADLINE)
        if raw and version == 6:  # else neighbour discovery comes in, too
            only_replies = bytearray(b"\xff" * 32)
            only_replies[129 // 8] &= ~(1 << 129 % 8) & 0xFF
            one.setsockopt(socket.IPPROTO_ICMPV6, 1, bytes(only_replies))
        one.connect((address, 0))
        for sequence in range(count):
            message = struct.pack("!BBHHH", request, 0, 0, 7, sequence) + bytes(size)
            if version == 4:
                message = message[:2] + struct.pack("!H", _checksum(message)) + message[4:]
            one.send(message)
            one.recv(1 << 16)


def _checksum(message: bytes) -> int:
    """RFC 1071."""
    message += bytes(len(message) % 2)
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> None:
    print(json.dumps(os.getpid()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result: Any = {"done": globals()[request.pop("do")](**request)}
        except _SaidAlready:
            continue
        except Exception as error:  # the test wants to know, whatever it is
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
