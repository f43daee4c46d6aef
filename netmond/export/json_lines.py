"""The JSON output: a line of JSON for everything that exchanged something, to a TCP or Unix stream socket.

Each line is an object, ASCII whatever names hold, and ends with a line feed. It has the keys that the D-Bus
interface explains and ``netmonctl --json`` shows for a row of its type, with totals; before them are::

    host      name of this machine
    time      wall clock of the figures, Unix seconds
    type      user, unit, interface, target, flow, loss or feature
    period    seconds since the batch before; since counting began in the first one
    delta_in_packets, delta_in_bytes, delta_out_packets, delta_out_bytes
              what the totals grew by in the period
    delta_rdma_in_packets, delta_rdma_in_bytes, delta_rdma_out_packets, delta_rdma_out_bytes
              of users, what the totals of RDMA grew by

    type loss       name, count, meaning; delta_count: what the count grew by
    type feature    name, state, reason: in the first batch, then when one changed

Every `interval` seconds there is a line for each user, unit, monitored interface, target and flow that
exchanged anything, and at once a line for a flow that ended.

The deltas of a user, unit, interface or target add up to its total, those of all flows of a user to the
user's (of kind roce to what packets told of the user's RDMA), from the first line on. That stays so over an
outage, unless the spool overflows, which is counted (``output.json.undelivered``), and over restarts of
netmond and of the exporter. Flows that end while no exporter runs, or one that is then killed, are told in
the deltas of the others only.

Lines that come twice because a connection was cut are equal in every byte. An exporter that is killed while
it hands lines over to its spool may repeat them in other words: their totals tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain

from netmond.columns import Row
from netmond.export import rows
from netmond.export.batches import BatchOutput, Sender, payloads
from netmond.export.connection import Stream
from netmond.export.options import OPTIONS
from netmond.export.progress import Progress
from netmond.model import Snapshot

#: Bytes of lines that are delivered, or delivered again, as one.
PAYLOAD = 256 << 10

_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonOutput(BatchOutput):
    """Writes lines as the module describes them."""

    name = "json"
    options = OPTIONS["json"]

    def new_sender(self) -> Sender:
        return Stream(self.values["address"], self.values["timeout"])

    def between_batches(self, snapshot: Snapshot, progress: Progress) -> Iterable[bytes]:
        """Flows that ended."""
        if not self.values["flows"]:
            return ()
        return self._payloads(snapshot, rows.ended_flows(snapshot, progress, self.names))

    def batch(self, snapshot: Snapshot, progress: Progress) -> Iterable[bytes]:
        told = chain(
            rows.figures(snapshot, progress, self.names),
            rows.open_flows(snapshot, progress, self.names) if self.values["flows"] else (),
            rows.losses(snapshot, progress),
            rows.features(snapshot, progress),
        )
        return self._payloads(snapshot, told)

    def _payloads(self, snapshot: Snapshot, told: Iterable[Row]) -> Iterator[bytes]:
        head = {"host": self.host, "time": snapshot.time}
        return payloads((line({**head, **row}) for row in told), PAYLOAD)


def line(row: Row) -> bytes:
    """One line. Undecodable bytes of a name become U+FFFD: half of a surrogate pair is no JSON to many."""
    text = _encode(row)
    if "\\ud" in text:
        text = _encode({key: _clean(value) for key, value in row.items()})
    return text.encode() + b"\n"


def _clean(value: object) -> object:
    return (
        value.encode(errors="surrogateescape").decode(errors="replace") if isinstance(value, str) else value
    )
