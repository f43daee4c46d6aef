"""Answers to questions about one Snapshot. Rows that are cut cost nothing.

`select` answers a query.Query; `user_detail` and `describe` are the two answers that are no plain list. A
row is a dict whose keys the D-Bus interface description documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond import columns, matching, views
from netmond.balance import balance
from netmond.columns import Index, Row, View
from netmond.errors import InvalidArgs, LimitExceeded, NoSuchUser
from netmond.model import COUNTERS, NOBODY_UID, RATES, InterfaceInfo, Snapshot, Table
from netmond.query import Query, check_options, one_of
from netmond.rdma import views as rdma
from netmond.users import Names

#: Most rows in one answer: what a D-Bus message and the memory budget bear.
MAX_ROWS = 10_000

_BOOKS_OPTIONS = {"interface": "s"}
_KERNEL = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
_FIGURES = (*COUNTERS, *RATES, "bytes", "byte_rate")
_INTERFACE_NUMBERS = ("index", "monitored", *(f"kernel_{name}" for name in _KERNEL), *_FIGURES)
_INTERFACE_TEXTS = ("name", "kind", "state", "hook", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`total` rows matched; `rows` yields those within the limit, in order, once."""

    total: int
    rows: Iterable[Row]


def meta(snapshot: Snapshot, scope: str, total: int) -> Row:
    """What accompanies every list."""
    return {
        "scope": scope,
        "total": total,
        "time": snapshot.time,
        "interval": snapshot.interval,
        "since": snapshot.since,
        "tick": snapshot.tick,
    }


def rdma_meta(snapshot: Snapshot, scope: str, total: int) -> Row:
    """What accompanies lists of what devices say: they are read at times of their own, and their totals
    begin with this daemon."""
    of_devices = {
        "since": snapshot.started,
        "rdma_time": snapshot.rdma.time,
        "rdma_interval": snapshot.rdma.interval,
    }
    return meta(snapshot, scope, total) | of_devices


def select(snapshot: Snapshot, query: Query, names: Names, *, viewer: int | None = None) -> Answer:
    """Answer `query`; with `viewer` only from that user's own rows.

    Raises InvalidArgs for an unknown sort key, NoSuchInterface or NotFound for what is not there, and
    LimitExceeded if the answer is too long.
    """
    if query.list == "interfaces":
        return _interfaces(snapshot, query)
    view, index = _view(snapshot, query, names, viewer)
    column = view[one_of("sort", query.sort, view)]
    chosen = columns.first(column, index, _limit(query, len(index)), reverse=query.reverse)
    return Answer(total=len(index), rows=columns.rows(view, chosen))


def user_detail(snapshot: Snapshot, uid: int, limit: int, names: Names) -> Row:
    """The row of a user with the top `limit` peers, units, processes and flows. Raises NoSuchUser.

    The number of open flows, `flows` in other rows, is `flow_count` here, where `flows` lists them.
    """
    users = rdma.users(snapshot.users, snapshot.rdma.users)
    place = np.flatnonzero(users.columns["uid"] == uid)
    if uid == NOBODY_UID or not len(place):
        raise NoSuchUser(f"no traffic has been counted for user id {uid}")
    (row,) = columns.rows(views.users(users, names), place)
    row["flow_count"] = row.pop("flows")
    own = Query(list="flows", sort="bytes", limit=limit, uid=uid)
    table = views.peers_of(snapshot.flows, matching.of_flows(snapshot, own))
    view = views.peers(table)
    everyone = np.arange(len(table))
    peers = columns.first(view["bytes"], everyone, _limit(own, len(table)), reverse=False)
    row["peers"] = list(columns.rows(view, peers))
    for list_ in ("units", "processes", "flows"):
        row[list_] = list(
            select(snapshot, Query(list=list_, sort="bytes", limit=limit, uid=uid), names).rows
        )
    return row


def books(snapshot: Snapshot, options: Mapping[str, tuple[str, Any]]) -> Answer:
    """The books of all monitored interfaces, or of one: a row a line. InvalidArgs, NoSuchInterface."""
    wanted = check_options(_BOOKS_OPTIONS, options).get("interface")
    chosen = list(snapshot.books)
    if wanted is not None:
        asked = matching.ifindex(snapshot, wanted)
        if not snapshot.links[asked].monitored:
            raise InvalidArgs(f"{wanted} is not monitored; see: netmonctl interface add")
        chosen = [index for index in chosen if index == asked]
    rows = [
        row
        for index in sorted(chosen, key=lambda index: snapshot.links[index].name)
        for direction in ("in", "out")
        for row in _book(snapshot, index, direction)
    ]
    return Answer(total=len(rows), rows=rows)


def _book(snapshot: Snapshot, index: int, direction: str) -> Iterable[Row]:
    evidence = snapshot.books[index]
    for line in balance(evidence, direction):
        yield {
            "interface": snapshot.links[index].name,
            "index": index,
            "since": evidence.since,
            "direction": direction,
            "line": line.name,
            "layer": line.layer,
            "line_packets": line.amount.packets,
            "line_bytes": line.amount.bytes,
            "note": line.note,
        }


def target_row(snapshot: Snapshot, address: str) -> Row | None:
    """The row of one target; None if it has no figures (yet)."""
    place = np.flatnonzero(snapshot.targets.columns["address"] == address)
    return next(columns.rows(views.targets(snapshot.targets), place), None)


def describe(snapshot: Snapshot, version: str) -> Row:
    """The whole status as values that json.dumps takes. Holds no figure of a single user."""
    links = _interface_rows(snapshot)
    return {
        "version": version,
        "started": snapshot.started,
        "since": snapshot.since,
        "time": snapshot.time,
        "interval": snapshot.interval,
        "tick": snapshot.tick,
        "features": [
            {"name": f.name, "state": f.state.value, "reason": f.reason} for f in snapshot.features
        ],
        "losses": [asdict(loss) for loss in snapshot.losses],
        "totals": _figures(snapshot.users.counters.sum(axis=0), snapshot.users.rates.sum(axis=0)),
        "host": _figures(snapshot.host.counters[0], snapshot.host.rates[0]),
        "interfaces": sorted(links, key=lambda row: str(row["name"])),
        "users": len(snapshot.users),
        "flows": len(snapshot.flows),
        "targets": len(snapshot.targets),
        "cost": asdict(snapshot.cost),
    }


def _limit(query: Query, matching: int) -> int:
    if min(query.limit or matching, matching) > MAX_ROWS:
        raise LimitExceeded(
            f"{matching} rows match; at most {MAX_ROWS} are given at once: set a limit or filter"
        )
    return query.limit


def _view(snapshot: Snapshot, query: Query, names: Names, viewer: int | None) -> tuple[View, Index]:
    """The columns of a list and the rows of it that match."""
    if query.list == "users":
        users = rdma.users(snapshot.users, snapshot.rdma.users)
        return views.users(users, names), matching.of_owners(users, query, viewer)
    if query.list == "targets":
        return views.targets(snapshot.targets), np.arange(len(snapshot.targets))
    if query.list == "flows":
        return views.flows(snapshot, names), matching.of_flows(snapshot, query, viewer)
    if query.list == "processes":
        processes = snapshot.processes
        return views.processes(processes, names), matching.of_owners(processes, query, viewer)
    if query.list in ("rdma_ports", "rdma_counters", "queue_pairs"):
        return _rdma_view(snapshot, query, names, viewer)
    table = snapshot.units
    if viewer is None and query.uid is None and query.pid is None:
        return views.units(table), matching.of_owners(table, query, None)
    # A unit may serve several users: its own figures would tell one about the others
    table = views.units_of(snapshot.processes, matching.of_owners(snapshot.processes, query, viewer), table)
    return views.units(table), np.arange(len(table))


def _rdma_view(snapshot: Snapshot, query: Query, names: Names, viewer: int | None) -> tuple[View, Index]:
    """The columns of a list of what devices say, and the rows of it that match."""
    ports = matching.rdma_ports(snapshot, query)
    if query.list == "rdma_ports":
        return rdma.ports(ports), np.arange(len(ports))
    if query.list == "rdma_counters":
        counters = rdma.chosen_counters(ports, query.group, query.counter_kind)
        return rdma.counters(counters), np.arange(len(counters))
    queue_pairs = snapshot.rdma.queue_pairs
    return rdma.queue_pairs(queue_pairs, names), matching.of_owners(queue_pairs, query, viewer)


def _interfaces(snapshot: Snapshot, query: Query) -> Answer:
    one_of("sort", query.sort, (*_INTERFACE_TEXTS, *_INTERFACE_NUMBERS))
    rows = [r for r in _interface_rows(snapshot) if query.monitored in (None, r["monitored"])]
    text = query.sort in _INTERFACE_TEXTS
    missing = "" if text else 0  # interfaces that are not monitored have no counters
    rows.sort(key=lambda row: row.get(query.sort, missing), reverse=text == query.reverse)
    limit = _limit(query, len(rows))
    return Answer(total=len(rows), rows=rows[:limit] if limit else rows)


def _interface_rows(snapshot: Snapshot) -> list[Row]:
    """One row for each interface of the machine, in the order of their index."""
    table = snapshot.interfaces
    place = {index: row for row, index in enumerate(table.columns["ifindex"].tolist())}
    return [
        _interface_row(snapshot.links[index], table, place.get(index)) for index in sorted(snapshot.links)
    ]


def _interface_row(link: InterfaceInfo, table: Table, place: int | None) -> Row:
    row: Row = {
        "name": link.name,
        "index": link.index,
        "kind": link.kind,
        "state": link.state,
        "monitored": link.monitored,
        "hook": link.hook,
        "reason": link.reason,
        **{f"kernel_{name}": link.kernel.get(name, 0) for name in _KERNEL},
    }
    if link.monitored and place is not None:
        row |= _figures(table.counters[place], table.rates[place])
        row["classes"] = {name: int(c[place]) for name, c in table.columns.items() if name != "ifindex"}
    return row


def _figures(counters: NDArray[np.uint64], rates: NDArray[np.float64]) -> Row:
    """Counters, rates and their sums over both directions, of one row."""
    figures: Row = dict(zip((*COUNTERS, *RATES), (*counters.tolist(), *rates.tolist()), strict=True))
    figures["bytes"] = figures["in_bytes"] + figures["out_bytes"]
    figures["byte_rate"] = figures["in_byte_rate"] + figures["out_byte_rate"]
    return figures
