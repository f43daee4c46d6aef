"""pcapng for tests, block by block as the draft has it; what netmond writes is another module's."""

from __future__ import annotations

import struct
from dataclasses import dataclass

Options = list[tuple[int, bytes]]

NANOSECONDS = (9, b"\x09")  # if_tsresol


@dataclass(frozen=True, slots=True)
class Maker:
    """Blocks in a byte order."""

    order: str = "<"

    def block(self, kind: int, body: bytes, options: Options | None = None) -> bytes:
        for code, value in options or []:
            body += struct.pack(f"{self.order}HH", code, len(value)) + padded(value)
        body += bytes(4) if options else b""
        size = struct.pack(f"{self.order}I", len(body) + 12)
        return struct.pack(f"{self.order}I", kind) + size + body + size

    def section(self) -> bytes:
        return self.block(0x0A0D0D0A, struct.pack(f"{self.order}IHHq", 0x1A2B3C4D, 1, 0, -1))

    def interface(self, name: str, options: Options | None = None, linktype: int = 1) -> bytes:
        known = [(2, name.encode()), *([NANOSECONDS] if options is None else options)]
        return self.block(1, struct.pack(f"{self.order}HHI", linktype, 0, 262144), known)

    def packet(
        self,
        data: bytes,
        *,
        time: int = 0,
        interface: int = 0,
        length: int | None = None,
        direction: int = 0,
        comment: str = "",
    ) -> bytes:
        size = len(data) if length is None else length
        head = struct.pack(f"{self.order}5I", interface, time >> 32, time & 0xFFFFFFFF, len(data), size)
        options = [(2, struct.pack(f"{self.order}I", direction))] if direction else []
        if comment:
            options.append((1, comment.encode()))
        return self.block(6, head + padded(data), options)

    def statistics(self, received: int, dropped: int, accepted: int, interface: int = 0) -> bytes:
        figures = ((4, received), (5, dropped), (6, accepted))
        options = [(code, struct.pack(f"{self.order}Q", value)) for code, value in figures]
        return self.block(5, struct.pack(f"{self.order}III", interface, 0, 0), options)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
