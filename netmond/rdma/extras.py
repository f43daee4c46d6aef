"""What sysfs does not have (rdma-statistic(8)): optional counters, and those of bound queue pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from netmond.errors import KernelError
from netmond.kernel.rdma_netlink import BoundCounter
from netmond.rdma.catalogue import is_counter
from netmond.rdma.sysfs import Reading

#: Asked for so seldom that it takes a fiftieth of the time: drivers ask the hardware for each bound counter.
_SHARE = 50
#: Seconds between two looks whether somebody has switched optional counters on.
_OPTIONAL = 30.0


class Netlink(Protocol):
    """kernel.rdma_netlink, or a fake. KernelError: it refused, or the device is gone."""

    def devices(self) -> dict[str, int]: ...
    def statistics(self, device: int, port: int) -> dict[str, int]: ...
    def bound_counters(self, device: int) -> list[BoundCounter]: ...


class Extras:
    """Asks RDMA netlink. Most drivers have nothing of this: then it costs one dump for each device."""

    def __init__(self, netlink: Netlink, monotonic: Callable[[], float]) -> None:
        self._netlink = netlink
        self._monotonic = monotonic
        self._numbers: dict[str, int] = {}
        self._optional: set[tuple[str, int]] = set()
        self._next = self._next_optional = 0.0
        self.bound: tuple[BoundCounter, ...] = ()
        self.reason = ""  #: why netlink tells nothing at all, empty: it does

    def look(self, readings: Sequence[Reading]) -> None:
        """Finds out what there is beyond these readings, if it is time to."""
        begin = self._monotonic()
        if begin < self._next:
            return
        try:
            # Without a device nothing is asked: opening such a socket loads ib_core.
            self._numbers, self.reason = self._netlink.devices() if readings else {}, ""
        except KernelError as error:
            self._numbers, self.reason = {}, str(error)
        self.bound = tuple(counter for number in self._numbers.values() for counter in self._bound(number))
        if begin >= self._next_optional:
            self._next_optional = begin + _OPTIONAL
            self._optional = {
                (reading.port.device, reading.port.port) for reading in readings if self._more(reading)
            }
        end = self._monotonic()
        self._next = end + _SHARE * (end - begin)

    def complete(self, reading: Reading) -> Reading:
        """The reading with the optional counters that are switched on."""
        if (reading.port.device, reading.port.port) not in self._optional:
            return reading
        more = self._more(reading)
        names = (*reading.names, *(("hw_counters", name) for name in more))
        return Reading(reading.port, reading.life, names, [*reading.values, *more.values()])

    def _bound(self, number: int) -> list[BoundCounter]:
        try:
            return self._netlink.bound_counters(number)
        except KernelError:
            return []

    def _more(self, reading: Reading) -> dict[str, int]:
        """The counters of a port that the reading lacks."""
        number = self._numbers.get(reading.port.device)
        if number is None:
            return {}
        try:
            values = self._netlink.statistics(number, reading.port.port)
        except KernelError:
            return {}
        known = {name for _, name in reading.names}
        return {name: value for name, value in values.items() if name not in known and is_counter(name)}
