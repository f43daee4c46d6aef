"""Snapshots with flows as the CSV output gets them, and what it makes of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np

from netmond.config import OutputConfig
from netmond.model import COUNTERS, FlowKind, Snapshot, Table
from netmond.outputs.csv import CsvOutput

START = 1795231800.0
DTYPES = {
    "id": "u8", "kind": "u1", "protocol": "u1", "traffic": "u1", "opcode": "u1", "qpn": "u4",
    "pkey": "u2", "psn": "u4", "local": "V16", "remote": "V16", "local_port": "u2",
    "remote_port": "u2", "ifindex": "u4", "uid": "u4", "pid": "u4", "comm": "S16", "unit_index": "i4",
    "first_seen": "f8", "last_seen": "f8", "srtt_us": "u4", "retransmits": "u4", "ended": "?",
}  # fmt: skip
ALICE, BOB = 1009, 1013


def packed(address: str) -> bytes:
    ip = ip_address(address)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def flow(number: int, uid: int = ALICE, *, received: int = 0, sent: int = 0, **more: Any) -> dict[str, Any]:
    """One row: `received` and `sent` are bytes since the flow began, a packet for every 100."""
    return {
        "id": number, "kind": FlowKind.SOCKET, "protocol": 6, "traffic": 0, "opcode": 0, "qpn": 0,
        "pkey": 0, "psn": 0, "local": packed("198.51.100.4"),
        "remote": packed("192.0.2.7"), "local_port": 51544, "remote_port": 443, "ifindex": 2, "uid": uid,
        "pid": 4211, "comm": b"curl", "unit_index": 0, "first_seen": START, "last_seen": START + 0.25,
        "srtt_us": 0, "retransmits": 0, "ended": False,
        "counters": [-(-received // 100), received, -(-sent // 100), sent], **more,
    }  # fmt: skip


def table(flows: list[dict[str, Any]]) -> Table:
    counters = np.zeros((len(flows), len(COUNTERS)), np.uint64)
    for row, each in zip(counters, flows, strict=True):
        row[:4] = each["counters"]
    return Table(
        columns={name: np.array([each[name] for each in flows], kind) for name, kind in DTYPES.items()},
        counters=counters,
        rates=np.zeros((len(flows), 4)),
    )


def snapshot(
    after: float, *flows: dict[str, Any], units: tuple[str, ...] = ("session-3.scope",)
) -> Snapshot:
    empty = table([])
    return Snapshot(
        tick=math.ceil(after), time=START + after, interval=1.0, since=START, users=empty, units=empty,
        processes=empty, flows=table(list(flows)), interfaces=empty, targets=empty, unit_names=units,
    )  # fmt: skip


def config(log_dir: Path, **options: Any) -> OutputConfig:
    return OutputConfig(name="csv", log_dir=log_dir, state_dir=log_dir, options={"interval": 1, **options})


class SettledOutput(CsvOutput):
    """Rotated files are compressed when `write` returns, so that tests can tell which there are."""

    def write(self, snapshot: Snapshot) -> None:
        super().write(snapshot)
        assert self.logs.compressor.settle(60)


#: Starts an output with the options given; see outputs().
Start = Callable[..., CsvOutput]


@contextmanager
def outputs(log_dir: Path, **options: Any) -> Iterator[Start]:
    """Starts outputs that have seen a first, empty snapshot, on `log_dir` or `where`; closes them."""
    with ExitStack() as stack:

        def start(where: Path = log_dir, **more: Any) -> CsvOutput:
            output = SettledOutput()
            output.init(config(where, **options, **more))
            output.write(snapshot(0))
            stack.callback(output.close)
            return output

        yield start


def path_of(log_dir: Path, uid: int = ALICE, nic: str = "all") -> Path:
    return log_dir / "users" / str(uid) / f"traffic_user_{nic}_{uid}.log"


def rows_of(log_dir: Path, uid: int = ALICE) -> list[dict[str, str]]:
    """What any CSV reader makes of the file."""
    with path_of(log_dir, uid).open(newline="") as file:
        return list(csv.DictReader(file))


def lost(output: CsvOutput) -> int:
    return {loss.name: loss.count for loss in output.losses()}["output.csv.rows"]
