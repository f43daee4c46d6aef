"""Fixtures of the kernel tier: root, eBPF, and a machine of namespaces with a daemon on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.kernel.agent import Agent
from tests.kernel.machine import Cgroup, Link, Machine, Namespace
from tests.kernel.running import Netmond

USER = 1234

_TOOLS = (
    "bpftool", "dbus-daemon", "ethtool", "ip", "iperf3", "nft", "nsenter", "setpriv", "sysctl", "tc",
    "tcpdump", "unshare",
)  # fmt: skip
_running: list[Netmond] = []


@pytest.fixture(scope="session", autouse=True)
def _terminable() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: namespaces, cgroups and processes are taken away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session", autouse=True)
def _able() -> None:
    """Whatever is missing is a skip, and under CI, where nothing may be skipped, a failure."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    reason = ""
    if os.geteuid() != 0:
        reason = "needs root"
    elif missing:
        reason = f"needs the programs {', '.join(missing)}"
    elif not os.path.exists("/sys/kernel/btf/vmlinux"):
        reason = "needs a kernel with BTF"
    if reason:
        pytest.skip(reason)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves tests that need a kind of interface which this kernel is built without to Debian's own kernel,
    in the machine of tests/vm, where all of them run."""
    if "NETMOND_VM" in os.environ:
        return
    marked = [(item, mark.args[0]) for item in items for mark in item.iter_markers("interface_kind")]
    lacking = [item for item, kind in marked if not _has(kind)]
    config.hook.pytest_deselected(items=lacking)
    items[:] = [item for item in items if item not in lacking]


@cache
def _has(kind: str) -> bool:
    """Whether the kernel knows interfaces of a kind."""
    probe = ["unshare", "--net", "ip", "link", "add", "name", "probe", "type", kind]
    return "Unknown device type" not in subprocess.run(probe, capture_output=True, text=True).stderr


@pytest.hookimpl(hookwrapper=True)  # type: ignore[misc] # pluggy has no types
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Shows what every running daemon has said, when a test fails."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed:
        for netmond in _running:
            report.sections.append((f"netmond in {netmond.space.label}", netmond.log))


@dataclass(frozen=True, slots=True)
class Scene:
    """Two namespaces and a link; the daemon runs in the one called near, if it is started."""

    machine: Machine
    near: Namespace
    far: Namespace
    link: Link
    slice: Cgroup
    unit: Cgroup

    def netmond(self, **options: Any) -> Netmond:
        """A daemon in the near namespace that meters the slice and monitors the link; started."""
        made = self.daemon(**options)
        made.start()
        return made

    def daemon(self, **options: Any) -> Netmond:
        """The same, not started yet."""
        options = {"interfaces": [self.link.near_device], "cgroup": self.slice, **options}
        made = Netmond(options.pop("space", self.near), **options)
        _running.append(made)
        return made

    def user(self, uid: int = USER, **options: Any) -> Agent:
        """A process in the near namespace and in the unit."""
        return Agent(self.near, uid=uid, cgroup=options.pop("cgroup", self.unit), **options)

    def server(self, **options: Any) -> Agent:
        """A process in the far namespace that nobody meters."""
        return Agent(self.far, **options)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Three namespaces in a row: the daemon runs in the middle, which forwards between left and right."""

    machine: Machine
    left: Link
    right: Link
    slice: Cgroup

    def netmond(self, **options: Any) -> Netmond:
        """A daemon on the router that monitors both links; started."""
        devices = [self.left.near_device, self.right.near_device]
        options = {"interfaces": devices, "cgroup": self.slice, **options}
        made = Netmond(self.left.near, **options)
        _running.append(made)
        made.start()
        return made

    def exchange(self, family: int, *, count: int, size: int) -> None:
        """Datagrams from left to right and back."""
        server, client = Agent(self.right.far), Agent(self.left.far)
        address = self.right.address(family, far=True)
        port = server.do("echo_server", local=[address, 0])
        client.do("udp", name="a", peer=[address, port])
        client.do("exchange", name="a", count=count, size=size)


@pytest.fixture
def bridged(machine: Machine) -> Crossing:
    """The same with a bridge, br0, in the middle; left is 10.77.0.1, right 10.77.0.2."""
    left, bridge, right = (machine.namespace(label) for label in ("left", "bridge", "right"))
    links = [machine.link(bridge, space, number=number) for number, space in ((1, left), (2, right))]
    bridge.ip(
        "link add br0 type bridge",
        *(f"link set {link.near_device} master br0" for link in links),
        "link set br0 addrgenmode none up",
    )
    for number, link in enumerate(links, 1):
        device = link.far_device
        link.far.ip(f"link set {device} arp on", f"addr add 10.77.0.{number}/24 dev {device}")
        link.far.keep_neighbours(device)
    return Crossing(machine, links[0], links[1], machine.cgroup(f"{machine.label}.slice"))


@contextmanager
def _machine() -> Iterator[Machine]:
    """A machine; the daemons that are made on it are closed with it, and their buses."""
    machine, first = Machine(), len(_running)
    try:
        yield machine
    finally:
        try:
            while len(_running) > first:
                _running.pop().close()
        finally:
            machine.close()


def _crossing() -> Iterator[Crossing]:
    with _machine() as machine:
        left, router, right = (machine.namespace(label) for label in ("left", "router", "right"))
        crossing = Crossing(
            machine=machine,
            left=machine.link(router, left, number=1),
            right=machine.link(router, right, number=2),
            slice=machine.cgroup(f"{machine.label}.slice"),
        )
        router.sysctl({"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"})
        for link in (crossing.left, crossing.right):
            link.far.ip(f"route add default via {link.address(4)}", f"route add ::/0 via {link.address(6)}")
        yield crossing


def _scene() -> Iterator[Scene]:
    with _machine() as machine:
        near, far = machine.namespace("near"), machine.namespace("far")
        yield Scene(
            machine=machine,
            near=near,
            far=far,
            link=machine.link(near, far),
            slice=machine.cgroup(f"{machine.label}.slice"),
            unit=machine.cgroup(f"{machine.label}.slice/foo.service"),
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A machine for one test."""
    yield from _scene()


@pytest.fixture(scope="module")
def shared() -> Iterator[Scene]:
    """A machine for all tests of a module: each must use a user of its own."""
    yield from _scene()


@pytest.fixture(scope="module")
def netmond(shared: Scene) -> Netmond:
    """One daemon for all tests of a module; each has a user of its own, or looks at how far figures grow."""
    return shared.netmond()


@pytest.fixture(scope="module")
def server(shared: Scene) -> Agent:
    """Whoever the users talk to, at the far end."""
    return shared.server()


@pytest.fixture
def crossing() -> Iterator[Crossing]:
    """A router for one test."""
    yield from _crossing()


@pytest.fixture(scope="module")
def shared_crossing() -> Iterator[Crossing]:
    """A router for all tests of a module."""
    yield from _crossing()


@pytest.fixture
def machine() -> Iterator[Machine]:
    """An empty machine, to be furnished by the test."""
    with _machine() as made:
        yield made
