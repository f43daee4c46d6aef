"""The clock, by which logs are dated."""

from __future__ import annotations

from netmonctl.doctor.facts import Facts
from netmonctl.doctor.finding import Finding, ok, warning
from netmonctl.doctor.host import Host, installing


def clock(host: Host, facts: Facts) -> Finding:
    """Whether something keeps it right, as the kernel knows it."""
    found = host.clock()
    if not found.synchronised:
        return warning(
            "clock",
            "nothing keeps the clock right: the times in logs may be wrong, the figures are not",
            "timedatectl set-ntp true" if facts.booted else installing(host, "chrony"),
        )
    return ok("clock", "synchronised", f"by at most {found.max_error:.3g} s wrong")


CHECKS = {"clock": clock}
