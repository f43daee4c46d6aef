"""A worker of paths that has seen what is recorded: `python3 -m tests.bus.recorded DESCRIPTOR`.

The stage `flood` makes it see that again and again.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from netmond.sessions import runner
from netmond.sessions.stream import Finished, Stream
from tests.unit.pathlines import BEGIN, DROP, SUPPRESSED, figures, way

EVENTS = [*way(1), DROP, SUPPRESSED]


class Job:
    """See netmond.sessions.runner.Job."""

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self._stream = stream
        self._count, self._flood = options["count"], "flood" in options["stages"]
        self._messages = [figures()] if options["mode"] == "stats" else EVENTS
        self._seen = False
        self._ring, writing = os.pipe()
        os.write(writing, b".")
        self._tell(BEGIN)
        return {}

    def fileno(self) -> int:
        return self._ring

    def take(self) -> bool:
        if self._flood or not self._seen:  # it is asked twice a second, also if nothing came
            self._see()
        if self._count:
            raise Finished("count")
        return self._flood

    def figures(self) -> dict[str, int]:
        return {"packets": 4, "bytes": 0, "dropped": 45, "filtered": 0}

    def finish(self, reason: str) -> None:
        if not self._seen:  # it may end before there was time to take anything
            self._see()
        self._tell({"type": "end", "reason": reason})

    def _see(self) -> None:
        if not self._flood:
            os.read(self._ring, 1)
        self._seen = True
        for message in self._messages:
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        self._stream.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(runner.main(Job))
