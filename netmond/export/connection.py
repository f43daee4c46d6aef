"""Sockets to the systems that outputs deliver to, and what is wrong with them in words that help."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any

from netmond.errors import Unavailable
from netmond.export.address import Address

#: ioctl(2): bytes in the send queue that the other side has not taken yet; tcp(7), unix(7).
_SIOCOUTQ = 0x5411

#: Seconds between two looks at the send queue; a connection that ends is noticed at once.
_LOOK = 0.005

#: Seconds in which a host may answer that nobody listens at a UDP port.
_REFUSAL = 0.1

#: socket(7): a connection is cut when it is closed.
_NOW = struct.pack("ii", 1, 0)

#: Causes and remedies by error number, while connecting and after it; other errors speak for themselves.
_CONNECTING = {
    errno.ECONNREFUSED: "nothing listens there: start it, or correct the address",
    errno.ENOENT: "there is no such socket: start what listens there, or correct the address",
    errno.EACCES: "netmond-export may not connect: its mode and those of the directories must allow it",
    errno.EPROTOTYPE: "the socket is of another type: a stream instead of datagrams, or the other way round",
    errno.EAGAIN: "connections are not accepted: look at what listens there",
    errno.ETIMEDOUT: "no answer: is the machine up, and lets every firewall this through?",
    errno.EHOSTUNREACH: "no answer from that network: is the machine up?",
    errno.ENETUNREACH: "there is no route to that network: check the address and the routes",
}
_SENDING = {
    errno.ECONNREFUSED: "nothing listens there: start it, or correct the address",
    errno.ETIMEDOUT: "what is sent is not taken in time: look at what listens there, or raise the timeout",
    errno.ECONNRESET: "the connection was cut by the other side: look at what listens there",
    errno.EPIPE: "the connection was cut by the other side: look at what listens there",
}


class Stream:
    """A connection of bytes, made when it is needed, and anew after a failure."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout
        self._socket: socket.socket | None = None

    def send(self, data: bytes) -> None:
        """Send, and wait until the other side has all of it: its kernel over TCP, itself over a Unix socket.

        Unavailable if it does not within the timeout, or cannot be reached; then it may have a part.
        """
        if self._socket is not None and _is_over(self._socket):
            self.close()  # our own kernel would take what nobody reads any more
        if self._socket is None:
            self._socket = connect(self._address, self._timeout)
        try:
            deadline = time.monotonic() + self._timeout
            self._socket.sendall(data)
            _wait_until_taken(self._socket, deadline)
        except OSError as error:
            # What is on its way is sent again: the kernel must not go on with it.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            self.close()
            raise unavailable(self._address, error, connected=True) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def send_datagrams(address: Address, timeout: float, datagrams: Iterable[bytes]) -> None:
    """Send datagrams from a new socket: the name is looked up and the way chosen anew each time.

    Unavailable if that fails, or if it is said at once that nobody listens. UDP tells no more than that.
    """
    with connect(address, timeout, datagrams=True) as sender:
        try:
            for datagram in datagrams:
                sender.send(datagram)
            if address.scheme == "udp":
                has_ended(sender, _REFUSAL)
            raise_pending(sender)
        except OSError as error:
            raise unavailable(address, error, connected=True) from error


def connect(address: Address, timeout: float, *, datagrams: bool = False) -> socket.socket:
    """A connected socket, for udp always of datagrams. Unavailable.

    A name's addresses are tried one after the other, each for `timeout` seconds; looking up the name takes
    as long as the resolver likes, resolv.conf(5).
    """
    kind = socket.SOCK_DGRAM if datagrams or address.scheme == "udp" else socket.SOCK_STREAM
    places: list[tuple[int, Any]]
    try:
        if address.scheme == "unix":
            places = [(socket.AF_UNIX, address.path)]
        else:
            found = socket.getaddrinfo(address.host, address.port, type=kind)
            places = [(family, where) for family, _, _, _, where in found]
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            f"{address}: the name cannot be looked up: {_plain(error)}: check it, and DNS"
        ) from error
    problem: OSError = OSError("no address")
    for family, where in places:
        try:
            return _connected(family, kind, where, timeout)
        except OSError as error:  # also for a family that is switched off, or forbidden to the service
            problem = error
    raise unavailable(address, problem)


def _connected(family: int, kind: int, where: Any, timeout: float) -> socket.socket:
    connection = socket.socket(family, kind)
    try:
        connection.settimeout(timeout)
        connection.connect(where)
    except BaseException:
        connection.close()
        raise
    return connection


def unavailable(address: Address, error: OSError, *, connected: bool = False) -> Unavailable:
    """The error for an administrator: the address, what happened, and the remedy."""
    number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno or 0
    what = os.strerror(number) if number else _plain(error)
    remedy = (_SENDING if connected else _CONNECTING).get(number, "")
    return Unavailable(f"{address}: {what}{remedy and ': '}{remedy}")


def _is_over(connection: socket.socket) -> bool:
    """Whether the other side sends nothing any more: almost always it does not read either."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


def has_ended(connection: socket.socket, seconds: float) -> bool:
    """Whether the connection fails or ends within this time."""
    poll = select.poll()
    poll.register(connection, 0)  # POLLERR and POLLHUP come in any case
    return bool(poll.poll(seconds * 1000))


def _wait_until_taken(connection: socket.socket, deadline: float) -> None:
    while (waiting := _queued(connection)) and time.monotonic() < deadline:
        if has_ended(connection, _LOOK):
            break
    raise_pending(connection)
    if waiting:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))


def _queued(connection: socket.socket) -> int:
    """Bytes that the other side has not taken yet."""
    answer = fcntl.ioctl(connection, _SIOCOUTQ, bytes(4))
    return int(struct.unpack("=i", answer)[0])


def raise_pending(connection: socket.socket) -> None:
    """OSError: what went wrong with something sent before, if anything did."""
    number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def _plain(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
