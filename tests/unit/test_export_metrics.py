"""Snapshots as metrics: names, labels, values, and text that no name of anybody's can break."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.export import metrics, xtrace
from netmond.export.cardinality import FlowLabels, FlowSeries, FlowView
from netmond.export.exposition import encode
from netmond.model import Feature, FeatureState, InterfaceInfo, Loss, Rdma, Snapshot
from tests.bus import rdma, snapshots
from tests.bus.rdma import with_rdma
from tests.unit.metric_text import Series, of, parsed

OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"


def name_of(uid: int) -> str:
    return {snapshots.ALICE: "alice", snapshots.BOB: "bob"}.get(uid, str(uid))


def figures(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def view() -> FlowView:
    """A flow of alice's to a web server, and the rest."""
    labels = FlowLabels(
        "7", "6", "10.0.0.1", "40001", "192.0.2.7", "443", "5", "alice", "app.service", "curl",
        "ip", "", "",
    )  # fmt: skip
    return FlowView(
        series=(FlowSeries(labels=labels, figures=figures(1, 2, 3, 4), lifetime=figures(11, 12, 13, 14)),),
        other=figures(20, 30, 40, 50),
        total=figures(121, 132, 143, 154),
    )


def series(snapshot: Snapshot, flows: FlowView | None = None) -> Series:
    """What a reader of the text gets."""
    return parsed(encode(metrics.read(snapshot, name_of, flows)))


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
        "id=7,local=10.0.0.1,local_port=40001,opcode=,process=curl,protocol=6,queue_pair=,remote=192.0.2.7,"
        "remote_port=443,traffic_type=ip,uid=5,unit=app.service,user=alice"
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


@pytest.mark.parametrize(
    ("protocol", "port", "traffic", "told"),
    [
        ("6", "443", "ip", "TCP"),
        ("17", "443", "ip", "UDP"),
        ("17", "4791", "ip", "UDP"),  # at RoCE's port, but no RoCE
        ("58", "0", "ip", "Other"),
        ("17", "4791", "roce_v2", "roce_v2"),
        ("0", "0", "roce_v1", "roce_v1"),
    ],
)
def test_traffic_types_of_xtrace_catch(protocol: str, port: str, traffic: str, told: str) -> None:
    """IP has the words that it uses for it; RoCE is told by what was found in packets, not by the port."""
    (one,) = view().series
    labels = one.labels._replace(protocol=protocol, remote_port=port, traffic_type=traffic)
    found = parsed(encode(xtrace.read(replace(view(), series=(replace(one, labels=labels),)))))

    assert {
        dict(labels)["traffic_type"] for name, labels in found if name == "xtrace_network_flow_bytes"
    } == {told}


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
    read = {reading.family for reading in metrics.read(with_rdma(snapshots.small()), name_of, view())}

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


class TestRdma:
    """Ports and users of RDMA."""

    FOUND = series(with_rdma(snapshots.small()))

    def test_data(self) -> None:
        """What all devices count has a metric for each direction, in bytes, and is no other counter."""
        assert of(self.FOUND, "netmond_rdma_data_bytes_total") == {
            "device=mlx5_0,direction=receive,port=1": 2000,
            "device=mlx5_0,direction=transmit,port=1": 1000,
            "device=mlx5_1,direction=receive,port=1": 20_000,
            "device=mlx5_1,direction=transmit,port=1": 10_000,
        }
        assert of(self.FOUND, "netmond_rdma_packets_total") == {
            "device=mlx5_0,direction=receive,port=1": 5,
            "device=mlx5_0,direction=transmit,port=1": 7,
        }

    def test_counters(self) -> None:
        """All others by their names, with the kind that makes drivers comparable, known or not."""
        assert of(self.FOUND, "netmond_rdma_counter_total") == {
            "counter=symbol_error,device=mlx5_0,group=counters,kind=link,port=1,unit=events": 3,
            "counter=np_cnp_sent,device=mlx5_1,group=hw_counters,kind=congestion,port=1,unit=packets": 19,
            "counter=out_of_sequence,device=mlx5_1,group=hw_counters,kind=order,port=1,unit=packets": 22,
            "counter=made_up_by_a_driver,device=mlx5_1,group=hw_counters,kind=other,port=1,unit=events": 28,
        }

    def test_soft_roce_counts_no_bytes(self) -> None:
        """Packets under its own names, and no series for what it does not count."""
        names = [("hw_counters", "sent_pkts"), ("hw_counters", "rcvd_pkts"), ("hw_counters", "rcvd_rnr_err")]
        soft = rdma.port(rdma.SOFT, {name: (0, 23 + place, 0.0) for place, name in enumerate(names)},
                         link_layer="Ethernet", state="active")  # fmt: skip
        found = series(replace(snapshots.small(), rdma=Rdma(ports=(soft,))))

        assert of(found, "netmond_rdma_packets_total") == {
            "device=rxe0,direction=receive,port=1": 24,
            "device=rxe0,direction=transmit,port=1": 23,
        }
        assert of(found, "netmond_rdma_data_bytes_total") == {}
        assert of(found, "netmond_rdma_counter_total") == {
            "counter=rcvd_rnr_err,device=rxe0,group=hw_counters,kind=rnr,port=1,unit=packets": 25
        }

    def test_two_counters_for_one_figure(self) -> None:
        """An adapter that counts IPv4 and IPv6 apart has the sum, and neither of them as another counter."""
        names = [("hw_counters", f"ip{version}{way}Octets") for version in (4, 6) for way in ("In", "Out")]
        port = rdma.port("irdma0", {name: (0, 10**place, 0.0) for place, name in enumerate(names)},
                         link_layer="Ethernet", state="active")  # fmt: skip
        found = series(replace(snapshots.small(), rdma=Rdma(ports=(port,))))

        assert of(found, "netmond_rdma_data_bytes_total") == {
            "device=irdma0,direction=receive,port=1": 101,
            "device=irdma0,direction=transmit,port=1": 1010,
        }
        assert of(found, "netmond_rdma_counter_total") == {}

    def test_ports(self) -> None:
        """State, speed and facts; what is not known has no series."""
        states = of(self.FOUND, "netmond_rdma_port_state")

        assert {labels for labels, value in states.items() if value} == {
            "device=mlx5_0,port=1,state=active",
            "device=mlx5_1,port=1,state=active",
            "device=rxe0,port=1,state=down",
        }
        assert len(states) == 3 * 4
        assert of(self.FOUND, "netmond_rdma_port_speed_bytes_per_second") == {
            "device=mlx5_0,port=1": 12.5e9,
            "device=mlx5_1,port=1": 3.125e9,
        }
        assert (
            "device=mlx5_1,driver=mlx5_core,firmware=20.31.1014,link_layer=Ethernet,netdev=eth0,port=1"
            in of(self.FOUND, "netmond_rdma_port_info")
        )

    def test_users(self) -> None:
        """A series each, and one for what nobody can be named for, which no user can be mistaken for."""
        assert of(self.FOUND, "netmond_rdma_user_packets_total") == {
            "direction=receive,uid=5,user=alice": 21,
            "direction=transmit,uid=5,user=alice": 22,
            "direction=receive,uid=13,user=13": 27,
            "direction=transmit,uid=13,user=13": 28,
            "direction=receive,uid=,user=unknown": 41,
            "direction=transmit,uid=,user=unknown": 42,
        }
        assert of(self.FOUND, "netmond_rdma_user_bytes_total")["direction=receive,uid=,user=unknown"] == 4141
        assert of(self.FOUND, "netmond_rdma_queue_pairs") == {
            "uid=5,user=alice": 1,
            "uid=13,user=13": 1,
            "uid=,user=unknown": 1,
        }

    def test_without_a_device(self) -> None:
        """Nothing at all, not even names."""
        assert not any(
            reading.family.name.startswith("netmond_rdma")
            for reading in metrics.read(snapshots.small(), name_of)
        )

    def test_hostile_names(self) -> None:
        """Names of devices and counters are text, too, and a state that nobody knows is one more."""
        port = replace(with_rdma(snapshots.small()).rdma.ports[0], device='"} 5\nx 6', state="\0new")
        port = replace(port, names=tuple((group, f"{name}\n#") for group, name in port.names))
        found = series(replace(snapshots.small(), rdma=Rdma(ports=(port,))))

        assert len(of(found, "netmond_rdma_counter_total")) == 5
        assert len(of(found, "netmond_rdma_port_state")) == 5
