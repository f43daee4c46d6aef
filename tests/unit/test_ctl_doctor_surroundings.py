"""What netmonctl doctor finds out about disks, the journal, the clock, and network interfaces."""

from __future__ import annotations

import pytest

from netmonctl.doctor.finding import Severity
from netmonctl.doctor.host import Ran
from tests.unit.patient import (
    GIB,
    MOUNTS,
    Case,
    Patient,
    assert_found,
    both,
    file,
    forbidden,
    gone,
    link,
    release,
    room,
    row,
    stopped,
    unsynchronised,
    without_systemd,
    xdp,
)

WARNING, FAILED, UNKNOWN, FINE = Severity.WARNING, Severity.FAILED, Severity.UNKNOWN, Severity.FINE

SURROUNDINGS: dict[str, Case] = {
    "disk full": (
        room("/var/log/netmond", free=0),
        "log-directory", FAILED, "0 % of the bytes are free", "df -h /var/log",
    ),
    "inodes used up": (
        room("/var/log/netmond", free_inodes=0),
        "log-directory", FAILED, "0 % of the inodes: rows of", "make room",
    ),
    "nearly full": (
        room("/var/lib/netmond", free=200 << 20),
        "state-directory", WARNING, "soon totals do not outlast", "df",
    ),
    "large, a share of it free": (room("/var/lib/netmond", free=GIB), "state-directory", FINE, "1 %", ""),
    "small, but empty": (
        room("/run/netmond", size=1 << 20, free=1 << 20), "run-directory", FINE, "100 % of the bytes", "",
    ),
    "few inodes": (
        room("/var/lib/netmond", free_inodes=400), "state-directory", WARNING, "0 % of the inodes; soon", "",
    ),
    "no inodes to count": (
        room("/var/log/netmond", inodes=0, free_inodes=0),
        "log-directory", FINE, "50 % of the bytes are free", "",
    ),
    "read-only": (room("/run/netmond", read_only=True), "run-directory", FAILED, "mounted read-only", ""),
    "directory missing": (
        gone("/var/log/netmond"), "log-directory", WARNING, "is missing: rows", "systemctl restart netmond",
    ),
    "no directory yet": (
        both(gone("/var/log/netmond"), stopped()), "log-directory", FINE, "the service makes it", "",
    ),
    "directory hidden": (
        forbidden("/var/lib/netmond"),
        "state-directory", UNKNOWN, "/var/lib/netmond: only root may look", "sudo",
    ),
    "no BPF file system": (
        file("/proc/self/mountinfo", MOUNTS.replace("bpf bpf", "tmpfs tmpfs")),
        "bpffs", WARNING, "while netmond restarts nothing is counted", "mount -t bpf bpf /sys/fs/bpf",
    ),
    "no BPF file system without systemd": (
        without_systemd, "bpffs", WARNING, "at /run/netmond/bpf: while", "mount -t bpf bpf /run/netmond/bpf",
    ),
    "one of its own": (
        file("/proc/self/mountinfo", MOUNTS.replace("/sys/fs/bpf", "/run/netmond/bpf")),
        "bpffs", FINE, "netmond has /run/netmond/bpf", "",
    ),
    "no directory for pins": (
        gone("/sys/fs/bpf"),
        "bpffs", WARNING, "there is no /sys/fs/bpf/netmond", "restart",
    ),
    "none yet": (both(gone("/sys/fs/bpf"), stopped()), "bpffs", FINE, "when it starts", ""),
    "pins hidden": (
        forbidden("/sys/fs/bpf/netmond"),
        "bpffs", UNKNOWN, "only root may look", "sudo netmonctl doctor",
    ),
    "no journal": (
        gone("/run/systemd/journal"),
        "journal", WARNING, "journald is not running", "systemctl start",
    ),
    "forgetful journal": (
        gone("/var/log/journal"), "journal", WARNING, "gone after a boot", "mkdir -p /var/log/journal",
    ),
    "free-running clock": (
        unsynchronised,
        "clock", WARNING, "nothing keeps the clock right", "timedatectl set-ntp true",
    ),
    "free-running clock without systemd": (
        both(without_systemd, unsynchronised),
        "clock", WARNING, "nothing keeps the clock right", "apt install chrony",
    ),
}  # fmt: skip

INTERFACES: dict[str, Case] = {
    "somebody's XDP program": (
        link("veth7", **xdp(1, 169, name="stranger")),
        "veth7", WARNING, "another program is on its XDP slot ('stranger', id 169, xdp)", "xdpdrv off",
    ),
    "whose name is for root": (
        link("veth7", **xdp(2, 169)),
        "veth7", WARNING, "(id 169, xdp-generic)", "ip link set dev veth7 xdpgeneric off",
    ),
    "on a watched one": (
        link("eth0", **xdp(3, 7, name="filter")),
        "eth0", WARNING, "watched with tc; another", "prog show id 7",
    ),
    "our own": (
        both(link("eth0", **xdp(1, 7, name="interface_xdp")), row("eth0", hook="xdp")),
        "eth0", FINE, "virtio_net, watched with xdp", "",
    ),
    "XDP refused for a stranger": (
        both(link("eth0", **xdp(1, 7)), row("eth0", reason="xdp refused (busy), tc used instead")),
        "eth0", WARNING, "tc: xdp refused (busy)", "off && netmonctl interface add eth0 --attach xdp",
    ),
    "XDP refused by the driver": (
        row("eth0", reason="xdp refused (not supported), tc used instead"),
        "eth0", WARNING, "xdp refused", "netmonctl interface add eth0 --attach tc",
    ),
    "not to be watched at all": (
        row("veth7", reason="tc refused"), "veth7", WARNING, "veth, not watched: tc refused", "--attach tc",
    ),
    "merged packets": (
        lambda patient: patient.merging.add("eth0"),
        "eth0", WARNING, "large receive offload", "ethtool -K eth0 lro off",
    ),
    "generic XDP": (
        both(link("eth0", **xdp(2, 7)), row("eth0", hook="xdp-generic")),
        "eth0", WARNING, "costs more than tc", "netmonctl interface add eth0 --attach tc",
    ),
    "filters where there is tcx": (
        both(release("6.12.1"), row("eth0", hook="tc")), "eth0", WARNING, "though the kernel has tcx", "",
    ),
    "tcx": (both(release("6.12.1"), row("eth0", hook="tcx")), "eth0", FINE, "watched with tcx", ""),
    "nothing watched": (
        row("eth0", hook=""), "interfaces", WARNING, "none is monitored", "netmonctl interface add NAME",
    ),
    "nobody watches": (stopped(), "eth0", FINE, "virtio_net, watched by nobody", ""),
    "no ip": (
        lambda patient: patient.programs.update(ip=None),
        "interfaces", UNKNOWN, "there is no ip", "install iproute2",
    ),
    "ip fails": (
        lambda patient: patient.programs.update(ip=Ran(code=1, err="Cannot open netlink socket\n")),
        "interfaces", UNKNOWN, "ip does not tell: Cannot open netlink socket", "",
    ),
    "an old ip": (
        lambda patient: patient.programs.update(ip="1: lo: <LOOPBACK>"),
        "interfaces", UNKNOWN, "does not tell", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SURROUNDINGS.values(), ids=SURROUNDINGS)
def test_finds(case: Case) -> None:
    """Each thing that may go wrong around netmond."""
    assert_found("surroundings", case)


@pytest.mark.parametrize("case", INTERFACES.values(), ids=INTERFACES)
def test_finds_on_interfaces(case: Case) -> None:
    """Each thing that may be in the way on an interface."""
    assert_found("interfaces", case)


def test_interfaces_that_matter() -> None:
    """Of interfaces that nobody watches only hardware is told, so that a hundred veths are not."""
    found = Patient().examine()

    assert [name for name in found if name.startswith("interfaces.")] == ["interfaces.eth0"]
    assert found["interfaces.eth0"].details == (
        "virtio_net, up, MTU 1500",
        "large receive offload: off",
    )
