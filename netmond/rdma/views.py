"""The columns of the RDMA lists, and what users exchange by RDMA beside IP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.columns import Array, Column, Index, View, command, figures, number, text, total, where
from netmond.model import COUNTERS, IN_BYTES, NOBODY_UID, OUT_BYTES, RATES, RdmaPort, Table
from netmond.rdma.catalogue import look_up
from netmond.rdma.traffic import whole
from netmond.users import Names
from netmond.views import user

_WIRE_TRUE = COUNTERS[:4]

#: Kinds of counters that tell of something wrong.
_ERRORS = ("errors", "discards", "link")
_PORT_TEXTS = ("link_layer", "state", "physical_state", "netdev", "node_guid", "firmware", "driver")


_BYTES = [IN_BYTES, OUT_BYTES]
_BYTE_RATES = [RATES.index("in_byte_rate"), RATES.index("out_byte_rate")]


def users(ip: Table, rdma: Table) -> Table:
    """The users table with what each exchanged by RDMA, and behind it those who use nothing else.

    What nobody can be named for is a user of number NOBODY_UID, if there is anything.
    """
    columns = rdma.columns
    known = (columns["uid"] != NOBODY_UID) | rdma.counters.any(axis=1) | (columns["queue_pairs"] > 0)
    there = np.flatnonzero(known)
    alone = there[~np.isin(columns["uid"][there], ip.columns["uid"])]
    uid = np.concatenate([ip.columns["uid"], columns["uid"][alone]])
    order = np.argsort(uid)
    place = order[np.searchsorted(uid, columns["uid"][there], sorter=order)]

    def spread(values: Array) -> Array:
        """Values of RDMA's rows, (rows, ...), for all users."""
        of_all = np.zeros((len(uid), *values.shape[1:]), values.dtype)
        of_all[place] = values[there]
        return of_all

    def extended(values: Array) -> Array:
        """Values of IP's rows, (rows, ...), for all users."""
        return np.concatenate([values, np.zeros((len(alone), *values.shape[1:]), values.dtype)])

    counters, rates = spread(rdma.counters), spread(rdma.rates)
    of_ip, rates_of_ip = extended(ip.counters), extended(ip.rates)
    return Table(
        columns={
            "uid": uid,
            "flows": extended(ip.columns["flows"]),
            "queue_pairs": spread(columns["queue_pairs"]),
            **{f"rdma_{name}": counters[:, at] for at, name in enumerate(_WIRE_TRUE)},
            **{f"rdma_{RATES[at]}": rates[:, at] for at in _BYTE_RATES},
            "total_bytes": (of_ip + counters)[:, _BYTES].sum(axis=1),
            "total_byte_rate": (rates_of_ip + rates)[:, _BYTE_RATES].sum(axis=1),
        },
        counters=of_ip,
        rates=rates_of_ip,
    )


def ports(ports: Sequence[RdmaPort]) -> View:
    """Columns of ListRdmaPorts. A figure that a device does not count is absent from its rows."""
    taken = {figure: _taken(ports, column) for column, figure in enumerate(_WIRE_TRUE)}
    in_bytes, out_bytes = taken["in_bytes"], taken["out_bytes"]
    both_ways = in_bytes.there & out_bytes.there
    of_port = _numbers(port.port for port in ports)
    return {
        "device": _device(_texts(port.device for port in ports), of_port),
        "port": number(of_port),
        **{name: text(_texts(getattr(port, name) for port in ports)) for name in _PORT_TEXTS},
        **{name: number(_numbers(getattr(port, name) for port in ports)) for name in ("speed", "lid")},
        "gids": _gids(ports),
        **{figure: where(each.there, number(each.totals)) for figure, each in taken.items()},
        **{f"{figure[:-1]}_rate": where(each.there, number(each.rates)) for figure, each in taken.items()},
        "bytes": where(both_ways, total(in_bytes.totals, out_bytes.totals)),
        "byte_rate": where(both_ways, total(in_bytes.rates, out_bytes.rates)),
        "errors": _errors(ports),
    }


def chosen_counters(
    ports: Sequence[RdmaPort], group: str | None, kind: str | None
) -> list[tuple[RdmaPort, int]]:
    """The counters of a group and of a kind (None: of any): port and place there."""
    return [
        (port, place)
        for port in ports
        for place, (found, name) in enumerate(port.names)
        if group in (None, found) and kind in (None, look_up(name).kind)
    ]


def counters(chosen: Sequence[tuple[RdmaPort, int]]) -> View:
    """Columns of ListRdmaCounters."""
    device = _texts(port.device for port, _ in chosen)
    of_port = _numbers(port.port for port, _ in chosen)
    group = _texts(port.names[place][0] for port, place in chosen)
    name = _texts(port.names[place][1] for port, place in chosen)
    known = [look_up(port.names[place][1]) for port, place in chosen]
    return {
        "device": _device(device, of_port, group, name),
        "port": number(of_port),
        "group": text(group),
        "counter": text(name),
        "value": number(_numbers(port.values[place] for port, place in chosen)),
        "total": number(_numbers(port.totals[place] for port, place in chosen)),
        "rate": number(np.fromiter((port.rates[place] for port, place in chosen), np.float64)),
        **{key: text(_texts(getattr(each, key) for each in known)) for key in ("unit", "kind", "meaning")},
    }


def queue_pairs(table: Table, names: Names) -> View:
    """Columns of ListQueuePairs."""
    columns = table.columns
    somebodys = columns["uid"] != NOBODY_UID
    return {
        "device": _device(columns["device"], columns["port"]),
        "port": number(columns["port"]),
        "queue_pair": number(columns["qpn"]),
        "remote_queue_pair": number(columns["remote_qpn"]),
        **{name: text(columns[name]) for name in ("type", "state")},
        "pid": number(columns["pid"]),
        "process": command(columns["comm"]),
        "uid": where(somebodys, number(columns["uid"])),
        "user": where(somebodys, user(columns["uid"], names)),
        **{name: text(columns[name]) for name in ("unit", "source")},
        **figures(table, _WIRE_TRUE),
    }


class _Taken(NamedTuple):
    """A figure of some ports, and which of them have it."""

    there: NDArray[np.bool_]
    totals: NDArray[np.uint64]
    rates: NDArray[np.float64]


def _taken(ports: Sequence[RdmaPort], column: int) -> _Taken:
    """What stands for a column of model.COUNTERS in each port."""
    length = len(ports)
    taken = _Taken(np.zeros(length, np.bool_), np.zeros(length, np.uint64), np.zeros(length))
    for row, port in enumerate(ports):
        if places := whole(port).get(column):
            taken.there[row] = True
            taken.totals[row], taken.rates[row] = port.totals[places].sum(), port.rates[places].sum()
    return taken


def _errors(ports: Sequence[RdmaPort]) -> Column:
    """The sum of all that went wrong at a port, by its own counters."""
    there, totals = np.zeros(len(ports), np.bool_), np.zeros(len(ports), np.uint64)
    for row, port in enumerate(ports):
        places = [place for place, (_, name) in enumerate(port.names) if look_up(name).kind in _ERRORS]
        there[row], totals[row] = bool(places), port.totals[places].sum()
    return where(there, number(totals))


def _gids(ports: Sequence[RdmaPort]) -> Column:
    """Addresses, as rows in the row; sorted by how many there are."""
    rows = [[asdict(gid) for gid in port.gids] for port in ports]
    count = _numbers(map(len, rows))
    return Column(
        values=lambda index: [rows[place] for place in index.tolist()], keys=lambda index: (count[index],)
    )


def _device(device: Array, *then: Array) -> Column:
    """Names of devices; `then` decides between rows of the same one."""

    def keys(index: Index) -> tuple[Array, ...]:
        return tuple(
            key[index].astype(str) if key.dtype == object else key[index] for key in (device, *then)
        )

    return replace(text(device), keys=keys)


def _texts(values: Iterable[str]) -> Array:
    return np.array([*values, None], object)[:-1]  # an array of objects, also if it is empty


def _numbers(values: Iterable[int]) -> Array:
    return np.fromiter(values, np.uint64)
