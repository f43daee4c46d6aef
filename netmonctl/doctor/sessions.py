"""What captures and paths take beyond the meter's needs: libpcap, and ways to see the kernel's functions."""

from __future__ import annotations

from netmonctl.doctor.facts import UNIT, Facts
from netmonctl.doctor.finding import Finding, ok, unknown, warning
from netmonctl.doctor.host import Host, installing, text
from netmonctl.doctor.kernel import build_options, has_option

#: Names of libpcap: Debian's, and those of others.
LIBPCAP = ("libpcap.so.0.8", "libpcap.so.1")

#: What fentry takes (kernel/bpf/trampoline.c), and where the kernel tells that it has kprobes.
_FENTRY = ("CONFIG_FUNCTION_TRACER", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS")
KPROBES = "/sys/bus/event_source/devices/kprobe/type"

#: perf_event_open(2), by which kprobes come: above 2 Debian's and others' kernels refuse all but root.
PARANOID = "/proc/sys/kernel/perf_event_paranoid"
_SYSTEM_CALL, _ALLOWED = "perf_event_open", 2

_OTHERS = "stages of a path that are functions have other hooks, or none: netmonctl path -d"


def libpcap(host: Host, facts: Facts) -> Finding:
    """Whether captures can have filters."""
    name = "libpcap"
    for library in LIBPCAP:
        if host.loads(library):
            return ok(name, "the library that translates filters is there", library)
    return warning(
        name, "there is no libpcap: captures cannot have filters", installing(host, "libpcap0.8", "libpcap")
    )


def probes(host: Host, facts: Facts) -> Finding:
    """How functions of the kernel can be seen: by fentry, else by kprobes, which somebody has to allow.

    What a kernel is built with it may still refuse; that tells only who tries, which is the path itself.
    """
    name = "probes"
    try:
        built, where = build_options(host)
    except OSError:
        return unknown(name, f"neither /proc/config.gz nor /boot/config-{host.release} can be read here")
    if all(has_option(built, option) for option in _FENTRY):
        return ok(
            name,
            "functions of the kernel can be seen by fentry",
            f"{where}: {', '.join(_FENTRY)}",
            "netmonctl path -d tells by what each stage is seen",
        )
    if not host.exists(KPROBES):
        return warning(
            name,
            f"the kernel has neither fentry nor kprobes: {_OTHERS}",
            f"boot a kernel built with {' and '.join(_FENTRY)}, or with CONFIG_KPROBES",
        )
    hindrances = list(_hindrances(host, facts))
    if not hindrances:
        return ok(name, "functions of the kernel can be seen by kprobes", KPROBES)
    causes, remedies = zip(*hindrances, strict=True)
    return warning(
        name,
        f"functions could be seen by kprobes only, and {' and '.join(causes)}: {_OTHERS}",
        "; ".join(remedies),
    )


def _hindrances(host: Host, facts: Facts) -> list[tuple[str, str]]:
    """What forbids kprobes to the daemon, and what allows them."""
    found = []
    calls = facts.unit.get("SystemCallFilter", "")  # those allowed, or behind a tilde those that are not
    if calls and (_SYSTEM_CALL in calls.removeprefix("~").split()) == calls.startswith("~"):
        lines = f"[Service] and SystemCallFilter={_SYSTEM_CALL}"
        edit = f"systemctl edit {UNIT}, with the lines {lines}, then: systemctl restart {UNIT}"
        found.append(("its sandbox forbids them", edit))
    paranoid = text(host, PARANOID)
    if paranoid.lstrip("-").isdecimal() and int(paranoid) > _ALLOWED:
        found.append((f"{PARANOID} is {paranoid}", f"sysctl -w kernel.perf_event_paranoid={_ALLOWED}"))
    return found


CHECKS = {"libpcap": libpcap, "probes": probes}
