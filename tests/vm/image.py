"""A bootable Debian 12 with Debian's own kernel, made without loop devices, boot loader or a running guest.

netmond's Debian dependencies are in it already: to unpack them in an emulated machine takes minutes.
"""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.service.cache import cached
from tests.service.repository import TOOLS
from tests.service.tree import PACKAGES, SUITE

_GUEST = Path(__file__).parent / "guest"

#: What a real machine has beyond a container, and what netmond depends on.
_MORE_PACKAGES = (
    "linux-image-amd64", "udev", "kmod", "busybox-static", "ethtool",
    "bpftool", "iperf3", "iproute2", "nftables", "procps", "python3-scapy", "tcpdump",
    "python3-bpfcc", "python3-dbus-next", "python3-systemd", "python3-numpy", "python3-pylibacl", "libbpf1",
    "ibverbs-utils", "perftest", "rdma-core",
)  # fmt: skip

#: Drivers of hardware that qemu does not show: two thirds of the image otherwise. The kernel stays as it is.
_LEFT_OUT = (
    "drivers/gpu", "drivers/media", "drivers/net/ethernet", "drivers/net/wireless", "drivers/infiniband/hw",
    "drivers/infiniband/ulp", "drivers/scsi", "drivers/usb", "drivers/iio", "drivers/staging",
    "drivers/hwmon", "drivers/hid", "drivers/input", "drivers/md", "drivers/mtd", "drivers/ata", "sound",
    "net/wireless", "net/mac80211", "net/bluetooth", "fs/btrfs", "fs/xfs", "fs/ocfs2", "fs/gfs2", "fs/f2fs",
    "fs/nfs", "fs/ceph", "fs/smb",
)  # fmt: skip

#: Nothing periodic, no log-in, no look at the disk: this machine lives for minutes.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
    "systemd-pstore.service", "systemd-random-seed.service", "systemd-timesyncd.service",
)  # fmt: skip

_PREPARE = (
    *(f"ln -sf /dev/null etc/systemd/system/{unit}" for unit in _MASKED),
    "ln -s ../host-job.service etc/systemd/system/multi-user.target.wants/",
    "ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target",
    "echo netmond-vm >etc/hostname; echo 127.0.0.1 localhost netmond-vm >etc/hosts; : >etc/resolv.conf",
    "printf '/dev/vda / ext4 noatime 0 0\\n/dev/vdb /opt ext4 ro 0 0\\n' >etc/fstab",
    "echo 8f0b4d7c2e9a4c5db1a6e3f7092c5d18 >etc/machine-id",  # else systemd takes it for a first boot
    # The path filters were for making the image: a package under test is installed whole.
    "rm -rf etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/apt/apt.conf.d/99mmdebstrap",
    "rm -rf boot/initrd*",
)

#: The modules without which there is no root file system.
_ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")


@dataclass(frozen=True, slots=True)
class Image:
    """The files qemu needs. They must not be written to."""

    disk: Path  #: the root file system, without a partition table
    kernel: Path
    initrd: Path
    tree: Path  #: what apt must know of the root file system to see what is missing there


def image() -> Image:
    """The image. The first time takes a minute or two, and a Debian mirror."""
    sources = [Path(__file__), *sorted(_GUEST.iterdir())]
    inputs = [SUITE, *PACKAGES, *TOOLS, *(source.read_text() for source in sources)]
    there = cached("vm", "\n".join(inputs), _make)
    return Image(there / "disk", there / "kernel", there / "initrd", there / "tree")


def _make(directory: Path) -> None:
    print(f"making a virtual machine with Debian {SUITE} in {directory}", file=sys.stderr, flush=True)
    root = directory / "root"
    left_out = (f"--dpkgopt=path-exclude=/lib/modules/*/kernel/{path}/*" for path in _LEFT_OUT)
    documentation = (f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in ("man", "doc", "locale"))
    _run(
        "env",
        "INITRD=No",  # the kernel package shall not make one
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES + TOOLS + _MORE_PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=DPkg::Lock::Timeout "300"',
        "--dpkgopt=force-unsafe-io",
        *documentation,
        *left_out,
        f"--customize-hook=copy-in {_GUEST}/host-job.service /etc/systemd/system",
        *(f'--customize-hook=cd "$1" && {line}' for line in _PREPARE),
        SUITE,
        str(root),
    )
    (modules,) = (root / "lib/modules").iterdir()
    _run("chroot", str(root), "depmod", modules.name)
    _make_initrd(root, modules.name, directory)
    (packed,) = (root / "boot").glob("vmlinuz-*")
    (directory / "kernel").write_bytes(_unpacked(packed.read_bytes()))
    _run(
        "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1",
        "-d", str(root), str(directory / "disk"), "4G",
    )  # fmt: skip
    for kept in ("var/lib/dpkg", "usr/share/keyrings"):
        (directory / "tree" / kept).parent.mkdir(parents=True, exist_ok=True)
        (root / kept).rename(directory / "tree" / kept)
    shutil.rmtree(root)


def _make_initrd(root: Path, release: str, directory: Path) -> None:
    """Busybox, the modules of the root file system and guest/init: loaded ten times faster than Debian's."""
    tree = directory / "initrd.tree"
    for name in ("bin", "dev", "proc", "sys", "mnt"):
        (tree / name).mkdir(parents=True)
    shutil.copy(root / "bin/busybox", tree / "bin")
    shutil.copy(_GUEST / "init", tree / "init")
    (tree / "init").chmod(0o755)
    wanted: dict[str, None] = {}  # in the order in which they can be loaded
    for module in _ROOT_MODULES:
        command = ["chroot", str(root), "modprobe", "-S", release, "--show-depends", module]
        wanted |= dict.fromkeys(re.findall(r"^insmod (\S+)", _run(*command), re.MULTILINE))
    for file in wanted:
        shutil.copy(f"{root}{file}", tree)
    (tree / "modules").write_text("".join(f"{Path(file).name}\n" for file in wanted))
    _run(
        "sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc >"$1"', str(tree), str(directory / "initrd")
    )
    shutil.rmtree(tree)


def _unpacked(kernel: bytes) -> bytes:
    """The ELF file in a kernel image, which qemu can start (PVH): the guest takes 5 s to unpack it."""
    return lzma.LZMADecompressor().decompress(kernel[kernel.index(b"\xfd7zXZ\x00") :])


def _run(*argv: str) -> str:
    """Runs a command and returns what it printed; SystemExit with the end of that if it fails."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{argv[0]} failed:\n{done.stdout[-4000:]}")
    return done.stdout
