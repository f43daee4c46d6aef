"""Installing the packages is all an administrator has to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.inside import (
    answers,
    apt,
    complaints,
    ctl,
    install,
    is_active,
    run,
    show,
    systemctl,
)

_MANUALS = ("man8/netmond.8", "man1/netmonctl.1", "man5/netmond.toml.5", "man5/org.netmond1.5")
_COMPLETIONS = (
    "/usr/share/bash-completion/completions/netmonctl",
    "/usr/share/zsh/vendor-completions/_netmonctl",
    "/usr/share/fish/vendor_completions.d/netmonctl.fish",
)


def package_installed(name: str) -> bool:
    done = run("dpkg-query", "--show", "--showformat=${db:Status-Status}", name, check=False)
    return done.out == "installed"


@pytest.fixture(scope="module")
def bare(repository: None) -> Iterator[str]:
    """The packages on a machine that had nothing of what they need, without what they recommend; what apt
    said. Afterwards everything is gone again."""
    if package_installed("netmond"):
        apt("purge", "netmond", "netmonctl", "polkitd")
    yield install("--no-install-recommends")
    apt("purge", "netmond", "netmonctl")
    systemctl("reset-failed")


@pytest.mark.minimal
def test_machine_had_nothing() -> None:
    """The machine of these tests cannot hide a missing dependency: it has Python, and that is all."""
    for module in ("bcc", "dbus_next", "numpy", "systemd", "argcomplete", "netmond", "netmonctl"):
        assert run("python3", "-P", "-c", f"import {module}", check=False).code != 0, module
    for package in ("libbpf1", "libbpfcc", "libllvm14", "polkitd"):
        assert not package_installed(package)


def test_status_at_once(bare: str) -> None:
    """`apt install ./netmond_*.deb ./netmonctl_*.deb && netmonctl status`, and nothing else done."""
    status = ctl("status")

    assert status.out.startswith("● netmond ")
    assert status.err == ""
    assert is_active()


def test_installation_complains_about_nothing(bare: str) -> None:
    """The bus learns of the service's user in time, and the first start is no failed one."""
    complaints = [line for line in bare.splitlines() if "debconf:" not in line]
    for word in ("fail", "error", "warning", "Could not"):
        assert [line for line in complaints if word in line and "Unpacking" not in line] == []
    assert show("NRestarts") == "0"
    assert systemctl("--failed", "--no-legend").out == ""


def test_no_recommended_package_is_needed(bare: str) -> None:
    """Without polkit and without argcomplete, root and the group can do everything."""
    assert not package_installed("polkitd")
    ctl("target", "add", "192.0.2.7")
    ctl("target", "remove", "192.0.2.7")


def test_every_part_works(bare: str) -> None:
    """Nothing is degraded for lack of something that the packages could have brought."""
    found = complaints()

    assert found.pop("polkit").startswith("polkit is not there")
    found.pop("interfaces", "")  # a machine without uplink has none to monitor
    assert found == {}


def test_enabled_at_boot(bare: str) -> None:
    """It comes back with the machine, and can be started by a message."""
    assert systemctl("is-enabled", "netmond").out == "enabled\n"
    assert Path("/etc/systemd/system/dbus-org.netmond1.service").is_symlink()


def test_own_user(bare: str) -> None:
    """The service's user can log in nowhere and is in no other group."""
    fields = run("getent", "passwd", "netmond").out.strip().split(":")

    assert int(fields[2]) < 1000
    assert fields[6].endswith("nologin")
    assert run("id", "--name", "--groups", "netmond").out == "netmond\n"


@pytest.mark.parametrize("manual", _MANUALS)
def test_manual_is_there(bare: str, manual: str) -> None:
    """Every artefact has its page, compressed as Debian wants it."""
    assert Path(f"/usr/share/man/{manual}.gz").is_file()


@pytest.mark.parametrize("path", _COMPLETIONS)
def test_completions_are_there(bare: str, path: str) -> None:
    """Where each shell looks for them."""
    assert Path(path).is_file()


def test_configuration_is_good_as_installed(bare: str) -> None:
    """Every key commented out: the defaults; and `netmond --check` has nothing to say."""
    done = run("netmond", "--check")

    assert done.out == "The configuration is good.\n"
    assert done.err == ""


def test_files_belong_to_whom_they_should(bare: str) -> None:
    """State is for the service only; logs can be reached, not listed; code is root's."""
    seen = run(
        "stat", "--format=%U:%G %a", "/var/lib/netmond", "/var/log/netmond", "/etc/netmond",
        "/etc/netmond/netmond.toml", "/usr/sbin/netmond", "/usr/bin/netmonctl", "/sys/fs/bpf/netmond",
    )  # fmt: skip

    assert seen.out.splitlines() == [
        "netmond:netmond 750",
        "netmond:netmond 751",
        "root:root 755",
        "root:root 644",
        "root:root 755",
        "root:root 755",
        "netmond:netmond 700",
    ]


def test_installed_files_are_those_of_dpkg(bare: str) -> None:
    """Nothing that was installed has been changed by installing or running it."""
    assert run("dpkg", "--verify", "netmond", "netmonctl").out == ""


def test_with_recommended_packages(bare: str) -> None:
    """The usual installation brings polkit as well; a running service takes it as it comes."""
    apt("purge", "netmond", "netmonctl")
    said = install()

    assert "Setting up polkitd" in said or package_installed("polkitd")
    assert answers()
    assert json.loads(ctl("status", "--json=short").out)["version"]
    names = run("busctl", "--no-pager", "--no-legend", "list", "--activatable").out
    assert "org.freedesktop.PolicyKit1" in names
    actions = run("pkaction").out.split()
    assert {"org.netmond1.read-all", "org.netmond1.manage", "org.netmond1.capture"} <= set(actions)
