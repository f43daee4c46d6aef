"""Captures as files: netmond's pcapng (draft-ietf-opsawg-pcapng), and tcpdump's pcap (pcap-savefile(5))."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field

from tests.unit.pcapng_blocks import Block, read

_INTERFACE, _STATISTICS, _PACKET = 1, 5, 6
_COMMENT, _FLAGS, _NAME = 1, 2, 2
_RECEIVED, _DROPPED, _ACCEPTED = 4, 5, 6


@dataclass(frozen=True, slots=True)
class Frame:
    """time: Unix time in ns; length: as on the wire; direction: in, out, empty: not told."""

    time: int
    length: int
    data: bytes
    interface: str = ""
    direction: str = ""
    comment: str = ""


@dataclass(slots=True)
class Section:
    """A whole file. interfaces: their link types by name, in order; statistics: by name what isb_* told."""

    interfaces: dict[str, int] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    received: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)


def read_pcapng(data: bytes) -> Section:
    """Of a whole file. AssertionError: it is not well formed."""
    found = Section()
    for block in read(data):
        names = list(found.interfaces)
        if block.kind == _INTERFACE:
            found.interfaces[(block.option(_NAME) or b"").decode()] = block.fields[0]
        elif block.kind == _PACKET:
            number, high, low, _, length = block.fields
            found.frames.append(
                Frame(
                    time=high << 32 | low,
                    length=length,
                    data=block.content,
                    interface=names[number],
                    direction=("", "in", "out")[_number(block, _FLAGS) & 3],
                    comment=(block.option(_COMMENT) or b"").decode(),
                )
            )
        elif block.kind == _STATISTICS:
            name = names[block.fields[0]]
            found.received[name] = _number(block, _RECEIVED)
            found.dropped[name] = _number(block, _DROPPED)
            found.accepted[name] = _number(block, _ACCEPTED)
    return found


def _number(block: Block, code: int) -> int:
    return int.from_bytes(block.option(code) or b"", sys.byteorder)


def read_pcap(data: bytes) -> list[Frame]:
    """As far as it is written; times in ns (tcpdump --nano)."""
    frames, at = [], 24
    while at + 16 <= len(data):
        seconds, nanoseconds, captured, original = struct.unpack_from("=4I", data, at)
        at += 16 + captured
        if at > len(data):
            break
        frames.append(Frame(seconds * 10**9 + nanoseconds, original, data[at - captured : at]))
    return frames
