"""The message bus, what it knows of netmond, and polkit."""

from __future__ import annotations

from netmonctl.calls import BUS_TEXTS, NAME, Call
from netmonctl.doctor.facts import Facts, to_bus
from netmonctl.doctor.finding import Finding, failed, ok, unknown, warning
from netmonctl.doctor.host import Host, installing
from netmonctl.errors import CtlError

#: Where the bus reads policies and what it can start: what is in /etc is the administrator's.
POLICIES = ("/usr/share/dbus-1/system.d/org.netmond1.conf", "/etc/dbus-1/system.d/org.netmond1.conf")
ACTIVATION = "/usr/share/dbus-1/system-services/org.netmond1.service"
ACTIONS = "/usr/share/polkit-1/actions/org.netmond1.policy"

POLKIT = "org.freedesktop.PolicyKit1"
_PING = Call(
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.DBus.Peer",
    "Ping",
    destination=POLKIT,
    autostart=True,  # as netmond's own question would
)

_REINSTALL = "reinstall the package netmond"
_ALONE = "only root and members of group netmond may see and change everything"


def bus(host: Host, facts: Facts) -> Finding:
    """Whether there is one."""
    if facts.bus:
        return failed("bus", facts.bus, facts.systemctl("start dbus", "dbus-daemon --system --fork"))
    return ok("bus", "the system bus answers")


def policy(host: Host, facts: Facts) -> Finding:
    """Whether the bus lets netmond have its name, and others talk to it."""
    name = "bus-policy"
    found = [path for path in POLICIES if host.exists(path)]
    if facts.status is not None:
        return ok(name, "netmond has its name, and this user may talk to it", *found)
    if facts.silence == BUS_TEXTS["AccessDenied"]:
        return failed(name, "the bus forbids this user to talk to netmond", _REINSTALL)
    if not found:
        return failed(name, f"there is no {POLICIES[0]}: the bus lets netmond have no name", _REINSTALL)
    return ok(name, f"{found[0]} is there")


def activation(host: Host, facts: Facts) -> Finding:
    """Whether the bus starts netmond when it is called."""
    name = "activation"
    if facts.bus:
        return unknown(name, "there is no bus to ask")
    if not facts.booted:
        return ok(name, "no call starts netmond: that takes systemd")
    if not host.exists(ACTIVATION):
        return warning(name, f"there is no {ACTIVATION}: a call does not start netmond", _REINSTALL)
    try:
        (names,) = host.call(to_bus("ListActivatableNames"))
    except CtlError as error:
        return unknown(name, f"the bus does not tell: {error}")
    if NAME not in names:
        return warning(name, f"the bus has not read {ACTIVATION} yet", "systemctl reload dbus")
    return ok(name, "a call starts netmond while its unit is enabled", ACTIVATION)


def polkit(host: Host, facts: Facts) -> Finding:
    """Whether it is there, answers, and knows netmond's actions."""
    name = "polkit"
    if facts.bus:
        return unknown(name, "there is no bus to ask")
    try:
        running = host.call(to_bus("NameHasOwner", POLKIT))[0]
        (names,) = host.call(to_bus("ListActivatableNames"))
    except CtlError as error:
        return unknown(name, f"the bus does not tell: {error}")
    if not running and POLKIT not in names:
        return warning(name, f"polkit is not installed: {_ALONE}", installing(host, "polkitd", "polkit"))
    try:
        host.call(_PING)
    except CtlError as error:
        return warning(
            name,
            f"polkit does not answer ({error}): {_ALONE}",
            facts.systemctl("restart polkit"),
        )
    if not host.exists(ACTIONS):
        return warning(name, f"polkit answers, but there is no {ACTIONS}: {_ALONE}", _REINSTALL)
    return ok(name, "polkit answers and knows netmond's actions", ACTIONS)


CHECKS = {"bus": bus, "bus-policy": policy, "activation": activation, "polkit": polkit}
