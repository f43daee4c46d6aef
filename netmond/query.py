"""Questions about one Snapshot: which rows, in which order, how many. Rows that are cut cost nothing.

`parse` turns options into a Query, `select` answers it; `user_detail` and `describe` are the two answers
that are no plain list. A row is a dict whose keys the D-Bus interface description documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond import views
from netmond.balance import balance
from netmond.errors import InvalidArgs, LimitExceeded, NoSuchInterface, NoSuchUser
from netmond.model import COUNTERS, RATES, FlowKind, InterfaceInfo, Network, Snapshot, Table
from netmond.users import Names
from netmond.views import Row

#: Most rows in one answer: what a D-Bus message and the memory budget bear.
MAX_ROWS = 10_000

#: Options of each list and their D-Bus types.
_COMMON = {"sort": "s", "reverse": "b", "limit": "u", "scope": "s"}
_OWNER = {"user": "s", "unit": "s", "pid": "u"}
_FLOW = {"protocol": "s", "port": "q", "peer": "s", "interface": "s", "kind": "s", "active": "b"}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "users": _COMMON,
    "units": _COMMON | _OWNER,
    "processes": _COMMON | _OWNER,
    "flows": _COMMON | _OWNER | _FLOW,
    "interfaces": _COMMON | {"monitored": "b"},
    "targets": _COMMON,
}

_BOOKS_OPTIONS = {"interface": "s"}
_KERNEL = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes")
_FIGURES = (*COUNTERS, *RATES, "bytes", "byte_rate")
_INTERFACE_NUMBERS = ("index", "monitored", *(f"kernel_{name}" for name in _KERNEL), *_FIGURES)
_INTERFACE_TEXTS = ("name", "kind", "state", "hook", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One list with its validated options. `user` is as given; whoever may block resolves it into `uid`."""

    list: str
    sort: str
    reverse: bool = False
    limit: int = 100
    scope: str | None = None
    user: str | None = None
    uid: int | None = None
    unit: str | None = None
    pid: int | None = None
    protocol: int | None = None
    port: int | None = None
    peer: Network | None = None
    interface: str | None = None
    kind: FlowKind | None = None
    active: bool | None = None
    monitored: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`total` rows matched; `rows` yields those within the limit, in order, once."""

    total: int
    rows: Iterable[Row]


def check_options(allowed: Mapping[str, str], options: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """The values of `options` (name -> D-Bus type, value); InvalidArgs unless all are `allowed` so."""
    for name, (signature, _) in options.items():
        if name not in allowed:
            known = f"allowed are: {', '.join(sorted(allowed))}" if allowed else "no option is allowed here"
            raise InvalidArgs(f"unknown option {shown(name)}; {known}")
        if signature != allowed[name]:
            raise InvalidArgs(
                f"option {name} has D-Bus type {shown(signature)}; it must be {allowed[name]!r}"
            )
    return {name: value for name, (_, value) in options.items()}


def one_of(what: str, value: str, allowed: Iterable[str]) -> str:
    """`value` if it is one of `allowed`, else InvalidArgs."""
    if value not in allowed:
        raise InvalidArgs(f"{what} cannot be {shown(value)}; allowed are: {', '.join(allowed)}")
    return value


def parse(list_: str, options: Mapping[str, tuple[str, Any]]) -> Query:
    """The Query for options of a list (a key of OPTIONS). Raises InvalidArgs."""
    values = check_options(OPTIONS[list_], options)
    values.setdefault("sort", "name" if list_ == "interfaces" else "bytes")
    if "scope" in values:
        one_of("scope", values["scope"], ("all",) if list_ in ("interfaces", "targets") else ("own", "all"))
    if "protocol" in values:
        values["protocol"] = _protocol(values["protocol"])
    if "kind" in values:
        values["kind"] = FlowKind[one_of("kind", values["kind"], [k.name.lower() for k in FlowKind]).upper()]
    if "peer" in values:
        values["peer"] = parse_network(values["peer"])
    return Query(list=list_, **values)


def parse_network(text: str) -> Network:
    """An address or prefix as people write it; an IPv4-mapped one means IPv4. Raises InvalidArgs."""
    try:
        if "%" in text:
            raise InvalidArgs(f"{shown(text)} names an interface; give the address without it")
        network = ip_network(text)
    except ValueError:
        raise InvalidArgs(f"{shown(text)} is not an IP address or prefix{_meant(text)}") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def network_text(network: Network) -> str:
    """A network as netmond names it: a single address without its prefix length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if single else str(network)


def shown(text: str) -> str:
    """Text from outside, quoted, in one line of bounded length."""
    return repr(text if len(text) <= 64 else text[:61] + "...")


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


def select(snapshot: Snapshot, query: Query, names: Names, *, viewer: int | None = None) -> Answer:
    """Answer `query`; with `viewer` only from that user's own rows.

    Raises InvalidArgs for an unknown sort key, NoSuchInterface, and LimitExceeded if the answer is too long.
    """
    if query.list == "interfaces":
        return _interfaces(snapshot, query)
    view, index = _view(snapshot, query, names, viewer)
    column = view[one_of("sort", query.sort, view)]
    chosen = views.first(column, index, _limit(query, len(index)), reverse=query.reverse)
    return Answer(total=len(index), rows=views.rows(view, chosen))


def user_detail(snapshot: Snapshot, uid: int, limit: int, names: Names) -> Row:
    """The row of a user with the top `limit` peers, units, processes and flows. Raises NoSuchUser.

    The number of open flows, `flows` in other rows, is `flow_count` here, where `flows` lists them.
    """
    place = np.flatnonzero(snapshot.users.columns["uid"] == uid)
    if not len(place):
        raise NoSuchUser(f"no traffic has been counted for user id {uid}")
    (row,) = views.rows(views.users(snapshot.users, names), place)
    row["flow_count"] = row.pop("flows")
    own = Query(list="flows", sort="bytes", limit=limit, uid=uid)
    table = views.peers_of(snapshot.flows, _matching_flows(snapshot, own))
    view = views.peers(table)
    everyone = np.arange(len(table))
    peers = views.first(view["bytes"], everyone, _limit(own, len(table)), reverse=False)
    row["peers"] = list(views.rows(view, peers))
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
        asked = _ifindex(snapshot, wanted)
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
    return next(views.rows(views.targets(snapshot.targets), place), None)


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


def _view(
    snapshot: Snapshot, query: Query, names: Names, viewer: int | None
) -> tuple[views.View, views.Index]:
    """The columns of a list and the rows of it that match."""
    if query.list == "users":
        return views.users(snapshot.users, names), _matching(snapshot.users, query, viewer)
    if query.list == "targets":
        return views.targets(snapshot.targets), np.arange(len(snapshot.targets))
    if query.list == "flows":
        return views.flows(snapshot, names), _matching_flows(snapshot, query, viewer)
    if query.list == "processes":
        return views.processes(snapshot.processes, names), _matching(snapshot.processes, query, viewer)
    table = snapshot.units
    if viewer is None and query.uid is None and query.pid is None:
        return views.units(table), _matching(table, query, None)
    # A unit may serve several users: its own figures would tell one about the others
    table = views.units_of(snapshot.processes, _matching(snapshot.processes, query, viewer), table)
    return views.units(table), np.arange(len(table))


def _matching(table: Table, query: Query, viewer: int | None) -> views.Index:
    """Rows of a users, units or processes table that the query and the viewer leave."""
    mask = np.ones(len(table), bool)
    for column, wanted in (("uid", viewer), ("uid", query.uid), ("pid", query.pid), ("unit", query.unit)):
        if wanted is not None:
            mask &= table.columns[column] == wanted
    return np.flatnonzero(mask)


def _matching_flows(snapshot: Snapshot, query: Query, viewer: int | None = None) -> views.Index:
    """Rows of the flow table that the query and the viewer leave."""
    columns, rates = snapshot.flows.columns, snapshot.flows.rates
    mask = np.ones(len(snapshot.flows), bool)
    exact = (("uid", viewer), ("uid", query.uid), ("pid", query.pid))
    for column, wanted in (*exact, ("protocol", query.protocol), ("kind", query.kind)):
        if wanted is not None:
            mask &= columns[column] == wanted
    if query.unit is not None:
        mask &= np.isin(
            columns["unit_index"], [i for i, n in enumerate(snapshot.unit_names) if n == query.unit]
        )
    if query.interface is not None:
        mask &= columns["ifindex"] == _ifindex(snapshot, query.interface)
    if query.port is not None:
        mask &= (columns["local_port"] == query.port) | (columns["remote_port"] == query.port)
    if query.peer is not None:
        forwarded = columns["kind"] == FlowKind.FORWARDED
        mask &= _within(columns["remote"], query.peer) | forwarded & _within(columns["local"], query.peer)
    if query.active is not None:
        mask &= (rates > 0).any(axis=1) == query.active
    return np.flatnonzero(mask)


def _ifindex(snapshot: Snapshot, name: str) -> int:
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
    high, low = views.address_words(array)
    right_family = views.mapped(high, low) == isinstance(network, IPv4Network)
    inside: NDArray[np.bool_] = right_family & views.known_address(high, low)
    inside &= (high & np.uint64(netmask >> 64)) == np.uint64(value >> 64)
    inside &= (low & np.uint64(netmask & (1 << 64) - 1)) == np.uint64(value & (1 << 64) - 1)
    return inside


def _protocol(text: str) -> int:
    """An IP protocol by name or number."""
    numbers = {name: number for number, name in views.PROTOCOLS.items()}
    if text.lower() in numbers:
        return numbers[text.lower()]
    if text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= 255:
        return int(text)
    raise InvalidArgs(
        f"unknown protocol {shown(text)}; give a number up to 255 or one of: {', '.join(numbers)}"
    )


def _meant(text: str) -> str:
    """For a prefix with host bits set, which one it probably is."""
    try:
        return f" (did you mean {ip_network(text, strict=False)}?)"
    except ValueError:
        return ""


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
