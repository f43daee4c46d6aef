"""One output with a thread and a bounded queue, so that it delays neither a tick nor another output."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from netmond.config import OutputConfig
from netmond.errors import NetmondError
from netmond.model import Feature, FeatureState, Loss, Snapshot
from netmond.outputs import carry, protocol

log = logging.getLogger(__name__)

#: Snapshots that may wait for an output. Few: one with 100,000 flows takes 20 MB.
DEPTH = 2

#: Rows of ended flows that may be carried over while snapshots are dropped.
CARRIED_ROWS = 65536

#: Seconds until an output that failed is started again: the first pause and, doubling, the longest.
BACK_OFF = (1.0, 60.0)

DISABLED = "disabled by configuration"


@dataclass(frozen=True, slots=True)
class _Order:
    """Close the output, then open it with this configuration, or leave it closed without one."""

    config: OutputConfig | None


class Worker:
    """One output and its thread. Its public methods are for the event loop and return at once."""

    def __init__(
        self,
        name: str,
        output: protocol.Output,
        *,
        depth: int = DEPTH,
        carried_rows: int = CARRIED_ROWS,
        back_off: tuple[float, float] = BACK_OFF,
    ) -> None:
        self.name = name
        self.config: OutputConfig | None = None
        self._output = output
        self._depth, self._carried_rows = depth, carried_rows
        self._first_pause, self._longest_pause = back_off
        # What the loop hands to the thread and the counters; touched with the condition held only.
        self._changed = threading.Condition()
        self._snapshots: deque[Snapshot] = deque()
        self._carried: list[carry.Ended] = []
        self._order: _Order | None = None
        self._stopping = False
        self._behind = False  # snapshots were dropped, and it did not catch up since
        self._dropped = self._rows_lost = self._errors = 0
        # Written by the thread, read by the loop, each replaced as a whole.
        self._own_losses: tuple[Loss, ...] = ()
        self._problem = ""
        self._limitation = ""
        self._period = math.inf
        # A hung output must not keep the process alive, hence daemon.
        self._thread = threading.Thread(target=self._work, name=f"output-{name}", daemon=True)

    def configure(self, config: OutputConfig | None) -> None:
        """Start the output, start it again with another configuration, or close it for now (None)."""
        with self._changed:
            self.config = config
            self._period = 0.0  # until it is open and says so
            self._order = _Order(config)
            if config is None:
                self._discard()
            self._changed.notify()
        if self._thread.ident is None:
            self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Hand over a snapshot. If too many wait, the oldest makes room and its ended flows stay."""
        with self._changed:
            if self.config is None or self._stopping:
                return
            self._behind = self._behind and bool(self._snapshots)
            self._snapshots.append(snapshot)
            if len(self._snapshots) > self._depth:
                self._behind = True
                self._drop(self._snapshots.popleft())
            self._changed.notify()

    def stop(self) -> None:
        """Let the thread deliver what waits, close the output and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; False if it does not. What is left counts as dropped."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        with self._changed:
            self._discard()
        return not self._thread.is_alive()

    def losses(self) -> tuple[Loss, ...]:
        """This output's lines of the loss ledger."""
        name = f"output.{self.name}"
        return (
            Loss(
                name=f"{name}.dropped",
                count=self._dropped,
                meaning="snapshots not delivered: the output was too slow, failed or was switched off",
            ),
            Loss(
                name=f"{name}.ended-flows",
                count=self._rows_lost,
                meaning="last figures of ended flows not delivered, because too many waited already",
            ),
            Loss(
                name=f"{name}.errors",
                count=self._errors,
                meaning="failures after which the output was started again",
            ),
            *self._own_losses,
        )

    @property
    def period(self) -> float:
        """Seconds between two snapshots that the output needs; infinite if it needs none now."""
        return math.inf if self.config is None else self._period

    def feature(self) -> Feature:
        """Whether the output works."""
        name = f"output.{self.name}"
        if self.config is None:
            return Feature(name=name, state=FeatureState.OFF, reason=DISABLED)
        problem = self._problem
        if not problem and self._behind:
            problem = "does not keep up; snapshots are dropped until it does"
        problem = problem or self._limitation
        return Feature(
            name=name, state=FeatureState.DEGRADED if problem else FeatureState.ON, reason=problem
        )

    def _drop(self, snapshot: Snapshot) -> None:
        """Count a snapshot as not delivered; keep the rows that no later one repeats."""
        self._dropped += 1
        room = self._carried_rows - sum(map(len, self._carried))
        rows, lost = carry.ended(snapshot, max(0, room))
        self._rows_lost += lost
        if len(rows):
            self._carried.append(rows)

    def _discard(self) -> None:
        """Count everything that waits as not delivered."""
        while self._snapshots:
            self._drop(self._snapshots.popleft())
        self._rows_lost += sum(map(len, self._carried))
        self._carried.clear()

    def _work(self) -> None:
        """The thread: everything that touches the output, in order."""
        config: OutputConfig | None = None
        is_open = False
        pause = 0.0
        while (task := self._next(is_open, None if config is None or is_open else pause)) != "stop":
            if isinstance(task, Snapshot):
                problem = self._attempt(self._output.write, task)
            else:
                if isinstance(task, _Order):
                    if is_open:
                        self._report(self._attempt(self._output.close))
                    config, is_open, pause = task.config, False, 0.0
                if config is None:
                    continue
                problem = self._attempt(self._output.init, config)
            is_open = not problem
            self._period = self._asked_for() if is_open else math.inf
            self._report(problem, task=task)
            if problem:
                self._attempt(self._output.close)
                pause = min(max(2 * pause, self._first_pause), self._longest_pause)
            elif isinstance(task, Snapshot):
                pause = 0.0
        if is_open:
            self._report(self._attempt(self._output.close))

    def _next(self, is_open: bool, pause: float | None) -> _Order | Snapshot | str:
        """Wait for what to do next: an order, a snapshot, ``stop``, or ``open`` once `pause` is over."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._order or self._stopping or (is_open and self._snapshots), pause
            )
            if self._order is not None:
                order, self._order = self._order, None
                return order
            if not is_open or not self._snapshots:
                return "stop" if self._stopping else "open"
            snapshot = self._snapshots.popleft()
            carried, self._carried = self._carried, []
        return carry.add(snapshot, carried)

    def _asked_for(self) -> float:
        """How often the open output needs a snapshot; what does not say gets all there can be."""
        return float(self._output.period()) if isinstance(self._output, protocol.Periodic) else 0.0

    def _attempt(self, call: Callable[..., None], *arguments: object) -> str:
        """Call the output; what went wrong, or nothing."""
        try:
            call(*arguments)
            if isinstance(self._output, protocol.Lossy):
                self._own_losses = tuple(self._output.losses())
            if isinstance(self._output, protocol.Limited):
                self._limitation = str(self._output.limitation())
        except NetmondError as error:
            return str(error)
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _report(self, problem: str, task: object = None) -> None:
        """Count and log a failure; a delivered snapshot ends it."""
        if problem:
            with self._changed:
                self._errors += 1
                if isinstance(task, Snapshot):
                    self._drop(task)
            if problem != self._problem:
                log.error("Output %s failed and will be started again: %s", self.name, problem)
            self._problem = problem
        elif self._problem and isinstance(task, Snapshot):
            log.info("Output %s works again", self.name)
            self._problem = ""
