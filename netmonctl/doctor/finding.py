"""What a check finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Severity(Enum):
    """How bad it is. Only FAILED makes the whole unwell."""

    FINE = "fine"
    WARNING = "warning"  #: it works, but not all of it, or not as well as it could
    UNKNOWN = "unknown"  #: it cannot be looked at from here
    FAILED = "failed"


_WORDS = {Severity.FINE: "ok"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    state: as shown: ok, warning, unknown, failed; on, degraded, off for a feature
    cause: what was found, in a line; remedy: what to type, or to do, about it
    details: lines for whoever wants to know more
    needs: names of the checks a feature depends on
    """

    name: str
    severity: Severity
    cause: str
    remedy: str = ""
    state: str = ""
    details: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return self.state or _WORDS.get(self.severity, self.severity.value)

    def plain(self) -> dict[str, Any]:
        """As values that json.dumps takes."""
        return {**asdict(self), "severity": self.severity.value, "state": self.word}


def ok(name: str, cause: str, *details: str) -> Finding:
    return Finding(name=name, severity=Severity.FINE, cause=cause, details=details)


def warning(name: str, cause: str, remedy: str = "", details: tuple[str, ...] = ()) -> Finding:
    return Finding(name=name, severity=Severity.WARNING, cause=cause, remedy=remedy, details=details)


def failed(name: str, cause: str, remedy: str = "", details: tuple[str, ...] = ()) -> Finding:
    return Finding(name=name, severity=Severity.FAILED, cause=cause, remedy=remedy, details=details)


def unknown(name: str, cause: str, remedy: str = "") -> Finding:
    return Finding(name=name, severity=Severity.UNKNOWN, cause=cause, remedy=remedy)
