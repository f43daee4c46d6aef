"""Figures pushed to a real VictoriaMetrics: every sample arrives, with its time, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from netmond.config import OutputConfig
from netmond.export import metrics, xtrace
from netmond.export.cardinality import ROUND
from netmond.export.push import PushOutput
from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS, Snapshot, TrafficType
from netmond.users import Names
from tests.export import growth
from tests.export.timeseries import Labels, VictoriaMetrics
from tests.kernel.deadline import eventually
from tests.unit.receiver import self_signed

INTERVAL = 15.0

New = Callable[..., PushOutput]


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    with VictoriaMetrics(tmp_path) as it:
        yield it


@pytest.fixture
def new(victoria: VictoriaMetrics, tmp_path: Path) -> Iterator[New]:
    """Makes an output that delivers there; it has the spool of the one before."""
    made: list[PushOutput] = []

    def make(path: str = "/api/v1/import/prometheus", **options: Any) -> PushOutput:
        output = PushOutput()
        keys = {"url": f"{victoria.url}{path}", "interval": INTERVAL, "instance": "here", **options}
        output.init(OutputConfig(name="push", log_dir=tmp_path, state_dir=tmp_path, options=keys))
        made.append(output)
        return output

    yield make
    for output in made:
        output.close()


@pytest.fixture
def past() -> Iterator[Snapshot]:
    """Snapshots of the last half hour, one for each interval."""
    return growth.every(INTERVAL, float(int(time.time()) - 1800))


def counts(output: PushOutput) -> dict[str, int]:
    return {loss.name.rpartition(".")[2]: loss.count for loss in output.losses()}


def waiting(directory: Path) -> int:
    """Batches that are not delivered."""
    return len(list((directory / "push" / "spool").iterdir()))


def deliver(output: PushOutput, last: Snapshot, directory: Path) -> None:
    """Let it deliver all that waits; the same snapshot again makes no new samples."""

    def attempt() -> bool:
        output.write(last)
        return not waiting(directory) and not output.limitation()

    eventually(attempt)


def expected(taken: list[Snapshot]) -> dict[Labels, list[tuple[int, float]]]:
    """What a database must have when it got all these."""
    series: dict[Labels, list[tuple[int, float]]] = {}
    for snapshot in taken:
        for reading in metrics.read(snapshot, Names().lookup):
            for values, value in reading.samples:
                labels = dict(zip(reading.family.labels, values, strict=True))
                labels = {name: text for name, text in labels.items() if text}
                key = frozenset({**labels, "__name__": reading.family.name, "instance": "here"}.items())
                series.setdefault(key, []).append((int(snapshot.time * 1000), float(value)))
    return series


def test_an_outage(victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path) -> None:
    """It is away, so is the exporter for a while: later nothing is missing, and nothing is doubled."""
    output = new()
    taken = list(islice(past, 10))
    for snapshot in taken:
        output.write(snapshot)
    assert not waiting(tmp_path)
    victoria.stop()
    for snapshot in islice(past, 10):
        output.write(snapshot)
        taken.append(snapshot)
    assert "Connection refused" in output.limitation()
    output.close()
    output = new()
    for snapshot in islice(past, 10):
        output.write(snapshot)
        taken.append(snapshot)
    assert waiting(tmp_path) == 20
    victoria.start()
    deliver(output, taken[-1], tmp_path)
    stored = victoria.samples('{__name__=~"netmond_.*"}')

    assert stored == expected(taken)
    assert counts(output)["undelivered"] == counts(output)["rejected"] == 0
    last = taken[-1]
    for subject, table in (("host", last.host), ("user", last.users), ("unit", last.units),
                           ("interface", last.interfaces), ("target", last.targets)):  # fmt: skip
        sums = [
            victoria.value(f"sum(netmond_{subject}_{what}_total)", time=str(last.time))
            for what in ("receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes")
        ]
        assert sums == table.counters[:, :4].sum(axis=0).tolist()


def test_what_came_last(victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot]) -> None:
    """The end of the story is delivered at the end, though the interval is not over."""
    output = new()
    first = next(past)
    last = growth.at(first.time + 1, 5)
    output.write(first)
    output.write(last)
    output.close()

    assert victoria.samples('{__name__=~"netmond_.*"}') == expected([first, last])


def test_flows(victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path) -> None:
    """Two series and the rest, over many rounds: the last values of all there were are the total."""
    output = new(flows=2)
    for snapshot in islice(past, int(6 * ROUND / INTERVAL)):
        output.write(snapshot)
    deliver(output, snapshot, tmp_path)

    for what in ("receive_bytes", "transmit_packets"):
        series = victoria.samples(f"netmond_flow_{what}_total")
        ((_, *_, (_, total)),) = victoria.samples(f"netmond_all_flows_{what}_total").values()
        assert sum(values[-1][1] for values in series.values()) == total > 0
        assert len(series) >= 3
        for labels, values in series.items():
            assert values[0][1] == 0 or ("id", "other") in labels
            assert sorted(values, key=lambda each: each[1]) == values


def test_names_of_xtrace_catch(
    victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path
) -> None:
    """Its four metrics with its labels, beside our own."""
    output = new(xtrace_names=True)
    for snapshot in islice(past, int(3 * ROUND / INTERVAL)):
        output.write(snapshot)
    deliver(output, snapshot, tmp_path)

    for family in xtrace.FAMILIES:
        series = victoria.samples(f'{family.name}{{dst_ip="192.0.2.7",dst_port="443",src_port="40001"}}')
        (labels,) = series
        assert {name for name, _ in labels} == {*xtrace.LABELS, "__name__", "instance"}
        assert dict(labels)["traffic_type"] == "TCP"
    assert victoria.samples("netmond_host_receive_bytes_total")


def test_roce_under_names_of_xtrace_catch(
    victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path
) -> None:
    """Its gauges of all flows that carry RoCE add up to what the flow table has of them, of each version."""
    output = new(xtrace_names=True)
    for snapshot in islice(past, int(3 * ROUND / INTERVAL)):
        output.write(snapshot)
    deliver(output, snapshot, tmp_path)
    traffic, counters = snapshot.flows.columns["traffic"], snapshot.flows.counters

    for version, name in ((TrafficType.ROCE_V1, "roce_v1"), (TrafficType.ROCE_V2, "roce_v2")):
        for unit, columns in (("bytes", (IN_BYTES, OUT_BYTES)), ("packets", (IN_PACKETS, OUT_PACKETS))):
            found = victoria.value(
                f'sum(xtrace_network_flow_{unit}{{traffic_type="{name}"}})', time=str(snapshot.time)
            )
            assert found == counters[traffic == version.value][:, columns].sum() > 0


def test_rejected(victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path) -> None:
    """A path that it does not know: each batch is dropped and counted, in one line of the log."""
    output = new(path="/api/v9/nowhere")
    for snapshot in islice(past, 5):
        output.write(snapshot)

    assert counts(output)["rejected"] == 5
    assert not waiting(tmp_path)


def test_it_wants_to_know_who_it_is(tmp_path: Path, past: Iterator[Snapshot]) -> None:
    """TLS with a certificate of its own, and a password: until both are configured, samples wait."""
    certificate = self_signed(tmp_path)
    login = "-httpAuth.username=alice", "-httpAuth.password=secret"
    tls = "-tls", f"-tlsCertFile={certificate}", f"-tlsKeyFile={certificate}"
    with VictoriaMetrics(tmp_path, *login, *tls) as victoria:
        output = PushOutput()
        path = f"localhost:{victoria.port}/api/v1/import/prometheus"
        wrong = {"url": f"https://{path}"}, {"url": f"https://{path}", "ca_file": str(certificate)}
        right = {"url": f"https://alice:secret@{path}", "ca_file": str(certificate)}
        problems = []
        for keys in (*wrong, right):
            output.init(OutputConfig(name="push", log_dir=tmp_path, state_dir=tmp_path, options=keys))
            output.write(next(past))
            problems.append(output.limitation())
            output.close()

    assert "certificate is not trusted: self-signed certificate" in problems[0]
    assert "401 Unauthorized: correct token_file, or user and password" in problems[1]
    assert problems[2] == ""
    assert not waiting(tmp_path)
    assert counts(output)["rejected"] == counts(output)["undelivered"] == 0


def test_far_too_little_room(
    victoria: VictoriaMetrics, new: New, past: Iterator[Snapshot], tmp_path: Path
) -> None:
    """The spool is full: the oldest are lost, and counted; what is delivered is still exact and in order."""
    output = new(spool=64 << 10)
    victoria.stop()
    taken = list(islice(past, 40))
    for snapshot in taken:
        output.write(snapshot)
    lost = counts(output)["undelivered"]
    victoria.start()
    deliver(output, taken[-1], tmp_path)

    assert 0 < lost < 40
    assert victoria.samples('{__name__=~"netmond_.*"}') == expected(taken[lost:])
