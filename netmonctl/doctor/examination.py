"""All checks in their order. One that cannot look at something is unknown, and the others go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from netmonctl.doctor import bus, cgroups, clock, journal, kernel, rdma, service, sessions, storage
from netmonctl.doctor.facts import Facts, gather
from netmonctl.doctor.features import features
from netmonctl.doctor.finding import Finding, unknown
from netmonctl.doctor.host import Host
from netmonctl.doctor.interfaces import interfaces

Check = Callable[[Host, Facts], Finding]

SECTIONS: Mapping[str, Mapping[str, Check]] = {
    "Service": service.CHECKS | bus.CHECKS,
    "Kernel": kernel.CHECKS | cgroups.CHECKS | sessions.CHECKS,
    "Surroundings": storage.CHECKS | journal.CHECKS | clock.CHECKS | rdma.CHECKS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Findings that belong together."""

    title: str
    findings: tuple[Finding, ...]


def examine(host: Host) -> list[Section]:
    """Looks at everything: features, then what they depend on, then interfaces. Never raises."""
    facts = gather(host)
    sections = [
        Section(title=title, findings=tuple(_look(name, checks[name], host, facts) for name in checks))
        for title, checks in SECTIONS.items()
    ]
    found = {finding.name: finding for section in sections for finding in section.findings}
    devices = _interfaces(host, facts)
    return [
        Section(title="Features", findings=tuple(features(facts, found, devices))),
        *sections,
        Section(title="Interfaces", findings=tuple(devices)),
    ]


def _look(name: str, check: Check, host: Host, facts: Facts) -> Finding:
    try:
        return check(host, facts)
    except OSError as error:
        return _unseen(name, error, host)


def _interfaces(host: Host, facts: Facts) -> list[Finding]:
    try:
        return list(interfaces(host, facts))
    except OSError as error:
        return [_unseen("interfaces", error, host)]


def _unseen(name: str, error: OSError, host: Host) -> Finding:
    what = f"{error.filename}: " if error.filename else ""
    if isinstance(error, PermissionError) and host.uid:
        return unknown(name, f"{what}only root may look", "sudo netmonctl doctor")
    return unknown(name, f"{what}{error.strerror or error}")
