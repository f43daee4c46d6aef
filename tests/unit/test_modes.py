"""Files change hands between the CSV output and the packet log: the totals come out right."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond.model import COUNTERS, NOBODY_UID, Snapshot, Table
from netmond.outputs import custody, logs
from netmond.outputs.csv import CsvOutput
from netmond.outputs.custody import Custody
from netmond.packetlog.writer import Account, Writer
from tests.unit.csvflows import ALICE, BOB, config, flow, path_of, snapshot
from tests.unit.packets import OFFSET, owners, packet, records


def at(tick: int, *flows: dict[str, Any], read: int = 0) -> Snapshot:
    """A snapshot whose users have what their flows have."""
    uids = sorted({each["uid"] for each in flows})
    counters = np.zeros((len(uids), len(COUNTERS)), np.uint64)
    for row, uid in zip(counters, uids, strict=True):
        row[:4] = np.sum([each["counters"] for each in flows if each["uid"] == uid], axis=0)
    users = Table(
        columns={"uid": np.array(uids, np.uint32), "flows": np.ones(len(uids), np.uint32)},
        counters=counters,
        rates=np.zeros((len(uids), 4)),
    )
    return dataclasses.replace(snapshot(tick, *flows), tick=tick, users=users, read=read or tick)


def worker(directory: Path) -> tuple[logs.Logs, Writer]:
    """As the packet log's process has it, at the time of the snapshots: older files are rotated."""
    made = logs.Logs()
    made.open(str(directory), {setting.key: setting.default for setting in logs.OPTIONS})
    return made, Writer(made, owners(), offset=lambda: OFFSET, clock=lambda: OFFSET)


def lines(directory: Path, uid: int = ALICE) -> list[str]:
    """Direction or text, bytes of a row, totals."""
    found = []
    for line in path_of(directory, uid).read_text().splitlines()[1:]:
        if line.startswith("#"):
            found.append(re.sub(r" (since|timestamp)=[\d.]+", "", line))
        else:
            row = line.split(",")
            found.append(",".join((*row[:2], *row[5:7])))
    return found


def start(directory: Path, shared: Custody) -> CsvOutput:
    output = CsvOutput(shared)
    output.init(config(directory, interval=60))
    output.write(at(0))
    return output


class Asked:
    """What the daemon's loop asks for, and hears of it."""

    def __init__(self) -> None:
        self.custody = Custody()
        self.future: asyncio.Future[int]

    async def ask(self, users: set[int], now: int, write: Any, *snapshots: Snapshot) -> int | None:
        """What came of it after these snapshots; None: nothing yet."""
        future = self.custody.ask(users, now)
        for each in snapshots:
            write(each)
        await asyncio.sleep(0)
        return future.result() if future.done() else None


def test_there_and_back(tmp_path: Path) -> None:
    """Rows up to the tick, packets, and then what the totals lack of the meter's, in a comment."""
    asked = Asked()
    output = start(tmp_path, asked.custody)
    output.write(at(1, flow(1, received=100, sent=10)))
    there = at(3, flow(1, received=300, sent=30))
    assert asyncio.run(asked.ask({ALICE}, 2, output.write, there)) == 3
    made, writer = worker(tmp_path)
    writer.begin(ALICE, Account(every=1))
    writer.write(records(packet(size=50), packet(size=7, out=True)))
    made.close()
    output.write(at(4, flow(1, received=350, sent=37)))
    back = at(6, flow(1, received=361, sent=38))
    assert asyncio.run(asked.ask(set(), 5, output.write, back)) == 6
    output.write(at(7, flow(1, received=400, sent=38)))
    output.close()

    assert lines(tmp_path) == [
        "in,300,300,0",
        "out,30,300,30",
        "# packet mode: every packet total_in=300 total_out=30",
        "in,50,350,30",
        "out,7,350,37",
        "# interval mode: in_bytes=11 out_bytes=1 total_in=361 total_out=38",
        "in,39,400,38",
    ]


def test_not_with_an_older_snapshot(tmp_path: Path) -> None:
    """One whose figures were read before the kernel began to log gives nothing away."""
    asked = Asked()
    output = start(tmp_path, asked.custody)

    assert asyncio.run(asked.ask({ALICE}, 5, output.write, at(4, flow(1, sent=9)))) is None
    assert asyncio.run(asked.ask({ALICE}, 5, output.write, at(6, flow(1, sent=9)))) == 6


def test_everyone(tmp_path: Path) -> None:
    """Nobody has rows of intervals, nor one who comes later; and all are taken back."""
    asked = Asked()
    output = start(tmp_path, asked.custody)
    first = flow(1, ALICE, received=100)
    assert asyncio.run(asked.ask({NOBODY_UID}, 1, output.write, at(2, first))) == 2
    made, writer = worker(tmp_path)
    writer.begin(NOBODY_UID, Account(every=1))
    writer.write(records(packet(uid=BOB, size=50)))
    made.close()
    last = at(4, first, flow(2, BOB, received=53))
    assert asyncio.run(asked.ask(set(), 3, output.write, last)) == 4
    output.close()

    assert lines(tmp_path) == [
        "in,100,100,0",
        "# interval mode: in_bytes=0 out_bytes=0 total_in=100 total_out=0",
    ]
    assert lines(tmp_path, BOB)[1:] == [
        "in,50,50,0",
        "# interval mode: in_bytes=3 out_bytes=0 total_in=53 total_out=0",
    ]


@pytest.mark.parametrize("locked", [False, True])
def test_after_a_kill(tmp_path: Path, locked: bool) -> None:
    """Another daemon's output takes the file back with its first tick, once nobody writes it any more."""
    asked = Asked()
    output = start(tmp_path, asked.custody)
    assert asyncio.run(asked.ask({ALICE}, 1, output.write, at(2, flow(1, received=100)))) == 2
    made, writer = worker(tmp_path)
    writer.begin(ALICE, Account(every=1))
    writer.write(records(packet(size=50)))
    made.close()
    lock = custody.lock(str(tmp_path)) if locked else -1

    again = start(tmp_path, Custody())
    again.write(at(1, flow(1, received=170)))
    if locked:
        assert "interval" not in lines(tmp_path)[-1]
        os.close(lock)
        again.write(at(2, flow(1, received=170)))
    assert lines(tmp_path)[-1] == "# interval mode: in_bytes=20 out_bytes=0 total_in=170 total_out=0"
    again.write(at(3, flow(1, received=180)))
    again.close()

    assert lines(tmp_path)[-1] == "in,10,180,0"
    assert not (tmp_path / "packet-mode").exists()
