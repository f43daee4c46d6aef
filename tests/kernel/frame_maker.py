"""Packets for the parser, from a seed: well-formed ones, ones with lies in them, cut, mutated, and noise."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from random import Random
from typing import ClassVar

from tests.kernel.frames import FRAMES

_TAGS = (0x8100,) * 7 + (0x88A8,) * 7 + (0x9100,)
_TYPES = (0x0800,) * 20 + (0x86DD,) * 24 + (0x0806, 0x0000, 0x0101, 0x05FF, 0x0600, 0x8847, 0x8864, 0xFFFF)
_PROTOCOLS = (6, 6, 6, 17, 17, 17, 132, 136, 1, 2, 4, 33, 41, 47, 50, 51, 58, 59, 139, 255)
_EXTENSIONS = (0, 43, 44, 51, 60, 60, 135)
_LENGTHS = (0, 1, 7, 8, 19, 20, 21, 39, 40, 48, 60, 127, 255, 256, 1500, 0x7FFF, 0x8000, 0xFFFF)
_STARTS = (b"", b"\x08\x00", b"\x08\x00\x45", b"\x86\xdd", b"\x86\xdd\x60", b"\x81\x00")  # of noise
_MOST = 600  # bytes of a packet


class FrameMaker:
    """An endless stream of packets, the same for the same seed."""

    types: ClassVar[Sequence[int]] = _TYPES
    protocols: ClassVar[Sequence[int]] = _PROTOCOLS
    samples: ClassVar[Sequence[bytes]] = [frame.data for frame in FRAMES]  #: to be mutated

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._known = list(self.samples)

    def __iter__(self) -> FrameMaker:
        return self

    def __next__(self) -> bytes:
        """A packet from its Ethernet header on, of any length from 0 on."""
        kind = self._random.random()
        if kind < 0.72:
            made = self._built()
        elif kind < 0.95:
            made = self._mutated()
        else:
            made = self._noise()
        return made[:_MOST]

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _bytes(self, most: int) -> bytes:
        return self._random.randbytes(self._random.randrange(most + 1))

    def _length(self, true: int) -> int:
        """What a length field says: mostly the truth."""
        if self._chance(0.8):
            return true & 0xFFFF
        if self._chance(0.5):
            return max(0, true + self._random.randint(-24, 24)) & 0xFFFF
        return self._random.choice(_LENGTHS)

    # -- well-formed, more or less -----------------------------------------------------------------------

    def _built(self) -> bytes:
        tags = self._random.choice((0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3))
        type_ = self._random.choice(self.types)
        types = [*(self._random.choice(_TAGS) for _ in range(tags)), type_]
        inner = b"".join(
            struct.pack("!HH", self._random.getrandbits(16), inner_type) for inner_type in types[1:]
        )
        frame = self._random.randbytes(12) + struct.pack("!H", types[0]) + inner
        if type_ == 0x0800:
            frame += self._ipv4()
        elif type_ == 0x86DD:
            frame += self._ipv6()
        else:
            frame += self._other(type_)
        if self._chance(0.2):
            frame = frame[: self._random.randrange(len(frame) + 1)]
        if self._chance(0.2):
            frame += bytes(self._random.randrange(24))  # as Ethernet pads short frames
        return frame

    def _ipv4(self) -> bytes:
        words = 5 if self._chance(0.6) else self._random.randrange(16)
        options = max(0, words - 5) * 4
        version = 4 if self._chance(0.97) else self._random.randrange(16)
        protocol = self._random.choice(self.protocols)
        fragment = self._random.choice(
            (0, 0, 0, 0x4000, 0x4000, 0x2000, 0x0001, 0x2001, self._random.getrandbits(16))
        )
        behind = self._transport(protocol)
        header = struct.pack(
            "!BBHHHBBH8s",
            version << 4 | words,
            self._random.getrandbits(8),
            self._length(20 + options + len(behind)),
            self._random.getrandbits(16),
            fragment,
            64,
            protocol,
            self._random.getrandbits(16),
            self._random.randbytes(8),
        )
        filling = self._random.randbytes(options) if self._chance(0.3) else b"\x01" * options
        return header + filling + behind

    def _ipv6(self) -> bytes:
        count = self._random.choice((0, 0, 0, 1, 1, 2, 3, 4, 7, 8, 9, 11))
        kinds = [*self._random.choices(_EXTENSIONS, k=count), self._random.choice(self.protocols)]
        behind = b"".join(self._extension(kind, following) for kind, following in pairwise(kinds))
        behind += self._transport(kinds[-1])
        version = 6 if self._chance(0.97) else self._random.randrange(16)
        head = struct.pack("!IHBB", version << 28, self._length(len(behind)), kinds[0], 64)
        return head + self._random.randbytes(32) + behind

    def _extension(self, kind: int, following: int) -> bytes:
        if kind == 44:
            offset = 0 if self._chance(0.8) else self._random.getrandbits(13)
            more = self._random.getrandbits(3)
            return struct.pack("!BBHI", following, self._random.getrandbits(8), offset << 3 | more, 7)
        units = self._random.choice((0, 0, 0, 1, 1, 2, 3))
        said = units if self._chance(0.9) else self._random.getrandbits(8)
        size = (units + 2) * 4 if kind == 51 else (units + 1) * 8
        filling = bytes(size - 2) if self._chance(0.6) else self._random.randbytes(size - 2)
        return bytes((following, said)) + filling

    def _transport(self, protocol: int) -> bytes:
        if protocol == 6 and self._chance(0.9):
            offset = 5 if self._chance(0.5) else self._random.randrange(16)
            header = bytearray(self._random.randbytes(20 + max(0, offset - 5) * 4))
            header[12] = offset << 4 | header[12] & 15
            return bytes(header) + self._bytes(20)
        return self._bytes(40)

    def _other(self, type_: int) -> bytes:
        """What is behind the header if it is no IP."""
        return self._bytes(50)

    # -- anything ----------------------------------------------------------------------------------------

    def _mutated(self) -> bytes:
        """A packet seen before with some bytes changed, removed, put in, or with the end of another."""
        frame = bytearray(self._random.choice(self._known))
        for _ in range(self._random.choice((1, 1, 2, 3, 5))):
            how = self._random.randrange(6)
            at = self._random.randrange(len(frame) + 1)
            if how == 0 and frame:
                frame[at % len(frame)] ^= 1 << self._random.randrange(8)
            elif how == 1 and frame:
                frame[at % len(frame)] = self._random.choice((0, 1, 4, 6, 17, 44, 60, 0x45, 0x60, 0x81, 255))
            elif how == 2:
                del frame[at:]
            elif how == 3:
                del frame[at : at + self._random.choice((1, 2, 4, 8))]
            elif how == 4:
                frame[at:at] = self._random.randbytes(self._random.choice((1, 2, 4, 8)))
            else:
                frame[at:] = self._random.choice(self._known)[at:]
        made = bytes(frame[:_MOST])
        if self._chance(0.05):
            self._known[self._random.randrange(len(self._known))] = made
            self._renew()
        return made

    def _renew(self) -> None:
        """Keeps well-formed packets among those that are mutated again and again."""
        self._known[self._random.randrange(len(self._known))] = self._random.choice(self.samples)

    def _noise(self) -> bytes:
        chosen = self._random.choice(_STARTS)
        return (self._random.randbytes(12) if chosen else b"") + chosen + self._bytes(120)
