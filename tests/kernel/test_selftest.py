"""netmonctl selftest: right about a netmond that counts right, and about each one that does not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Process
from tests.kernel.running import ROOT, Netmond, Said

METER = ("user", "user at the far end", "process", "unit")
TCP = ("flow tcp 4", "flow tcp 6")
PEERS4, PEERS6 = ("flow peer 4a", "flow peer 4b"), ("flow peer 6a", "flow peer 6b")
PEERS = (*PEERS4, *PEERS6, "flow peers 4, beside its peers'", "flow peers 6, beside its peers'")
FLOWS = ("flow udp 4", "flow udp 6", "flow fragments 4", "flow fragments 6", *PEERS4, *PEERS6, *TCP)
STACK = ("user, stack", "flow tcp 4, stack", "flow tcp 6, stack")
TARGETS4, TARGETS6 = ("target near 4", "target far 4"), ("target near 6", "target far 6")
INTERFACE = ("interface nmtest0", "interface nmtest0, kernel")
CLASSES = ("class ipv4", "class ipv6", "class arp", "class other", "class multicast")
BOOKS = ("books, kernel", "books, unattributed")
ALL = {*METER, *FLOWS, *PEERS, *STACK, *TARGETS4, *TARGETS6, *INTERFACE, *CLASSES, *BOOKS, "losses"}


@dataclass(frozen=True, slots=True)
class Seed:
    """A mistake: in a file of bpf/, one text instead of another, and the lines that tell."""

    file: str
    right: str
    wrong: str
    failing: frozenset[str]


def seed(file: str, right: str, wrong: str, *failing: str) -> Seed:
    return Seed(file, right, wrong, frozenset(failing))


SEEDS = {
    "a byte too many for each packet of a user": seed(
        "measure.h", "size->bytes = skb->len;", "size->bytes = skb->len + 1;",
        *METER, *FLOWS, *STACK, "books, unattributed",
    ),
    "a segment too few of each super-packet of a user": seed(
        "measure.h", "segments = skb->gso_segs;", "segments = skb->gso_segs - 1;",
        *METER, *TCP,
    ),
    "fragments of a user counted as one packet": seed(
        "measure.h", "if (pieces < 2)", "if (pieces < 200)", *METER, "flow fragments 4", "flow fragments 6"
    ),
    "what comes in is nobody's but the socket's": seed(
        "sockets.c", "if (owner->flags & FLOW_UNCONNECTED)\n        count_peer",
        "if (owner->flags & FLOW_UNCONNECTED && !in)\n        count_peer", *PEERS,
    ),
    "IPv6 forgotten in targets": seed(
        "targets.h", "if (!count || !*count)", "if (!count || !*count || !ipv4)", *TARGETS6
    ),
    "a segment too few of each super-packet on an interface": seed(
        "interfaces.c", "segments = skb->gso_segs;", "segments = skb->gso_segs - 1;",
        *INTERFACE, "class ipv4", "class ipv6", *TARGETS4, *TARGETS6, "books, unattributed",
    ),
    "ARP in another class": seed(
        "interfaces.c", "frame->class = CLASS_ARP;", "frame->class = CLASS_OTHER;",
        "class arp", "class other",
    ),
    "the Ethernet header left out of what goes out": seed(
        "interfaces.c", "direction->class[class].bytes += frame->wire_bytes;",
        "direction->class[class].bytes += frame->wire_bytes - (in ? 0 : frame->link_header);",
        *INTERFACE, "class ipv4", "class ipv6", "class arp", "books, unattributed",
    ),
}  # fmt: skip


class Host:
    """The near namespace as the machine on which the test is run."""

    def __init__(self, scene: Scene, netmond: Netmond) -> None:
        self._scene, self._netmond = scene, netmond

    def begin(self, *words: str) -> Process:
        """Runs `netmonctl selftest` in the unit, and does not wait."""
        argv = [sys.executable, "-m", "netmonctl", "selftest", *words]
        return self._scene.machine.start(
            self._scene.near.command(argv, cgroup=self._scene.unit),
            stderr=subprocess.PIPE,
            env=self._netmond.environment,
            cwd=ROOT,
        )

    def end(self, process: Process) -> Said:
        out, err = process.popen.communicate(timeout=3 * DEADLINE)
        return Said(process.popen.returncode, out, err)

    def selftest(self, *words: str) -> Said:
        return self.end(self.begin(*words))

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """What it found, as JSON."""
        said = self.selftest("--json", *words)
        assert said.out, said
        return list(json.loads(said.out))

    def state(self) -> dict[str, Any]:
        """All that a test changes for a while. Its namespace goes when nothing is in it: neither a process
        nor the other end of the cable."""
        links = json.loads(self._scene.near.run("ip", "-json", "-details", "address"))
        return {
            "addresses": [(link["ifname"], link["addr_info"]) for link in links],
            "routes": self._scene.near.run("ip", "route", "show", "table", "all"),
            "sysctl": self._scene.near.run("sysctl", "-a", "--pattern", r"^net\.ipv[46]\.conf\."),
            "targets": {row["address"] for row in self._netmond.peek("Targets")},
            "monitored": {row["name"] for row in self._netmond.peek("Interfaces") if row["monitored"]},
            "processes": self._scene.unit.processes(),
        }

    def until_it_counts(self) -> None:
        """Waits until a test that has begun is in the middle of it."""
        eventually(lambda: len(self._netmond.peek("Targets")) == 4, "the test has its targets")


@pytest.fixture
def host(shared: Scene, netmond: Netmond) -> Iterator[Host]:
    """Its machine, which must be afterwards as it was before."""
    made = Host(shared, netmond)
    before = made.state()
    yield made
    eventually(lambda: made.state() == before, "nothing is left behind")


@pytest.mark.parametrize("attach", ["auto", "tc", "xdp", "xdp-generic"])
def test_every_counter_is_right(host: Host, attach: str) -> None:
    """However the cable is watched; also for the second time, on top of the totals of the first."""
    said = host.selftest("--attach", attach)

    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert {line[: lines[0].index("RESULT")].strip() for line in lines[1:-2]} == ALL
    assert lines[-1] == f"{len(ALL)} checks: every counter is right."


def test_json(host: Host) -> None:
    """Each line with what was expected and what was counted; null where only one side can tell."""
    lines = {line["check"]: line for line in host.lines()}

    assert lines.keys() == ALL
    flow = {"in_packets": 23, "in_bytes": 23 * 335, "out_packets": 29, "out_bytes": 29 * 129}
    assert lines["flow udp 4"] == {
        "check": "flow udp 4", "result": "ok", "expected": flow, "counted": flow,
    }  # fmt: skip
    assert lines["user"]["counted"]["in_packets"] > 300
    assert lines["interface nmtest0, kernel"]["expected"]["in_bytes"] is None
    # The tests of super-packets have some.
    for name in TCP:
        wire, stack = lines[name]["counted"], lines[f"{name}, stack"]["counted"]
        assert stack["out_packets"] < wire["out_packets"]
        assert stack["in_packets"] < wire["in_packets"]


@pytest.mark.parametrize("mistake", SEEDS)
def test_wrong_counter(scene: Scene, mistake: str) -> None:
    """A netmond with a mistake in its programs: exit status 1, and exactly the lines concerned."""
    wrong = SEEDS[mistake]
    copy = scene.machine.directory / "seeded"
    for part in ("bpf", "netmond"):
        shutil.copytree(ROOT / part, copy / part)
    source = copy / "bpf" / wrong.file
    assert source.read_text().count(wrong.right) == 1
    source.write_text(source.read_text().replace(wrong.right, wrong.wrong))
    host = Host(scene, scene.netmond(around=lambda argv: ["env", f"--chdir={copy}", *argv]))

    said = host.selftest()

    assert said.code == 1
    lines = said.out.splitlines()
    assert {line.partition("  ")[0] for line in lines if " FAILED " in line} == wrong.failing
    assert lines[-1] == f"{len(ALL)} checks: {len(wrong.failing)} FAILED."


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted(scene: Scene, number: signal.Signals, code: int) -> None:
    """Everything is taken away, and the second signal changes nothing about that."""
    host = Host(scene, scene.netmond(config={"daemon.interval": 1}))
    before = host.state()
    process = host.begin()
    host.until_it_counts()

    process.popen.send_signal(number)
    process.popen.send_signal(number)
    said = host.end(process)

    assert (said.code, said.out, said.err) == (code, "", "")
    eventually(lambda: host.state() == before, "nothing is left behind")


def test_killed(scene: Scene) -> None:
    """Cable, namespace and processes go with it by themselves; its targets with the next test."""
    netmond = scene.netmond(config={"daemon.interval": 2})
    netmond.add_targets("192.0.2.250", "2001:db8::7")  # not the test's, as long as it lives
    host = Host(scene, netmond)
    before = host.state()
    process = host.begin()
    eventually(lambda: len(netmond.peek("Targets")) == 6, "the test has its targets")

    process.popen.kill()
    host.end(process)

    eventually(
        lambda: host.state() | {"targets": before["targets"]} == before, "but for targets, all is gone"
    )
    assert len(netmond.peek("Targets")) == 6
    assert host.selftest().code == 0
    eventually(lambda: host.state() == before, "the targets, too")


def test_two_at_once(scene: Scene) -> None:
    """The second refuses in one line; the first does not notice."""
    host = Host(scene, scene.netmond(config={"daemon.interval": 2}))
    first = host.begin()
    host.until_it_counts()

    first.popen.send_signal(signal.SIGSTOP)  # or it may be done before the second has looked
    second = host.selftest()
    first.popen.send_signal(signal.SIGCONT)

    assert second.code == 1
    assert second.line == (
        f"netmonctl: another selftest is running (netmonctl selftest, process {first.pid});"
        " wait until it is done"
    )
    assert host.end(first).code == 0


@pytest.fixture
def routes(shared: Scene) -> Iterator[Callable[..., None]]:
    """Adds routes to networks, for a test."""
    added: list[str] = []

    def add(*networks: str) -> None:
        for network in networks:
            gateway = shared.link.address(6 if ":" in network else 4, far=True)
            shared.near.ip(f"route add {network} via {gateway}")
            added.append(network)

    yield add
    shared.near.ip(*(f"route delete {network}" for network in added))


def test_networks_in_use(host: Host, routes: Callable[..., None]) -> None:
    """A documentation network that leads somewhere here is left alone; another will do, if there is one."""
    routes("192.0.2.0/24", "2001:db8:6e6d::/48")
    assert host.selftest().code == 0

    routes("198.51.100.252/32", "203.0.113.0/24")
    assert host.selftest().line == (
        "netmonctl: all of 192.0.2.248/29, 198.51.100.248/29, 203.0.113.248/29 are in use here;"
        " the test needs one of them"
    )


def test_without_ipv6(host: Host, routes: Callable[..., None]) -> None:
    """Where the networks for it are in use, say: the rest is checked."""
    routes("2001:db8::/32", "3fff::/20")

    lines = {line["check"]: line for line in host.lines()}

    assert lines.pop("IPv6") == {
        "check": "IPv6",
        "result": "not checked",
        "reason": "this machine has none, or uses the prefixes for documentation",
    }
    assert {line["result"] for line in lines.values()} == {"ok"}
    assert lines.keys() == {name for name in ALL if " 6" not in name}


def test_blocked_by_a_firewall(host: Host, shared: Scene) -> None:
    """That is not a wrong counter, and is said otherwise."""
    shared.near.run("ip", "rule", "add", "iif", "lo", "ipproto", "udp", "unreachable")
    try:
        said = host.selftest()
    finally:
        shared.near.run("ip", "rule", "delete", "iif", "lo", "ipproto", "udp", "unreachable")

    assert said.code == 1
    assert "the traffic did not get through" in said.line


def test_parts_that_are_off(scene: Scene) -> None:
    """Without the meter its lines are not checked, with the reason; that is no failure."""
    host = Host(scene, scene.netmond(config={"meter.enabled": False}))

    said = host.selftest()

    assert said.code == 0
    reason = "switched off by [meter] enabled"
    assert f"users, processes, units, flows: not checked: {reason}" in said.out
    assert said.out.splitlines()[-1] == "14 checks, 1 not checked: every counter is right."


def test_not_allowed(netmond: Netmond) -> None:
    """It takes root, whatever the group."""
    said = netmond.ctl("selftest", uid=USER)

    assert said.code == 4
    assert said.line == "netmonctl: selftest makes a network namespace: run it as root, with sudo"


def test_not_running(scene: Scene) -> None:
    """As every command."""
    netmond = scene.netmond()
    netmond.stop()

    said = Host(scene, netmond).selftest()

    assert said.code == 3
    assert said.line.startswith("netmonctl: netmond is not running")
