"""The IPFIX output: flow records (RFC 7011) to a collector such as nfcapd or nfacctd, over UDP or TCP.

Every `interval` seconds a record for each flow and direction that was active since the last one, and at once
for a flow that ended. All flows have them: those of users, forwarded ones, and what is without addresses for
want of a slot, so that sums are those of the flow table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from netmond.export.batches import BatchOutput, Sender
from netmond.export.connection import Stream
from netmond.export.datagrams import Datagrams
from netmond.export.ipfix_messages import Origin, parcels, records
from netmond.export.options import OPTIONS
from netmond.export.progress import Progress
from netmond.model import Snapshot

#: Flows encoded at a time: bounds the memory of a batch.
CHUNK = 4096


class IpfixOutput(BatchOutput):
    """Exports flows. `write` never raises for what the collector or the disk does."""

    name = "ipfix"
    options = OPTIONS["ipfix"]
    _sequence = 0  # how many records this process exported

    def new_sender(self) -> Sender:
        address, timeout = self.values["address"], self.values["timeout"]
        if address.scheme == "udp":
            return Datagrams(address, timeout)
        return Stream(address, timeout)

    def batch(self, snapshot: Snapshot, progress: Progress) -> Iterator[bytes]:
        return self._parcels(snapshot, progress, *progress.flows.take_open(snapshot.flows))

    def between_batches(self, snapshot: Snapshot, progress: Progress) -> Iterator[bytes]:
        return self._parcels(snapshot, progress, *progress.flows.take_ended(snapshot.flows))

    def _parcels(
        self, snapshot: Snapshot, progress: Progress, rows: NDArray[np.intp], delta: NDArray[np.uint64]
    ) -> Iterator[bytes]:
        """The records of some flows, each of which exchanged `delta`."""
        origin = Origin(domain=self.values["domain"], time=snapshot.time, before=progress.time)
        for begin in range(0, len(rows), CHUNK):
            chunk = slice(begin, begin + CHUNK)
            for template, found in records(
                snapshot.flows, rows[chunk], delta[chunk], origin, self.names.lookup
            ):
                yield from parcels(template, found, origin, self._sequence)
                self._sequence = (self._sequence + len(found)) & 0xFFFFFFFF
