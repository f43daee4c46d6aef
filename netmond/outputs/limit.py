"""How often messages of one kind may be written: whoever provokes them cannot fill the journal."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

#: At most so many messages of one kind within so many seconds.
BURST = 20
WINDOW = 30.0

#: Kinds told apart; where callers make them up, that many are the limit of all together.
KINDS = 256


@dataclass(slots=True)
class _Allowance:
    began: float
    sent: int = 0
    suppressed: int = 0


class Limit:
    """Counts messages by kind. The clock is the caller's and may be set back."""

    def __init__(self, burst: int = BURST) -> None:
        self._burst = burst
        self._allowances: dict[Hashable, _Allowance] = {}

    def take(self, kind: Hashable, now: float) -> int | None:
        """How many messages of this kind were left out before this one; None if this one is, too."""
        allowance = self._allowances.get(kind)
        if allowance is None:
            if len(self._allowances) >= KINDS:
                self._forget(now)
            if len(self._allowances) >= KINDS:
                return None
            allowance = self._allowances[kind] = _Allowance(now)
        if not self._runs(allowance, now):
            allowance.began, allowance.sent = now, 0
        if allowance.sent >= self._burst:
            allowance.suppressed += 1
            return None
        allowance.sent += 1
        suppressed, allowance.suppressed = allowance.suppressed, 0
        return suppressed

    @staticmethod
    def _runs(allowance: _Allowance, now: float) -> bool:
        return allowance.began <= now < allowance.began + WINDOW

    def _forget(self, now: float) -> None:
        self._allowances = {
            kind: allowance for kind, allowance in self._allowances.items() if self._runs(allowance, now)
        }


def told(message: str, suppressed: int) -> tuple[str, dict[str, str]]:
    """The message and its further fields, with how many were left out before it."""
    if not suppressed:
        return message, {}
    return (
        f"{message} ({suppressed} similar messages left out before)",
        {"NETMOND_SUPPRESSED": str(suppressed)},
    )
