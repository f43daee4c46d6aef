"""netmonctl doctor on a real kernel: what it says of real programs, mounts, disks and daemons is so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netmond.kernel import programs
from tests.kernel.conftest import Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.running import ROOT, Netmond
from tests.kernel.strangers import XDP, stranger
from tests.unit.rdma_tree import RdmaTree

XDP_PASS = 2

#: Somebody whom a message bus knows.
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Exit status of the doctor, and what it found by section and name, as ``kernel.btf``."""

    code: int
    found: Mapping[str, dict[str, Any]]

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.found[name]


def examine(netmond: Netmond, *, uid: int = 0, mounts: str = "") -> Diagnosis:
    """Runs the doctor where the daemon is, as a user, after a script that changes mounts for it alone."""
    argv = [sys.executable, "-m", "netmonctl", "doctor", "--json=short"]
    if mounts:
        shell = f'set -e; {mounts}; cd "{ROOT}"; exec "$@"'
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh", *argv]
    done = subprocess.run(
        netmond.space.command(argv, uid=uid),
        cwd=ROOT, env=netmond.environment, capture_output=True, text=True, timeout=2 * DEADLINE, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    checks = json.loads(done.stdout)["checks"]
    return Diagnosis(done.returncode, {f"{each['section']}.{each['name']}": each for each in checks})


def features(netmond: Netmond) -> dict[str, str]:
    """Their states, under the doctor's names for them."""
    return {f"features.{each['name']}": each["state"] for each in netmond.status()["features"]}


def test_somebody_elses_program(shared: Scene, netmond: Netmond) -> None:
    """A program on the XDP slot of an interface is named, with its number, and how to be rid of it."""
    device = shared.link.near_device
    with stranger(shared.near, device, XDP, programs.XDP, XDP_PASS):
        found = examine(netmond)[f"interfaces.{device}"]

        (link,) = json.loads(shared.near.run("ip", "-json", "-details", "link", "show", "dev", device))
        number = link["xdp"]["prog"]["id"]
        assert found["state"] == "warning"
        assert f"another program is on its XDP slot ('stranger', id {number}, xdp)" in found["cause"]
        assert f"bpftool prog show id {number}" in found["remedy"]
        assert "veth, watched with tc" in found["cause"]

    assert examine(netmond)[f"interfaces.{device}"]["severity"] == "fine"


def test_somebody_elses_program_for_ordinary_users(shared: Scene, netmond: Netmond) -> None:
    """Names of programs are root's to see; that there is one is everybody's."""
    device = shared.link.near_device
    with stranger(shared.near, device, XDP, programs.XDP, XDP_PASS):
        found = examine(netmond, uid=NOBODY)[f"interfaces.{device}"]

    assert found["state"] == "warning"
    assert "another program is on its XDP slot (id " in found["cause"]
    assert "stranger" not in found["cause"]


def test_unwatched_interface_with_a_program(shared: Scene, netmond: Netmond) -> None:
    """Counts, too: it may drop what would come to another one."""
    shared.near.ip("link add other type veth peer name another")
    with stranger(shared.near, "other", XDP, programs.XDP, XDP_PASS):
        found = examine(netmond)

    assert "veth, not watched; another program" in found["interfaces.other"]["cause"]
    assert "interfaces.another" not in found.found


def test_running(shared: Scene, netmond: Netmond) -> None:
    """A daemon without a unit: it is told to be there, with its capabilities, and its features as it tells
    them; nothing has failed."""

    def examined() -> Diagnosis | None:
        """One in whose time no feature changed: on a busy machine an output may be behind for a moment."""
        before = features(netmond)
        found = examine(netmond)
        return found if features(netmond) == before else None

    found = eventually(examined, "features stay as they are")
    assert found is not None
    told = {name: each["state"] for name, each in found.found.items() if each["section"] == "features"}
    assert told == features(netmond)
    for name in ("service.daemon", "service.versions", "service.capabilities", "service.bus", "kernel.btf"):
        assert (name, found[name]["state"]) == (name, "ok")
    assert f"pid {netmond.pid}" in found["service.service"]["details"]
    assert [name for name, each in found.found.items() if each["severity"] == "failed"] == []
    assert found.code == 0


def test_captures_and_paths(netmond: Netmond) -> None:
    """Whether filters can be had, and how functions can be seen: what a session finds is told."""
    said = netmond.ctl("capture", "-i", "lo", "--duration", "0.1", "udp port 9")
    stages = json.loads(netmond.ctl("path", "-d", "--json").out)
    kinds = {str(stage["hook"]).partition(":")[0] for stage in stages}

    found = examine(netmond)

    assert (found["kernel.libpcap"]["state"] == "ok") == (said.code == 0), said
    for kind in kinds & {"fentry", "kprobe"}:  # a kernel may have them and refuse them
        assert (found["kernel.probes"]["state"], kind in found["kernel.probes"]["cause"]) == ("ok", True)


def test_rdma(netmond: Netmond, tmp_path: Path) -> None:
    """Devices as sysfs has them; a machine that has none is well, and nobody is told to do anything."""
    tree = RdmaTree(tmp_path)
    classes = tree.root.parent
    (classes / "infiniband_verbs").mkdir()
    mount = f"mount --bind {classes} /sys/class"

    none = examine(netmond, mounts=mount)["surroundings.rdma"]
    tree.rxe()
    soft = examine(netmond, mounts=mount)["surroundings.rdma"]
    tree.mlx5(ports=2)
    tree.state("mlx5_0", 2, state="2: INIT", physical="5: LinkUp")
    adapter = examine(netmond, mounts=mount)["surroundings.rdma"]

    assert (none["state"], none["cause"], none["remedy"]) == ("ok", "no RDMA device", "")
    assert (soft["state"], soft["cause"]) == ("ok", "1 port, 1 active, with counters")
    assert adapter["cause"] == "mlx5_0/2 has a link, but no subnet manager has activated it"
    assert adapter["details"][:3] == [
        "mlx5_0/1: active, InfiniBand", "mlx5_0/2: init, InfiniBand", "rxe0/1: active, Ethernet",
    ]  # fmt: skip


def test_ordinary_user(netmond: Netmond) -> None:
    """Sees nearly all of it; nothing seems broken only because it may not be looked at."""
    root, user = examine(netmond), examine(netmond, uid=NOBODY)

    assert user.code == 0
    # Not the outputs: on a busy machine one may be behind for a moment, whoever looks.
    looked_at = [name for name in root.found if not name.startswith("features.output.")]
    worse = {name for name in looked_at if root[name]["severity"] != user[name]["severity"]}
    assert {user[name]["severity"] for name in worse} <= {"unknown"}
    assert {name for name in worse if "only root may look" not in user[name]["cause"]} == set()


def test_own_xdp_program(scene: Scene) -> None:
    """netmond's own program on the slot is nobody else's; the generic kind is remarked upon."""
    device = scene.link.near_device
    netmond = scene.netmond(config={"interfaces.attach": "xdp"})
    assert "watched with xdp" in examine(netmond)[f"interfaces.{device}"]["cause"]
    assert examine(netmond)[f"interfaces.{device}"]["severity"] == "fine"

    netmond.call("MonitorInterface", ("s", "a{sv}"), device, {"attach": ["s", "xdp-generic"]})

    found = examine(netmond)[f"interfaces.{device}"]
    assert "watched with xdp-generic: the kernel makes" in found["cause"]
    assert found["remedy"] == f"netmonctl interface add {device} --attach tc"


def test_slot_taken_from_netmond(scene: Scene) -> None:
    """Somebody was there first: the feature is degraded, and its remedy is the interface's."""
    device = scene.link.near_device
    with stranger(scene.near, device, XDP, programs.XDP, XDP_PASS):
        netmond = scene.netmond(config={"interfaces.attach": "xdp"})

        found = examine(netmond)

    assert found["features.interfaces"]["state"] == "degraded"
    assert "xdp refused" in found[f"interfaces.{device}"]["cause"]
    remedy = f"ip link set dev {device} xdpdrv off && netmonctl interface add {device} --attach xdp"
    assert found[f"interfaces.{device}"]["remedy"] == found["features.interfaces"]["remedy"] == remedy


def test_stopped(scene: Scene) -> None:
    """Without the daemon: it failed, its features are off, and all else is looked at as before."""
    netmond = scene.netmond()
    before = examine(netmond)
    netmond.stop()

    found = examine(netmond)

    assert found.code == 1
    assert found["service.daemon"]["state"] == "failed"
    assert {each["state"] for each in found.found.values() if each["section"] == "features"} == {"off"}
    kernel = {name for name, each in found.found.items() if each["section"] == "kernel"}
    assert {name: found[name]["state"] for name in kernel} == {
        name: before[name]["state"] for name in kernel
    }
    assert f"interfaces.{scene.link.near_device}" not in found.found


CGROUPS = {
    "unified": (
        "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup",
        "ok", "unified at /sys/fs/cgroup",
    ),
    "hybrid": (
        "umount -R /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir v1 uni;"
        " mount -t cgroup2 none uni; mount -t cgroup -o none,name=netmond-test none v1",
        "ok", "hybrid: version 2 at /sys/fs/cgroup/uni beside version 1",
    ),
    "v1 only": (
        "umount -R /sys/fs/cgroup; mount -t tmpfs none /sys/fs/cgroup; cd /sys/fs/cgroup; mkdir v1;"
        " mount -t cgroup -o none,name=netmond-test none v1",
        "failed", "only control groups of version 1 are mounted",
    ),
    "none": ("umount -R /sys/fs/cgroup", "failed", "no control groups are mounted"),
}  # fmt: skip


@pytest.mark.parametrize(("script", "state", "cause"), CGROUPS.values(), ids=CGROUPS)
def test_cgroups(netmond: Netmond, script: str, state: str, cause: str) -> None:
    """Control groups are found where they are mounted, which is not always the same place."""
    found = examine(netmond, mounts=script)

    assert found["kernel.cgroups"]["state"] == state
    assert cause in found["kernel.cgroups"]["cause"]
    assert found.code == (1 if state == "failed" else 0)


def test_full_disk(netmond: Netmond) -> None:
    """A log directory on a file system without a free byte has failed; one without a free inode, too."""
    fill = "mount -t tmpfs -o size=64k,nr_inodes={inodes} none /var/log; mkdir /var/log/netmond;"
    fill += " cd /var/log/netmond; {what}"

    bytes_ = examine(
        netmond, mounts=fill.format(inodes=100, what="cat /dev/zero > zero 2>/dev/null || true")
    )
    inodes = examine(netmond, mounts=fill.format(inodes=4, what="touch a b c d 2>/dev/null || true"))

    for found in (bytes_["surroundings.log-directory"], inodes["surroundings.log-directory"]):
        assert found["state"] == "failed"
        assert "rows of the CSV files are lost" in found["cause"]
    assert ": 0 % of the bytes are free" in bytes_["surroundings.log-directory"]["cause"]
    assert " 0 % of the inodes" in inodes["surroundings.log-directory"]["cause"]


def test_mounts_of_the_kernel(netmond: Netmond) -> None:
    """Lockdown and the BPF file system are seen once they are mounted, and missed before."""
    security, empty = "/sys/kernel/security", "mount -t tmpfs none /run"
    pins = "mkdir -p /run/netmond/bpf; mount -t bpf none /run/netmond/bpf"

    mounted = examine(netmond, mounts=f"{empty}; {pins}; mount -t securityfs none {security}")
    unmounted = examine(netmond, mounts=f"{empty}; umount -l {security} 2>/dev/null || true")

    assert mounted["kernel.lockdown"]["state"] in ("ok", "warning")
    assert mounted["surroundings.bpffs"]["state"] == "ok"
    assert unmounted["kernel.lockdown"]["state"] == "unknown"
    assert unmounted["kernel.lockdown"]["remedy"].startswith("mount -t securityfs")
    assert unmounted["surroundings.bpffs"]["state"] == "warning"
    assert unmounted["surroundings.bpffs"]["remedy"] == (
        "mkdir -p /run/netmond/bpf && mount -t bpf bpf /run/netmond/bpf, then start netmond anew"
    )
