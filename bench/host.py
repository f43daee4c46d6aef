"""The real daemon, started for a benchmark: on a message bus of its own, in directories of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.record import ROOT
from netmond.kernel.cgroups import find_cgroup2

DEADLINE = 60.0
_PAUSE = 0.05  # seconds between two looks
_FROM_OUTSIDE = {
    "NETWORK_INTERFACE",
    "TARGET_IP",
    "STATE_DIRECTORY",
    "LOGS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "NOTIFY_SOCKET",
}
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_requested_reply="true"/>
    <allow receive_requested_reply="true"/>
  </policy>
</busconfig>
"""


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Sees to it that a process ends with the block: asked to, and made to if it does not."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def private_bus() -> Iterator[str]:
    """The address of a message bus on which everybody may do everything."""
    with ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="netmond-bench-bus-"))
        stack.callback(shutil.rmtree, directory)
        (directory / "bus.conf").write_text(_BUS.format(path=directory / "socket"))
        command = ["dbus-daemon", f"--config-file={directory}/bus.conf", "--nofork", "--print-address=1"]
        bus = stack.enter_context(
            ending(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True))
        )
        assert bus.stdout is not None
        yield bus.stdout.readline().strip()


@contextmanager
def cgroup() -> Iterator[Path]:
    """A cgroup for processes that run until the block ends."""
    directory = find_cgroup2() / f"netmond-bench-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        _wait_until_empty(directory)
        directory.rmdir()


def _wait_until_empty(directory: Path) -> None:
    """A process that has been asked to end may take a moment, its children, too."""
    end = time.monotonic() + DEADLINE
    while "populated 1" in (directory / "cgroup.events").read_text() and time.monotonic() < end:
        time.sleep(_PAUSE)


@contextmanager
def namespace(label: str) -> Iterator[str]:
    """The name of a network namespace with a loopback interface."""
    name = f"netmond-bench-{os.getpid()}-{label}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-netns", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def inside(argv: Sequence[str], *, space: str = "", group: Path | None = None) -> list[str]:
    """The command line to run argv in a namespace and a cgroup; the process id stays the same."""
    words = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{group}/cgroup.procs"] if group else []
    return [*words, *(["nsenter", f"--net=/run/netns/{space}"] if space else []), *argv]


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A netmond that is ready."""

    pid: int
    bus: str
    seconds_to_ready: float

    def resident(self) -> float:
        """Its resident memory in MiB."""
        return resident(self.pid)

    def cpu_nanoseconds(self) -> int:
        """CPU time of its own threads, see proc_pid_schedstat in the kernel's sched-stats.rst."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)

    def start_seconds(self) -> float:
        """CPU time of it and of the compilers it has waited for, see proc_pid_stat(5)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def ctl(self, *words: str) -> str:
        """What netmonctl prints. RuntimeError: what it complained of."""
        done = subprocess.run(
            [sys.executable, "-m", "netmonctl", *words],
            cwd=ROOT,
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.bus},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"netmonctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    def flows(self) -> int:
        """How many flows it knows."""
        return int(json.loads(self.ctl("status", "--json=short"))["flows"])


def resident(pid: int) -> float:
    """VmRSS of a process in MiB, see proc_pid_status(5)."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def run_directory() -> Iterator[Path]:
    """On a tmpfs, as /run is, with a BPF file system where the daemon pins what is to outlive it."""
    with tempfile.TemporaryDirectory(prefix="netmond-bench-run-", dir="/dev/shm") as name:
        pins = Path(name) / "bpf"
        pins.mkdir()
        subprocess.run(["mount", "-t", "bpf", "bpf", str(pins)], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", str(pins)], check=True)


@contextmanager
def daemon(
    *arguments: str, space: str = "", bus: str | None = None, run: Path | None = None, config: str = ""
) -> Iterator[Daemon]:
    """A netmond with these arguments and this configuration, from its READY=1 on.

    run: its --run-dir, if another daemon shall find there what this one leaves.
    """
    with ExitStack() as stack:
        address = bus or stack.enter_context(private_bus())
        directory = Path(tempfile.mkdtemp(prefix="netmond-bench-"))
        stack.callback(shutil.rmtree, directory)
        (directory / "netmond.toml").write_text(config)
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        stack.callback(notices.close)
        notices.bind(str(directory / "notify"))
        kept = {name: value for name, value in os.environ.items() if name not in _FROM_OUTSIDE}
        words = ["-c", f"{directory}/netmond.toml", "--state-dir", f"{directory}/state"]
        words += ["--log-dir", f"{directory}/log", "--run-dir", str(run or directory / "run")]
        argv = [sys.executable, "-m", "netmond", *words, *arguments]
        log = stack.enter_context((directory / "output").open("w+"))
        began = time.monotonic()
        process = subprocess.Popen(
            inside(argv, space=space),
            cwd=ROOT,
            env={**kept, "DBUS_SYSTEM_BUS_ADDRESS": address, "NOTIFY_SOCKET": f"{directory}/notify"},
            stdout=log,
            stderr=log,
        )
        stack.enter_context(ending(process))
        _wait_for_ready(process, notices, directory / "output")
        took = time.monotonic() - began
        notices.close()  # nobody reads what comes later
        yield Daemon(pid=process.pid, bus=address, seconds_to_ready=took)


def _wait_for_ready(process: subprocess.Popen[Any], notices: socket.socket, output: Path) -> None:
    """Returns with the READY=1 of sd_notify(3). RuntimeError: the daemon ended."""
    notices.settimeout(0.5)
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if "READY=1" in notices.recv(1 << 16).decode().splitlines():
                return
        except TimeoutError:
            if process.poll() is not None:
                break
    raise RuntimeError(f"netmond did not start: {output.read_text()}")
