"""What a capture's worker does: frames from the kernel's ring to the client, as pcapng."""

from __future__ import annotations

import mmap
import select
import time
from collections.abc import Iterable
from typing import Any

from netmond.clock import wall_offset
from netmond.errors import InvalidArgs, Unavailable
from netmond.frames import filter_source
from netmond.frames.blocks import Blocks, Interface, Statistics
from netmond.frames.comments import Comments
from netmond.frames.expressions import ETHERNET, RAW, compile_filter
from netmond.frames.interfaces import Departures, choose
from netmond.frames.units import UnitFilter, Units
from netmond.kernel import wire
from netmond.kernel.capture import CaptureTables, Wanted, capture_unit
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.devices import Device
from netmond.kernel.frame_ring import FrameRing, field
from netmond.kernel.tables import LongArray
from netmond.kernel.taps import Tap
from netmond.sessions.options import BUFFER, SNAPLEN
from netmond.sessions.stream import Finished, Stream
from netmond.users import Names

#: Frames, and bytes of the ring, that are moved at a time: so few that they stay in the CPU's cache.
_FRAMES, _BYTES = 2048, 1 << 20
#: Times that is done before orders are looked at.
_TURNS = 16
#: So much of the ring may be full when it is emptied; if more is, it is not let fill as long.
_FULL = 1 / 8

_DIRECTIONS = {"in": ("in",), "out": ("out",), "both": ("in", "out")}


class CaptureJob:
    """A runner.Job. Options are those of StartCapture; the runner looks after the duration."""

    def __init__(self) -> None:
        self._taps: dict[int, Tap] = {}
        self._packets = self._bytes = 0
        self._left: int | None = None  #: frames until the end, None: no such limit
        self._units: UnitFilter | None = None
        self._stream: Stream
        self._tables: CaptureTables
        self._ring: FrameRing
        self._blocks: Blocks
        self._interfaces: list[int]
        self._departures: Departures
        self._poll: select.epoll

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self._stream = stream
        self._left = options.get("count") or None
        chosen = choose(options.get("interfaces", ()))
        self._interfaces = [device.info.index for device in chosen]
        lists = {name: tuple(options.get(name, ())) for name in ("users", "units", "processes", "pids")}
        wanted = Wanted(**lists)
        if (wanted.processes or wanted.pids) and "tickets" not in given:
            raise InvalidArgs("only the meter knows processes, and it is off: see netmonctl doctor")
        text = options.get("filter", "").strip()
        filters = compile_filter(text, map(_link_type_of, chosen)) if text else {}
        comments = options.get("comments", True)
        snaplen = min(options.get("snaplen") or SNAPLEN, SNAPLEN)
        loaded = Compilation(
            capture_unit(
                ring=_ring_size(options.get("buffer") or BUFFER),
                snaplen=snaplen,
                filter_=filter_source.source(filters) if filters else "",
                wanted=wanted,
                owners=comments,
                tickets=given.get("tickets"),
            )
        ).result()
        self._tables = CaptureTables(loaded.maps, wanted)
        self._ring = FrameRing.open(loaded.maps["ring"])
        if wanted.units:
            self._units = UnitFilter(wanted.units, Units(), self._tables.tell)
        self._blocks = Blocks(
            [
                Interface(
                    index=device.info.index,
                    name=device.info.name,
                    linktype=_link_type_of(device),
                    mac=device.address if any(device.address) else b"",
                )
                for device in chosen
            ],
            snaplen=snaplen,
            filter_text=text,
            comments=_comments(given) if comments else None,
            started=time.time_ns(),
        )
        stream.write(self._blocks.head())
        self._attach(loaded, chosen, _DIRECTIONS[options.get("direction", "both")])
        return {"interfaces": [device.info.name for device in chosen], "notes": list(loaded.notes)}

    def _attach(self, loaded: Loaded, chosen: Iterable[Device], directions: Iterable[str]) -> None:
        self._departures = Departures()
        self._poll = select.epoll()
        self._poll.register(self._departures, select.EPOLLIN)
        self._poll.register(loaded.maps["ring"], select.EPOLLIN)
        for device in chosen:
            index = device.info.index
            self._tables.add(index, wire.LINK_ETHERNET if device.link_header else wire.LINK_RAW)
            # What leaves through lo comes in there at once: one of both is enough, as for tcpdump.
            self._taps[index] = Tap(loaded.programs, index, ("in",) if device.loopback else directions)

    def fileno(self) -> int:
        return self._poll.fileno()

    def take(self) -> bool:
        for index in self._departures.gone(self._taps):
            self._taps.pop(index).close()
        was_full = self._ring.filled > _FULL
        for _ in range(_TURNS):
            if not self._move():
                break
        if self._left == 0:
            raise Finished("count")
        if not self._taps and not self._ring.filled:
            raise Finished("interface")
        return was_full or self._ring.filled > _FULL

    def figures(self) -> dict[str, int]:
        counted = self._counted()
        return {
            "packets": self._packets,
            "bytes": self._bytes,
            "dropped": sum(each.dropped for each in counted.values()),
            "filtered": sum(each.received - each.accepted for each in counted.values()),
        }

    def finish(self, reason: str) -> None:
        for tap in self._taps.values():
            tap.close()
        self._taps.clear()
        while self._left != 0 and self._ring.filled:
            self._move()
        self._stream.write(self._blocks.statistics(self._counted(), time.time_ns()))

    def _move(self) -> bool:
        """A part of what is in the ring, to the stream; False: there is little more, or none is wanted."""
        data, places = self._ring.read(_FRAMES, _BYTES)
        is_part = len(places) == _FRAMES or len(data) >= _BYTES
        if self._units is not None:
            places = self._units.wanted(data, places)
        if self._left is not None:
            places = places[: self._left]
            self._left -= len(places)
        blocks = self._blocks.frames(data, places, wall_offset())
        self._packets += len(places)
        self._bytes += int(field(data, places, "length").sum())
        self._ring.release()  # before the client is waited for
        self._stream.write(blocks)
        return is_part and self._left != 0

    def _counted(self) -> dict[int, Statistics]:
        """What the kernel has counted by now, both directions together."""
        tapped = self._tables.tapped(self._interfaces)
        sums = {
            name: (tapped["in"][name] + tapped["out"][name]).tolist() for name in wire.TAPPED.names or ()
        }
        counted = {}
        for place, index in enumerate(self._interfaces):
            accepted = sums["captured"][place] + sums["dropped"][place]
            if self._units is not None:
                accepted -= self._units.others[index]
            counted[index] = Statistics(
                received=sums["seen"][place], accepted=accepted, dropped=sums["dropped"][place]
            )
        return counted


def _comments(given: dict[str, int]) -> Comments:
    """Without the meter there are users and units, without cgroups users."""
    flows = LongArray(given.get("flows", -1), wire.FLOW, given.get("slots", 0))
    try:
        names = Units().names
    except Unavailable:
        return Comments(flows, lambda _: {}, Names().lookup)
    return Comments(flows, names, Names().lookup)


def _link_type_of(device: Device) -> int:
    return ETHERNET if device.link_header else RAW


def _ring_size(wanted: int) -> int:
    """A power of two, and whole pages."""
    return max(mmap.PAGESIZE, 1 << (wanted - 1).bit_length())
