"""The syslog output: messages of RFC 5424 about users, interfaces and targets, losses and features.

Every `interval` seconds one for each user, monitored interface and target that exchanged anything (info),
for each loss that grew (warning), and for each feature that changed (warning, or notice if it works now).
MSGID is USER, INTERFACE, TARGET, LOSS or FEATURE; APP-NAME is netmond. The structured data are one
element::

    [netmond@32473 period="60" user="alice" uid="1000" delta_in_bytes="5120" ... in_bytes="81920" ...]

with the names of the D-Bus interface for totals, and ``delta_*`` for what they grew by in ``period``
seconds; of users also ``delta_rdma_in_bytes`` and ``delta_rdma_out_bytes``, if they are not 0. 32473 is the
enterprise number that RFC 5612 reserves for documentation: netmond has none of its own, and the name before
it says whose element this is.

Control characters are escaped in whatever has a name. A message has at most 1,024 bytes: what receivers of
all kinds take (RFC 5424, 6.1), and UDP carries in one piece. Over TCP messages are framed by octet counting
(RFC 6587); over UDP (RFC 5426) and to a Unix socket such as ``/dev/log`` each is a datagram. UDP does not
tell what arrives. What reads ``/dev/log`` must know RFC 5424: for journald the text begins with the header,
rsyslog wants ``UseSpecialParser="off"``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain

from netmond.columns import Row
from netmond.config_table import LOG_LEVELS
from netmond.export import rows
from netmond.export.address import Address
from netmond.export.batches import BatchOutput, Sender, payloads
from netmond.export.connection import Stream, send_datagrams
from netmond.export.options import OPTIONS
from netmond.export.progress import Progress
from netmond.model import COUNTERS, NO_RDMA_DEVICE, FeatureState, Snapshot
from netmond.outputs.deltas import WRITTEN
from netmond.outputs.journal import traffic
from netmond.outputs.log import IDENTIFIER, escape

SD_ID = "netmond@32473"

#: Bytes of a message, and characters of a value in its structured data.
MESSAGE, VALUE = 1024, 96

#: Bytes of messages that are delivered, or delivered again, as one: a burst that any receiver's queue takes.
PAYLOAD = 16 << 10

#: RFC 5424, 6.2.1.
_FACILITIES = {"user": 1, "daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}

#: Keys of a row that stand in the structured data, by type.
_FIGURES = (*rows.DELTAS, *COUNTERS[:WRITTEN])
_RDMA = ("delta_rdma_in_bytes", "delta_rdma_out_bytes")  # no more: a message has to hold all of them
_PARAMETERS = {
    "user": ("period", "user", "uid", *_FIGURES, *_RDMA),
    "interface": ("period", "name", "index", *_FIGURES),
    "target": ("period", "address", *_FIGURES),
    "loss": ("period", "name", "delta_count", "count"),
    "feature": ("name", "state", "reason"),
}


class SyslogOutput(BatchOutput):
    """Sends messages as the module describes them."""

    name = "syslog"
    options = OPTIONS["syslog"]

    def new_sender(self) -> Sender:
        address, timeout = self.values["address"], self.values["timeout"]
        if address.scheme == "tcp":
            return Stream(address, timeout)
        return _Datagrams(address, timeout)

    def batch(self, snapshot: Snapshot, progress: Progress) -> Iterator[bytes]:
        """Messages framed by octet counting."""
        told = (
            message(row, snapshot.time, self.host, self.values["facility"])
            for row in chain(
                rows.figures(snapshot, progress, self.names),
                rows.losses(snapshot, progress),
                rows.features(snapshot, progress),
            )
            if row["type"] in _PARAMETERS
        )
        return payloads((b"%d %b" % (len(each), each) for each in told), PAYLOAD)


class _Datagrams:
    """Sends each message of a payload as a datagram."""

    def __init__(self, address: Address, timeout: float) -> None:
        self._address, self._timeout = address, timeout

    def send(self, payload: bytes) -> None:
        send_datagrams(self._address, self._timeout, messages(payload))

    def close(self) -> None:
        """Nothing stays open."""


def messages(payload: bytes) -> Iterator[bytes]:
    """The messages of a payload."""
    at = 0
    while at < len(payload):
        begin = payload.index(b" ", at) + 1
        at = begin + int(payload[at : begin - 1])
        yield payload[begin:at]


def message(row: Row, time: float, host: str, facility: str) -> bytes:
    """A row of one of the types that have parameters as a message, RFC 5424, 6."""
    severity, text = _text(row)
    priority = 8 * _FACILITIES[facility] + LOG_LEVELS.index(severity)
    stamp = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    values = {name: row[name] for name in _PARAMETERS[row["type"]] if row[name] or name not in _RDMA}
    parameters = " ".join(f'{name}="{_value(value)}"' for name, value in values.items())
    head = (
        f"<{priority}>1 {stamp} {_ascii(host)} {IDENTIFIER} {os.getpid()} {row['type'].upper()}"
        f" [{SD_ID} {parameters}] "
    ).encode()
    text = escape(text)
    mark = b"" if text.isascii() else b"\xef\xbb\xbf"  # UTF-8, says RFC 5424, 6.4
    return _cut(head + mark + text.encode(), MESSAGE)


def _text(row: Row) -> tuple[str, str]:
    """Severity and text of a message."""
    if row["type"] == "loss":
        return (
            "warning",
            f"{row['name']}: {row['delta_count']} more, {row['count']} in all: {row['meaning']}",
        )
    if row["type"] == "feature":
        reason = f": {row['reason']}" if row["reason"] else ""
        good = row["state"] == FeatureState.ON or row["reason"] == NO_RDMA_DEVICE
        severity = "notice" if good else "warning"
        return severity, f"{row['name']} is {row['state']}{reason}"
    who = {"user": "user", "interface": "name", "target": "address"}[row["type"]]
    of_rdma = [row.get(name, 0) for name in rows.RDMA_DELTAS]
    counts = tuple(row[name] + more for name, more in zip(rows.DELTAS, of_rdma, strict=True))
    return "info", f"{row['type'].capitalize()} {row[who]} {traffic(counts)} in {row['period']:.0f} s"


def _value(value: object) -> str:
    """A value in the structured data: RFC 5424, 6.3.3, escapes three characters."""
    text = f"{value:.0f}" if isinstance(value, float) else escape(str(value))[:VALUE]
    return re.sub(r'(["\\\]])', r"\\\1", text)


def _ascii(host: str) -> str:
    """RFC 5424, 6.2.4: printable ASCII without space; a hyphen for nothing."""
    return re.sub(r"[^!-~]", "?", host)[:64] or "-"


def _cut(data: bytes, length: int) -> bytes:
    """At most so many bytes, without half a character at the end."""
    return data if len(data) <= length else data[:length].decode(errors="ignore").encode()
