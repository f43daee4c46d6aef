"""RDMA in a tick: what the wire saw, and what was read of devices and queue pairs meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netmond.accounts import Now
from netmond.flowrows import FlowRows
from netmond.model import NO_RDMA_DEVICE, Feature, FeatureState, InterfaceInfo, Rdma
from netmond.rdma.attribution import Attribution
from netmond.rdma.census import CensusTaker
from netmond.rdma.sampler import Sample, Sampler
from netmond.roce import Roce

_NOTHING = Rdma()  # as on most machines all the time


class RdmaMonitor:
    """Belongs to one thread; devices and queue pairs are read in others."""

    def __init__(
        self, attribution: Attribution, *, sampler: Sampler, census: CensusTaker, roce: Roce | None
    ) -> None:
        """roce: what the interfaces see; None: they are off."""
        self._attribution = attribution
        self._sampler = sampler
        self._census = census
        self._roce = roce
        self._sample = Sample()
        self._present = False

    def look(self) -> None:
        """Asks for a reading of the devices, when a tick begins."""
        self._sampler.look()

    def tick(self, flows: FlowRows, now: Now, links: Callable[[], Mapping[int, InterfaceInfo]]) -> Rdma:
        """Adds the flows. links: all interfaces by index; asked for when devices were read anew."""
        self._present = self._sampler.present
        self._census.watch(self._present)
        sample = self._sampler.sample  # before the wire is read, see hardware.Remainders
        self._attribution.begin_tick(now, self._census.census, asked=self._present)
        if self._roce:
            self._roce.add(flows, now, self._attribution.account)
        if self._attribution.waits:
            self._census.hurry()
        if sample is not self._sample:
            indexes = {info.name: info.index for info in links().values()}
            self._attribution.add_counters(sample.ports, sample.bound, indexes)
            self._sample = sample
        return self.current(now.interval)

    def current(self, interval: float = 0.0) -> Rdma:
        """As of the last tick; interval: what its rates are taken over."""
        usage = self._attribution.usage
        if not self._sample.ports and not usage.known:
            return _NOTHING
        return Rdma(
            time=self._sample.time,
            interval=self._sample.interval,
            ports=self._sample.ports,
            queue_pairs=usage.queue_pairs(interval),
            users=usage.users(interval),
        )

    def feature(self) -> Feature:
        """Off where there is no device."""
        if not self._present:
            return Feature(name="rdma", state=FeatureState.OFF, reason=NO_RDMA_DEVICE)
        wire = "" if self._roce else "RDMA over Ethernet is not seen: interfaces are off"
        counters, queue_pairs = self._sample.reason, self._census.census.reason
        said = (queue_pairs, "" if counters in queue_pairs else counters, wire)  # netlink refuses both alike
        reason = "; ".join(filter(None, said))
        return Feature(
            name="rdma", state=FeatureState.DEGRADED if reason else FeatureState.ON, reason=reason
        )

    def close(self) -> None:
        """Ends all reading."""
        self._census.watch(False)
        self._sampler.close()
