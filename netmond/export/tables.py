"""Tables and RDMA in a frame: what its head says of them, and the arrays that follow.

What the head says is checked before memory is taken: sizes follow from it, and columns have types of a few
kinds only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.model import COUNTERS, RATES, Gid, Rdma, RdmaPort, Table

#: The types of columns: of anything else an array of arbitrary bytes would be dangerous.
_TYPE = re.compile(r"[<>|](b1|[ui][1248]|f[48]|[SV][1-9][0-9]{0,2})", re.ASCII)

#: Of an RDMA port, each with the type of a number.
_PORT_ARRAYS = {"values": np.uint64, "totals": np.uint64, "rates": np.float64}
_PORT_FACTS = tuple(each.name for each in fields(RdmaPort) if each.name not in _PORT_ARRAYS)


def announce(table: Table, arrays: list[NDArray[Any]]) -> dict[str, Any]:
    """What the head says of a table. Its arrays come after those that there are."""
    columns = {}
    for key, column in table.columns.items():
        columns[key] = column.tolist() if column.dtype == object else column.dtype.str
        if column.dtype != object:
            arrays.append(column)
    arrays += table.counters, table.rates
    return {"rows": len(table), "columns": columns}


def announce_rdma(rdma: Rdma, arrays: list[NDArray[Any]]) -> dict[str, Any]:
    """The same of RDMA."""
    ports = []
    for port in rdma.ports:
        facts = {name: getattr(port, name) for name in _PORT_FACTS}
        ports.append(facts | {"gids": [asdict(gid) for gid in port.gids]})
        arrays += (getattr(port, name) for name in _PORT_ARRAYS)
    tables = {name: announce(getattr(rdma, name), arrays) for name in ("queue_pairs", "users")}
    return {"time": rdma.time, "interval": rdma.interval, "ports": ports, **tables}


@dataclass(frozen=True, slots=True)
class TableShape:
    """What the head of a frame says of a table."""

    rows: int
    columns: Mapping[str, np.dtype[Any] | list[str]]

    @staticmethod
    def of(head: Any) -> TableShape:
        rows = head["rows"]
        if type(rows) is not int or rows < 0:
            raise ValueError(f"{rows!r} rows")
        return TableShape(
            rows, {str(name): TableShape._column(value, rows) for name, value in head["columns"].items()}
        )

    @staticmethod
    def _column(value: Any, rows: int) -> np.dtype[Any] | list[str]:
        if isinstance(value, list):
            if len(value) != rows or not all(isinstance(each, str) for each in value):
                raise ValueError(f"{len(value)} texts for {rows} rows")
            return value
        if not _TYPE.fullmatch(value):
            raise ValueError(f"a column of type {value!r}")
        return np.dtype(value)

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        row = 8 * (len(COUNTERS) + len(RATES))
        row += sum(column.itemsize for column in self.columns.values() if isinstance(column, np.dtype))
        return self.rows * row

    def read(self, fill: Callable[[NDArray[Any]], None]) -> Table:
        columns: dict[str, NDArray[Any]] = {}
        for name, column in self.columns.items():
            if isinstance(column, np.dtype):
                columns[name] = np.empty(self.rows, column)
                fill(columns[name])
            else:
                columns[name] = np.array(column, object)
        counters = np.empty((self.rows, len(COUNTERS)), np.uint64)
        rates = np.empty((self.rows, len(RATES)), np.float64)
        fill(counters)
        fill(rates)
        return Table(columns=columns, counters=counters, rates=rates)


@dataclass(frozen=True, slots=True)
class RdmaShape:
    """What the head of a frame says of RDMA: facts of each port without its arrays, and the tables."""

    time: float
    interval: float
    ports: list[dict[str, Any]]
    queue_pairs: TableShape
    users: TableShape

    @staticmethod
    def of(head: Any) -> RdmaShape:
        ports = []
        for given in head["ports"]:
            port = {name: given[name] for name in _PORT_FACTS}
            port["names"] = tuple((str(group), str(name)) for group, name in port["names"])
            port["gids"] = tuple(Gid(**gid) for gid in port["gids"])
            ports.append(port)
        return RdmaShape(
            head["time"],
            head["interval"],
            ports,
            TableShape.of(head["queue_pairs"]),
            TableShape.of(head["users"]),
        )

    @property
    def size(self) -> int:
        """Bytes of the arrays."""
        counters = sum(len(port["names"]) for port in self.ports)
        of_ports = counters * sum(np.dtype(kind).itemsize for kind in _PORT_ARRAYS.values())
        return of_ports + self.queue_pairs.size + self.users.size

    def read(self, fill: Callable[[NDArray[Any]], None]) -> Rdma:
        ports = []
        for port in self.ports:
            arrays: dict[str, Any] = {
                name: np.empty(len(port["names"]), kind) for name, kind in _PORT_ARRAYS.items()
            }
            for array in arrays.values():
                fill(array)
            ports.append(RdmaPort(**port, **arrays))
        return Rdma(
            time=self.time, interval=self.interval, ports=tuple(ports),
            queue_pairs=self.queue_pairs.read(fill), users=self.users.read(fill),
        )  # fmt: skip
