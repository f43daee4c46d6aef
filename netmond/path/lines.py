"""Events as lines of JSON, an object each; the documentation of StartPath explains the members."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.path.clock import WallClock
from netmond.path.drops import Reasons
from netmond.path.events import FLAGS, flow_text, flows, marks, text
from netmond.path.journeys import Journeys, Place
from netmond.path.processes import Processes
from netmond.path.symbols import Symbols

_EVENTS = ("pass", "drop", "retransmit", "reset")  # wire.PATH_*

#: Columns of events that are looked at one by one.
_COLUMNS = (
    "stage", "event", "time", "packet", "ifindex", "linked", "sequence", "acknowledgement", "flags",
    "length", "uid", "pid", "name", "socket", "reason", "location",
)  # fmt: skip

#: Texts of a kind after which all are forgotten: each takes 200 bytes or so.
_REMEMBERED = 8192

_TCP = 6
_SECOND = 10**9

K = TypeVar("K", bound=Hashable)


class Lines:
    """Writes what is told of each event; remembers texts and journeys."""

    def __init__(
        self,
        stages: Sequence[str],
        places: Sequence[Place],
        *,
        reasons: Reasons,
        symbols: Symbols,
        processes: Processes,
        user: Callable[[int], str],
        clock: WallClock,
    ) -> None:
        """stages, places: by their number in events. user: names by number."""
        self._places = places
        self._of_packets = np.array([not place.socket for place in places])
        self._of_calls = np.array([place.socket and place.origin for place in places])
        self._heads = [
            [f'"stage":{text(stage)},"event":"{event}",' for event in _EVENTS] for stage in stages
        ]
        self._symbols, self._processes, self._clock = symbols, processes, clock
        self._journeys = Journeys()
        self._flows: _Texts[bytes] = _Texts(flow_text)
        self._interfaces: _Texts[bytes] = _Texts(lambda name: _member("interface", name))
        self._users: _Texts[int] = _Texts(
            lambda uid: "" if uid == NOBODY_UID else _member("uid", uid) + _member("user", user(uid))
        )
        self._owners: _Texts[tuple[int, bytes]] = _Texts(
            lambda owner: _member("pid", owner[0]) + _member("process", owner[1]) if owner[0] else ""
        )
        self._ends: _Texts[tuple[int, int]] = _Texts(
            lambda end: _member("reason", reasons.name(end[0])) + _member("function", symbols.name(end[1]))
        )

    def write(self, records: NDArray[Any]) -> bytes:
        """The lines of some events, wire.PATH_EVENT (n,), in the order of their times."""
        records = records[np.argsort(records["time"], kind="stable")]
        self._learn(records)
        return "".join(self._lines(records)).encode()

    def _learn(self, records: NDArray[Any]) -> None:
        """Looks up what these events need, all at once."""
        dropped = records["event"] == wire.PATH_DROP
        if dropped.any():
            self._symbols.learn(records["location"][dropped].tolist())
        strangers = records["pid"] == 0
        if strangers.any():
            self._processes.learn(records["socket"][strangers], int(records["time"][-1]))

    def _lines(self, records: NDArray[Any]) -> Iterator[str]:
        heads, places, follow = self._heads, self._places, self._journeys.follow
        flow_texts, interfaces, users, processes = self._flows, self._interfaces, self._users, self._owners
        known = self._processes.get
        stages = records["stage"]
        times = np.divmod(records["time"].astype(np.int64) + self._clock.offset(), _SECOND)
        for (
            second, rest, flow, mark, stage, event, time, packet, ifindex, linked, sequence, acknowledgement,
            flags, length, uid, pid, name, cookie, reason, location,
        ) in zip(
            *(column.tolist() for column in times),
            flows(records),
            marks(records, self._of_packets[stages], self._of_calls[stages]),
            *(records[name].tolist() for name in _COLUMNS),
            strict=True,
        ):  # fmt: skip
            journey, since = follow(event, places[stage], time, packet, flow, mark, ifindex, linked)
            line = f'{{"type":"event","time":"{second}.{rest:09}",{heads[stage][event]}{flow_texts[flow]}'
            if flow[-1] == _TCP and flags:
                line += f'"seq":{sequence},"ack":{acknowledgement},"flags":"{FLAGS[flags]}",'
            elif flow[-1] == _TCP and sequence:  # a call's: that of the first byte it sends
                line += f'"seq":{sequence},'
            if length:
                line += f'"length":{length},'
            if pid:
                line += users[uid] + processes[pid, name]
            else:
                line += interfaces[name] + users[uid] + processes[known(cookie)]
            if since is not None:
                line += f'"since_ns":{since},'
            if journey.first:
                line += f'"first":{journey.first},'
            if event == wire.PATH_DROP:
                line += self._ends[reason, location]
            yield f'{line}"journey":{journey.number}}}\n'


class _Texts(dict[K, str]):
    """Texts by what they are made of, made when they are first needed."""

    def __init__(self, make: Callable[[K], str]) -> None:
        self._make = make

    def __missing__(self, key: K) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[key] = made = self._make(key)
        return made


def _member(name: str, value: int | str | bytes) -> str:
    """A member of an object, and the comma behind it; empty if there is no value."""
    if isinstance(value, int):
        return f'"{name}":{value},'
    return f'"{name}":{text(value)},' if value else ""
