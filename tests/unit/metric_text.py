"""Reads metrics as text, in the formats of Prometheus and OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

#: Values by name and labels.
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(encoded: tuple[bytes, str]) -> Series:
    """Every series of a text with its value, as a reader of its format gets them; none is there twice."""
    text, content_type = encoded
    parse: Callable[[str], Iterable[Metric]] = (
        parse_openmetrics if "openmetrics" in content_type else parse_text
    )
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in parse(text.decode())
        for sample in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def of(found: Series, name: str) -> dict[str, float]:
    """The series of a metric by their labels, as they are queried."""
    return {
        ",".join(f"{label}={value}" for label, value in sorted(labels)): number
        for (each, labels), number in found.items()
        if each == name
    }
