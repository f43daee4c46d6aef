"""Runs the outputs: each with a thread of its own, and those of the exporter in its process."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from netmond.config import Config, OutputConfig
from netmond.model import Feature, FeatureState, Loss, Snapshot
from netmond.outputs import protocol
from netmond.outputs.worker import DISABLED, Worker

if TYPE_CHECKING:
    from netmond.outputs.exported import Exporter

log = logging.getLogger(__name__)


class Runner:
    """Outputs in threads of this process. Belongs to one thread; only `close` waits for anything."""

    def __init__(
        self, *, find: Callable[[str], protocol.Factory] = protocol.find,
        new_worker: Callable[[str, protocol.Output], Worker] = Worker,
    ) -> None:  # fmt: skip
        self._find = find
        self._new_worker = new_worker
        self._workers: dict[str, Worker] = {}
        self._unavailable: dict[str, Feature] = {}

    def apply(self, outputs: Mapping[str, OutputConfig]) -> None:
        """Start, restart and close outputs so that these run, if enabled; the unchanged run on."""
        self._unavailable.clear()
        for name in dict.fromkeys((*outputs, *self._workers)):
            if name in outputs and outputs[name].enabled:
                self._start(name, outputs[name])
            elif name not in self._workers:
                self._unavailable[name] = self._off(name, DISABLED)
            elif self._workers[name].config is not None:
                self._workers[name].configure(None)

    def _start(self, name: str, config: OutputConfig) -> None:
        if name not in self._workers:
            try:
                output = self._find(name)()
            except Exception as error:  # the constructor of a third party's class
                log.error("Output %s cannot be used: %s", name, error)
                self._unavailable[name] = self._off(name, str(error))
                return
            self._workers[name] = self._new_worker(name, output)
        if self._workers[name].config != config:
            self._workers[name].configure(config)

    @staticmethod
    def _off(name: str, reason: str) -> Feature:
        return Feature(name=f"output.{name}", state=FeatureState.OFF, reason=reason)

    def publish(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to every output. Never blocks."""
        for worker in self._workers.values():
            worker.publish(snapshot)

    def period(self) -> float:
        """Seconds between two snapshots that the outputs need; infinite if none needs any."""
        return min((worker.period for worker in self._workers.values()), default=math.inf)

    def losses(self) -> tuple[Loss, ...]:
        """The outputs' lines of the loss ledger."""
        return tuple(loss for worker in self._workers.values() for loss in worker.losses())

    def features(self) -> tuple[Feature, ...]:
        """One line for every output: on, degraded with the last error, or off with the reason."""
        return (*(worker.feature() for worker in self._workers.values()), *self._unavailable.values())

    async def close(self, seconds: float = 5.0) -> None:
        """Deliver what waits and close every output; give up on those that take longer than that."""
        await end(list(self._workers.values()), seconds)


async def end(workers: Sequence[Worker], seconds: float) -> None:
    """Stop all of them at once, and wait for them for so long."""
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + seconds
    for worker in workers:
        left = max(0.0, deadline - time.monotonic())
        if not await asyncio.to_thread(worker.join, left):
            log.warning("Output %s did not stop within %g s and is left behind", worker.name, seconds)


class Outputs:
    """All outputs of the daemon. Belongs to its event loop; only `close` waits for anything."""

    def __init__(
        self, config: Config, *, find: Callable[[str], protocol.Factory] = protocol.find,
        new_worker: Callable[[str, protocol.Output], Worker] = Worker,
    ) -> None:  # fmt: skip
        self._config = config
        self._own = Runner(find=find, new_worker=new_worker)
        self._exporter: Exporter | None = None

    def start(self) -> None:
        """Start every enabled output."""
        self.apply(self._config)

    def apply(self, config: Config) -> None:
        """Start, restart and close outputs so that they run as configured; the unchanged run on."""
        self._own.apply(protocol.own(config))
        exported = protocol.exported(config)
        if exported and self._exporter is None:
            from netmond.outputs.exported import Exporter  # who exports nothing needs none of it in memory

            self._exporter = Exporter()
        if self._exporter:
            self._exporter.apply(exported, config.daemon.log_level)

    def publish(self, snapshot: Snapshot) -> None:
        """Hand a snapshot to every output. Never blocks."""
        self._own.publish(snapshot)
        if self._exporter:
            self._exporter.publish(snapshot)

    def period(self) -> float:
        """Seconds between two snapshots that the outputs need; infinite if none needs any."""
        return min(self._own.period(), self._exporter.period if self._exporter else math.inf)

    def losses(self) -> tuple[Loss, ...]:
        """The outputs' lines of the loss ledger."""
        return (*self._own.losses(), *(self._exporter.losses() if self._exporter else ()))

    def features(self) -> tuple[Feature, ...]:
        """One line for every output: on, degraded with the last error, or off with the reason."""
        return (*self._own.features(), *(self._exporter.features() if self._exporter else ()))

    async def close(self, seconds: float = 5.0) -> None:
        """Deliver what waits and close every output; give up on those that take longer than that."""
        exported = (self._exporter.close(seconds),) if self._exporter else ()
        await asyncio.gather(self._own.close(seconds), *exported)
