"""The columns of every list: a Snapshot's arrays as row values and sort keys, for chosen rows only."""

from __future__ import annotations

import numpy as np

from netmond.columns import (
    Array,
    Column,
    Index,
    View,
    address,
    address_words,
    command,
    figures,
    known_address,
    mapped,
    named,
    number,
    text,
    where,
)
from netmond.model import NOBODY_UID, FlowKind, Snapshot, Table, TrafficType
from netmond.rdma import opcodes
from netmond.users import Names

#: IANA protocol numbers that have a name here; others are shown and given as numbers.
PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp",
    51: "ah", 58: "icmpv6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip

#: How the user is called whom nobody can name.
UNKNOWN = "unknown"


def users(table: Table, names: Names) -> View:
    """Columns of ListUsers, see rdma.views.users."""
    uid = table.columns["uid"]
    return {
        "uid": number(uid),
        "user": user(uid, names),
        **{name: number(column) for name, column in table.columns.items() if name != "uid"},
        **figures(table),
    }


def units(table: Table) -> View:
    """Columns of ListUnits."""
    return {
        **{name: text(table.columns[name]) for name in ("unit", "slice", "cgroup")},
        "flows": number(table.columns["flows"]),
        **figures(table),
    }


def processes(table: Table, names: Names) -> View:
    """Columns of ListProcesses."""
    columns = table.columns
    return {
        "pid": number(columns["pid"]),
        "process": command(columns["comm"]),
        "uid": number(columns["uid"]),
        "user": user(columns["uid"], names),
        "unit": text(columns["unit"]),
        "flows": number(columns["flows"]),
        **figures(table),
    }


def flows(snapshot: Snapshot, names: Names) -> View:
    """Columns of ListFlows."""
    table, columns, units = snapshot.flows, snapshot.flows.columns, snapshot.unit_names
    links, roce = snapshot.links, columns["traffic"] != TrafficType.IP
    somebodys = columns["uid"] != NOBODY_UID
    return {
        "id": number(columns["id"]),
        "kind": named(columns["kind"], lambda kind: FlowKind(kind).name.lower()),
        "traffic_type": named(columns["traffic"], lambda kind: TrafficType(kind).name.lower()),
        "protocol": named(columns["protocol"], lambda code: PROTOCOLS.get(code, str(code))),
        "family": _family(columns["local"], columns["remote"], columns["kind"]),
        "local": address(columns["local"]),
        "local_port": number(columns["local_port"]),
        "remote": address(columns["remote"]),
        "remote_port": number(columns["remote_port"]),
        "interface": named(columns["ifindex"], lambda index: links[index].name if index in links else ""),
        "uid": where(somebodys, number(columns["uid"])),
        "user": where(somebodys, user(columns["uid"], names)),
        "pid": number(columns["pid"]),
        "process": command(columns["comm"]),
        "unit": named(columns["unit_index"], lambda index: units[index] if index >= 0 else ""),
        **{
            name: number(columns[name])
            for name in ("first_seen", "last_seen", "srtt_us", "retransmits", "ended")
        },
        "opcode": where(roce, named(columns["opcode"], opcodes.name)),
        "queue_pair": where(roce, number(columns["qpn"])),
        "partition_key": where(roce, number(columns["pkey"])),
        "sequence": where(roce, number(columns["psn"])),
        **figures(table),
    }


def targets(table: Table) -> View:
    """Columns of ListTargets."""
    return {
        "address": text(table.columns["address"]),
        "since": number(table.columns["since"]),
        **figures(table),
    }


def peers(table: Table) -> View:
    """Columns of the peers in GetUser, see peers_of."""
    return {
        "address": address(table.columns["address"]),
        "flows": number(table.columns["flows"]),
        **figures(table),
    }


def user(uid: Array, names: Names) -> Column:
    """Login names of user ids."""
    return named(uid, lambda number: UNKNOWN if number == NOBODY_UID else names.lookup(number))


def units_of(processes: Table, index: Index, units: Table) -> Table:
    """A units table that holds only what the processes at `index` did; slice and cgroup as in `units`."""
    names, group = np.unique(processes.columns["unit"][index], return_inverse=True)
    place = {name: row for row, name in enumerate(units.columns["unit"].tolist())}
    rows = [place.get(name, -1) for name in names.tolist()]
    described = {
        column: np.array([units.columns[column][row] if row >= 0 else "" for row in rows], dtype=object)
        for column in ("slice", "cgroup")
    }
    columns = {"unit": names, "flows": processes.columns["flows"][index].astype(np.uint64), **described}
    return _sum_by(group, len(names), columns, processes, index)


def peers_of(flows: Table, index: Index) -> Table:
    """The flows at `index` summed by remote address; flows without one are left out."""
    high, low = address_words(flows.columns["remote"][index])
    known = known_address(high, low)
    index, high, low = index[known], high[known], low[known]
    order = np.lexsort((low, high))
    changed = np.ones(len(order), bool)
    changed[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    group = np.empty(len(order), np.intp)
    group[order] = np.cumsum(changed) - 1
    columns = {
        "address": flows.columns["remote"][index[order[changed]]],
        "flows": np.ones(len(index), np.uint64),
    }
    return _sum_by(group, int(changed.sum()), columns, flows, index)


def _sum_by(group: Index, count: int, columns: dict[str, Array], source: Table, index: Index) -> Table:
    """Rows `index` of `source` and their "flows" summed by `group`; the other columns are per group."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(count))

    def add(values: Array) -> Array:
        return np.add.reduceat(values[order], starts, axis=0) if count else values[:0]

    return Table(
        columns={**columns, "flows": add(columns["flows"])},
        counters=add(source.counters[index]),
        rates=add(source.rates[index]),
    )


def _family(local: Array, remote: Array, kind: Array) -> Column:
    """4, 6, or 0 for rows without addresses."""

    def families(index: Index) -> Array:
        four = mapped(*address_words(local[index])) | mapped(*address_words(remote[index]))
        return np.where(four, 4, np.where(kind[index] == FlowKind.OVERFLOW, 0, 6))

    return Column(values=lambda index: list(families(index).tolist()), keys=lambda index: (families(index),))
