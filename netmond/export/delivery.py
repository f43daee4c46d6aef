"""Delivery of payloads in order to a system that may be dead, slow, refusing or flapping.

Each payload is in the spool until the other side has it, so that there is one way for all. What failed is
tried again until it works, or until the spool is full: at least once, that is. A payload arrives twice if
the other side got it just before the connection failed; nothing else is repeated. Running totals do not
mind; who adds up differences tells a repetition by its time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable

from netmond.errors import NetmondError
from netmond.export.spool import Spool
from netmond.model import Loss
from netmond.outputs.limit import Limit, told

log = logging.getLogger(__name__)

#: Seconds without an attempt after a failure: the first pause and, doubling, the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

#: Seconds that one `pump` may go on delivering what waits. Between two, a new snapshot is looked at.
TURN = 1.0


class Rejected(NetmondError):
    """The other side takes this payload neither now nor later: it is dropped and counted."""


class Delivery:
    """Gets payloads to `send`, one after the other. OSError or NetmondError: it is called again later.

    `send` may block for seconds. The texts of its errors are for the administrator: they name the address
    and the remedy, and nothing that differs from attempt to attempt. `name` is the output's, `clock` is in
    seconds and never set back; `before` is an earlier delivery of the same output, whose counts go on.
    """

    def __init__(
        self,
        send: Callable[[bytes], None],
        spool: Spool,
        *,
        name: str,
        clock: Callable[[], float] = time.monotonic,
        before: Delivery | None = None,
    ) -> None:
        self._send = send
        self._spool = spool
        self._name = name
        self._clock = clock
        self._limit = Limit(burst=1)
        self._problem = ""  # why the last attempt failed
        self._pause = 0.0  # doubles with each failure
        self._next = float("-inf")  # when the next attempt may be made
        self._retried: int = 0 if before is None else before._retried
        self._rejected: int = 0 if before is None else before._rejected
        self._dropped_before: int = 0 if before is None else before._dropped

    def submit(self, payload: bytes) -> None:
        """Keep a payload for delivery, behind those that wait. Raises nothing."""
        self._spool.append(payload)

    def is_half_full(self) -> bool:
        """Whether half of the room for what waits is taken."""
        return self._spool.is_half_full()

    def pump(self) -> None:
        """Deliver what waits, for about a `TURN`, unless the pause after a failure is not over."""
        began = self._clock()
        if began < self._next:
            return
        while (payload := self._spool.peek()) is not None:
            try:
                self._send(payload)
            except Rejected as error:
                self._rejected += 1
                self._log(logging.WARNING, "rejected", f"{error}; what it rejects is dropped")
            except (OSError, NetmondError) as error:
                self._fail(str(error))
                return
            self._spool.pop()
            self._recover()
            if self._clock() >= began + TURN:
                return

    def close(self) -> None:
        """What waits on the disk stays there, for the next one."""
        self._spool.close()

    def __len__(self) -> int:
        """How many payloads wait."""
        return len(self._spool)

    def losses(self) -> tuple[Loss, ...]:
        """This delivery's lines of the loss ledger."""
        name = f"output.{self._name}"
        return (
            Loss(
                name=f"{name}.undelivered",
                count=self._dropped,
                meaning="parcels of data dropped before they were delivered: the spool or the disk was full",
            ),
            Loss(
                name=f"{name}.rejected",
                count=self._rejected,
                meaning="parcels of data that the other side refuses to take",
            ),
            Loss(
                name=f"{name}.retries",
                count=self._retried,
                meaning="deliveries that failed and were put off; nothing is lost by that alone",
            ),
        )

    def limitation(self) -> str:
        """What is wrong now, and its remedy; empty if nothing is."""
        return self._problem or self._spool.problem

    @property
    def _dropped(self) -> int:
        return self._dropped_before + self._spool.dropped

    def _fail(self, problem: str) -> None:
        """Put the next attempt off. Jitter: a fleet does not come back as one."""
        self._retried += 1
        self._pause = min(max(2 * self._pause, FIRST_PAUSE), LONGEST_PAUSE)
        self._next = self._clock() + max(FIRST_PAUSE, random.uniform(0.5, 1.0) * self._pause)
        if problem != self._problem:
            self._problem = problem
            self._log(logging.ERROR, problem, f"{problem}; it is tried again")

    def _recover(self) -> None:
        self._pause = 0.0
        if self._problem:
            self._problem = ""
            self._log(logging.INFO, "works", "delivers again")

    def _log(self, level: int, kind: str, message: str) -> None:
        """One line of a kind in a while: whoever flaps cannot fill the journal."""
        suppressed = self._limit.take(kind, self._clock())
        if suppressed is not None:
            log.log(level, "Output %s: %s", self._name, told(message, suppressed)[0])
