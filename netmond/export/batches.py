"""What outputs have in common that deliver what has grown, in batches, over a `Delivery`."""

from __future__ import annotations

import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

from netmond.config import OutputConfig, read_options
from netmond.errors import ConfigError, NetmondError
from netmond.export.delivery import Delivery
from netmond.export.progress import Progress, load
from netmond.export.spool import Spool
from netmond.model import Loss, Snapshot
from netmond.settings import Setting
from netmond.users import Names


class Sender(Protocol):
    """The way to the other side; `send` raises OSError or NetmondError."""

    def send(self, payload: bytes) -> None: ...

    def close(self) -> None: ...


class BatchOutput(ABC):
    """An output that delivers to the ``address`` of its options, a batch each ``interval``.

    `write` never raises for what the other side or the disk does; it may block for as long as an attempt.
    Below the state directory: ``<name>/spool``, what waits, and ``<name>/told``, how far figures are told.
    """

    name: ClassVar[str]
    options: ClassVar[Sequence[Setting]]

    def __init__(self, clock: Callable[[], float] = time.monotonic, names: Names | None = None) -> None:
        self.names = names or Names()
        self.host = socket.gethostname()
        self.progress: Progress | None = None
        self._clock = clock
        self._delivery: Delivery | None = None
        self._latest: Snapshot | None = None
        self._limitation = ""

    def init(self, config: OutputConfig) -> None:
        """Take up what an earlier one left. ConfigError: there is no address."""
        self.values: dict[str, Any] = read_options(self.options, config)[0]
        if self.values["address"] is None:
            raise ConfigError(f"output.{self.name}.address is missing: where shall it deliver to?")
        directory = config.state_dir / self.name
        self._file = directory / "told"
        self.progress = self.progress or load(self._file)
        self._sender = self.new_sender()
        spool = Spool(directory / "spool", self.values["spool"])
        self._delivery = Delivery(
            self._sender.send, spool, name=self.name, clock=self._clock, before=self._delivery
        )

    def write(self, snapshot: Snapshot) -> None:
        """Hand over what is due, and deliver what waits."""
        before, self._latest = self._latest, snapshot
        is_new = before is None or before.started != snapshot.started  # a new daemon's flows may be others
        if is_new and before is not None and self.progress is not None:
            self._submit_batch(before, self.progress)  # what its predecessor counted last
        if self.progress is None or self.progress.since != snapshot.since:
            self.progress = Progress(snapshot.since)
        self._submit(self.between_batches(snapshot, self.progress))
        if is_new or not 0 <= snapshot.time - self.progress.time < self.values["interval"]:
            self._submit_batch(snapshot, self.progress)
        assert self._delivery is not None
        self._delivery.pump()

    def close(self) -> None:
        """A last batch. What cannot be delivered now waits on the disk."""
        if self._latest is not None and self.progress is not None:
            self._submit_batch(self._latest, self.progress)
            self._latest = None
        if self._delivery is not None:
            self._delivery.pump()
            self._delivery.close()
            self._sender.close()

    def losses(self) -> Sequence[Loss]:
        """What is lost, rejected, put off."""
        return self._delivery.losses() if self._delivery is not None else ()

    def limitation(self) -> str:
        """What is wrong now, and its remedy."""
        return (self._delivery.limitation() if self._delivery is not None else "") or self._limitation

    @abstractmethod
    def new_sender(self) -> Sender:
        """The way to the address."""

    @abstractmethod
    def batch(self, snapshot: Snapshot, progress: Progress) -> Iterable[bytes]:
        """The payloads of a batch, each of moderate size: what has grown since `progress.time`."""

    def between_batches(self, snapshot: Snapshot, progress: Progress) -> Iterable[bytes]:
        """What cannot wait for the next batch."""
        return ()

    def _submit_batch(self, snapshot: Snapshot, progress: Progress) -> None:
        self._submit(self.batch(snapshot, progress))
        progress.time = snapshot.time
        try:
            progress.save(self._file)
            self._limitation = ""
        except (OSError, NetmondError) as error:
            self._limitation = f"{error}: a restart of netmond-export would tell figures twice; make room"

    def _submit(self, payloads: Iterable[bytes]) -> None:
        """Keep payloads for delivery. A batch that is larger than the room for it is delivered meanwhile."""
        assert self._delivery is not None
        for payload in payloads:
            self._delivery.submit(payload)
            if self._delivery.is_half_full():
                self._delivery.pump()


def payloads(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The parts one after the other, in payloads of about `size` bytes: a few large ones cost least."""
    payload = bytearray()
    for part in parts:
        payload += part
        if len(payload) >= size:
            yield bytes(payload)
            payload.clear()
    if payload:
        yield bytes(payload)
