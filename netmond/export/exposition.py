"""Metrics as text, by prometheus-client: the formats of Prometheus and OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://openmetrics.io/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

try:
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.exposition import choose_encoder, gzip_accepted
    from prometheus_client.registry import Collector
except ImportError as missing:  # shown as the state of the output
    raise ImportError(f"{missing}; install python3-prometheus-client, and reload netmond") from missing

from netmond.export.families import Reading


class _Readings(Collector):
    """What the library collects metrics from."""

    def __init__(
        self, readings: Iterable[Reading], extra: Mapping[str, str], timestamp: float | None
    ) -> None:
        self._readings = readings
        self._extra = extra
        self._timestamp = timestamp

    def collect(self) -> Iterator[Metric]:
        for reading in self._readings:
            family = reading.family
            # the library keeps a counter's name without its ending
            metric = Metric(
                family.name.removesuffix("_total"), family.help, "counter" if family.is_counter else "gauge"
            )
            for values, value in reading.samples:
                labels = dict(zip(family.labels, values, strict=True), **self._extra)
                metric.add_sample(family.name, labels, value, self._timestamp)
            yield metric


def encode(
    readings: Iterable[Reading],
    accept: str = "",
    *,
    extra: Mapping[str, str] | None = None,
    timestamp: float | None = None,
) -> tuple[bytes, str]:
    """The text, and its media type. accept: an HTTP header, which may ask for OpenMetrics.

    extra: labels for every series; timestamp: Unix seconds for every sample, else whenever it is read.
    """
    registry = CollectorRegistry()
    registry.register(_Readings(readings, extra or {}, timestamp))
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def takes_gzip(accept_encoding: str) -> bool:
    """Whether the reader with this HTTP header takes the text compressed."""
    return bool(gzip_accepted(accept_encoding))
