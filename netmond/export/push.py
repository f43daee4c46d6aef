"""The output ``push``: figures as text by POST to VictoriaMetrics, or to what else takes Prometheus' format.

Each sample has its time, so what was spooled through an outage fills the gap when it arrives. Remote write,
the protocol of Prometheus itself, is not spoken: there is no library for it in Debian. Prometheus scrapes
(output ``prometheus``), or vmagent takes what is pushed and writes it on.
"""

from __future__ import annotations

import gzip
import socket
from collections.abc import Iterator, Sequence

from netmond.config import OutputConfig, read_options
from netmond.errors import ConfigError
from netmond.export import exposition, metrics, xtrace
from netmond.export.cardinality import FlowView, TopFlows
from netmond.export.delivery import Delivery
from netmond.export.endpoint import Endpoint
from netmond.export.families import Reading
from netmond.export.options import OPTIONS
from netmond.export.spool import Spool
from netmond.model import Loss, Snapshot
from netmond.users import Names

#: How many flows have the names of XTrace-Catch, if nothing else is said.
XTRACE_FLOWS = 1000

#: Seconds of a round of series of flows, see `netmond.export.cardinality`: shorter makes too many series.
_ROUND = 30.0


class PushOutput:
    """Makes a batch of samples each interval and delivers it, now or later."""

    name = "push"
    options = OPTIONS["push"]

    def __init__(self) -> None:
        self._names = Names()
        self._endpoint: Endpoint
        self._delivery: Delivery | None = None
        self._flows: TopFlows | None = None
        self._xtrace = False
        self._labels: dict[str, str] = {}
        self._interval = 0.0
        self._last: Snapshot | None = None  # seen
        self._pushed = float("-inf")  # time of the last batch

    def init(self, config: OutputConfig) -> None:
        values, _ = read_options(self.options, config)
        self._endpoint = _endpoint(values["url"], values["timeout"], values["token_file"], values["ca_file"])
        self._xtrace = values["xtrace_names"]
        flows = values["flows"] or (XTRACE_FLOWS if self._xtrace else 0)
        period = max(_ROUND, 1.5 * values["interval"])  # every value of a series is in a batch
        self._flows = TopFlows(flows, self._names.lookup, period=period) if flows else None
        self._labels = {"instance": values["instance"] or socket.gethostname()}
        self._interval = values["interval"]
        spool = Spool(config.state_dir / self.name / "spool", values["spool"])
        self._delivery = Delivery(self._post, spool, name=self.name, before=self._delivery)

    def write(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        if self._flows is not None:
            self._flows.take(snapshot)
        # half a tick early is nearer than half a tick late; the clock may be set back
        due = self._pushed + self._interval - snapshot.interval / 2
        if not self._pushed <= snapshot.time < due:
            self._push(snapshot)
        if self._delivery is not None:
            self._delivery.pump()

    def close(self) -> None:
        """What came after the last batch is the end of the story: it goes out, or to the disk."""
        if self._delivery is not None:
            if self._last is not None and self._last.time != self._pushed:
                self._push(self._last)
                self._delivery.pump()
            self._delivery.close()
        self._last = None

    def losses(self) -> Sequence[Loss]:
        return self._delivery.losses() if self._delivery is not None else ()

    def limitation(self) -> str:
        return self._delivery.limitation() if self._delivery is not None else ""

    def _push(self, snapshot: Snapshot) -> None:
        assert self._delivery is not None
        self._pushed = snapshot.time
        flows = self._flows.view() if self._flows is not None else None
        text, _ = exposition.encode(
            self._readings(snapshot, flows), extra=self._labels, timestamp=snapshot.time
        )
        self._delivery.submit(gzip.compress(text, 1, mtime=0))

    def _readings(self, snapshot: Snapshot, flows: FlowView | None) -> Iterator[Reading]:
        yield from metrics.read(snapshot, self._names.lookup, flows)
        if self._xtrace and flows is not None:
            yield from xtrace.read(flows)

    def _post(self, payload: bytes) -> None:
        self._endpoint.post(payload, {"Content-Type": "text/plain", "Content-Encoding": "gzip"})


def _endpoint(url: str, timeout: float, token_file: str, ca_file: str) -> Endpoint:
    if not url:
        raise ConfigError("there is no url in [output.push]: it says where to deliver to")
    if url.partition("?")[0].endswith("/api/v1/write"):
        raise ConfigError(
            "url in [output.push] is for remote write, which netmond does not speak: VictoriaMetrics and"
            " vmagent take what it sends at /api/v1/import/prometheus"
        )
    return Endpoint(url, timeout, token_file=token_file, ca_file=ca_file)
