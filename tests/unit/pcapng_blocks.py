"""Reads pcapng block by block, as the draft says (draft-ietf-opsawg-pcapng), and nothing more."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Block:
    """kind: type of block; fields: its fixed part; content: of a packet; options: code and content."""

    kind: int
    fields: tuple[int, ...]
    content: bytes = b""
    options: list[tuple[int, bytes]] = field(default_factory=list)

    def option(self, code: int) -> bytes | None:
        found = [content for each, content in self.options if each == code]
        assert len(found) <= 1
        return found[0] if found else None


_FIXED = {0x0A0D0D0A: "=IHHq", 1: "=HHI", 5: "=III", 6: "=IIIII"}


def read(data: bytes) -> list[Block]:
    """AssertionError: something is not as the draft wants it, to the last byte of padding."""
    return list(_blocks(data))


def _blocks(data: bytes) -> Iterator[Block]:
    at = 0
    while at < len(data):
        kind, length = struct.unpack_from("=II", data, at)
        assert length % 4 == 0
        assert at + length <= len(data)
        assert struct.unpack_from("=I", data, at + length - 4) == (length,)
        body = data[at + 8 : at + length - 4]
        fields = struct.unpack_from(_FIXED[kind], body)
        rest, content = body[struct.calcsize(_FIXED[kind]) :], b""
        if kind == 6:
            content, rest = _padded(rest, fields[3])
        yield Block(kind, fields, content, list(_options(rest)))
        at += length


def _padded(data: bytes, length: int) -> tuple[bytes, bytes]:
    whole = length + -length % 4
    assert len(data) >= whole
    assert not any(data[length:whole])
    return data[:length], data[whole:]


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while True:
        code, length = struct.unpack_from("=HH", data)
        if code == 0:
            assert (length, len(data)) == (0, 4)
            return
        content, data = _padded(data[4:], length)
        yield code, content
