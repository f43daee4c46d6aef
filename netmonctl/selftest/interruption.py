"""Being interrupted only where that is convenient, so that everything is always taken away."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Within the block these signals are only noted, until check() is called or the block is left."""

    def __init__(self) -> None:
        self._number = 0
        self._before: list[tuple[signal.Signals, object]] = []

    def __enter__(self) -> Interruption:
        self._before = [(number, signal.signal(number, self._note)) for number in _SIGNALS]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)  # type: ignore[arg-type]
        if kind is None:
            self.check()

    def check(self) -> None:
        """Ends the test if it was interrupted."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._number:
            sys.exit(128 + self._number)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._number = self._number or number
