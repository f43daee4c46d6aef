"""Which systemd unit and slice a cgroup path stands for."""

from __future__ import annotations

import pytest

from netmond.units import unit_of

_USER = "/user.slice/user-1000.slice"


@pytest.mark.parametrize(
    ("path", "unit", "slice_"),
    [
        ("/", "/", "-.slice"),
        ("/init.scope", "init.scope", "-.slice"),
        ("/system.slice/nginx.service", "nginx.service", "system.slice"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", "system-getty.slice"),
        ("/system.slice/ssh.socket", "ssh.socket", "system.slice"),
        # what a service made of the cgroup it was delegated is the service's
        ("/system.slice/podman.service/payload/conmon.service", "podman.service", "system.slice"),
        ("/system.slice/containerd.service/kubepods.slice", "containerd.service", "system.slice"),
        (f"{_USER}/session-3.scope", "session-3.scope", "user-1000.slice"),
        (f"{_USER}/user@1000.service/init.scope", "user@1000.service/init.scope", "user-1000.slice"),
        (f"{_USER}/user@1000.service/app.slice/a.service", "user@1000.service/a.service", "user-1000.slice"),
        (
            f"{_USER}/user@1000.service/app.slice/a.service/x",
            "user@1000.service/a.service",
            "user-1000.slice",
        ),
        (f"{_USER}/user@1000.service/app.slice", "user@1000.service", "user-1000.slice"),
        ("/system.slice/docker-4243.scope", "docker-4243.scope", "system.slice"),
        ("/machine.slice/libpod-4243.scope/container", "libpod-4243.scope", "machine.slice"),
        # without a unit a cgroup stands for itself
        ("/docker/4243", "/docker/4243", "-.slice"),
        ("/user.slice", "/user.slice", "user.slice"),
        ("/alice", "/alice", "-.slice"),
        # systemd's escapes: of names that the kernel reserves, and of characters
        ("/system.slice/_cgroup.service", "cgroup.service", "system.slice"),
        (r"/system.slice/mnt-my\x2ddisk.mount", r"mnt-my\x2ddisk.mount", "system.slice"),
        (r"/system-a\x2db.slice/a\x20b.service", r"a\x20b.service", r"system-a\x2db.slice"),
        (r"/system.slice/no\x2.service", r"no\x2.service", "system.slice"),
    ],
)
def test_unit_and_slice(path: str, unit: str, slice_: str) -> None:
    """One row for each way in which systemd, container managers and people lay cgroups out."""
    assert unit_of(path) == (unit, slice_)
