"""The parts of netmond, each with the checks it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from netmonctl.doctor.facts import UNIT, Facts
from netmonctl.doctor.finding import Finding, Severity

_PROGRAMS = ("kernel", "btf", "hooks", "capabilities", "memory-lock", "jit")

#: What each takes. Others, like outputs from elsewhere, are known by what netmond says only.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "meter": (*_PROGRAMS, "cgroups", "tracing", "lockdown"),
    "interfaces": _PROGRAMS,
    "targets": _PROGRAMS,
    "packetlog": (*_PROGRAMS, "log-directory"),
    "capture": (*_PROGRAMS, "libpcap"),
    "path": (*_PROGRAMS, "tracing", "lockdown", "probes"),
    "rdma": ("rdma",),
    "restart": ("bpffs", "run-directory"),
    "bus": ("bus", "bus-policy", "activation"),
    "polkit": ("polkit",),
    "output.csv": ("log-directory", "state-directory", "clock"),
    "output.journal": ("journal",),
}

#: What netmond says of a part that nobody wants or has a use for, and parts that a machine may do without.
_UNWANTED = ("disabled by configuration", "switched off by", "no RDMA device")
_OPTIONAL = ("polkit", "restart")

_SEVERITIES = {"on": Severity.FINE, "degraded": Severity.WARNING, "off": Severity.FAILED}


def features(facts: Facts, checks: Mapping[str, Finding], devices: Sequence[Finding]) -> list[Finding]:
    """One finding for each. checks: what was found about all else, by name; devices: about interfaces."""
    if facts.status is None:
        return [_silent(name, facts, checks) for name in NEEDS]
    return [
        _feature(feature["name"], feature["state"], feature["reason"], checks, devices)
        for feature in facts.status["features"]
    ]


def _feature(
    name: str, state: str, reason: str, checks: Mapping[str, Finding], devices: Sequence[Finding]
) -> Finding:
    severity = _SEVERITIES.get(state, Severity.WARNING)
    if state == "off" and reason.startswith(_UNWANTED):
        severity = Severity.FINE
    elif state == "off" and name in _OPTIONAL:
        severity = Severity.WARNING
    finding = Finding(name=name, severity=severity, state=state, cause=reason, needs=NEEDS.get(name, ()))
    if severity is Severity.FINE:
        return finding
    broken = [each for each in devices if f"{each.name}: " in reason] if name == "interfaces" else []
    broken += _broken(name, checks)
    look = f"journalctl -u {UNIT} -b" if severity is Severity.FAILED else ""
    remedy = next((each.remedy for each in broken if each.remedy), look)
    return replace(finding, remedy=remedy, details=_lines(broken))


def _silent(name: str, facts: Facts, checks: Mapping[str, Finding]) -> Finding:
    """Nobody says how it is. If netmond does not run it is off, and could have what it needs, or not."""
    broken = [each for each in _broken(name, checks) if each.severity is Severity.FAILED]
    hindered = [each for each in broken if each.name not in ("bus", "bus-policy") or name == "bus"]
    cause = "netmond does not run" if facts.stopped else "netmond does not tell"
    if hindered:
        cause += f", and could not do it: see {', '.join(each.name for each in hindered)}"
    return Finding(
        name=name,
        severity=Severity.WARNING if facts.stopped else Severity.UNKNOWN,
        state="off" if facts.stopped else "",
        cause=cause,
        remedy=next((each.remedy for each in hindered if each.remedy), ""),
        details=_lines(hindered),
        needs=NEEDS[name],
    )


def _broken(name: str, checks: Mapping[str, Finding]) -> list[Finding]:
    """What it needs and does not have, the worst first."""
    found = [checks[need] for need in NEEDS.get(name, ()) if need in checks]
    bad = [each for each in found if each.severity in (Severity.FAILED, Severity.WARNING)]
    return sorted(bad, key=lambda each: each.severity is not Severity.FAILED)


def _lines(findings: list[Finding]) -> tuple[str, ...]:
    return tuple(f"{each.name}: {each.cause}" for each in findings)
