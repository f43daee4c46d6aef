"""RDMA as metrics: what devices count, in what state their ports are, and what users exchanged.

Counters of the same unit and meaning are one metric with labels, so that they can be added up; all others
are series of `COUNTER`, told apart by name and made comparable by kind: every driver has its own names.
There is a series for each counter of each port: 16 devices of two ports with 64 counters have 2,048.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from netmond.export.families import Family, Labels, Reading
from netmond.model import IN_BYTES, IN_PACKETS, NOBODY_UID, OUT_BYTES, OUT_PACKETS, Rdma
from netmond.outputs.log import escape
from netmond.rdma.catalogue import look_up
from netmond.rdma.traffic import whole

_PORT = ("device", "port")
_USER = ("uid", "user")

DATA = Family(
    name="netmond_rdma_data_bytes_total", labels=(*_PORT, "direction"),
    help="Bytes that a port of an RDMA device has received or sent (direction: receive, transmit)",
)  # fmt: skip
PACKETS = Family(
    name="netmond_rdma_packets_total", labels=(*_PORT, "direction"),
    help="Packets that a port of an RDMA device has received or sent (direction: receive, transmit)",
)  # fmt: skip
COUNTER = Family(
    name="netmond_rdma_counter_total", labels=(*_PORT, "group", "counter", "kind", "unit"),
    help="Any other counter of a port, by the name that its driver gave it, in its own unit",
)  # fmt: skip
STATE = Family(
    name="netmond_rdma_port_state", labels=(*_PORT, "state"),
    help="1 for the state that a port is in (active, armed, init, down), 0 for the others",
)  # fmt: skip
SPEED = Family(
    name="netmond_rdma_port_speed_bytes_per_second", labels=_PORT,
    help="The speed of a port in each direction; none if it is not known",
)  # fmt: skip
INFO = Family(
    name="netmond_rdma_port_info", labels=(*_PORT, "link_layer", "netdev", "driver", "firmware"),
    help="1, with what a port is",
)  # fmt: skip
USER_BYTES = Family(
    name="netmond_rdma_user_bytes_total", labels=(*_USER, "direction"),
    help='Bytes that a user received or sent by RDMA; user="unknown", without uid: nobody could be named',
)  # fmt: skip
USER_PACKETS = Family(
    name="netmond_rdma_user_packets_total", labels=(*_USER, "direction"),
    help="Packets that a user received or sent by RDMA",
)  # fmt: skip
QUEUE_PAIRS = Family(
    name="netmond_rdma_queue_pairs", labels=_USER, help="Queue pairs that a user has open now",
)  # fmt: skip
FAMILIES = (DATA, PACKETS, COUNTER, STATE, SPEED, INFO, USER_BYTES, USER_PACKETS, QUEUE_PAIRS)

_STATES = ("active", "armed", "init", "down")
#: The metrics of a column of model.COUNTERS, of ports and of users.
_DIRECTED = {
    IN_PACKETS: (PACKETS, USER_PACKETS, "receive"),
    IN_BYTES: (DATA, USER_BYTES, "receive"),
    OUT_PACKETS: (PACKETS, USER_PACKETS, "transmit"),
    OUT_BYTES: (DATA, USER_BYTES, "transmit"),
}


def read(rdma: Rdma, name_of: Callable[[int], str]) -> Iterator[Reading]:
    """The metrics, none where there never was an RDMA device. name_of: a login name for a uid."""
    if not rdma.ports and not len(rdma.users):
        return
    series: dict[Family, dict[Labels, float]] = {family: {} for family in FAMILIES}
    for port in rdma.ports:
        key = (escape(port.device), str(port.port))
        totals, of_all = port.totals.tolist(), whole(port)
        for column, places in of_all.items():
            family, _, direction = _DIRECTED[column]
            series[family][*key, direction] = sum(totals[place] for place in places)
        for place in sorted(set(range(len(totals))).difference(*of_all.values())):
            group, counter = port.names[place]
            about = look_up(counter)
            labels = (*key, escape(group), escape(counter), about.kind, about.unit)
            series[COUNTER][labels] = totals[place]
        for state in dict.fromkeys((*_STATES, port.state)):
            series[STATE][*key, escape(state)] = state == port.state
        if port.speed:
            series[SPEED][key] = port.speed / 8
        series[INFO][*key, *map(escape, (port.link_layer, port.netdev, port.driver, port.firmware))] = 1
    columns = rdma.users.columns
    for row, uid in enumerate(columns["uid"].tolist()):
        user = (str(uid), escape(name_of(uid))) if uid != NOBODY_UID else ("", "unknown")
        for column, (_, family, direction) in _DIRECTED.items():
            series[family][*user, direction] = int(rdma.users.counters[row, column])
        series[QUEUE_PAIRS][user] = int(columns["queue_pairs"][row])
    yield from (family.reading(samples.items()) for family, samples in series.items())
