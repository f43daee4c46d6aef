"""Captured frames as pcapng (draft-ietf-opsawg-pcapng), in columns: no Python runs for a single frame.

A batch of records becomes one buffer of Enhanced Packet Blocks. Frames and comments have any length; they
are laid in whole steps of _STEP bytes, all of one size at a time, and what is too much at their end is
overwritten by what is laid later: comments over the frames' surplus, the ends and heads of blocks over the
comments'.

Numbers are in host order, as the format allows.
"""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond import __version__
from netmond.frames.comments import Comments
from netmond.frames.expressions import ETHERNET
from netmond.kernel import wire

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_END = 0  # of options
_SECTION_OS, _SECTION_APPLICATION = 3, 4
_NAME, _MAC, _RESOLUTION, _FILTER = 2, 6, 9, 11
_START, _ENDED, _RECEIVED, _DROPPED, _ACCEPTED, _DELIVERED = 2, 3, 4, 5, 6, 8
_FLAGS = 2
_DIRECTIONS = np.zeros(2, np.uint32)
_DIRECTIONS[[wire.PACKET_IN, wire.PACKET_OUT]] = 1, 2  # inbound, outbound

# In words of 4 bytes: the head of a packet's block, the option with its flags, the end of options and block.
_WORD = 4
_HEAD, _FLAGS_SIZE, _TAIL = 7, 2, 2
#: Less than the shortest tail and the next head together, that is 36 bytes.
_STEP = 32
#: What of the last word belongs to a frame of any length, by its remainder.
_KEPT = np.array([b"\xff\xff\xff\xff", b"\xff", b"\xff\xff", b"\xff\xff\xff"], "S4").view(np.uint32)
#: Frames from which on it is worth to look whether they are alike.
_MANY = 64
_OPTION_FLAGS = np.array([_FLAGS, 4], np.uint16).view(np.uint32)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One that is captured on. index: ifindex; mac: 6 bytes, or empty."""

    index: int
    name: str
    linktype: int = ETHERNET
    mac: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Frames of one interface: that came by, that the filters took, of which there was no room for some."""

    received: int
    accepted: int
    dropped: int


class Blocks:
    """The blocks of one capture, which is one section."""

    def __init__(
        self,
        interfaces: Sequence[Interface],
        *,
        snaplen: int,
        filter_text: str = "",
        comments: Comments | None = None,
        started: int,
    ) -> None:
        """filter_text: the expression of libpcap's; started: Unix time in ns."""
        self._interfaces = interfaces
        self._snaplen = snaplen
        self._filter = filter_text
        self._comments = comments
        self._started = started
        indexes = np.array([each.index for each in interfaces], np.uint32)
        self._order = np.argsort(indexes).astype(np.uint32)
        self._indexes = indexes[self._order]

    def head(self) -> bytes:
        """The section's header and a description of each interface."""
        system = f"{platform.system()} {platform.release()}"
        section = struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1)
        section += _option(_SECTION_OS, system.encode())
        section += _option(_SECTION_APPLICATION, f"netmond {__version__}".encode())
        return b"".join([_block(_SECTION, section), *map(self._described, self._interfaces)])

    def _described(self, interface: Interface) -> bytes:
        body = struct.pack("=HHI", interface.linktype, 0, self._snaplen)
        body += _option(_NAME, interface.name.encode())
        body += _option(_MAC, interface.mac) if interface.mac else b""
        body += _option(_RESOLUTION, b"\x09")  # of times: 10^-9 s
        body += _option(_FILTER, b"\x00" + self._filter.encode()) if self._filter else b""
        return _block(_INTERFACE, body)

    def frames(self, data: NDArray[np.uint8], places: NDArray[np.int64], offset: int) -> NDArray[np.uint8]:
        """Blocks of some frames, in their order.

        data: where they are; places: where in it each one's record (wire.FRAME) begins, in bytes,
        multiples of 4; the frame follows. offset: wall clock less monotonic clock, in ns. Bytes of `data`
        behind a frame are read but not passed on.
        """
        if not len(places):
            return np.empty(0, np.uint8)
        alike = self._alike(data, places, offset)
        if alike is not None:
            return alike
        records = _items(data, wire.FRAME.itemsize)[places // _WORD].view(wire.FRAME)
        captured = records["captured"].astype(np.int64)
        words = (captured + (_WORD - 1)) // _WORD
        sizes = words + (_HEAD + _FLAGS_SIZE + _TAIL)
        options, options_at, options_sizes = self._options(records)
        sizes += options_sizes // _WORD
        ends = sizes.cumsum()
        starts = ends - sizes
        behind = starts + _HEAD + words  # the frame
        out = np.empty(int(ends[-1]) + _STEP // _WORD, np.uint32)

        _lay(out, starts + _HEAD, data, places + wire.FRAME.itemsize, captured)
        ragged = np.flatnonzero(captured % _WORD)
        out[behind[ragged] - 1] &= _KEPT.take(captured[ragged] % _WORD)
        _lay(out, behind + _FLAGS_SIZE, options, options_at, options_sizes)
        out[behind] = _OPTION_FLAGS
        out[behind + 1] = _DIRECTIONS.take(records["direction"])
        lengths = (sizes * _WORD).astype(np.uint32)
        out[ends - 2] = _END
        out[ends - 1] = lengths
        times = records["time"].astype(np.int64) + offset
        heads = np.empty((len(records), _HEAD), np.uint32)
        heads[:, 0] = _PACKET
        heads[:, 1] = lengths
        heads[:, 2] = self._numbers(records["ifindex"])
        heads[:, 3] = times >> 32
        heads[:, 4] = times & 0xFFFFFFFF
        heads[:, 5] = captured
        heads[:, 6] = records["length"]
        _items(out, _HEAD * _WORD)[starts] = heads.view(f"V{_HEAD * _WORD}")[:, 0]
        return out[: ends[-1]].view(np.uint8)

    def _options(
        self, records: NDArray[Any]
    ) -> tuple[NDArray[np.uint8], NDArray[np.intp], NDArray[np.intp]]:
        """Comments, and where in them each record's begins, and how long it is, in bytes."""
        if self._comments is None:
            none = np.zeros(len(records), np.intp)
            return np.zeros(0, np.uint8), none, none
        said = self._comments.take(records)
        return self._comments.options, self._comments.starts.take(said), self._comments.sizes.take(said)

    def _alike(
        self, data: NDArray[np.uint8], places: NDArray[np.int64], offset: int
    ) -> NDArray[np.uint8] | None:
        """The same, in a third of the time, for frames that follow each other, of one size and owner, as in
        most of a flood. None: they are others."""
        first, step = int(places[0]), int(places[-1] - places[0]) // max(1, len(places) - 1)
        if len(places) < _MANY or not (places[1:] - places[:-1] == step).all():
            return None
        records: NDArray[Any] = np.ndarray((len(places),), wire.FRAME, data.data, first, (step,))
        captured = int(records["captured"][0])
        if not (records["captured"] == captured).all():
            return None
        options = b""
        if self._comments:
            said = self._comments.take(records)
            if not (said == said[0]).all():
                return None
            start, size = int(self._comments.starts[said[0]]), int(self._comments.sizes[said[0]])
            options = self._comments.options[start : start + size].tobytes()
        kept = -(-captured // _WORD) * _WORD
        length = (_HEAD + _FLAGS_SIZE + _TAIL) * _WORD + kept + len(options)
        pattern = struct.pack("=5I", _PACKET, length, 0, 0, 0) + struct.pack("=2I", captured, 0)
        pattern += (
            bytes(kept) + struct.pack("=2HI", _FLAGS, 4, 0) + options + struct.pack("=2I", _END, length)
        )
        out = np.empty((len(places), length // _WORD), np.uint32)
        out.view(f"V{length}")[:, 0] = np.frombuffer(pattern, f"V{length}")[0]
        shape, strides = (len(places), kept // _WORD), (step, _WORD)
        behind = _HEAD + kept // _WORD
        out[:, _HEAD:behind] = np.ndarray(shape, np.uint32, data.data, first + wire.FRAME.itemsize, strides)
        if captured % _WORD:
            out[:, behind - 1] &= _KEPT[captured % _WORD]
        halves = (records["time"] + np.uint64(offset)).view(np.uint32).reshape(-1, 2)
        high = int(sys.byteorder == "little")
        out[:, 2] = self._numbers(records["ifindex"])
        out[:, 3], out[:, 4] = halves[:, high], halves[:, 1 - high]
        out[:, 6] = records["length"]
        out[:, behind + 1] = _DIRECTIONS.take(records["direction"])
        return out.reshape(-1).view(np.uint8)

    def _numbers(self, ifindexes: NDArray[np.uint32]) -> NDArray[np.uint32] | int:
        """Interfaces as numbered by their descriptions."""
        if len(self._interfaces) == 1:
            return 0
        return self._order.take(self._indexes.searchsorted(ifindexes))

    def statistics(self, of: Mapping[int, Statistics], ended: int) -> bytes:
        """What each interface (by ifindex) counted; ended: Unix time in ns.

        Frames for which there was no room are in isb_ifdrop: that is what other programs write and show,
        though the draft has a number for what the operating system dropped, too.
        """
        blocks = []
        for number, interface in enumerate(self._interfaces):
            counted = of.get(interface.index)
            if counted is None:
                continue
            body = struct.pack("=III", number, *_halves(ended))
            body += _option(_START, struct.pack("=II", *_halves(self._started)))
            body += _option(_ENDED, struct.pack("=II", *_halves(ended)))
            for code, figure in (
                (_RECEIVED, counted.received),
                (_DROPPED, counted.dropped),
                (_ACCEPTED, counted.accepted),
                (_DELIVERED, counted.accepted - counted.dropped),
            ):
                body += _option(code, struct.pack("=Q", figure))
            blocks.append(_block(_STATISTICS, body))
        return b"".join(blocks)


def _halves(number: int) -> tuple[int, int]:
    return number >> 32, number & 0xFFFFFFFF


def _option(code: int, content: bytes) -> bytes:
    content = content[:0xFFFF]
    return struct.pack("=HH", code, len(content)) + content + bytes(-len(content) % _WORD)


def _block(kind: int, body: bytes) -> bytes:
    """body: with options, but without their end."""
    body += _option(_END, b"")
    length = len(body) + 3 * _WORD
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _items(data: NDArray[np.uint8] | NDArray[np.uint32], size: int) -> NDArray[np.void]:
    """Items of `size` bytes: one begins at each word, as far as they are whole."""
    return np.ndarray(((data.nbytes - size) // _WORD + 1,), f"V{size}", data.data, strides=(_WORD,))


def _lay(
    out: NDArray[np.uint32],
    at: NDArray[np.int64],
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    """Copies pieces of data to words of `out`, each as whole steps: up to a step less one byte too much."""
    steps = (sizes + (_STEP - 1)) // _STEP
    room = starts + steps * _STEP <= len(data)
    if not room.all():  # the last one, where nothing follows it
        for place in np.flatnonzero(~room).tolist():
            start, size = int(starts[place]), int(sizes[place])
            out[at[place] :].view(np.uint8)[:size] = data[start : start + size]
        steps = steps * room
    kinds = np.flatnonzero(np.bincount(steps)).tolist()
    for kind in kinds:
        if kind:
            mine = np.flatnonzero(steps == kind) if len(kinds) > 1 else np.arange(len(steps))
            _items(out, kind * _STEP)[at[mine]] = _items(data, kind * _STEP)[starts[mine] // _WORD]
