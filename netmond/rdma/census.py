"""Looks who holds which queue pairs, in a thread of its own.

The kernel says nothing when a queue pair comes or goes, and some live for less than a second: so it is asked
all the time, whether or not anybody looks at netmond, but for no more than a fiftieth of a core, unless
there are packets that nobody can be named for. Nobody asks where there is no device: the socket alone would
make the kernel look for a module (netlink(7)).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from netmond.errors import KernelError
from netmond.kernel import rdma_netlink
from netmond.kernel.rdma_netlink import QueuePair
from netmond.rdma.register import Census, Register

#: Seconds between two looks; if that is more, so many times what the last one computed; the same in haste.
_PAUSE, _REST, _HASTE = 0.25, 50.0, 5.0


def queue_pairs() -> list[QueuePair]:
    """Those of all devices. KernelError: the kernel refused."""
    return [each for device in rdma_netlink.devices().values() for each in rdma_netlink.queue_pairs(device)]


class CensusTaker:
    """`census` is the last one; nothing in it changes."""

    def __init__(
        self, register: Register, ask: Callable[[], list[QueuePair]] = queue_pairs, pause: float = _PAUSE
    ) -> None:
        self.census = Census()
        self._register = register
        self._ask = ask
        self._pause = pause
        self._wake, self._wanted = threading.Event(), False
        self._thread: threading.Thread | None = None

    def watch(self, wanted: bool) -> None:
        """Whether to look at all. Returns at once, also if a device does not answer: nobody waits for it."""
        if not wanted and self._wanted:
            self._wake.set()
        self._wanted = wanted
        if wanted and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._look, name="rdma-census", daemon=True)
            self._thread.start()

    def hurry(self) -> None:
        """Somebody waits for the next look."""
        self._wake.set()

    def _look(self) -> None:
        self._register.prepare()
        while self._wanted:
            self._wake.clear()
            begun, computed = time.monotonic_ns(), time.thread_time()
            try:
                seen = self._ask()
            except KernelError as error:
                self.census = replace(self.census, begun=begun, reason=f"queue pairs are unknown: {error}")
                took = self._pause
            else:
                took = time.thread_time() - computed  # not the time that others had the processor
                self.census = self._register.update(seen, begun=begun)
            time.sleep(max(self._pause, took * _HASTE))
            self._wake.wait(took * (_REST - _HASTE))
        self.census = self._register.update([], begun=time.monotonic_ns())  # with the devices they are gone
