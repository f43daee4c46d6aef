"""Frames on a Unix stream socket: a kind, a head in JSON, and arrays as they are in memory.

Both ends run on the same machine and are of the same build: there is no version and no byte order to agree
on. Nothing that arrives is executed (no pickle), and its size is checked before memory is taken for it.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.errors import NetmondError

#: Kind (four letters), bytes of the head, bytes of the arrays.
_START = struct.Struct("=4sIQ")

#: Heads hold a name for each unit and target: a million targets are 30 MB.
MAX_HEAD = 64 << 20
#: A flow takes 230 bytes, and there are at most 4,194,304 of them.
MAX_BODY = 1 << 30

#: Buffers that one sendmsg(2) takes: IOV_MAX.
_MOST_BUFFERS = 1024


class StreamError(NetmondError):
    """What arrived is no frame, or more than allowed; nothing after it can be understood."""


class Ended(StreamError):
    """The other side closed the connection in the middle of a frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The beginning of a frame; `body` bytes of arrays are still to be read with `fill`."""

    kind: bytes
    head: Any
    body: int


def send(connection: socket.socket, kind: bytes, head: Any, arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Sends one frame, the arrays without copying those that are contiguous."""
    text = json.dumps(head, separators=(",", ":"), default=str).encode()
    buffers = [_memory(array) for array in arrays if array.size]
    start = _START.pack(kind, len(text), sum(map(len, buffers)))
    rest = [memoryview(start + text), *buffers]
    while rest:
        sent = connection.sendmsg(rest[:_MOST_BUFFERS])
        while rest and sent >= len(rest[0]):
            sent -= len(rest.pop(0))
        if sent:
            rest[0] = rest[0][sent:]


def receive(connection: socket.socket, *, head: int = MAX_HEAD, body: int = MAX_BODY) -> Frame | None:
    """The beginning of the next frame, None at the end of the stream. head, body: bytes allowed at most."""
    start = bytearray(_START.size)
    if not connection.recv_into(start, 1):
        return None
    _fill(connection, memoryview(start)[1:])
    kind, head_size, body_size = _START.unpack(start)
    if head_size > head or body_size > body:
        raise StreamError(f"a frame of {head_size} and {body_size} bytes is too large")
    text = bytearray(head_size)
    _fill(connection, memoryview(text))
    try:
        return Frame(kind, json.loads(text), body_size)
    except (ValueError, RecursionError) as error:
        raise StreamError(f"the head of a frame is no JSON: {error}") from None


def fill(connection: socket.socket, array: NDArray[Any]) -> None:
    """Reads the next array of a frame into one of its size."""
    if array.size:
        _fill(connection, _memory(array))


def _memory(array: NDArray[Any]) -> memoryview:
    """The bytes of an array with at least one element. Of types without a buffer format (V16), too."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _fill(connection: socket.socket, memory: memoryview) -> None:
    while memory:
        count = connection.recv_into(memory)
        if not count:
            raise Ended("the connection ended within a frame")
        memory = memory[count:]
