"""One reading of all RDMA devices: what they are and what they have counted."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from netmond.kernel import rdma_netlink
from netmond.model import RdmaPort
from netmond.rdma import sysfs
from netmond.rdma.extras import Extras, Netlink
from netmond.rdma.growth import Growth
from netmond.rdma.sampler import Sample

#: Ports whose totals go on when they are back: virtual functions may come under ever new names.
_REMEMBERED = 1024


class Reader:
    """Reads, and remembers what was there before."""

    def __init__(
        self,
        root: Path,
        *,
        netlink: Netlink = rdma_netlink,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """root: /sys/class/infiniband, or a directory like it."""
        self._monotonic = monotonic
        self._wall = wall
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._devices = sysfs.Devices(str(root), sysfs.Descriptors(limit // 2))  # the others are for others
        self._extras = Extras(netlink, monotonic)
        self._growth: dict[tuple[str, int], Growth] = {}
        self._began: float | None = None

    def read(self) -> Sample:
        """What all devices say now."""
        began, wall = self._monotonic(), self._wall()
        interval = 0.0 if self._began is None else began - self._began
        self._began = began
        readings = [(reading, self._monotonic()) for reading in self._devices.read(began)]
        self._extras.look([reading for reading, _ in readings])
        ports = tuple(self._grown(self._extras.complete(reading), now) for reading, now in readings)
        self._forget({(port.device, port.port) for port in ports})
        return Sample(
            ports=ports, time=wall, interval=interval, bound=self._extras.bound, reason=self._extras.reason
        )

    def close(self) -> None:
        self._devices.close()

    def _grown(self, reading: sysfs.Reading, now: float) -> RdmaPort:
        growth = self._growth.setdefault((reading.port.device, reading.port.port), Growth())
        values = np.array(reading.values, np.uint64)
        totals, rates = growth.update(reading.names, values, now, life=reading.life)
        return replace(reading.port, names=reading.names, values=values, totals=totals, rates=rates)

    def _forget(self, present: set[tuple[str, int]]) -> None:
        """The totals of a port outlast it, but not of any number of ports."""
        if len(self._growth) > _REMEMBERED + len(present):
            self._growth = {key: growth for key, growth in self._growth.items() if key in present}
