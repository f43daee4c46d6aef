"""Netlink requests (netlink(7)): one dump or one subscription at a time.

By hand because pyroute2 takes 13 MB of a daemon's 45; two kinds of dump are all that is needed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator

from netmond.errors import KernelError

ROUTE = 0

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_GETROUTE = 26
RTM_GETQDISC = 38
RTM_GETTFILTER = 46
RTMGRP_LINK = 1

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE = 1 << 17


def dump(family: int, kind: int, body: bytes) -> Iterator[bytes]:
    """Asks for a dump and yields the body of each answer. KernelError: the kernel refused."""
    yield from _request(family, kind, body, _NLM_F_REQUEST | _NLM_F_DUMP)


def get(family: int, kind: int, body: bytes) -> bytes:
    """Asks for one thing and returns the body of the answer. KernelError: the kernel refused."""
    for answer in _request(family, kind, body, _NLM_F_REQUEST):
        return answer
    raise KernelError("netlink: no answer")


def _request(family: int, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as connection:
            connection.settimeout(5)
            connection.bind((0, 0))
            connection.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body)
            while True:
                for kind_of_answer, answer in messages(connection.recv(_RECEIVE)):
                    if kind_of_answer == _NLMSG_DONE:
                        return
                    if kind_of_answer == _NLMSG_ERROR:
                        code = -int.from_bytes(answer[:4], sys.byteorder, signed=True)
                        raise KernelError(f"netlink: {os.strerror(code)}")
                    yield answer
    except OSError as error:
        raise KernelError(f"netlink: {error.strerror or error}") from error


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Splits what one recv() returned into type and body; ends at the first damaged header."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes from an offset on, by type; of a repeated one the last."""
    return dict(each_attribute(data, at))


def each_attribute(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Type and value of the attributes from an offset on; ends at the first damaged one."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def subscribe(groups: int) -> socket.socket:
    """A non-blocking socket that receives rtnetlink messages of these groups."""
    connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, ROUTE)
    connection.setblocking(False)
    connection.bind((0, groups))
    return connection
