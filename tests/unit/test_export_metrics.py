"""Snapshots as metrics: names, labels, values, and text that no name of anybody's can break."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from netmond.export import metrics, xtrace
from netmond.export.cardinality import FlowLabels, FlowSeries, FlowView
from netmond.export.exposition import encode
from netmond.model import Feature, FeatureState, InterfaceInfo, Loss, Snapshot
from tests.bus import snapshots

OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def name_of(uid: int) -> str:
    return {snapshots.ALICE: "alice", snapshots.BOB: "bob"}.get(uid, str(uid))


def figures(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def view() -> FlowView:
    """A flow of alice's to a web server, and the rest."""
    labels = FlowLabels(
        "7", "6", "10.0.0.1", "40001", "192.0.2.7", "443", "5", "alice", "app.service", "curl"
    )
    return FlowView(
        series=(FlowSeries(labels=labels, figures=figures(1, 2, 3, 4), lifetime=figures(11, 12, 13, 14)),),
        other=figures(20, 30, 40, 50),
        total=figures(121, 132, 143, 154),
    )


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


def series(snapshot: Snapshot, flows: FlowView | None = None) -> Series:
    """What a reader of the text gets."""
    return parsed(encode(metrics.read(snapshot, name_of, flows)))


def of(found: Series, name: str) -> dict[str, float]:
    """The series of a metric by their labels, as they are queried."""
    return {
        ",".join(f"{label}={value}" for label, value in sorted(labels)): number
        for (each, labels), number in found.items()
        if each == name
    }


def test_figures() -> None:
    """Every table's totals, in the units and under the labels that the manual promises."""
    found = series(snapshots.small())

    assert of(found, "netmond_host_receive_packets_total") == {"": 83}
    assert of(found, "netmond_user_receive_packets_total") == {"uid=5,user=alice": 33, "uid=9,user=bob": 36}
    assert of(found, "netmond_user_receive_bytes_total") == {
        "uid=5,user=alice": 3333,
        "uid=9,user=bob": 3636,
    }
    assert of(found, "netmond_user_transmit_packets_total") == {"uid=5,user=alice": 34, "uid=9,user=bob": 37}
    assert of(found, "netmond_user_transmit_bytes_total") == {"uid=5,user=alice": 363, "uid=9,user=bob": 396}
    assert of(found, "netmond_unit_receive_packets_total") == {
        "slice=system.slice,unit=app.service": 57,
        "slice=user.slice,unit=ssh.scope": 7,
        "slice=system.slice,unit=cron.service": 5,
    }
    assert of(found, "netmond_interface_receive_bytes_total") == {"interface=eth0": 7171}
    assert of(found, "netmond_target_receive_bytes_total") == {"target=192.0.2.7": 1919}
    assert of(found, "netmond_open_flows") == {"uid=5,user=alice": 3, "uid=9,user=bob": 2}
    assert of(found, "netmond_losses_total") == {"name=meter.no-slot": 13}
    assert of(found, "netmond_feature_state")["feature=journal,state=off"] == 1
    assert of(found, "netmond_feature_state")["feature=journal,state=on"] == 0
    assert of(found, "netmond_snapshot_timestamp_seconds") == {"": 2005}
    assert of(found, "netmond_cpu_seconds_total") == {"": 1.5}
    assert of(found, "netmond_flow_receive_bytes_total") == {}


def test_flows() -> None:
    """A series each, and one for all others, so that the sum is right; and the total."""
    found = series(snapshots.small(), view())
    flow = (
        "id=7,local=10.0.0.1,local_port=40001,process=curl,protocol=6,remote=192.0.2.7,remote_port=443,"
        "uid=5,unit=app.service,user=alice"
    )
    other = "id=other," + ",".join(f"{name}=" for name in sorted(FlowLabels._fields) if name != "id")

    assert of(found, "netmond_flow_receive_packets_total") == {flow: 1, other: 20}
    assert of(found, "netmond_flow_transmit_bytes_total") == {flow: 4, other: 50}
    assert of(found, "netmond_all_flows_transmit_bytes_total") == {"": 154}


def test_names_of_xtrace_catch() -> None:
    """Its labels; two directions for a flow of ours; counters with the rest, gauges of whole flows."""
    found = parsed(encode(xtrace.read(view())))
    inward = "dst_ip=10.0.0.1,dst_port=40001,protocol=6,src_ip=192.0.2.7,src_port=443,traffic_type=TCP"
    outward = "dst_ip=192.0.2.7,dst_port=443,protocol=6,src_ip=10.0.0.1,src_port=40001,traffic_type=TCP"
    other = "dst_ip=,dst_port=,protocol=,src_ip=,src_port=,traffic_type=Other"

    assert of(found, "xtrace_network_bytes_total") == {inward: 2, outward: 4, other: 80}
    assert of(found, "xtrace_network_packets_total") == {inward: 1, outward: 3, other: 60}
    assert of(found, "xtrace_network_flow_bytes") == {inward: 12, outward: 14}
    assert of(found, "xtrace_network_flow_packets") == {inward: 11, outward: 13}


def test_both_ends_of_a_flow_are_here() -> None:
    """Over lo each direction is seen twice under those names: one series, not two of the same labels."""
    (one,) = view().series
    labels = one.labels._replace(
        id="8", local=one.labels.remote, local_port="443", remote=one.labels.local, remote_port="40001"
    )
    both = replace(view(), series=(one, replace(one, labels=labels)))
    found = parsed(encode(xtrace.read(both)))

    assert sorted(of(found, "xtrace_network_bytes_total").values()) == [6, 6, 80]


def test_names() -> None:
    """What can be read is in the list of names, which follow Prometheus' rules; no name is there twice."""
    names = [family.name for family in metrics.FAMILIES]
    read = {reading.family for reading in metrics.read(snapshots.small(), name_of, view())}

    assert read == set(metrics.FAMILIES)
    assert len(set(names)) == len(names)
    for family in (*metrics.FAMILIES, *xtrace.FAMILIES):
        assert re.fullmatch(r"(netmond|xtrace)_[a-z_]+", family.name)
        assert all(re.fullmatch(r"[a-z_]+", label) for label in family.labels)
        assert re.fullmatch(r"[A-Z0-9].*[^.]", family.help)


def test_openmetrics() -> None:
    """The newer format says the same to a strict parser."""
    readings = list(metrics.read(snapshots.small(), name_of, view()))
    text, content_type = encode(readings, OPENMETRICS)

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
    assert parsed((text, content_type)) == parsed(encode(readings))


def test_large_numbers_are_exact() -> None:
    """Up to 2**53, what a float64 can hold."""
    snapshot = snapshots.small()
    counters = np.full_like(snapshot.host.counters, 2**53 - 1)
    found = series(replace(snapshot, host=replace(snapshot.host, counters=counters)))

    assert of(found, "netmond_host_receive_bytes_total") == {"": 2**53 - 1}


def test_time_and_labels_for_all() -> None:
    """What is pushed has its time, in milliseconds, and says where it comes from."""
    text, _ = encode(metrics.read(snapshots.small(), name_of), extra={"instance": "here"}, timestamp=2005.5)
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]

    assert all(line.endswith(" 2005500") and 'instance="here"' in line for line in lines)


def hostile(name: str) -> Snapshot:
    """The small snapshot with this name wherever somebody can choose one."""
    base = snapshots.small()
    units = {**base.units.columns, "unit": snapshots.texts(name, f"{name}x", "cron.service")}
    feature = Feature(name=name, state=FeatureState.ON)
    return replace(
        base,
        units=replace(base.units, columns=units),
        links={2: InterfaceInfo(name=name, index=2, kind="physical", state="up")},
        features=(feature, feature),
        losses=(Loss(name=name, count=1, meaning=""),) * 2,
    )


@pytest.mark.parametrize(
    "name",
    ['"} 5\nfalse_total 6', "\\", '\\"', "a\\n", "\r\n# EOF\n", "\0", "\udcff", "\u2028", "", "ü😀", "{}"],
)
def test_hostile_names(name: str) -> None:
    """A name is the value of a label, whatever is in it, and text stays text in UTF-8."""
    snapshot = hostile(name)
    plain = series(snapshots.small())
    found = series(snapshot)
    readings = list(metrics.read(snapshot, lambda uid: name))

    assert {each for each, _ in found} == {each for each, _ in plain}
    assert len(of(found, "netmond_unit_receive_bytes_total")) == 3
    assert parsed(encode(readings, OPENMETRICS)) == parsed(encode(readings))


@given(name=st.text(st.characters(), max_size=20))
def test_any_name(name: str) -> None:
    """The same for whatever else there may be; no control character gets through."""
    encoded = encode(metrics.read(hostile(name), lambda uid: name))

    assert {name for name, _ in parsed(encoded)} < {family.name for family in metrics.FAMILIES}
    assert all(line.isprintable() for line in encoded[0].decode().split("\n"))


def test_a_unit_of_several_cgroups() -> None:
    """One series with the sum: two would make the whole text invalid."""
    base = snapshots.small()
    units = {**base.units.columns, "unit": snapshots.texts("a.service", "a.service", "b.service"),
             "slice": snapshots.texts("x.slice", "x.slice", "x.slice")}  # fmt: skip
    found = series(replace(base, units=replace(base.units, columns=units)))

    assert of(found, "netmond_unit_receive_packets_total") == {
        "slice=x.slice,unit=a.service": 64, "slice=x.slice,unit=b.service": 5,
    }  # fmt: skip


def test_an_interface_that_is_gone() -> None:
    """It has no name any more, and no series."""
    found = series(replace(snapshots.small(), links={}))

    assert of(found, "netmond_interface_receive_bytes_total") == {}
