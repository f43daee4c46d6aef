"""netmonctl log tail while netmond's own class writes and rotates as fast as it can, and nothing is kept."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

from netmonctl.errors import CtlError, ExitCode
from netmonctl.logtail_file import Follower, Lines, Note
from netmonctl.logtail_rows import Continuity, Row, parse
from netmond.outputs import rotated
from netmond.outputs.files import open_directory, open_log_directory, remove
from netmond.outputs.userlog import UserLog, log_name
from tests.kernel.deadline import DEADLINE

UID = 1237
SIZE = 100  #: bytes of each packet
ROWS = 200_000
BATCH = 5_000
ROTATE = 4 << 20


class Writer(threading.Thread):
    """Writes rows whose totals go on, each of SIZE bytes in, and rotates beyond ROTATE."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        log = open_log_directory(str(directory))
        users = open_directory("users", log)
        self.user = UserLog(users, UID, log_name("all", UID))
        os.close(users)
        os.close(log)
        self.path = directory / "users" / str(UID) / self.user.name
        self.rotations = 0

    def opened(self) -> int:
        """As netmond hands it out. CtlError: it has been put aside, and the next one is not there yet."""
        try:
            return os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            raise CtlError("no log", ExitCode.UNKNOWN_OBJECT) from None

    def run(self) -> None:
        for first in range(1, ROWS, BATCH):
            if self.user.size > ROTATE:
                self.rotations += 1
                self.user.rotate(1700000000.0 + self.rotations, (SIZE * (first - 1), 0))
                for aside in rotated.of_log(self.user.directory, UID, self.user.name)[:-1]:
                    remove(aside.name, self.user.directory)
            self.user.append(
                "".join(
                    f"in,{SIZE},192.0.2.7,192.0.2.1,1700000000.{n:09d},{SIZE * n},0,1,443,51544,tcp,,7,x\n"
                    for n in range(first, first + BATCH)
                ).encode()
            )
        self.user.close()


def test_every_row_is_shown_or_told(tmp_path: Path) -> None:
    """Rows shown, rows left out and bytes missing between files add up to what was written, in order."""
    writer = Writer(tmp_path)
    writer.user.append(f"in,{SIZE},,,1.0,0,0,1,0,0,tcp,,0,\n".encode())  # the totals before the first row
    follower = Follower(writer.opened)
    continuity = Continuity()
    shown: list[Row] = []
    told = 0
    writer.start()

    for event in follower.events():
        if isinstance(event, Lines):
            rows = [row for row in map(parse, event.lines) if row]
            missing, _ = continuity.missing(rows, fresh=event.fresh)
            told += missing // SIZE
            shown += rows
        elif isinstance(event, Note) and (left_out := re.match(r"(\d+) rows left out", event.text)):
            told += int(left_out[1])
        elif event is None and not writer.is_alive() and shown[-1].total_in == SIZE * ROWS:
            break

    follower.close()
    writer.join(DEADLINE)
    totals = [row.total_in for row in shown]
    assert len(shown) - 1 + told == ROWS
    assert totals == sorted(set(totals))
    assert writer.rotations >= 3
