"""The file tree of a minimal Debian 12 that boots systemd and knows nothing of netmond."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service.cache import cached

SUITE = "bookworm"

#: What boots, has users and a bus; and what runs the tests.
PACKAGES = (
    "systemd", "systemd-sysv", "libpam-systemd", "dbus", "login", "passwd",
    "python3-pytest", "python3-pytest-timeout",
)  # fmt: skip

#: Units that cost time, or wait for hardware and networks that a container has not.
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "console-getty.service", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "getty@.service", "modprobe@.service",
    "systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service",
)  # fmt: skip

_PREPARE = (
    *(f"ln -sf /dev/null etc/systemd/system/{unit}" for unit in _MASKED),
    "ln -sf /lib/systemd/system/multi-user.target etc/systemd/system/default.target",
    "rm -f etc/hostname etc/resolv.conf etc/apt/apt.conf.d/99mmdebstrap",
    ": >etc/machine-id",  # a new one at each boot
)


def base_tree() -> Path:
    """The tree; nothing may be written to it. The first time takes a minute, and a Debian mirror."""
    inputs = "\n".join((SUITE, *PACKAGES, *_PREPARE))
    return cached("tree", inputs, _make) / "root"


def _make(directory: Path) -> None:
    print(f"making a minimal Debian {SUITE} in {directory}", file=sys.stderr, flush=True)
    command = [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=DPkg::Lock::Timeout "300"',
        *(f'--customize-hook=cd "$1" && {line}' for line in _PREPARE),
        SUITE,
        str(directory / "root"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"mmdebstrap failed:\n{done.stdout[-4000:]}")
