"""Flows under the metric names of XTrace-Catch, for dashboards that ask for them.

Its flows have one direction, so a flow of ours is two of them. Its counters are those of our series of
flows, "other" included; its gauges what each flow has exchanged since it began.
"""

from __future__ import annotations

from collections.abc import Iterator

from netmond.export.cardinality import Figures, FlowLabels, FlowView
from netmond.export.families import Family, Labels, Reading
from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS

LABELS = ("src_ip", "dst_ip", "src_port", "dst_port", "protocol", "traffic_type")

BYTES = Family(name="xtrace_network_bytes_total", help="Total network traffic in bytes", labels=LABELS)
PACKETS = Family(name="xtrace_network_packets_total", help="Total network packets", labels=LABELS)
FLOW_BYTES = Family(name="xtrace_network_flow_bytes", help="Bytes of a flow since it began", labels=LABELS)
FLOW_PACKETS = Family(
    name="xtrace_network_flow_packets", help="Packets of a flow since it began", labels=LABELS
)
FAMILIES = (BYTES, PACKETS, FLOW_BYTES, FLOW_PACKETS)

#: What an IP flow is called by its protocol, as labels have it.
_IP = {"6": "TCP", "17": "UDP"}


def read(flows: FlowView) -> Iterator[Reading]:
    """The four metrics. Flows that differ only in what these labels leave out are added up.

    All labels of "other" are empty but its traffic_type, "Other", and its protocol: it has both directions.
    """
    counted = [(each.labels, each.figures) for each in flows.series]
    counted.append((FlowLabels.other(), flows.other))
    lifetimes = [(each.labels, each.lifetime) for each in flows.series]
    for family, rows, columns in (
        (BYTES, counted, (IN_BYTES, OUT_BYTES)),
        (PACKETS, counted, (IN_PACKETS, OUT_PACKETS)),
        (FLOW_BYTES, lifetimes, (IN_BYTES, OUT_BYTES)),
        (FLOW_PACKETS, lifetimes, (IN_PACKETS, OUT_PACKETS)),
    ):
        yield Reading(family=family, samples=_directed(rows, *columns))


def _directed(
    rows: list[tuple[FlowLabels, Figures]], inward: int, outward: int
) -> list[tuple[Labels, float]]:
    sums: dict[Labels, int] = {}
    for flow, figures in rows:
        local, remote = (flow.local, flow.local_port), (flow.remote, flow.remote_port)
        for source, destination, column in ((remote, local, inward), (local, remote, outward)):
            labels = (
                source[0], destination[0], source[1], destination[1], flow.protocol, _traffic_type(flow)
            )  # fmt: skip
            sums[labels] = sums.get(labels, 0) + int(figures[column])
    return list(sums.items())


def _traffic_type(flow: FlowLabels) -> str:
    """Where packets are parsed, a port says nothing: whatever is not RoCE at 4791 is UDP as any other."""
    if flow.traffic_type in ("roce_v1", "roce_v2"):
        return flow.traffic_type
    return _IP.get(flow.protocol, "Other")
