"""A machine for netmonctl doctor, recorded on a Debian 12 where all is well; tests make it ill."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from netmonctl import __version__
from netmonctl.calls import Call
from netmonctl.doctor.examination import Section, examine
from netmonctl.doctor.finding import Finding, Severity
from netmonctl.doctor.host import Clock, Ran, Space
from netmonctl.errors import CtlError, ExitCode

GIB = 1 << 30

Illness = Callable[["Patient"], object]

#: What is wrong, and of the check that finds it: name, severity, a part of the cause, and of the remedy.
Case = tuple[Illness, str, Severity, str, str]

MOUNTS = """\
22 28 0:21 / /proc rw,nosuid - proc proc rw
23 28 0:22 / /sys rw,nosuid - sysfs sysfs rw
28 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw
29 23 0:7 / /sys/kernel/security rw,nosuid - securityfs securityfs rw
33 23 0:29 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
35 23 0:31 / /sys/fs/bpf rw,nosuid - bpf bpf rw,mode=700
"""
HYBRID = """\
33 23 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
34 33 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 33 0:31 / /sys/fs/cgroup/net_cls,net_prio rw - cgroup cgroup rw,net_cls,net_prio
36 33 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
37 23 0:33 / /sys/fs/bpf rw - bpf bpf rw
"""
CONFIG = """\
CONFIG_BPF_SYSCALL=y
CONFIG_CGROUP_BPF=y
CONFIG_NET_CLS_ACT=y
CONFIG_NET_CLS_BPF=m
CONFIG_FUNCTION_TRACER=y
CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS=y
# CONFIG_KPROBES is not set
"""
ALL = 1 << 12 | 1 << 38 | 1 << 39

UNIT = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "0",
    "MainPID": "411",
    "InvocationID": "17aa3",
    "NeedDaemonReload": "no",
    "User": "netmond",
    "AmbientCapabilities": "cap_net_admin cap_perfmon cap_bpf",
    "CapabilityBoundingSet": "cap_net_admin cap_perfmon cap_bpf",
    "LimitMEMLOCK": "8388608",
    "ActiveEnterTimestamp": "Sat 2026-11-21 08:59:22 UTC",
}
FEATURES = (
    "meter", "targets", "interfaces", "packetlog", "capture", "path", "rdma", "restart", "bus", "polkit",
    "output.csv", "output.journal",
)  # fmt: skip
NO_BUS = CtlError(
    "cannot reach the system bus (No such file or directory); see: systemctl status dbus netmond",
    ExitCode.NOT_RUNNING,
)
NOT_RUNNING = CtlError("netmond is not running; start it: systemctl start netmond", ExitCode.NOT_RUNNING)


def status() -> dict[str, Any]:
    """What netmond describes itself as."""
    return {
        "version": __version__,
        "tick": 41,
        "features": [{"name": name, "state": "on", "reason": ""} for name in FEATURES],
        "losses": [
            {"name": "meter.no-slot-packets", "count": 0, "meaning": "packets without a slot"},
            {"name": "output.csv.dropped", "count": 0, "meaning": "snapshots dropped"},
        ],
        "interfaces": [
            {"name": "lo", "hook": "", "reason": ""},
            {"name": "eth0", "hook": "tc", "reason": ""},
        ],
    }


def links() -> list[dict[str, Any]]:
    """As ip -json -details link show has them."""
    return [
        {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "link_type": "loopback"},
        {"ifname": "eth0", "flags": ["BROADCAST", "UP"], "mtu": 1500, "link_type": "ether"},
        {
            "ifname": "veth7",
            "flags": ["UP"],
            "mtu": 1500,
            "link_type": "ether",
            "linkinfo": {"info_kind": "veth"},
        },
    ]


def xdp(mode: int, number: int, **more: Any) -> dict[str, Any]:
    """What ip adds to a link with an XDP program; the name only root gets."""
    return {"xdp": {"mode": mode, "attached": [{"mode": mode, "prog": {"id": number, **more}}]}}


@dataclass(slots=True)
class Patient:
    """Implements Host from memory.

    files: text by path; a directory is there if something below it is. An OSError is raised.
    replies: what D-Bus methods return by their name, or the CtlError they end with
    programs: what they print by their name, or what makes it of their arguments; None: not installed
    """

    files: dict[str, str | bytes | OSError] = field(default_factory=dict)
    replies: dict[str, list[Any] | CtlError] = field(default_factory=dict)
    programs: dict[str, Callable[..., str] | str | Ran | None] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)
    symlinks: dict[str, str] = field(default_factory=dict)
    merging: set[str] = field(default_factory=set)
    libraries: set[str] = field(default_factory=lambda: {"libpcap.so.0.8"})
    unit: dict[str, str] = field(default_factory=lambda: dict(UNIT))
    status: dict[str, Any] = field(default_factory=status)
    links: list[dict[str, Any]] = field(default_factory=links)
    time: Clock = field(default_factory=lambda: Clock(synchronised=True, max_error=0.0231))
    uid: int = 0
    release: str = "6.1.0-28-amd64"

    def __post_init__(self) -> None:
        self.files |= {
            "/run/systemd/system/": "",
            "/run/systemd/journal/socket": "",
            "/var/log/journal/": "",
            "/var/log/netmond/": "",
            "/var/lib/netmond/": "",
            "/run/netmond/": "",
            "/usr/bin/apt": "",
            "/usr/sbin/netmond": "",
            "/proc/411/status": f"Name:\tnetmond\nCapEff:\t{ALL:016x}\n",
            "/proc/411/limits": "Limit  Soft Limit\nMax locked memory         8388608   8388608   bytes\n",
            "/proc/config.gz": FileNotFoundError(2, "No such file or directory"),
            f"/boot/config-{self.release}": CONFIG,
            "/proc/self/mountinfo": MOUNTS,
            "/proc/sys/net/core/bpf_jit_enable": "1\n",
            "/proc/sys/net/core/bpf_jit_harden": "0\n",
            "/proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
            "/sys/kernel/btf/vmlinux": b"\x9f\xeb\0bpf_iter_task_file\0sk_uid\0",
            "/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
            "/sys/class/net/eth0/device/": "",
            "/sys/fs/bpf/netmond/": "",
            "/usr/share/dbus-1/system.d/org.netmond1.conf": "",
            "/usr/share/dbus-1/system-services/org.netmond1.service": "",
            "/usr/share/polkit-1/actions/org.netmond1.policy": "",
        }
        self.symlinks["/sys/class/net/eth0/device/driver"] = "virtio_net"
        self.replies |= {
            "GetId": ["2f6ae1"],
            "GetConnectionUnixProcessID": [411],
            "ListActivatableNames": [["org.netmond1", "org.freedesktop.PolicyKit1"]],
            "NameHasOwner": [True],
            "Ping": [],
        }
        self.programs["journalctl"] = ""

    # -- making it ill -----------------------------------------------------------------------------------

    def remove(self, *paths: str) -> None:
        """These files and directories are not there."""
        for path in paths:
            self.files = {name: text for name, text in self.files.items() if not _below(name, path)}

    def forbid(self, *paths: str) -> None:
        """These may not be looked at."""
        for path in paths:
            self.files[path] = PermissionError(13, "Permission denied", path)

    def stop(self, **unit: str) -> None:
        """netmond does not run, and its unit is as given."""
        self.replies["Describe"] = NOT_RUNNING
        self.replies["GetConnectionUnixProcessID"] = CtlError("no owner", ExitCode.NOT_RUNNING)
        self.unit |= {"ActiveState": "inactive", "SubState": "dead", "MainPID": "0", **unit}

    # -- being looked at ---------------------------------------------------------------------------------

    def examine(self) -> dict[str, Finding]:
        """All findings by section and name, as ``kernel.btf``."""
        return {f"{section.title.lower()}.{each.name}": each for section in self.sections()
                for each in section.findings}  # fmt: skip

    def sections(self) -> list[Section]:
        return examine(self)

    def read(self, path: str) -> bytes:
        found = self.files.get(path, FileNotFoundError(2, "No such file or directory", path))
        if isinstance(found, OSError):
            raise found
        return found if isinstance(found, bytes) else found.encode()

    def exists(self, path: str) -> bool:
        below = [found for name, found in self.files.items() if _below(name, path)]
        for found in below:
            if isinstance(found, OSError) and not isinstance(found, FileNotFoundError):
                raise found
        return any(not isinstance(found, OSError) for found in below)

    def names(self, path: str) -> list[str]:
        if not self.exists(path):
            raise FileNotFoundError(2, "No such file or directory", path)
        start = f"{path.rstrip('/')}/"
        below = {name.removeprefix(start).partition("/")[0] for name in self.files if name.startswith(start)}
        return sorted(below - {""})

    def points_to(self, path: str) -> str:
        if path not in self.symlinks:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.symlinks[path]

    def space(self, path: str) -> Space:
        return self.spaces.get(path, Space(size=GIB, free=GIB // 2, inodes=100_000, free_inodes=50_000))

    def clock(self) -> Clock:
        return self.time

    def loads(self, library: str) -> bool:
        return library in self.libraries

    def merges_on_receive(self, device: str) -> bool:
        if device == "lo":
            raise OSError(95, "Operation not supported")
        return device in self.merging

    def run(self, *command: str) -> Ran:
        if command[0] == "systemctl":
            return Ran(code=0, out="".join(f"{name}={value}\n" for name, value in self.unit.items()))
        told = self.programs.get(command[0], json.dumps(self.links))
        if told is None:
            raise FileNotFoundError(2, "No such file or directory", command[0])
        if isinstance(told, Ran):
            return told
        return Ran(code=0, out=told if isinstance(told, str) else told(*command[1:]))

    def call(self, call: Call) -> list[Any]:
        reply = self.replies.get(call.member, [json.dumps(self.status)])
        if isinstance(reply, CtlError):
            raise reply
        return reply


def _below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path.rstrip('/')}/")


def assert_found(section: str, case: Case) -> None:
    """The check of a patient with the illness finds it."""
    illness, name, severity, cause, remedy = case
    patient = Patient()
    illness(patient)

    found = patient.examine()[f"{section}.{name}"]

    assert found.severity is severity
    assert cause in found.cause
    assert remedy in found.remedy
    assert severity is not Severity.FINE or not found.remedy


# -- illnesses ---------------------------------------------------------------------------------------------


def compressed(text: str) -> bytes:
    """As /proc/config.gz is."""
    return gzip.compress(text.encode())


def file(path: str, content: str | bytes | OSError) -> Illness:
    return lambda patient: patient.files.update({path: content})


def gone(*paths: str) -> Illness:
    return lambda patient: patient.remove(*paths)


def forbidden(*paths: str) -> Illness:
    def ordinary_user(patient: Patient) -> None:
        patient.uid = 1000
        patient.forbid(*paths)

    return ordinary_user


def release(text: str) -> Illness:
    def other_kernel(patient: Patient) -> None:
        config = patient.files.pop(f"/boot/config-{patient.release}")
        patient.release = text
        patient.files[f"/boot/config-{text}"] = config

    return other_kernel


def unit(**properties: str) -> Illness:
    return lambda patient: patient.unit.update(properties)


def stopped(**properties: str) -> Illness:
    return lambda patient: patient.stop(**properties)


def reply(member: str, answer: list[Any] | CtlError) -> Illness:
    return lambda patient: patient.replies.update({member: answer})


def room(path: str, **how: Any) -> Illness:
    plenty = Space(size=100 * GIB, free=50 * GIB, inodes=100_000, free_inodes=50_000)
    return lambda patient: patient.spaces.update({path: replace(plenty, **how)})


def both(*illnesses: Illness) -> Illness:
    def all_of_them(patient: Patient) -> None:
        for illness in illnesses:
            illness(patient)

    return all_of_them


def described(**changes: Any) -> Illness:
    return lambda patient: patient.status.update(changes)


def unsynchronised(patient: Patient) -> None:
    """Nothing keeps the clock right."""
    patient.time = Clock(synchronised=False, max_error=16.0)


def without_systemd(patient: Patient) -> None:
    """Another program is PID 1."""
    patient.remove("/run/systemd")


def link(name: str, **more: Any) -> Illness:
    """ip tells this of an interface, too."""

    def change(patient: Patient) -> None:
        next(each for each in patient.links if each["ifname"] == name).update(more)

    return change


def row(name: str, **more: Any) -> Illness:
    """netmond tells this of an interface, too."""

    def change(patient: Patient) -> None:
        rows = patient.status["interfaces"]
        found = next((each for each in rows if each["name"] == name), None)
        if found is None:
            found = {"name": name, "hook": "", "reason": ""}
            rows.append(found)
        found.update(more)

    return change
