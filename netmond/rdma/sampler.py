"""Reads RDMA devices in a thread of its own, so that a slow one never delays a tick."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from netmond.model import RdmaPort

if TYPE_CHECKING:
    from netmond.kernel.rdma_netlink import BoundCounter

log = logging.getLogger(__name__)

ROOT = Path("/sys/class/infiniband")


class Sample(NamedTuple):
    """What was read last; nothing in it changes."""

    ports: tuple[RdmaPort, ...] = ()  #: by device and port
    time: float = 0.0  #: wall clock of the reading, 0: there was none
    interval: float = 0.0  #: seconds since the reading before, 0: there was none
    #: Counters of their own that queue pairs have; the same object as before if nobody asked again
    bound: tuple[BoundCounter, ...] = ()
    reason: str = ""  #: why something of this is missing, empty: nothing is


class Sampler:
    """Takes a `Sample` whenever somebody looks, at once but elsewhere.

    A tick calls `look()` when it begins and takes `sample` when it ends: mostly that is the new one already.
    Ticks come each ``[daemon] interval`` while somebody asks, else each idle interval; so do readings. As
    long as there is no device there is no thread, and the modules that read are not imported.
    """

    def __init__(self, root: Path = ROOT) -> None:
        """root: /sys/class/infiniband, or a directory like it."""
        self._root = root
        self._wanted = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self.sample = Sample()

    @property
    def present(self) -> bool:
        """Whether there is an RDMA device now. A look into one directory: 5 µs."""
        try:
            with os.scandir(self._root) as entries:
                return any(True for _ in entries)
        except OSError:
            return False

    def look(self) -> None:
        """Asks for a reading, and does not wait for it."""
        if self._thread is None and self.present:
            self._thread = threading.Thread(target=self._run, name="rdma", daemon=True)
            self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """Ends the thread; one that waits for a device that hangs ends with the process."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        from netmond.rdma.reading import Reader  # 0.2 MB, for those who have a device

        reader = Reader(self._root)
        while self._wanted.wait() and not self._closing:
            self._wanted.clear()
            try:
                self.sample = reader.read()
            except Exception as error:  # what cannot be foreseen must not look like ports that stand still
                log.exception("RDMA devices cannot be read")
                self.sample = Sample(reason=f"devices cannot be read: {error}")
        reader.close()
