"""A web server for one page, which whoever connects can neither occupy nor make large.

One request for each connection, in a thread with an event loop of its own; a second thread makes the page.
Who is slow in asking or reading loses the connection after `DEADLINE` seconds; where there are too many, the
one that is there longest: a scrape takes milliseconds, so that is not it.
"""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from urllib.parse import urlsplit

PATH = "/metrics"

#: Connections at the same time.
CONNECTIONS = 32

#: Connections that may wait in the kernel until they are looked at.
BACKLOG = 1024

#: Seconds from the first to the last byte of a connection.
DEADLINE = 10.0

#: Bytes of a request; what is longer is refused.
REQUEST_BYTES = 8192

#: Bytes of an answer that may wait for a connection in this process.
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """status, body, headers beyond those that every answer has."""

    status: HTTPStatus
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def encode(self, *, with_body: bool) -> bytes:
        """As HTTP/1.1 has it (RFC 9112)."""
        body = self.body or f"{self.status.value} {self.status.phrase}\n".encode()
        headers = {
            "Content-Type": "text/plain; charset=utf-8", **self.headers,
            "Content-Length": str(len(body)), "Connection": "close",
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        line = f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
        return f"{line}{head}\r\n".encode() + (body if with_body else b"")


#: Makes the page for the headers of a request. Called in one thread, which may block: it looks up names.
Render = Callable[[Message], Answer]


class ScrapeServer:
    """Serves `PATH` on a listening socket from a thread of its own until it is closed."""

    def __init__(self, listener: socket.socket, render: Render, *, deadline: float = DEADLINE) -> None:
        """Takes the socket over. deadline: see `DEADLINE`."""
        self.turned_away = 0  #: connections closed because they were too many or too slow
        self._render = render
        self._deadline = deadline
        self._open: dict[asyncio.Task[None], None] = {}  # in the order they came
        self._loop = asyncio.new_event_loop()
        self._renderer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="page")
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(listener),), name="scrapes", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Close the socket and all connections."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()
        self._loop.close()
        self._renderer.shutdown(wait=False, cancel_futures=True)

    async def _run(self, listener: socket.socket) -> None:
        server = await asyncio.start_server(
            self._connected, sock=listener, limit=REQUEST_BYTES, backlog=BACKLOG
        )
        await self._stopped.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = None
        if len(self._open) > CONNECTIONS:
            longest = next(iter(self._open))
            del self._open[longest]
            longest.cancel()
        try:
            async with asyncio.timeout(self._deadline):
                await self._serve(reader, writer)
        except (asyncio.CancelledError, TimeoutError):
            self.turned_away += not self._stopped.is_set()
            writer.transport.abort()
        except (OSError, asyncio.IncompleteReadError):  # it has gone
            writer.transport.abort()
        finally:
            self._open.pop(task, None)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            answer, method = Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE), "GET"
        else:
            method = request.partition(b" ")[0].decode("latin-1")
            answer = await self._loop.run_in_executor(self._renderer, self._answer, request)
        # Without room for more drain() waits until the kernel has all: closing must not wait instead of it.
        writer.transport.set_write_buffer_limits(0)
        data = memoryview(answer.encode(with_body=method != "HEAD"))
        for start in range(0, len(data), _CHUNK):
            writer.write(data[start : start + _CHUNK])
            await writer.drain()

    def _answer(self, request: bytes) -> Answer:
        line, _, rest = request.partition(b"\r\n")
        try:
            method, target, version = line.decode("ascii").split(" ")
            path = urlsplit(target).path
            headers = parse_headers(io.BytesIO(rest))
        except (ValueError, HTTPException):
            return Answer(HTTPStatus.BAD_REQUEST)
        if not version.startswith("HTTP/1."):
            return Answer(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if path != PATH:
            return Answer(HTTPStatus.NOT_FOUND, f"There is only {PATH} here.\n".encode())
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        return self._render(headers)
