"""What netmonctl doctor finds out about the kernel and its control groups."""

from __future__ import annotations

import pytest

from netmonctl.doctor.finding import Severity
from tests.unit.patient import (
    HYBRID,
    MOUNTS,
    Case,
    Illness,
    assert_found,
    both,
    compressed,
    file,
    forbidden,
    gone,
    release,
    unit,
)

WARNING, FAILED, UNKNOWN, FINE = Severity.WARNING, Severity.FAILED, Severity.UNKNOWN, Severity.FINE

JIT, HARDEN = "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_harden"
BTF, LOCKDOWN = "/sys/kernel/btf/vmlinux", "/sys/kernel/security/lockdown"
NO_CGROUP2 = MOUNTS.replace("cgroup2 cgroup2", "tmpfs tmpfs")
ONLY_V1 = HYBRID.replace("cgroup2 cgroup2 rw", "tmpfs tmpfs rw")
CONTAINER = MOUNTS.replace("0:29 / /sys", "0:29 /../../machine.slice /sys")

CONFIG = "/boot/config-6.1.0-28-amd64"
FENTRY = "CONFIG_FUNCTION_TRACER=y\nCONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y\n"


def kprobes(paranoid: str) -> Illness:
    """The kernel has them, for those whom the sysctl allows them."""
    return both(
        file("/sys/bus/event_source/devices/kprobe/type", "8\n"),
        file("/proc/sys/kernel/perf_event_paranoid", paranoid),
    )


KERNEL: dict[str, Case] = {
    "too old": (release("5.4.0-26-generic"), "kernel", FAILED, "needs 5.10 or newer", "upgrade the kernel"),
    "old enough": (release("5.10.0-8-amd64"), "kernel", FINE, "Linux 5.10.0-8-amd64", ""),
    "a strange release": (release("custom"), "kernel", UNKNOWN, "the release tells no version", ""),
    "no BTF": (gone(BTF), "btf", FAILED, "no type information", "CONFIG_DEBUG_INFO_BTF"),
    "no sysfs": (gone("/sys"), "btf", UNKNOWN, "/sys is not mounted", "mount -t sysfs"),
    "no cgroup hooks": (
        file("/boot/config-6.1.0-28-amd64", "CONFIG_BPF_SYSCALL=y\n# CONFIG_CGROUP_BPF is not set\n"),
        "hooks", FAILED, "without CONFIG_CGROUP_BPF, CONFIG_NET_CLS_ACT", "boot a kernel",
    ),
    "its own configuration": (
        file("/proc/config.gz", compressed("CONFIG_BPF_SYSCALL=y\n")),
        "hooks", FAILED, "CONFIG_CGROUP_BPF", "",
    ),
    "tcx in place of filters": (
        both(release("6.12.1"), file("/proc/config.gz", compressed("CONFIG_BPF_SYSCALL=y\n"))),
        "hooks", FAILED, "CONFIG_CGROUP_BPF, CONFIG_NET_XGRESS", "",
    ),
    "no configuration": (
        gone("/boot"), "hooks", UNKNOWN, "neither /proc/config.gz nor /boot/config-6.1.0-28-amd64", "",
    ),
    "no iterator": (file(BTF, b"\0sk_uid\0"), "tracing", WARNING, "older than netmond have no process", ""),
    "nothing known": (gone(BTF), "tracing", UNKNOWN, "without type information", ""),
    "interpreter": (file(JIT, "0\n"), "jit", WARNING, "interpreted", "sysctl -w net.core.bpf_jit_enable=1"),
    "hardened": (file(HARDEN, "2\n"), "jit", WARNING, "hardened", "sysctl -w net.core.bpf_jit_harden=1"),
    "hardening hidden": (forbidden(HARDEN), "jit", FINE, "compiled", ""),
    "no JIT to see, but no choice": (
        both(gone(JIT), file("/proc/config.gz", compressed("CONFIG_BPF_JIT_ALWAYS_ON=y\n"))),
        "jit", FINE, "compiled", "",
    ),
    "no JIT to see, nor how it is built": (gone(JIT, "/boot"), "jit", UNKNOWN, "no JIT, or", ""),
    "no JIT to see": (gone(JIT), "jit", UNKNOWN, "not the host's network namespace", ""),
    "confidentiality": (
        file(LOCKDOWN, "none integrity [confidentiality]"),
        "lockdown", WARNING, "may not read kernel structures", "lockdown=integrity",
    ),
    "integrity": (file(LOCKDOWN, "none [integrity] confidentiality"), "lockdown", FINE, "integrity", ""),
    "a kernel without lockdown": (gone(LOCKDOWN), "lockdown", FINE, "knows no lockdown", ""),
    "no securityfs": (
        both(gone(LOCKDOWN), file("/proc/self/mountinfo", HYBRID)),
        "lockdown", UNKNOWN, "securityfs is not mounted", "mount -t securityfs",
    ),
    "free for all": (
        file("/proc/sys/kernel/unprivileged_bpf_disabled", "0\n"),
        "unprivileged-bpf", FINE, "everybody may load", "",
    ),
    "v1 only": (file("/proc/self/mountinfo", ONLY_V1), "cgroups", FAILED, "version 1", "mount -t cgroup2"),
    "no groups": (
        file("/proc/self/mountinfo", NO_CGROUP2), "cgroups", FAILED, "no control groups", "mount -t cgroup2",
    ),
    "hybrid": (
        file("/proc/self/mountinfo", HYBRID),
        "cgroups", FINE, "hybrid: version 2 at /sys/fs/cgroup/unified beside version 1", "",
    ),
    "hybrid, marking sockets": (
        both(release("5.10.0-8-amd64"), file("/proc/self/mountinfo", HYBRID)),
        "cgroups", WARNING, "that use net_cls or net_prio have no unit", "cgroup_no_v1=net_cls",
    ),
    "container": (
        file("/proc/self/mountinfo", CONTAINER),
        "cgroups", WARNING, "shows only /../../machine.slice", "--cgroupns",
    ),
    "no libpcap": (
        lambda patient: patient.libraries.clear(),
        "libpcap", WARNING, "captures cannot have filters", "apt install libpcap0.8",
    ),
    "libpcap of others": (
        lambda patient: patient.libraries.symmetric_difference_update({"libpcap.so.0.8", "libpcap.so.1"}),
        "libpcap", FINE, "is there", "",
    ),
    "fentry": (file(CONFIG, FENTRY), "probes", FINE, "can be seen by fentry", ""),
    "neither fentry nor kprobes": (
        file(CONFIG, "CONFIG_FUNCTION_TRACER=y\n"),
        "probes", WARNING, "neither fentry nor kprobes: stages of a path", "boot a kernel",
    ),
    "kprobes": (both(file(CONFIG, ""), kprobes("2\n")), "probes", FINE, "can be seen by kprobes", ""),
    "kprobes for root only": (
        both(file(CONFIG, ""), kprobes("3\n")),
        "probes", WARNING, "perf_event_paranoid is 3", "sysctl -w kernel.perf_event_paranoid=2",
    ),
    "kprobes outside the sandbox": (
        both(file(CONFIG, ""), kprobes("-1\n"), unit(SystemCallFilter="bpf read write")),
        "probes", WARNING, "its sandbox forbids them", "SystemCallFilter=perf_event_open",
    ),
    "kprobes in the sandbox": (
        both(file(CONFIG, ""), kprobes("2\n"), unit(SystemCallFilter="bpf perf_event_open read")),
        "probes", FINE, "can be seen by kprobes", "",
    ),
    "kprobes among what the sandbox forbids": (
        both(file(CONFIG, ""), kprobes("2\n"), unit(SystemCallFilter="~mount perf_event_open")),
        "probes", WARNING, "its sandbox forbids them", "SystemCallFilter=perf_event_open",
    ),
    "kprobes, twice forbidden": (
        both(file(CONFIG, ""), kprobes("4\n"), unit(SystemCallFilter="bpf read write")),
        "probes", WARNING, "forbids them and /proc/sys/kernel/perf_event_paranoid is 4",
        "systemctl restart netmond.service; sysctl -w",
    ),
    "no configuration to see": (gone("/boot"), "probes", UNKNOWN, "neither /proc/config.gz nor /boot", ""),
    "mounts hidden": (forbidden("/proc/self/mountinfo"), "cgroups", UNKNOWN, "only root may look", "sudo"),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNEL.values(), ids=KERNEL)
def test_finds(case: Case) -> None:
    """Each thing a kernel may lack, or be in the way with."""
    assert_found("kernel", case)
