"""A session that follows packets: options in, lines of JSON out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_network
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.kernel.tables import LongArray
from netmond.path.clock import WallClock
from netmond.path.drops import Reasons
from netmond.path.filters import Options, known_stages
from netmond.path.hooks import Resolution
from netmond.path.journeys import Place
from netmond.path.lines import Lines
from netmond.path.processes import Processes
from netmond.path.programs import load
from netmond.path.statistics import drop_rows, stage_rows
from netmond.path.symbols import Symbols
from netmond.sessions.stream import Finished, Stream
from netmond.users import Names

#: Events written at a time, and seconds between two looks at what was suppressed.
_CHUNK, _LOOK = 4096, 0.5

#: Seconds by which a look may be early: if nothing comes, there is an occasion only each half second.
_SLACK = 0.1

#: Events a second, and seconds between two lines of statistics, if nothing is said.
_RATE, _INTERVAL = 10_000, 1.0


class PathJob:
    """See netmond.sessions.runner.Job."""

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self._stream = stream
        self._statistics = options.get("mode") == "stats"
        self._pause = (options.get("interval") or _INTERVAL) if self._statistics else _LOOK
        self._left = options.get("count") or sys.maxsize
        rate = options.get("rate", _RATE)
        self._path = load(_wanted(options, rate))
        self._reasons = Reasons.of_this_kernel()
        self._symbols = Symbols(self._path.symbols, self._path.maps["locations"])
        self._stages = [resolution.stage.name for resolution in self._path.stages]
        self._lines = Lines(
            self._stages,
            [_place(resolution, rank) for rank, resolution in enumerate(self._path.stages)],
            reasons=self._reasons,
            symbols=self._symbols,
            processes=Processes(_flows(given)),
            user=Names().lookup,
            clock=WallClock(),
        )
        self._began = self._looked = monotonic()
        self._suppressed: dict[str, Any] = {}
        self._events = self._bytes = 0
        stages = [_resolved(resolution) for resolution in self._path.stages]
        self._tell({"type": "stages", "stages": stages, "rate": rate})
        return {"stages": sum(stage["state"] != "off" for stage in stages)}

    def fileno(self) -> int:
        return self._path.descriptor

    def take(self) -> bool:
        taken = self._take()
        now = monotonic()
        if now >= self._looked + self._pause - _SLACK:
            self._looked = now
            self._look(now)
        return taken == _CHUNK

    def figures(self) -> dict[str, int]:
        counters = self._path.counters()
        suppressed, lost = (int(counters[name].sum()) for name in ("suppressed", "lost"))
        return {
            "packets": int(counters["matched"].sum()) if self._statistics else self._events,
            "bytes": int(counters["bytes"].sum()) if self._statistics else self._bytes,
            "dropped": suppressed + lost,
            "filtered": 0,
        }

    def finish(self, reason: str) -> None:
        self._path.detach()
        with suppress(Finished):  # the count is reached
            while self._take():
                pass
        self._look(monotonic())
        self._tell({"type": "end", "reason": reason})
        self._path.close()

    def _take(self) -> int:
        """Writes a chunk of what is in the ring; returns how many events. Finished: no more are wanted."""
        if self._left <= 0:
            return 0
        records = self._path.ring.read(min(_CHUNK, self._left))
        if len(records):
            self._events += len(records)
            self._bytes += int(records["length"].sum())
            self._left -= len(records)
            text = self._lines.write(records)
            self._path.ring.release()
            self._stream.write(text)
            if self._left <= 0:
                raise Finished("count")
        return len(records)

    def _look(self, now: float) -> None:
        """Tells what has been counted; in place of what is suppressed, if statistics are wanted."""
        counters = self._path.counters()
        if self._statistics:
            reason, function = self._reasons.name, self._symbols.name
            self._tell(
                {
                    "type": "stats",
                    "seconds": round(now - self._began, 3),
                    "stages": stage_rows(self._stages, counters, self._path.latencies()),
                    "drops": drop_rows(self._stages, self._path.drops(), reason, function),
                }
            )
            return
        suppressed = counters["suppressed"]
        told = {
            "stages": {self._stages[place]: int(suppressed[place]) for place in np.flatnonzero(suppressed)},
            "lost": int(counters["lost"].sum()),
        }
        if told != self._suppressed:
            self._suppressed = told
            self._tell({"type": "suppressed", **told})

    def _tell(self, line: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(line).encode() + b"\n")


def _wanted(options: Mapping[str, Any], rate: int) -> Options:
    return Options(
        addresses=tuple(ip_network(address, strict=False) for address in options.get("addresses", ())),
        ports=tuple(options.get("ports", ())),
        protocols=tuple(options.get("protocols", ())),
        users=tuple(options.get("users", ())),
        drops=options.get("drops", False),
        stages=known_stages(options.get("stages", ())),
        rate=rate,
        stats=options.get("mode") == "stats",
    )


def _place(resolution: Resolution, rank: int) -> Place:
    """Where a stage is: the table of stages is in the order in which packets pass them."""
    stage = resolution.stage
    incoming, socket = stage.direction != "out", stage.layer == "socket"
    return Place(
        rank=rank,
        incoming=incoming,
        origin=not incoming and stage.layer in ("socket", "transport"),
        repeats=incoming and socket,
        late=bool(resolution.traits & wire.PATH_DONE),
        socket=socket,
    )


def _resolved(resolution: Resolution) -> dict[str, Any]:
    return {
        "stage": resolution.stage.name,
        "direction": resolution.stage.direction,
        "layer": resolution.stage.layer,
        "hook": resolution.hook,
        "state": resolution.state,
        "reason": resolution.reason,
        "tried": list(resolution.tried),
    }


def _flows(given: Mapping[str, int]) -> Callable[[], NDArray[Any]]:
    """The meter's table of flows, mapped anew each time: as long as it is mapped it is resident."""
    if "flows" not in given:
        return lambda: np.zeros(0, wire.FLOW)
    table = LongArray(given["flows"], wire.FLOW, given["slots"])
    return lambda: table.front(table.capacity)
