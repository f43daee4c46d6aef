"""Which rows of a Snapshot's tables a Query leaves."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.columns import Index, address_words, known_address, mapped
from netmond.errors import NoSuchInterface, NotFound
from netmond.model import FlowKind, Network, RdmaPort, Snapshot, Table
from netmond.query import Query, shown


def of_owners(table: Table, query: Query, viewer: int | None) -> Index:
    """Rows of a table of users, units, processes or queue pairs that the query and the viewer leave."""
    mask = np.ones(len(table), bool)
    owner = (("uid", viewer), ("uid", query.uid), ("pid", query.pid), ("unit", query.unit))
    for column, wanted in (*owner, ("device", query.device), ("port", query.port)):
        if wanted is not None:
            mask &= table.columns[column] == wanted
    return np.flatnonzero(mask)


def of_flows(snapshot: Snapshot, query: Query, viewer: int | None = None) -> Index:
    """Rows of the flow table that the query and the viewer leave."""
    columns, rates = snapshot.flows.columns, snapshot.flows.rates
    mask = np.ones(len(snapshot.flows), bool)
    owner = (("uid", viewer), ("uid", query.uid), ("pid", query.pid))
    what = (("protocol", query.protocol), ("kind", query.kind), ("traffic", query.traffic))
    for column, wanted in (*owner, *what):
        if wanted is not None:
            mask &= columns[column] == wanted
    if query.unit is not None:
        mask &= np.isin(
            columns["unit_index"], [i for i, n in enumerate(snapshot.unit_names) if n == query.unit]
        )
    if query.interface is not None:
        mask &= columns["ifindex"] == ifindex(snapshot, query.interface)
    if query.port is not None:
        mask &= (columns["local_port"] == query.port) | (columns["remote_port"] == query.port)
    if query.peer is not None:
        forwarded = columns["kind"] == FlowKind.FORWARDED
        mask &= _within(columns["remote"], query.peer) | forwarded & _within(columns["local"], query.peer)
    if query.active is not None:
        mask &= (rates > 0).any(axis=1) == query.active
    return np.flatnonzero(mask)


def rdma_ports(snapshot: Snapshot, query: Query) -> list[RdmaPort]:
    """The ports that the query names. NotFound if it names some and there are none."""
    found = [
        port
        for port in snapshot.rdma.ports
        if query.device in (None, port.device) and query.port in (None, port.port)
    ]
    if not found and (query.device, query.port) != (None, None):
        device = f"RDMA device {shown(query.device)}" if query.device is not None else "any RDMA device"
        what = device if query.port is None else f"port {query.port} of {device}"
        raise NotFound(f"there is no {what}; see: netmonctl rdma")
    return found


def ifindex(snapshot: Snapshot, name: str) -> int:
    """The index of an interface. Raises NoSuchInterface."""
    for index, link in snapshot.links.items():
        if link.name == name:
            return index
    raise NoSuchInterface(f"there is no network interface {shown(name)}; see: netmonctl interfaces")


def _within(array: NDArray[Any], network: Network) -> NDArray[np.bool_]:
    """Which addresses of a V16 column lie in the network; "any" lies in none."""
    value, width = int(network.network_address), network.prefixlen
    if isinstance(network, IPv4Network):
        value, width = value | 0xFFFF << 32, width + 96
    netmask = (1 << 128) - (1 << 128 - width)
    high, low = address_words(array)
    right_family = mapped(high, low) == isinstance(network, IPv4Network)
    inside: NDArray[np.bool_] = right_family & known_address(high, low)
    inside &= (high & np.uint64(netmask >> 64)) == np.uint64(value >> 64)
    inside &= (low & np.uint64(netmask & (1 << 64) - 1)) == np.uint64(value & (1 << 64) - 1)
    return inside
