"""What netmonctl doctor finds out about the kernel and its control groups."""

from __future__ import annotations

import pytest

from netmonctl.doctor.finding import Severity
from tests.unit.patient import (
    HYBRID,
    MOUNTS,
    Case,
    assert_found,
    both,
    compressed,
    file,
    forbidden,
    gone,
    release,
)

WARNING, FAILED, UNKNOWN, FINE = Severity.WARNING, Severity.FAILED, Severity.UNKNOWN, Severity.FINE

JIT, HARDEN = "/proc/sys/net/core/bpf_jit_enable", "/proc/sys/net/core/bpf_jit_harden"
BTF, LOCKDOWN = "/sys/kernel/btf/vmlinux", "/sys/kernel/security/lockdown"
NO_CGROUP2 = MOUNTS.replace("cgroup2 cgroup2", "tmpfs tmpfs")
ONLY_V1 = HYBRID.replace("cgroup2 cgroup2 rw", "tmpfs tmpfs rw")
CONTAINER = MOUNTS.replace("0:29 / /sys", "0:29 /../../machine.slice /sys")


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
    "mounts hidden": (forbidden("/proc/self/mountinfo"), "cgroups", UNKNOWN, "only root may look", "sudo"),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNEL.values(), ids=KERNEL)
def test_finds(case: Case) -> None:
    """Each thing a kernel may lack, or be in the way with."""
    assert_found("kernel", case)
