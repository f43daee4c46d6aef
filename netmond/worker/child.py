"""A worker as the daemon sees it: one process, asked over a socket; it reports, and one day ends."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from netmond.errors import Unavailable, by_code

#: Seconds that an order may take, unless it is said. Emptying a full ring takes less than one.
PATIENCE = 15.0

#: Of a report, in bytes: thousands of users.
_LONGEST = 1 << 24

Answer = dict[str, Any]


class Child:
    """Use `start`."""

    def __init__(
        self,
        name: str,
        process: subprocess.Popen[bytes],
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        report: Callable[[dict[str, Any]], None],
        ended: Callable[[], None],
    ) -> None:
        self.pid = process.pid
        self._name = name
        self._process = process
        self._reader, self._writer = streams
        self._report, self._ended = report, ended
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @staticmethod
    async def start(
        module: str,
        name: str,
        descriptors: Sequence[int],
        report: Callable[[dict[str, Any]], None],
        ended: Callable[[], None],
    ) -> Child:
        """Runs ``python3 -m module``, which inherits these descriptors.

        name: what it is called in errors. report: is told what it reports. ended: that it is gone, whyever.
        OSError: it cannot be run.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *descriptors),
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parents[2],
            )
        try:
            streams = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST)
        except BaseException:  # nobody waits for it any more
            ours.close()
            process.kill()
            process.wait()
            raise
        return Child(name, process, streams, report, ended)

    @property
    def status(self) -> int:
        """How it ended: what it returned, or the negative number of the signal; 0 before that."""
        return self._process.returncode or 0

    async def ask(self, do: str, *, patience: float = PATIENCE, **order: Any) -> Answer:
        """Gives an order; returns the answer when it is done.

        NetmondError: it says why not; Unavailable: that without a code, or it has ended. One that does not
        answer within `patience` seconds is killed.
        """
        done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._reading.done():
            raise Unavailable(f"{self._name} has ended")
        self._waiting.append(done)
        self._writer.write(json.dumps({"do": do, **order}).encode() + b"\n")
        try:
            return await asyncio.wait_for(done, patience)
        except TimeoutError:
            self.kill()
            raise Unavailable(f"{self._name} did not answer and was ended") from None

    def kill(self) -> None:
        """It ends now, wherever it is."""
        self._process.kill()

    async def close(self, patience: float = PATIENCE) -> None:
        """Waits for its end, which was ordered, and brings it about if it does not come."""
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), patience)
        except TimeoutError:
            self.kill()
            await self._reading

    async def _read(self) -> None:
        with suppress(OSError, ValueError):  # ValueError: a line longer than any report
            while line := await self._reader.readline():
                self._take(json.loads(line))
        self._writer.close()
        await asyncio.to_thread(self._process.wait)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Unavailable(f"{self._name} has ended"))
        self._ended()

    def _take(self, message: dict[str, Any]) -> None:
        if "done" not in message and "error" not in message:
            self._report(message)
            return
        waiting = self._waiting.popleft()
        if waiting.done():
            return
        if "error" in message:
            waiting.set_exception(by_code(message.get("code", ""))(message["error"]))
        else:
            waiting.set_result(message)
