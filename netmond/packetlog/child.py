"""The worker as the daemon sees it: one process, asked over a socket; it reports, and one day ends."""

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

from netmond.errors import Unavailable

#: Seconds that an order may take. Emptying a full ring takes less than one.
_PATIENCE = 15.0

#: Of a report, in bytes: thousands of users.
_LONGEST = 1 << 24


class Child:
    """Use `start`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        report: Callable[[dict[str, Any]], None],
        ended: Callable[[], None],
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._reader, self._writer = streams
        self._report, self._ended = report, ended
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @staticmethod
    async def start(
        descriptors: Sequence[int], report: Callable[[dict[str, Any]], None], ended: Callable[[], None]
    ) -> Child:
        """Runs a worker that inherits these descriptors.

        report: is told what the worker reports. ended: that it is gone, whyever. OSError: it cannot be run.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "netmond.packetlog", str(theirs.fileno())],
                pass_fds=(theirs.fileno(), *descriptors),
                stdin=subprocess.DEVNULL,
                cwd=Path(__file__).resolve().parents[2],
            )
        streams = await asyncio.open_unix_connection(sock=ours, limit=_LONGEST)
        return Child(process, streams, report, ended)

    async def ask(self, do: str, **order: Any) -> None:
        """Gives an order and waits until it is done. Unavailable: the worker says why not, or has ended."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._reading.done():
            raise Unavailable("the packet log's process has ended, and is being started again")
        self._waiting.append(done)
        self._writer.write(json.dumps({"do": do, **order}).encode() + b"\n")
        try:
            await asyncio.wait_for(done, _PATIENCE)
        except TimeoutError:
            self._process.kill()
            raise Unavailable(
                "the packet log's process did not answer, and is being started again"
            ) from None

    async def close(self) -> None:
        """Waits for its end, which was ordered, and brings it about if it does not come."""
        try:
            await asyncio.wait_for(asyncio.shield(self._reading), _PATIENCE)
        except TimeoutError:
            self._process.kill()
            await self._reading

    async def _read(self) -> None:
        with suppress(OSError, ValueError):  # ValueError: a line longer than any report
            while line := await self._reader.readline():
                self._take(json.loads(line))
        self._writer.close()
        await asyncio.to_thread(self._process.wait)
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(Unavailable("the packet log's process has ended"))
        self._ended()

    def _take(self, message: dict[str, Any]) -> None:
        if "accounts" in message:
            self._report(message)
            return
        waiting = self._waiting.popleft()
        if waiting.done():
            return
        if "error" in message:
            waiting.set_exception(Unavailable(message["error"]))
        else:
            waiting.set_result(None)
