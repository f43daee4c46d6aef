"""Reads pcapng as it comes: pieces of a stream in, frames and statistics out. Pure: no files, no clock.

The format is that of draft-ietf-opsawg-pcapng: a section header, interfaces, packets, statistics. What a
block is not known for is passed over, as the draft asks for. Memory: one block, of MAX_BLOCK bytes at most.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6

#: The largest block that is taken; Wireshark's own limit.
MAX_BLOCK = 16 << 20

_MAGIC = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
#: Type and length of a block, by the order of its section; before the first it does not matter.
_HEADS = {"": struct.Struct("<II"), "<": struct.Struct("<II"), ">": struct.Struct(">II")}
_END, _COMMENT = 0, 1
_NAME, _RESOLUTION, _FILTER, _OFFSET = 2, 9, 11, 14
_FLAGS = 2
_RECEIVED, _DROPPED, _ACCEPTED = 4, 5, 6
_DIRECTIONS = {1: "in", 2: "out"}


#: ``user=alice uid=1000 process="a b"``: names in double quotes if they are not plain.
_OWNER = re.compile(r'(?:^| )(user|process|unit|uid(?==\d)|pid(?==\d))=("(?:[^"\\]|\\.)*"|[^ ]*)')
_NUMBERS = ("uid", "pid")


class PcapngError(ValueError):
    """What came is no pcapng; the message says where."""


class Block(NamedTuple):
    """A block as it came. `order` is that of its section: ``<`` or ``>``; `at` its place in the stream."""

    kind: int
    order: str
    raw: bytes
    at: int

    @property
    def body(self) -> bytes:
        return self.raw[8:-4]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """Where frames come from. linktype: as in pcap-linktype(7); snaplen: 0 if there is no limit."""

    name: str
    linktype: int
    snaplen: int = 0
    filter: str = ""
    resolution: int = 1_000_000  #: units of its timestamps in a second
    offset: int = 0  #: seconds to add to them

    def nanoseconds(self, units: int) -> int:
        """A timestamp in its units as nanoseconds since 1970."""
        return units * 1_000_000_000 // self.resolution + self.offset * 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame: nanoseconds since 1970; length on the wire, of which `data` may be the beginning only.

    direction: ``in``, ``out`` or, if unknown, empty.
    """

    time: int
    interface: Interface
    direction: str
    length: int
    data: bytes
    comments: tuple[str, ...] = ()

    @property
    def owner(self) -> dict[str, Any]:
        """Whose it is, as netmond says in a comment: of user, uid, process, pid and unit what is known."""
        if not self.comments:
            return {}
        found = {name: _unquoted(value) for name, value in _OWNER.findall(self.comments[0])}
        return {name: int(value) if name in _NUMBERS else value for name, value in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What an interface says of itself: frames seen, lost for want of room, taken by the filter."""

    interface: Interface
    received: int | None = None
    dropped: int | None = None
    accepted: int | None = None


@dataclass(slots=True)
class Blocks:
    """Cuts a stream into its blocks."""

    at: int = 0  #: where in the stream the next block begins
    _rest: bytes = b""  # what has come of it
    _order: str = ""

    def feed(self, data: bytes) -> Iterator[Block]:
        """The blocks that are whole with these bytes."""
        buffer, start = self._rest + data, 0
        head = _HEADS[self._order]
        try:
            while len(buffer) - start >= 12:
                kind, length = head.unpack_from(buffer, start)
                if kind == SECTION:
                    head = self._begin_section(buffer[start + 8 : start + 12])
                    kind, length = head.unpack_from(buffer, start)
                elif not self._order:
                    raise self._error("this is no pcapng, it does not begin with a section header")
                if not 12 <= length <= MAX_BLOCK or length % 4:
                    raise self._error(f"a block of {length} bytes cannot be")
                end = start + length
                if end > len(buffer):
                    break
                if buffer[end - 4 : end] != buffer[start + 4 : start + 8]:
                    raise self._error("a block whose two lengths differ")
                block = Block(kind, self._order, buffer[start:end], self.at)
                start = end
                self.at += length
                yield block
        finally:
            self._rest = buffer[start:]

    def close(self) -> None:
        """The stream is at its end: PcapngError if that is within a block."""
        if self._rest:
            raise PcapngError(f"cut off within the block at byte {self.at}")

    def _begin_section(self, magic: bytes) -> struct.Struct:
        """Each has an order of its own; its type is the same in both."""
        if magic not in _MAGIC:
            raise self._error("a section with an unknown byte order")
        self._order = _MAGIC[magic]
        return _HEADS[self._order]

    def _error(self, what: str) -> PcapngError:
        return PcapngError(f"byte {self.at}: {what}")


@dataclass(slots=True)
class Reader:
    """Understands a stream."""

    blocks: Blocks = field(default_factory=Blocks)
    interfaces: list[Interface] = field(default_factory=list)  #: of the present section, by number

    def feed(self, data: bytes) -> Iterator[Frame | Statistics]:
        """What is known with these bytes; PcapngError says where they make no sense."""
        for block in self.blocks.feed(data):
            try:
                item = self._item(block)
            except (struct.error, IndexError):
                raise PcapngError(f"byte {block.at}: a block of type {block.kind:#x} is too short") from None
            if item is not None:
                yield item

    def close(self) -> None:
        """The stream is at its end: PcapngError if that is within a block."""
        self.blocks.close()

    def _item(self, block: Block) -> Frame | Statistics | None:
        if block.kind == PACKET:
            return self._frame(block)
        if block.kind == SECTION:
            struct.unpack_from(f"{block.order}IHHq", block.body)
            self.interfaces.clear()
        elif block.kind == INTERFACE:
            self.interfaces.append(_interface(block))
        elif block.kind == STATISTICS:
            return self._statistics(block)
        return None

    def _frame(self, block: Block) -> Frame:
        body, order = block.body, block.order
        number, high, low, captured, length = struct.unpack_from(f"{order}5I", body)
        if captured > len(body) - 20:
            raise PcapngError(f"byte {block.at}: a packet of {captured} bytes, a block of {len(block.raw)}")
        interface = self._interface(number, block)
        comments, direction = [], ""
        for code, value in _options(block, 20 + _padded(captured)):
            if code == _COMMENT:
                comments.append(_text(value))
            elif code == _FLAGS:
                direction = _DIRECTIONS.get(struct.unpack_from(f"{order}I", value)[0] & 3, "")
        return Frame(
            time=interface.nanoseconds(high << 32 | low),
            interface=interface,
            direction=direction,
            length=length,
            data=body[20 : 20 + captured],
            comments=tuple(comments),
        )

    def _statistics(self, block: Block) -> Statistics:
        (number,) = struct.unpack_from(f"{block.order}I", block.body)
        known = {
            code: struct.unpack_from(f"{block.order}Q", value)[0]
            for code, value in _options(block, 12)
            if code in (_RECEIVED, _DROPPED, _ACCEPTED)
        }
        return Statistics(
            interface=self._interface(number, block),
            received=known.get(_RECEIVED),
            dropped=known.get(_DROPPED),
            accepted=known.get(_ACCEPTED),
        )

    def _interface(self, number: int, block: Block) -> Interface:
        if number >= len(self.interfaces):
            raise PcapngError(f"byte {block.at}: interface {number} has not been described")
        return self.interfaces[number]


def _interface(block: Block) -> Interface:
    linktype, _, snaplen = struct.unpack_from(f"{block.order}HHI", block.body)
    name = filter = ""
    resolution, offset = 1_000_000, 0
    for code, value in _options(block, 8):
        if code == _NAME:
            name = _text(value)
        elif code == _RESOLUTION:
            # A power of 10, or of 2 if the highest bit is set.
            resolution = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _FILTER:
            filter = _text(value[1:])  # the first byte says that text follows
        elif code == _OFFSET:
            (offset,) = struct.unpack_from(f"{block.order}q", value)
    return Interface(
        name=name, linktype=linktype, snaplen=snaplen, filter=filter, resolution=resolution, offset=offset
    )


def _options(block: Block, start: int) -> Iterator[tuple[int, bytes]]:
    """The options from a place in the body on."""
    body = block.body
    while start + 4 <= len(body):
        code, length = struct.unpack_from(f"{block.order}HH", body, start)
        if code == _END:
            return
        if length > len(body) - start - 4:
            raise PcapngError(f"byte {block.at}: option {code} is longer than its block")
        yield code, body[start + 4 : start + 4 + length]
        start += 4 + _padded(length)


def _padded(length: int) -> int:
    return length + -length % 4


def _unquoted(value: str) -> str:
    try:
        return str(json.loads(value)) if value[:1] == '"' else value
    except ValueError:
        return value


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace").rstrip("\0")
