"""Units of sockets by their cgroups, and frames of those that are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from netmond.kernel.cgroups import CgroupPaths, find_cgroup2
from netmond.kernel.frame_ring import field
from netmond.units import unit_of


class Units:
    """Names of units."""

    def __init__(self) -> None:
        """Unavailable: there are no cgroups."""
        self._paths = CgroupPaths(find_cgroup2())

    def names(self, cgroups: Iterable[int]) -> dict[int, str]:
        """By cgroup id, leaving out those that are not known (any more)."""
        return {id_: unit_of(path)[0] for id_, path in self._paths.look_up(cgroups).items()}


class UnitFilter:
    """Decides about cgroups when their first frame comes: a service may start when the capture has begun.

    Until the kernel is told, it passes frames on as doubtful.
    """

    def __init__(self, wanted: Collection[str], units: Units, tell: Callable[[int, bool], None]) -> None:
        """tell: lets the kernel know about a cgroup."""
        self._wanted = wanted
        self._units = units
        self._tell = tell
        self.others: Counter[int] = Counter()  #: frames that were not wanted, by interface index

    def wanted(self, data: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those frames are that are wanted, of some."""
        doubtful = np.flatnonzero(field(data, places, "doubtful"))
        if not len(doubtful):
            return places
        cgroups, which = np.unique(field(data, places[doubtful], "cgroup"), return_inverse=True)
        names = self._units.names(cgroups.tolist())
        verdicts = [names.get(cgroup) in self._wanted for cgroup in cgroups.tolist()]
        for cgroup, is_wanted in zip(cgroups.tolist(), verdicts, strict=True):
            self._tell(cgroup, is_wanted)
        unwanted = doubtful[~np.array(verdicts)[which]]
        self.others.update(field(data, places[unwanted], "ifindex").tolist())
        return np.delete(places, unwanted)
