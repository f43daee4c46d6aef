"""What the kernel must have, and what makes its part of netmond slower or poorer."""

from __future__ import annotations

import gzip
import re

from netmonctl.doctor.facts import Facts
from netmonctl.doctor.finding import Finding, failed, ok, unknown, warning
from netmonctl.doctor.host import Host, text

BTF = "/sys/kernel/btf/vmlinux"
LOCKDOWN = "/sys/kernel/security/lockdown"
JIT, HARDEN = "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_harden"
UNPRIVILEGED = "/proc/sys/kernel/unprivileged_bpf_disabled"

OLDEST = (5, 10)
WITH_TCX = (6, 6)

#: What the programs cannot be attached without, and what is missing then.
_HOOKS = {"CONFIG_BPF_SYSCALL": "everything", "CONFIG_CGROUP_BPF": "the counting of sockets"}
_TC_HOOKS = {"CONFIG_NET_CLS_ACT": "interfaces and targets", "CONFIG_NET_CLS_BPF": "interfaces and targets"}
_TCX_HOOKS = {"CONFIG_NET_XGRESS": "interfaces and targets"}

#: Kernel functions that programs trace, and what is missing without.
_TRACED = {"bpf_iter_task_file": "sockets older than netmond have no process"}


def kernel(host: Host, facts: Facts) -> Finding:
    """The version."""
    name, cause = "kernel", f"Linux {host.release}"
    if facts.kernel == (0, 0):
        return unknown(name, f"{cause}: the release tells no version")
    if facts.kernel < OLDEST:
        return failed(name, f"{cause}; netmond needs 5.10 or newer", "upgrade the kernel and boot it")
    if facts.kernel < WITH_TCX:
        return ok(name, cause, "before 6.6: interfaces are watched by tc filters, not by tcx links")
    return ok(name, cause)


def btf(host: Host, facts: Facts) -> Finding:
    """The kernel's own type information, which stands in for headers."""
    name = "btf"
    if host.exists(BTF):
        return ok(name, "type information of the kernel is there", BTF)
    if not host.exists("/sys/kernel"):
        return unknown(name, "/sys is not mounted here", "mount -t sysfs sysfs /sys")
    return failed(
        name,
        f"the kernel has no type information: there is no {BTF}",
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as Debian's are",
    )


def hooks(host: Host, facts: Facts) -> Finding:
    """What the kernel was built with."""
    name = "hooks"
    try:
        config, where = build_options(host)
    except OSError:
        return unknown(name, f"neither /proc/config.gz nor /boot/config-{host.release} can be read here")
    wanted = _HOOKS | (_TC_HOOKS if facts.kernel < WITH_TCX else _TCX_HOOKS)
    missing = {option: loss for option, loss in wanted.items() if not has_option(config, option)}
    if missing:
        losses = ", ".join(dict.fromkeys(missing.values()))
        return failed(
            name,
            f"the kernel was built without {', '.join(missing)}: {losses} cannot work",
            "boot a kernel that has them, as Debian's do",
        )
    return ok(name, "the kernel has all that programs are attached to", f"{where}: {', '.join(wanted)}")


def build_options(host: Host) -> tuple[str, str]:
    """What the kernel was built with, and which file says so."""
    try:
        return gzip.decompress(host.read("/proc/config.gz")).decode(), "/proc/config.gz"
    except FileNotFoundError:
        path = f"/boot/config-{host.release}"
        return text(host, path), path


def has_option(config: str, option: str) -> bool:
    return re.search(rf"^{option}=[ym]$", config, re.MULTILINE) is not None


def tracing(host: Host, facts: Facts) -> Finding:
    """What the meter's programs trace: one iterator. Those of a path: `sessions.probes`."""
    name = "tracing"
    try:
        types = host.read(BTF)
    except FileNotFoundError:
        return unknown(name, "without type information (btf) nobody can tell")
    missing = [loss for function, loss in _TRACED.items() if f"\0{function}\0".encode() not in types]
    if missing:
        return warning(name, f"the kernel cannot iterate over open files: {', '.join(missing)}")
    return ok(
        name,
        "the kernel has all that is traced",
        f"{', '.join(_TRACED)}; only a path uses more: see probes",
    )


def jit(host: Host, facts: Facts) -> Finding:
    """The compiler of programs, and whether it hardens what it makes."""
    name = "jit"
    try:
        mode = text(host, JIT)
    except FileNotFoundError:
        return _jit_as_built(host)
    if mode == "0":
        return warning(
            name,
            "programs are interpreted: each packet costs several times as much",
            "sysctl -w net.core.bpf_jit_enable=1",
        )
    try:
        harden = text(host, HARDEN)
    except PermissionError:
        return ok(name, "programs are compiled", f"only root can see whether they are hardened ({HARDEN})")
    if harden == "2":
        return warning(
            name,
            "programs are compiled, but hardened for root, too: each packet costs more",
            "sysctl -w net.core.bpf_jit_harden=1",
        )
    return ok(name, "programs are compiled", f"bpf_jit_enable={mode}, bpf_jit_harden={harden}")


def _jit_as_built(host: Host) -> Finding:
    """Settings are shown in the host's network namespace only, but some kernels leave no choice."""
    cause = f"there is no {JIT}: no JIT, or not the host's network namespace"
    try:
        config, where = build_options(host)
    except OSError:
        return unknown("jit", cause)
    if has_option(config, "CONFIG_BPF_JIT_ALWAYS_ON"):
        return ok("jit", "programs are compiled", f"{where}: CONFIG_BPF_JIT_ALWAYS_ON")
    return unknown("jit", cause)


def lockdown(host: Host, facts: Facts) -> Finding:
    """Whether the kernel forbids reading its memory."""
    name = "lockdown"
    if not host.exists(LOCKDOWN):
        if " - securityfs " in text(host, "/proc/self/mountinfo"):
            return ok(name, "the kernel knows no lockdown")
        return unknown(
            name,
            "securityfs is not mounted here",
            "mount -t securityfs securityfs /sys/kernel/security",
        )
    found = re.search(r"\[(\w+)\]", text(host, LOCKDOWN))
    mode = found[1] if found else "?"
    if mode == "confidentiality":
        return warning(
            name,
            "confidentiality: programs may not read kernel structures, so users of user namespaces appear"
            " under inner ids, flows name no interface, and older sockets no process",
            "boot with lockdown=integrity",
        )
    return ok(name, f"{mode}: programs may read kernel structures")


def unprivileged(host: Host, facts: Facts) -> Finding:
    """Who may load programs. netmond does not depend on it."""
    name = "unprivileged-bpf"
    try:
        mode = text(host, UNPRIVILEGED)
    except FileNotFoundError:
        return unknown(name, f"there is no {UNPRIVILEGED}")
    who = {
        "0": "everybody may load BPF programs; netmond does not need that",
        "1": "only the privileged may load BPF programs, until the next boot",
        "2": "only the privileged may load BPF programs",
    }
    remark = ("sysctl -w kernel.unprivileged_bpf_disabled=2 forbids it",) if mode == "0" else ()
    return ok(name, who.get(mode, f"{UNPRIVILEGED} is {mode}"), *remark)


CHECKS = {
    "kernel": kernel,
    "btf": btf,
    "hooks": hooks,
    "tracing": tracing,
    "jit": jit,
    "lockdown": lockdown,
    "unprivileged-bpf": unprivileged,
}
