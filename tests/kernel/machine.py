"""A machine made for a test: network namespaces, links, cgroups and processes that all go with it."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO

from netmond.kernel.cgroups import find_cgroup2
from tests.kernel.deadline import DEADLINE, eventually

_serial = itertools.count(1)

#: For every namespace: no traffic of the kernel's own accord that can be avoided, pings for everybody.
_SYSCTL = {
    "net.ipv4.ping_group_range": "0 2147483647",
    "net.ipv4.ip_local_port_range": "1025 65000",
    "net.ipv4.ip_nonlocal_bind": "1",
    "net.ipv6.ip_nonlocal_bind": "1",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.addr_gen_mode": "1",
    "net.ipv6.conf.default.router_solicitations": "0",
    # What is said of multicast groups is said at once (ms), before a test counts.
    "net.ipv6.conf.default.mldv1_unsolicited_report_interval": "1",
    "net.ipv6.conf.default.mldv2_unsolicited_report_interval": "1",
}


class Process:
    """A process of a test. Leaving the block, or closing the machine, kills it."""

    def __init__(self, popen: subprocess.Popen[str], name: str) -> None:
        self.popen = popen
        self.name = name

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait(self) -> str:
        """Waits for a successful end and returns what it printed."""
        output, _ = self.popen.communicate(timeout=DEADLINE * 2)
        assert self.popen.returncode == 0, f"{self.name} ended with {self.popen.returncode}: {output}"
        return output

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(DEADLINE)
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A cgroup of the test; `path` as cgroup2 names it, from its root on."""

    path: str
    directory: Path

    @property
    def name(self) -> str:
        return self.directory.name

    def processes(self) -> list[str]:
        """Pids of the processes in it."""
        return (self.directory / "cgroup.procs").read_text().split()


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace."""

    machine: Machine
    label: str
    name: str

    @property
    def file(self) -> str:
        return f"/run/netns/{self.name}"

    def command(
        self,
        argv: Sequence[str],
        *,
        uid: int = 0,
        cgroup: Cgroup | None = None,
        ambient: Sequence[str] = (),
    ) -> list[str]:
        """argv so that it runs in here, as a user, in a cgroup, with capabilities; its pid stays."""
        words: list[str] = []
        if cgroup is not None:
            words += ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup.directory / "cgroup.procs")]
        words += ["nsenter", f"--net={self.file}"]
        if uid:
            words += ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
            if ambient:
                wanted = ",".join(f"+{name}" for name in ambient)
                words += [f"--inh-caps={wanted}", f"--ambient-caps={wanted}"]
        return [*words, *argv]

    def run(self, *argv: str, text: str | None = None, check: bool = True) -> str:
        """Runs a command in here as root and returns its output."""
        done = subprocess.run(
            self.command(argv), input=text, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Runs lines of ip(8) in here."""
        self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")

    def sysctl(self, settings: Mapping[str, str]) -> None:
        self.run("sysctl", "-q", "-w", *(f"{name}={value}" for name, value in settings.items()))

    def keep_neighbours(self, *devices: str) -> None:
        """Lets the kernel take whoever it has found there for present. It would ask again five seconds after
        it began to use what it was told by the way."""
        self.sysctl(
            {
                f"net.{version}.neigh.{device}.delay_first_probe_time": "3600"
                for version in ("ipv4", "ipv6")
                for device in devices
            }
        )

    def statistics(self, device: str) -> dict[str, int]:
        """The kernel's own counters of a device, from its /sys/class/net/DEVICE/statistics."""
        directory = f"/sys/class/net/{device}/statistics"
        names = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "rx_dropped", "tx_dropped")
        # ip netns exec, because /sys shows the devices of the namespace in which it was mounted
        argv = ["ip", "netns", "exec", self.name, "cat", *(f"{directory}/{name}" for name in names)]
        values = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout
        return dict(zip(names, map(int, values.split()), strict=True))

    def index(self, device: str) -> int:
        (link,) = json.loads(self.run("ip", "-json", "link", "show", "dev", device))
        return int(link["ifindex"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A veth pair between two namespaces, `near` and `far`, with an address of each family at both ends."""

    near: Namespace
    far: Namespace
    near_device: str
    far_device: str
    number: int

    def address(self, family: int, *, far: bool = False) -> str:
        host = 2 if far else 1
        return f"10.23.{self.number}.{host}" if family == 4 else f"fd23:0:0:{self.number}::{host}"

    def mac(self, *, far: bool = False) -> str:
        return f"02:00:00:00:{self.number:02x}:{2 if far else 1:02x}"

    @property
    def near_addresses(self) -> frozenset[str]:
        return frozenset(self.address(family) for family in (4, 6))

    def reversed(self) -> Link:
        """The same devices, with near and far exchanged; for whatever does not ask for addresses."""
        return replace(
            self,
            near=self.far,
            far=self.near,
            near_device=self.far_device,
            far_device=self.near_device,
        )

    def furnish(self, *, far: bool) -> None:
        """Gives one end its addresses and its neighbour, and brings it up."""
        space, device = (self.far, self.far_device) if far else (self.near, self.near_device)
        space.ip(
            f"link set {device} addrgenmode none arp off address {self.mac(far=far)}",
            f"addr add {self.address(4, far=far)}/24 dev {device}",
            f"addr add {self.address(6, far=far)}/64 dev {device} nodad",
            f"link set {device} up",
            *(
                f"neigh add {self.address(family, far=not far)} lladdr {self.mac(far=not far)}"
                f" dev {device} nud permanent"
                for family in (4, 6)
            ),
        )

    def offload(self, wanted: bool) -> None:
        """Segmentation offload at the near end, on or off. The far end has none: only then does veth merge
        what the near end receives (GRO)."""
        for space, device, on in ((self.near, self.near_device, wanted), (self.far, self.far_device, False)):
            state = "on" if on else "off"
            space.run("ethtool", "-K", device, "tso", state, "gso", state, "gro", state)


class Machine:
    """Makes namespaces, links, cgroups and processes; close() takes everything away again."""

    def __init__(self) -> None:
        self.number = next(_serial)  #: of those that this process has made
        self.label = f"netmond-test-{os.getpid()}-{self.number}"
        self._stack = ExitStack()
        self._processes = ExitStack()
        self._stack.push(self._processes)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.label}-"))
        self.directory.chmod(0o755)
        self._stack.callback(shutil.rmtree, self.directory)
        self._root = find_cgroup2()

    def close(self) -> None:
        # Processes first, whatever was made in between: a namespace or cgroup in use does not go.
        self._processes.close()
        self._stack.close()

    def namespace(self, label: str) -> Namespace:
        name = f"{self.label}-{label}"
        _netns("add", name)
        self._stack.callback(_netns, "delete", name)
        space = Namespace(self, label, name)
        space.sysctl(_SYSCTL)
        space.ip("link set lo up")
        return space

    def link(self, near: Namespace, far: Namespace, *, number: int = 1, offload: bool = False) -> Link:
        """A veth pair; its devices are named after the namespace they lead to, and the link's number.

        Neighbours are permanent and nobody asks for them (which also keeps the kernel from announcing
        multicast groups): no packet passes while packets are counted but a test's own.
        """
        near_device, far_device = f"{far.label}{number}", f"{near.label}{number}"
        link = Link(near=near, far=far, near_device=near_device, far_device=far_device, number=number)
        near.ip(f"link add {near_device} type veth peer name {far_device} netns {far.name}")
        link.furnish(far=False)
        link.furnish(far=True)
        link.offload(offload)
        return link

    def cgroup(self, path: str) -> Cgroup:
        """A cgroup; those above it that are missing are made (and removed), too."""
        directory = self._root
        for part in path.strip("/").split("/"):
            directory /= part
            if not directory.is_dir():
                directory.mkdir()
                self._stack.callback(_remove_cgroup, directory)
        return Cgroup("/" + path.strip("/"), directory)

    def bpffs(self, directory: Path) -> None:
        """Mounts a BPF file system there; what is pinned in it goes with the machine."""
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "bpf", "none", directory], check=True, timeout=DEADLINE)
        self._stack.callback(lambda: subprocess.run(["umount", directory], check=True, timeout=DEADLINE))

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[str] = subprocess.DEVNULL,
        stdout: int | IO[str] | None = subprocess.PIPE,
        stderr: int | IO[str] | None = subprocess.STDOUT,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = "/",
        pass_fds: Sequence[int] = (),
    ) -> Process:
        popen = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            text=True,
            bufsize=1,
        )
        process = Process(popen, argv[-1] if len(argv) < 2 else " ".join(argv)[:200])
        self._processes.callback(process.close)
        return process


def _netns(verb: str, name: str) -> None:
    subprocess.run(["ip", "netns", verb, name], check=True, timeout=DEADLINE)


def _remove_cgroup(directory: Path) -> None:
    def removed() -> bool:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return True
        except OSError:  # its last process is still on its way out
            return False
        return True

    eventually(removed, f"cgroup {directory} is empty")
