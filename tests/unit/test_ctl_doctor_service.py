"""What netmonctl doctor finds out about the daemon, its unit, the bus and polkit."""

from __future__ import annotations

import pytest

from netmonctl.calls import BUS_TEXTS
from netmonctl.doctor.finding import Severity
from netmonctl.errors import CtlError
from tests.unit.patient import (
    NO_BUS,
    Case,
    Patient,
    assert_found,
    both,
    described,
    file,
    forbidden,
    gone,
    release,
    reply,
    stopped,
    unit,
    without_systemd,
)

WARNING, FAILED, UNKNOWN, FINE = Severity.WARNING, Severity.FAILED, Severity.UNKNOWN, Severity.FINE

POLICY = "/usr/share/dbus-1/system.d/org.netmond1.conf"
ACTIVATION = "/usr/share/dbus-1/system-services/org.netmond1.service"


SERVICE: dict[str, Case] = {
    "stopped": (stopped(), "service", FAILED, "netmond.service is stopped", "systemctl start netmond"),
    "stopped and disabled": (
        stopped(UnitFileState="disabled"), "service", FAILED, "is stopped", "systemctl enable --now netmond",
    ),
    "masked": (stopped(LoadState="masked"), "service", FAILED, "masked", "systemctl unmask netmond.service"),
    "masked until the next boot": (
        stopped(LoadState="masked", UnitFileState="masked-runtime"),
        "service", FAILED, "masked", "systemctl unmask --runtime netmond.service",
    ),
    "being stopped": (
        stopped(ActiveState="deactivating", SubState="stop-sigterm"),
        "service", WARNING, "being stopped", "",
    ),
    "being started": (
        stopped(ActiveState="activating", SubState="start", MainPID="411"),
        "service", WARNING, "is just being started", "journalctl -u netmond",
    ),
    "unit file changed": (unit(NeedDaemonReload="yes"), "service", WARNING, "has changed", "daemon-reload"),
    "restarted": (unit(NRestarts="3"), "service", WARNING, "had to restart it 3 times", "journalctl"),
    "systemctl is dumb": (lambda patient: patient.unit.clear(), "service", UNKNOWN, "cannot tell", ""),
    "not installed": (
        both(stopped(LoadState="not-found"), gone("/usr/sbin/netmond")),
        "service", FAILED, "is not installed", "apt install netmond",
    ),
    "not installed on Fedora": (
        both(stopped(LoadState="not-found"), gone("/usr/sbin", "/usr/bin"), file("/usr/bin/dnf", "")),
        "service", FAILED, "is not installed", "dnf install netmond",
    ),
    "not installed elsewhere": (
        both(stopped(LoadState="not-found"), gone("/usr/sbin/netmond", "/usr/bin")),
        "service", FAILED, "is not installed", "install the package netmond",
    ),
    "without its unit": (unit(LoadState="not-found"), "service", FINE, "not as a service", ""),
    "without systemd": (without_systemd, "service", FINE, "systemd is not in charge here", ""),
    "stopped without systemd": (
        both(without_systemd, stopped()),
        "service", FAILED, "does not run; systemd is not in charge", "netmond &",
    ),
    "nobody to ask": (
        both(without_systemd, reply("GetId", NO_BUS)),
        "service", UNKNOWN, "cannot reach the system bus (No such", "",
    ),
    "disabled": (unit(UnitFileState="disabled"), "autostart", WARNING, "does not start", "systemctl enable"),
    "no autostart to know": (without_systemd, "autostart", UNKNOWN, "systemd is not in charge here", ""),
    "nobody there": (stopped(), "daemon", FAILED, "there is no org.netmond1 on the bus", ""),
    "starting": (
        stopped(ActiveState="activating", SubState="start", MainPID="411"),
        "daemon", WARNING, "does not answer yet", "",
    ),
    "hangs": (
        reply("Describe", CtlError("netmond did not answer within 25 s")),
        "daemon", FAILED, "did not answer within 25 s", "journalctl -u netmond",
    ),
    "of another time": (
        lambda patient: patient.status.pop("losses"),
        "daemon", FAILED, "says nothing of its losses: it is too old or too new", "",
    ),
    "speaks nonsense": (reply("Describe", ["{"]), "daemon", FAILED, "Expecting property name", ""),
    "older": (
        described(version="0.0.9"),
        "versions", WARNING, "netmond is 0.0.9, netmonctl", "systemctl restart",
    ),
    "a capability less": (
        file("/proc/411/status", f"CapEff:\t{1 << 12 | 1 << 39:016x}\n"),
        "capabilities", FAILED, "the daemon has no CAP_PERFMON", "systemctl revert netmond",
    ),
    "an old name for two": (
        file("/proc/411/status", f"CapEff:\t{1 << 12 | 1 << 21:016x}\n"),
        "capabilities", FINE, "has all", "",
    ),
    "other processes hidden": (
        both(forbidden("/proc/411/status")),
        "capabilities", UNKNOWN, "/proc/411/status: only root may look", "sudo",
    ),
    "a process that tells nothing": (
        file("/proc/411/status", ""),
        "capabilities", UNKNOWN, "does not tell", "",
    ),
    "stopped, and capable": (stopped(), "capabilities", FINE, "the unit gives all it needs", ""),
    "stopped, and incapable": (
        stopped(AmbientCapabilities="cap_bpf cap_perfmon"),
        "capabilities", FAILED, "the unit gives no CAP_NET_ADMIN", "systemctl revert",
    ),
    "stopped, as root": (stopped(User="", AmbientCapabilities=""), "capabilities", FINE, "gives all", ""),
    "no process to look at": (
        both(without_systemd, stopped()), "capabilities", UNKNOWN, "neither a process nor a unit", "",
    ),
    "nothing to lock": (release("5.11.0"), "memory-lock", FINE, "since Linux 5.11 no limit", ""),
    "little to lock": (
        release("5.10.0-8-amd64"), "memory-lock", WARNING, "may lock 8 MiB only", "LimitMEMLOCK=infinity",
    ),
    "enough to lock": (
        both(release("5.10.0-8-amd64"), file("/proc/411/limits", "Max locked memory   unlimited\n")),
        "memory-lock", FINE, "unlimited", "",
    ),
    "little to lock, when started": (
        both(release("5.10.0-8-amd64"), stopped()), "memory-lock", WARNING, "may lock 8 MiB only", "",
    ),
    "no limit to know": (
        both(release("5.10.0-8-amd64"), without_systemd, stopped()), "memory-lock", UNKNOWN, "neither", "",
    ),
    "losses": (
        described(losses=[{"name": name, "count": count, "meaning": "lost"} for name, count in
                          (("a", 0), ("meter.x", 23), ("output.y", 7))]),
        "losses", WARNING, "23 meter.x: lost; 1 more", "LOSSES",
    ),
    "no bus": (reply("GetId", NO_BUS), "bus", FAILED, "cannot reach the system bus", "systemctl start dbus"),
    "no policy": (both(stopped(), gone(POLICY)), "bus-policy", FAILED, f"there is no {POLICY}", "reinstall"),
    "the administrator's policy": (
        both(stopped(), gone(POLICY), file("/etc/dbus-1/system.d/org.netmond1.conf", "")),
        "bus-policy", FINE, "/etc/dbus-1/system.d/org.netmond1.conf is there", "",
    ),
    "forbidden by the bus": (
        reply("Describe", CtlError(BUS_TEXTS["AccessDenied"])), "bus-policy", FAILED, "forbids", "reinstall",
    ),
    "no activation": (gone(ACTIVATION), "activation", WARNING, "a call does not start netmond", "reinstall"),
    "activation not read": (
        reply("ListActivatableNames", [["org.freedesktop.PolicyKit1"]]),
        "activation", WARNING, "has not read", "systemctl reload dbus",
    ),
    "activation without systemd": (without_systemd, "activation", FINE, "that takes systemd", ""),
    "nobody to activate": (reply("GetId", NO_BUS), "activation", UNKNOWN, "there is no bus", ""),
    "no polkit": (
        both(reply("NameHasOwner", [False]), reply("ListActivatableNames", [["org.netmond1"]])),
        "polkit", WARNING, "polkit is not installed: only root and members", "apt install polkitd",
    ),
    "polkit is ill": (
        reply("Ping", CtlError("it crashed")),
        "polkit", WARNING, "does not answer (it crashed)", "restart polkit",
    ),
    "polkit is asleep": (reply("NameHasOwner", [False]), "polkit", FINE, "polkit answers", ""),
    "no actions": (
        gone("/usr/share/polkit-1"),
        "polkit", WARNING, "there is no /usr/share/polkit-1/actions", "reinstall",
    ),
    "no bus for polkit": (reply("GetId", NO_BUS), "polkit", UNKNOWN, "there is no bus", ""),
    "a bus that tells nothing": (
        reply("ListActivatableNames", CtlError("no")), "polkit", UNKNOWN, "the bus does not tell: no", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SERVICE.values(), ids=SERVICE)
def test_finds(case: Case) -> None:
    """Each thing that may be wrong with the daemon and who it talks to."""
    assert_found("service", case)


# -- why it does not start ---------------------------------------------------------------------------------


CAUSE = "netmond: /etc/netmond/netmond.toml: daemon.interval = 0: must be a number from 0.1 to 60\n"


def failing(**unit: str) -> Patient:
    patient = Patient()
    state = {"ActiveState": "failed", "SubState": "failed"}
    patient.stop(**{**state, "Result": "exit-code", "ExecMainStatus": "1", **unit})
    return patient


def test_why_it_fails() -> None:
    """The last thing the daemon said in that run, without systemd's view of it."""
    patient = failing()
    patient.programs["journalctl"] = lambda *words: CAUSE if "_SYSTEMD_INVOCATION_ID=17aa3" in words else ""

    found = patient.examine()["service.service"]

    assert found.severity is FAILED
    assert found.cause == (
        "netmond.service does not start: failed (failed), exit-code, status 1: /etc/netmond/netmond.toml:"
        " daemon.interval = 0: must be a number from 0.1 to 60"
    )
    assert "systemctl reset-failed netmond.service; systemctl start netmond.service" in found.remedy


def test_why_it_fails_again_and_again() -> None:
    """Between two attempts, or at the beginning of one, what earlier ones said counts."""
    patient = failing(ActiveState="activating", SubState="start", NRestarts="4", MainPID="411")
    patient.programs["journalctl"] = lambda *words: CAUSE if "_SYSTEMD_UNIT=netmond.service" in words else ""

    assert "must be a number" in patient.examine()["service.service"].cause


def test_why_it_cannot_be_executed() -> None:
    """Where the daemon never came to say anything, systemd's complaint; not its consequences."""
    said = (
        "netmond.service: Failed at step EXEC spawning /usr/sbin/netmond: No such file or directory\n"
        "netmond.service: Failed with result 'exit-code'.\n"
        "Failed to start netmond.service - Network monitor.\n"
    )
    patient = failing(ExecMainStatus="203")
    patient.programs["journalctl"] = lambda *words: said if "--priority=warning" in words else ""

    cause = patient.examine()["service.service"].cause

    assert cause.endswith("status 203: " + said.splitlines()[0])


@pytest.mark.parametrize(
    ("uid", "journalctl", "cause"),
    [
        (1000, "", "the journal tells why; to read it takes root or group adm or systemd-journal"),
        (0, "", "the journal has nothing about netmond.service since the boot"),
        (0, None, "the journal cannot be read: No such file or directory"),
    ],
)
def test_why_it_fails_is_not_to_be_had(uid: int, journalctl: str | None, cause: str) -> None:
    """Then it says so."""
    patient = failing()
    patient.uid = uid
    patient.programs["journalctl"] = journalctl

    assert patient.examine()["service.service"].cause.endswith(f"status 1: {cause}")
