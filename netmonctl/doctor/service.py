"""The daemon: whether it is installed, runs, answers, and has what it needs."""

from __future__ import annotations

import re

from netmonctl import __version__
from netmonctl.calls import NAME
from netmonctl.doctor.facts import UNIT, Facts
from netmonctl.doctor.finding import Finding, failed, ok, unknown, warning
from netmonctl.doctor.host import Host, installing, text
from netmonctl.doctor.journal import last_words
from netmonctl.render import plural

#: What the daemon needs, by its number in capabilities(7); SYS_ADMIN stands for those it was once part of.
NEEDED = {"CAP_NET_ADMIN": 12, "CAP_PERFMON": 38, "CAP_BPF": 39}
_SYS_ADMIN, _PARTS_OF_SYS_ADMIN = 21, {"CAP_PERFMON", "CAP_BPF"}

#: Since 5.11 the memory of maps is charged to the control group.
_CHARGED = (5, 11)
_MEMLOCK = 64 << 20  #: bytes that the maps fit in with the default sizes

_PROGRAMS = ("/usr/sbin/netmond", "/usr/bin/netmond")
_NO_PROCESS = "there is neither a process nor a unit of netmond's to look at"
_LOOK = f"journalctl -u {UNIT} -b"


def service(host: Host, facts: Facts) -> Finding:
    """What the service manager thinks of the unit."""
    name, unit = "service", facts.unit
    if not facts.booted or unit.get("LoadState") == "not-found":
        return _without_unit(host, facts)
    if not unit:
        return unknown(name, "systemctl cannot tell about the unit")
    if unit.get("LoadState") == "masked":
        until_boot = "--runtime " if unit.get("UnitFileState") == "masked-runtime" else ""
        remedy = f"systemctl unmask {until_boot}{UNIT} && systemctl start {UNIT}"
        return failed(name, f"{UNIT} is masked", remedy)
    state = f"{unit.get('ActiveState')} ({unit.get('SubState')})"
    if facts.active:
        return _running(name, facts, state)
    if unit.get("ActiveState") == "inactive":
        wanted = "enable --now" if unit.get("UnitFileState") == "disabled" else "start"
        return failed(name, f"{UNIT} is stopped", f"systemctl {wanted} {UNIT}")
    if unit.get("ActiveState") == "deactivating":
        return warning(name, f"{UNIT} is just being stopped")
    if facts.starting:
        return warning(name, f"{UNIT} is just being started", f"if that does not end: {_LOOK}")
    words = last_words(host, facts)
    return failed(
        name,
        f"{UNIT} does not start: {state}, {_end(facts)}: {words[-1].removeprefix('netmond: ')}",
        f"remove the cause, then: systemctl reset-failed {UNIT}; systemctl start {UNIT}",
        words,
    )


def _without_unit(host: Host, facts: Facts) -> Finding:
    name = "service"
    why = f"{UNIT} is not installed" if facts.booted else "systemd is not in charge here"
    if facts.status is not None:
        return ok(name, f"runs, but not as a service: {why}", f"pid {facts.pid}")
    if not any(host.exists(path) for path in _PROGRAMS):
        cause = f"is not installed: there is no {_PROGRAMS[0]}; {why}"
        return failed(name, cause, installing(host, "netmond"))
    if facts.bus:
        return unknown(name, f"{why}, and {facts.bus}")
    return failed(name, f"does not run; {why}", "netmond &")


def _running(name: str, facts: Facts, state: str) -> Finding:
    unit = facts.unit
    details = (f"since {unit.get('ActiveEnterTimestamp')}, pid {unit.get('MainPID')}",)
    if unit.get("NeedDaemonReload") == "yes":
        return warning(
            name,
            f"{state}, but its unit file has changed since it was started",
            f"systemctl daemon-reload && systemctl restart {UNIT}",
            details,
        )
    if facts.restarts:
        return warning(
            name, f"{state}, but systemd had to restart it {plural(facts.restarts, 'time')}", _LOOK, details
        )
    return ok(name, state, *details)


def _end(facts: Facts) -> str:
    """How it ended, in systemd's words."""
    status = facts.unit.get("ExecMainStatus", "0")
    result = facts.unit.get("Result", "")
    return f"{result}, status {status}" if status != "0" else result


def autostart(host: Host, facts: Facts) -> Finding:
    """Whether it comes with the machine."""
    name, state = "autostart", facts.unit.get("UnitFileState", "")
    if not state:
        return unknown(name, f"{UNIT} is not there" if facts.booted else "systemd is not in charge here")
    if state.startswith(("disabled", "masked")):
        return warning(name, "netmond does not start with the machine", f"systemctl enable {UNIT}")
    return ok(name, "netmond starts with the machine", state)


def daemon(host: Host, facts: Facts) -> Finding:
    """Whether it answers."""
    name = "daemon"
    if facts.bus:
        return unknown(name, "there is no bus to ask it on")
    if facts.stopped:
        return failed(name, f"there is no {NAME} on the bus")
    if facts.starting:
        return warning(name, "does not answer yet: it is starting")
    if facts.status is None:
        return failed(name, facts.silence, _LOOK)
    return ok(name, f"answers, has read the counters {plural(facts.status['tick'], 'time')}")


def versions(host: Host, facts: Facts) -> Finding:
    """Whether daemon and client are of one release."""
    name = "versions"
    if facts.status is None:
        return unknown(name, f"netmonctl is {__version__}; netmond does not tell")
    running = str(facts.status["version"])
    if running != __version__:
        return warning(
            name,
            f"netmond is {running}, netmonctl {__version__}",
            f"install the same version of both, then: systemctl restart {UNIT}",
        )
    return ok(name, f"netmond and netmonctl are {running}")


def capabilities(host: Host, facts: Facts) -> Finding:
    """What the running daemon may do; of a stopped one, what the unit would give it."""
    name = "capabilities"
    if facts.pid:
        status = text(host, f"/proc/{facts.pid}/status")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
        if found is None:
            return unknown(name, f"/proc/{facts.pid}/status does not tell")
        whose, has = "the daemon has", _names(int(found[1], 16))
    elif facts.unit.get("LoadState") == "loaded":
        whose, has = "the unit gives", _given(facts)
    else:
        return unknown(name, _NO_PROCESS)
    missing = [each for each in NEEDED if each not in has]
    if missing:
        return failed(
            name,
            f"{whose} no {', '.join(missing)}: its programs cannot be loaded",
            facts.systemctl(f"revert {UNIT} && systemctl restart {UNIT}", "run netmond as root"),
        )
    return ok(name, f"{whose} all it needs", ", ".join(NEEDED))


def _names(mask: int) -> set[str]:
    """Those of NEEDED that are in a mask of proc_pid_status(5)."""
    whole = _PARTS_OF_SYS_ADMIN if mask >> _SYS_ADMIN & 1 else set()
    return whole | {name for name, number in NEEDED.items() if mask >> number & 1}


def _given(facts: Facts) -> set[str]:
    """What a process of the unit starts with: root all that is not forbidden, others what is passed on."""
    bounding = set(facts.unit.get("CapabilityBoundingSet", "").upper().split())
    if facts.unit.get("User", "") in ("", "root"):
        return bounding
    return bounding & set(facts.unit.get("AmbientCapabilities", "").upper().split())


def memory_lock(host: Host, facts: Facts) -> Finding:
    """Whether a limit on locked memory is in the way of the maps."""
    name = "memory-lock"
    if facts.kernel >= _CHARGED:
        return ok(name, "since Linux 5.11 no limit on locked memory concerns programs")
    if facts.pid:
        limits = text(host, f"/proc/{facts.pid}/limits")
        found = re.search(r"^Max locked memory +(\S+)", limits, re.MULTILINE)
        limit = found[1] if found else ""
    else:
        limit = facts.unit.get("LimitMEMLOCK", "")
    if not limit:
        return unknown(name, _NO_PROCESS)
    if limit.isdecimal() and int(limit) < _MEMLOCK:
        return warning(
            name,
            f"the daemon may lock {int(limit) >> 20} MiB only: before Linux 5.11 tables do not fit",
            f"systemctl edit {UNIT}, with the lines [Service] and LimitMEMLOCK=infinity",
        )
    return ok(name, f"the daemon may lock enough memory ({limit})")


def losses(host: Host, facts: Facts) -> Finding:
    """Whether anything could not be counted, attributed or delivered."""
    name = "losses"
    if facts.status is None:
        return unknown(name, "netmond does not tell")
    counted = [loss for loss in facts.status["losses"] if loss["count"]]
    if not counted:
        return ok(name, "nothing is lost", f"{len(facts.status['losses'])} counters are zero")
    lines = tuple(f"{loss['count']} {loss['name']}: {loss['meaning']}" for loss in counted)
    more = f"; {len(lines) - 1} more, see --verbose" if len(lines) > 1 else ""
    return warning(name, f"{lines[0]}{more}", "man netmond, LOSSES: which limit to raise", lines)


CHECKS = {
    "service": service,
    "autostart": autostart,
    "daemon": daemon,
    "versions": versions,
    "capabilities": capabilities,
    "memory-lock": memory_lock,
    "losses": losses,
}
