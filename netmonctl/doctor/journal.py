"""The journal: where netmond's messages go, and what its last ones were."""

from __future__ import annotations

import re

from netmonctl.doctor.facts import UNIT, Facts
from netmonctl.doctor.finding import Finding, ok, warning
from netmonctl.doctor.host import Host

SOCKET = "/run/systemd/journal/socket"
PERSISTENT = "/var/log/journal"

_OPTIONS = ("--quiet", "--no-pager", "--boot", "--output=cat", "--lines=5")

#: What systemd says because it has failed, not why.
_CONSEQUENCE = re.compile(r"^Failed to start |: Failed with result |: Start request repeated too quickly")


def journal(host: Host, facts: Facts) -> Finding:
    """Whether it is there, and outlasts a boot."""
    name = "journal"
    if not host.exists(SOCKET):
        return warning(
            name,
            f"journald is not running (there is no {SOCKET}): messages go to standard error only",
            facts.systemctl("start systemd-journald.socket"),
        )
    if not host.exists(PERSISTENT):
        return warning(
            name,
            "journald is running, but its messages are gone after a boot",
            f"mkdir -p {PERSISTENT} && journalctl --flush",
        )
    return ok(name, "journald is running and keeps its messages over a boot", PERSISTENT)


def last_words(host: Host, facts: Facts) -> tuple[str, ...]:
    """What netmond said last, or why that cannot be told; at least one line, the oldest first."""
    try:
        for matches in _matches(facts):
            ran = host.run("journalctl", *_OPTIONS, *matches)
            if lines := [line for line in ran.out.splitlines() if line and not _CONSEQUENCE.search(line)]:
                return tuple(lines)
    except OSError as error:
        return (f"the journal cannot be read: {error.strerror or error}",)
    if host.uid:
        return ("the journal tells why; to read it takes root or group adm or systemd-journal",)
    return (f"the journal has nothing about {UNIT} since the boot",)


def _matches(facts: Facts) -> list[list[str]]:
    """Where to look: what this run said; what earlier ones said, if it is one of many; what systemd said."""
    found = []
    if invocation := facts.unit.get("InvocationID"):
        found.append([f"_SYSTEMD_INVOCATION_ID={invocation}"])
    if facts.restarts:
        found.append([f"_SYSTEMD_UNIT={UNIT}"])
    return [*found, [f"--unit={UNIT}", "--priority=warning"]]


CHECKS = {"journal": journal}
