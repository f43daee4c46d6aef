"""What the service may do, and that it may do nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.inside import UNIT, apt, complaints, main_pid, run, show

pytestmark = pytest.mark.usefixtures("installed")

#: Bits of capabilities (linux/capability.h): CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
_CAPABILITIES = 1 << 12 | 1 << 38 | 1 << 39

#: The only places the service can write to; /tmp, /var/tmp and those of IPC are of its own, /run/lock is
#: everybody's.
_WRITABLE = (
    "/dev/mqueue", "/dev/shm", "/run/lock", "/run/netmond", "/tmp", "/var/lib/netmond", "/var/log/netmond",
    "/var/tmp",
)  # fmt: skip

_DEVICES = {"full", "null", "ptmx", "pts", "random", "tty", "urandom", "zero"}

_AS_NETMOND = ("setpriv", "--reuid=netmond", "--regid=netmond", "--clear-groups")


def status(pid: int) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def seen_by_it(*argv: str, privileges: tuple[str, ...] = (), check: bool = True) -> str:
    """A command run as the daemon's user, with the files that the daemon sees; its output."""
    words = ["nsenter", f"--target={main_pid()}", "--mount", "--", *_AS_NETMOND, *privileges, "--"]
    done = run(*words, *argv, check=check)
    return done.out + done.err


def test_exposure() -> None:
    """systemd's own judgement, of 10 (unsafe): 1.5 at most."""
    said = run("systemd-analyze", "--no-pager", "security", UNIT).out
    found = re.search(r"Overall exposure level for netmond\.service: ([0-9.]+)", said)

    assert found
    assert float(found[1]) <= 1.5


def test_unit_has_no_complaints() -> None:
    """systemd understands every line, and so does it the D-Bus activation."""
    done = run("systemd-analyze", "verify", "--man=no", "/lib/systemd/system/netmond.service")

    assert done.out + done.err == ""


def test_user_and_capabilities() -> None:
    """Runs as its own user with three capabilities, which are also all it could ever get."""
    seen = status(main_pid())
    uid, gid = run("id", "-u", "netmond").out.strip(), run("id", "-g", "netmond").out.strip()

    assert seen["Uid"].split() == [uid] * 4
    assert seen["Gid"].split() == [gid] * 4
    assert seen["Groups"] in ("", gid)
    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(seen[kind], 16) == _CAPABILITIES, kind


def test_no_new_privileges() -> None:
    """Set-user-ID programs do not help it, and system calls are filtered."""
    seen = status(main_pid())

    assert seen["NoNewPrivs"] == "1"
    assert seen["Seccomp"] == "2"


def test_writes_nowhere_else() -> None:
    """Of all directories there are, it can write to its own."""
    words = ["find", "/", "-path", "/proc", "-prune", "-o", "-type", "d", "-writable", "-print", "-prune"]
    found = {line for line in seen_by_it(*words, check=False).splitlines() if line.startswith("/")}

    assert found <= set(_WRITABLE)
    assert {"/run/netmond", "/var/lib/netmond", "/var/log/netmond"} <= found


def test_homes_are_hidden() -> None:
    """It sees nobody's files."""
    Path("/home/probe").mkdir(mode=0o777, exist_ok=True)
    try:
        assert "probe" not in seen_by_it("ls", "-A", "/home", check=False)
    finally:
        Path("/home/probe").rmdir()


def test_processes_of_others_are_hidden() -> None:
    """/proc shows it nobody else's processes, and nothing but processes; it learns otherwise whose a socket
    is."""
    seen = seen_by_it("ls", "/proc").split()

    assert [name for name in seen if not name.isdecimal()] == ["self", "thread-self"]
    assert "1" not in seen
    assert len(seen) == 3


def test_devices() -> None:
    """No disk, no memory, no kernel log: the harmless devices only."""
    devices = set(seen_by_it("find", "/dev", "-path", "/dev/pts", "-prune", "-o", "-type", "c,b").split())

    assert {Path(path).name for path in devices} <= _DEVICES


@pytest.fixture
def bpftool() -> Iterator[None]:
    apt("install", "--no-install-recommends", "bpftool")
    yield
    Path("/sys/fs/bpf/netmond/probe").unlink(missing_ok=True)


@pytest.mark.usefixtures("bpftool")
def test_pins() -> None:
    """What the daemon pins below /run/netmond/bpf is in /sys/fs/bpf/netmond, where others cannot go."""
    table = ["type", "array", "key", "4", "value", "4", "entries", "1", "name", "probe"]
    words = ["bpftool", "map", "create", "/run/netmond/bpf/probe", *table]
    seen_by_it(*words, privileges=("--inh-caps=+bpf", "--ambient-caps=+bpf"))

    pin = Path("/sys/fs/bpf/netmond/probe")
    assert pin.exists()
    assert pin.owner() == "netmond"
    assert run("ls", "/sys/fs/bpf/netmond", user="nobody", check=False).code != 0
    assert run("ls", "/run/netmond/bpf", user="nobody", check=False).code != 0


def test_nothing_is_missing_for_the_sandbox() -> None:
    """The sandbox takes nothing from it that it needs."""
    found = complaints()

    found.pop("interfaces", "")  # a matter of the machine's cables
    assert found == {}


def test_watched() -> None:
    """A daemon that ends by itself comes back, and one that no longer ticks does not stay."""
    assert show("Type") == "notify"
    assert show("Restart") == "on-failure"
    assert show("WatchdogUSec") not in ("0", "infinity")
