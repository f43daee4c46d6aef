"""The columns of every list: a Snapshot's arrays as row values and sort keys, for chosen rows only."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.model import COUNTERS, IN_BYTES, NOBODY_UID, OUT_BYTES, RATES, FlowKind, Snapshot, Table
from netmond.users import Names

Array = NDArray[Any]
Index = NDArray[Any]  # of row numbers
Row = dict[str, Any]

#: IANA protocol numbers that have a name here; others are shown and given as numbers.
PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp",
    51: "ah", 58: "icmpv6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One key of a list. `values` gives Python values, `keys` arrays to sort by, the first decides."""

    values: Callable[[Index], list[Any]]
    keys: Callable[[Index], tuple[Array, ...]]
    text: bool = False  #: sorts ascending unless reversed, numbers descending


View = Mapping[str, Column]


def rows(view: View, index: Index) -> Iterator[Row]:
    """The rows at `index`, made a few at a time, so that a long answer never exists as Python objects."""
    for start in range(0, len(index), _CHUNK):
        chunk = index[start : start + _CHUNK]
        for values in zip(*(column.values(chunk) for column in view.values()), strict=True):
            row = dict(zip(view, values, strict=True))
            if row.get("uid") == NOBODY_UID:
                del row["uid"], row["user"]
            yield row


def first(column: Column, index: Index, limit: int, *, reverse: bool) -> Index:
    """The first `limit` (0: all) of `index` in the column's order, ties in the order of `index`."""
    chosen: Index
    keys = column.keys(index)
    if column.text or len(keys) > 1:
        order = np.lexsort(keys[::-1])
        if reverse:  # sorting the mirrored rows and mirroring the result keeps ties in order
            last = len(index) - 1
            order = last - np.lexsort([key[::-1] for key in keys[::-1]])[::-1]
        chosen = index[order[:limit] if limit else order]
        return chosen
    key = keys[0]
    if not reverse:
        key = -key if key.dtype.kind == "f" else ~key
    if 0 < limit < len(key):
        candidates = np.flatnonzero(key <= np.partition(key, limit - 1)[limit - 1])
        chosen = index[candidates[np.argsort(key[candidates], kind="stable")][:limit]]
    else:
        chosen = index[np.argsort(key, kind="stable")]
    return chosen


def users(table: Table, names: Names) -> View:
    """Columns of ListUsers."""
    uid = table.columns["uid"]
    return {
        "uid": _number(uid),
        "user": _named(uid, names.lookup),
        "flows": _number(table.columns["flows"]),
        **_figures(table),
    }


def units(table: Table) -> View:
    """Columns of ListUnits."""
    return {
        **{name: _text(table.columns[name]) for name in ("unit", "slice", "cgroup")},
        "flows": _number(table.columns["flows"]),
        **_figures(table),
    }


def processes(table: Table, names: Names) -> View:
    """Columns of ListProcesses."""
    columns = table.columns
    return {
        "pid": _number(columns["pid"]),
        "process": _command(columns["comm"]),
        "uid": _number(columns["uid"]),
        "user": _named(columns["uid"], names.lookup),
        "unit": _text(columns["unit"]),
        "flows": _number(columns["flows"]),
        **_figures(table),
    }


def flows(snapshot: Snapshot, names: Names) -> View:
    """Columns of ListFlows."""
    table, columns, units = snapshot.flows, snapshot.flows.columns, snapshot.unit_names
    links = snapshot.links
    return {
        "id": _number(columns["id"]),
        "kind": _named(columns["kind"], lambda kind: FlowKind(kind).name.lower()),
        "protocol": _named(columns["protocol"], lambda number: PROTOCOLS.get(number, str(number))),
        "family": _family(columns["local"], columns["remote"], columns["kind"]),
        "local": address(columns["local"]),
        "local_port": _number(columns["local_port"]),
        "remote": address(columns["remote"]),
        "remote_port": _number(columns["remote_port"]),
        "interface": _named(columns["ifindex"], lambda index: links[index].name if index in links else ""),
        "uid": _number(columns["uid"]),
        "user": _named(columns["uid"], names.lookup),
        "pid": _number(columns["pid"]),
        "process": _command(columns["comm"]),
        "unit": _named(columns["unit_index"], lambda index: units[index] if index >= 0 else ""),
        **{
            name: _number(columns[name])
            for name in ("first_seen", "last_seen", "srtt_us", "retransmits", "ended")
        },
        **_figures(table),
    }


def targets(table: Table) -> View:
    """Columns of ListTargets."""
    return {
        "address": _text(table.columns["address"]),
        "since": _number(table.columns["since"]),
        **_figures(table),
    }


def peers(table: Table) -> View:
    """Columns of the peers in GetUser, see peers_of."""
    return {
        "address": address(table.columns["address"]),
        "flows": _number(table.columns["flows"]),
        **_figures(table),
    }


def units_of(processes: Table, index: Index, units: Table) -> Table:
    """A units table that holds only what the processes at `index` did; slice and cgroup as in `units`."""
    names, group = np.unique(processes.columns["unit"][index], return_inverse=True)
    place = {name: row for row, name in enumerate(units.columns["unit"].tolist())}
    where = [place.get(name, -1) for name in names.tolist()]
    described = {
        column: np.array([units.columns[column][row] if row >= 0 else "" for row in where], dtype=object)
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


def address_words(array: Array) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """A V16 address column as its high and low 64 bits."""
    words = np.ascontiguousarray(array).view(">u8").reshape(-1, 2).astype(np.uint64)
    return words[:, 0], words[:, 1]


def mapped(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Array:
    """Which addresses are IPv4 ones."""
    four: Array = (high == 0) & (low >> np.uint64(32) == 0xFFFF)
    return four


def known_address(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Array:
    """Which addresses are not "any" of either family."""
    known: Array = ((high | low) != 0) & ~((high == 0) & (low == 0xFFFF << 32))
    return known


def address(array: Array) -> Column:
    """A V16 column as text, empty for "any"; sorted by number."""
    return Column(
        values=lambda index: _address_texts(array[index]),
        keys=lambda index: address_words(array[index]),
        text=True,
    )


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


def _list(array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def _number(array: Array) -> Column:
    return Column(values=lambda index: _list(array[index]), keys=lambda index: (array[index],))


def _text(array: Array) -> Column:
    """An object array of str."""
    return Column(
        values=lambda index: _list(array[index]), keys=lambda index: (array[index].astype(str),), text=True
    )


def _command(array: Array) -> Column:
    def values(index: Index) -> list[str]:
        return [comm.split(b"\0")[0].decode(errors="replace") for comm in _list(array[index])]

    return Column(values=values, keys=lambda index: (array[index],), text=True)


def _named(array: Array, name_of: Callable[[int], str]) -> Column:
    """Numbers shown as names: few different ones, so the names are ranked instead of the rows."""

    def keys(index: Index) -> tuple[Array, ...]:
        codes, inverse = np.unique(array[index], return_inverse=True)
        _, ranks = np.unique([name_of(code) for code in codes.tolist()], return_inverse=True)
        return (ranks[inverse],)

    return Column(values=lambda index: [name_of(code) for code in _list(array[index])], keys=keys, text=True)


def _family(local: Array, remote: Array, kind: Array) -> Column:
    """4, 6, or 0 for rows without addresses."""

    def families(index: Index) -> Array:
        four = mapped(*address_words(local[index])) | mapped(*address_words(remote[index]))
        return np.where(four, 4, np.where(kind[index] == FlowKind.OVERFLOW, 0, 6))

    return Column(values=lambda index: _list(families(index)), keys=lambda index: (families(index),))


def _figures(table: Table) -> dict[str, Column]:
    """Counters, rates and their sums over both directions."""
    counters, rates = table.counters, table.rates
    rate_in, rate_out = RATES.index("in_byte_rate"), RATES.index("out_byte_rate")
    return {
        **{name: _number(counters[:, place]) for place, name in enumerate(COUNTERS)},
        **{name: _number(rates[:, place]) for place, name in enumerate(RATES)},
        "bytes": _total(counters[:, IN_BYTES], counters[:, OUT_BYTES]),
        "byte_rate": _total(rates[:, rate_in], rates[:, rate_out]),
    }


def _total(one: Array, other: Array) -> Column:
    return Column(
        values=lambda index: _list(one[index] + other[index]),
        keys=lambda index: (one[index] + other[index],),
    )


def _address_texts(array: Array) -> list[str]:
    raw = array.tobytes()
    return [_address_text(raw[at : at + 16]) for at in range(0, len(raw), 16)]


def _address_text(raw: bytes) -> str:
    if not any(raw) or raw == _MAPPED_PREFIX + bytes(4):
        return ""
    if raw.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, raw[12:])
    return socket.inet_ntop(socket.AF_INET6, raw)
