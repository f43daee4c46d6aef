"""Names for the numbers in logs: services of ports, hosts of addresses, which keep nobody waiting."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from queue import SimpleQueue

#: Look-ups at the same time: a name server that does not answer holds one of them for seconds.
WORKERS = 4

#: Addresses that may wait for a worker, and that are remembered. More stay addresses.
PENDING = 1024
SIZE = 65536

#: Seconds for which rows wait for names that are asked for the first time.
PATIENCE = 0.2


@lru_cache(maxsize=4096)
def service(port: int, protocol: str) -> str:
    """The name of a service, as ``https``; empty if it has none (services(5))."""
    try:
        return socket.getservbyport(port, protocol)
    except (OSError, OverflowError):
        return ""


def look_up(address: str) -> str:
    """The name of a host, empty if it has none. May take seconds."""
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except (OSError, UnicodeError):
        return ""


class Hosts:
    """Host names by address, looked up by a few threads that end with the program."""

    def __init__(
        self,
        ask: Callable[[str], str] = look_up,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._clock = clock
        self._known: dict[str, str] = {}
        self._waiting: set[str] = set()
        self._queue: SimpleQueue[str] = SimpleQueue()
        self._changed = threading.Condition()
        self._workers = 0

    def name(self, address: str) -> str:
        """The name, as far as it is known by now; else empty."""
        return self._known.get(address, "")

    def prefetch(self, addresses: Iterable[str]) -> None:
        """Look up those that were never asked for, and wait for them, but not for long."""
        with self._changed:
            new = {address for address in addresses if address} - self._known.keys() - self._waiting
            asked = set(sorted(new)[: PENDING - len(self._waiting)])
            self._waiting |= asked
            for address in asked:
                self._queue.put(address)
            self._hire()
            end = self._clock() + self._patience
            while asked & self._waiting and (left := end - self._clock()) > 0:
                self._changed.wait(left)

    def _hire(self) -> None:
        """As many workers as there is work for; daemon threads, which nobody waits for in the end."""
        while self._workers < min(WORKERS, len(self._waiting)):
            self._workers += 1
            threading.Thread(target=self._work, name=f"hosts-{self._workers}", daemon=True).start()

    def _work(self) -> None:
        while True:
            address = self._queue.get()
            found = self._ask(address)
            with self._changed:
                while len(self._known) >= SIZE:
                    del self._known[next(iter(self._known))]
                self._known[address] = found
                self._waiting.discard(address)
                self._changed.notify_all()
