"""Which events are of the same packet, and how long it took from one stage to the next. Pure.

The kernel has no number for a packet. What ties events together, in this order:

1. the address of its sk_buff, which a packet keeps from stage to stage, also through a veth pair into
   another namespace, if it looks the same as before: addresses are used again, for the next packet;
2. what it looks like (`mark`), for copies and clones: TCP sends clones of what it keeps to send again;
3. its flow, at stages that know a socket and no packet: the last packet of that flow, or of a call to send
   something the next.

A stage that lies before the last one begins another packet, unless it is passed at another interface
(VLANs, bridges, tunnels) or on the way out after having come in (forwarding). A segment that looks like an
earlier one is a retransmission: a journey of its own, which names the first.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from netmond.kernel.wire import PATH_DROP, PATH_PASS, PATH_RETRANSMIT

#: Bit of a mark: two packets with this one are the same segment, sent twice. Others are told apart as far as
#: possible, but two may be alike (duplicate acknowledgements).
SEGMENT = 1 << 63

#: A packet that was not seen for so long is forgotten, in ns: longer than queues hold one.
AGE = 5_000_000_000

#: Packets after which older ones are forgotten sooner: with what finds them, each takes some 700 bytes.
LIMIT = 16384

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stage is on the way of a packet."""

    rank: int  #: grows along the way in, and along the way out
    incoming: bool
    origin: bool = False  #: only packets made here pass it
    late: bool = False  #: told when the packet is gone on, as at the end of a call
    repeats: bool = False  #: a packet may pass it several times, as when it is read in pieces
    socket: bool = False  #: what is seen there is a socket, or a packet by way of its socket


@dataclass(slots=True)
class Journey:
    """One packet on its way."""

    number: int  #: from 1 on
    first: int  #: the journey of the same segment's first transmission, 0: it was not sent before
    flow: bytes
    mark: int
    time: int  #: of its last event, as all below
    place: Place
    interface: int
    over: bool = False  #: it was dropped
    told: bool = False  #: that it is a retransmission, by the kernel

    @property
    def calls(self) -> bool:
        """Only the call that sends it was seen yet."""
        return self.place.socket and self.place.origin


class Journeys:
    """Those of the last seconds: bounded, however many packets come."""

    def __init__(self) -> None:
        self._count = 0
        self._by_buffer: _Recent[int] = _Recent()
        self._by_mark: _Recent[tuple[bytes, int]] = _Recent()
        self._by_flow: _Recent[bytes] = _Recent()
        self._aged = 0

    def __len__(self) -> int:
        """Buffers that are remembered."""
        return len(self._by_buffer)

    def follow(
        self,
        event: int,
        place: Place,
        time: int,
        buffer: int,
        flow: bytes,
        mark: int,
        interface: int,
        linked: int = 0,
    ) -> tuple[Journey, int | None]:
        """The journey an event belongs to, and ns since the event before; None: it is the first.

        event: PATH_*. time: ns, CLOCK_MONOTONIC, events come in its order. buffer: address of the sk_buff,
        0: it is of a socket. flow: addresses, ports and protocol of the packet. mark: tells packets of a
        flow apart, see SEGMENT; 0: nothing does. interface: its index, 0: none yet. linked: not 0 if the
        event is of a socket, and the packet the last the CPU handled for it, perhaps long past this stage.
        """
        if time - self._aged > AGE or self._by_buffer.grown > LIMIT:
            self._age(time)
        if event == PATH_RETRANSMIT:
            buffer = 0  # it is of what is kept to be sent again, and never leaves
        found = self._find(buffer, flow, mark)
        late = linked or place.late
        if found is None or not ((late and not found.calls) or _goes_on(found, event, place, interface)):
            journey, since = self._begin(found, place, time, flow, mark), None
        else:
            journey, since = found, max(0, time - found.time)
            journey.time = time
        if event == PATH_PASS:
            if not late:
                journey.place = place
        elif event == PATH_DROP:
            journey.over = True
        elif event == PATH_RETRANSMIT:
            journey.told = True
        if interface:
            journey.interface = interface
        self._by_flow[flow] = journey
        if buffer:
            self._by_buffer[buffer] = journey
        if mark:
            journey.mark = mark
            self._by_mark[flow, mark] = journey
        return journey, since

    def _find(self, buffer: int, flow: bytes, mark: int) -> Journey | None:
        if buffer:
            journey = self._by_buffer.get(buffer)
            if journey is not None and (
                mark == journey.mark if mark and journey.mark else flow == journey.flow
            ):
                return journey
        if mark and (journey := self._by_mark.get((flow, mark))) is not None:
            return journey
        last = self._by_flow.get(flow)
        if last is None:
            return None
        if buffer:
            return last if last.calls and not last.mark else None
        return None if mark and last.calls else last

    def _begin(self, earlier: Journey | None, place: Place, time: int, flow: bytes, mark: int) -> Journey:
        self._count += 1
        again = earlier is not None and mark & SEGMENT and earlier.mark == mark
        first = (earlier.first or earlier.number) if earlier is not None and again else 0
        return Journey(self._count, first, flow, mark, time, place, 0)

    def _age(self, time: int) -> None:
        self._aged = time
        self._by_buffer.age()
        self._by_mark.age()
        self._by_flow.age()


def _goes_on(journey: Journey, event: int, place: Place, interface: int) -> bool:
    """Whether it may be the next of a journey, or must be of another packet that looks the same."""
    if event == PATH_RETRANSMIT:  # told after it was sent, and perhaps dropped
        return bool(journey.first) and not journey.told
    if journey.over:
        return False
    if event != PATH_PASS:
        return True
    last = journey.place
    if place.incoming is not last.incoming:
        return not place.origin
    if place.rank > last.rank or (place.repeats and place.rank == last.rank):
        return True
    return 0 != interface != journey.interface != 0


class _Recent(Generic[K]):
    """Journeys by something; those not asked for between two calls of age() are forgotten."""

    def __init__(self) -> None:
        self._new: dict[K, Journey] = {}
        self._old: dict[K, Journey] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def grown(self) -> int:
        """How many were asked for or added since age()."""
        return len(self._new)

    def get(self, key: K) -> Journey | None:
        journey = self._new.get(key)
        if journey is None and (journey := self._old.get(key)) is not None:
            self._new[key] = journey
        return journey

    def __setitem__(self, key: K, journey: Journey) -> None:
        self._new[key] = journey

    def age(self) -> None:
        self._old, self._new = self._new, {}
