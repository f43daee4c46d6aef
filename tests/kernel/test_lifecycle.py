"""Coming and going: of the daemon, however it ends, and of interfaces while it runs."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from netmond.kernel import libbpf
from netmond.kernel.compile import Compilation
from netmond.kernel.programs import interface_unit
from tests.kernel.capture import entered
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Namespace
from tests.kernel.running import ROOT, Netmond, counted

#: Priority and name of our filters in clsact, ingress and egress.
OURS = [(str(0xC0DE), "interface_ingre"), (str(0xC0DE), "interface_egres")]
OLDER_KERNEL = ["-c", Path(__file__).with_name("older_kernel.py").read_text()]


def bpf_objects(pid: int) -> dict[str, set[int]]:
    """Ids of the programs, links and maps that a process holds, from its /proc/PID/fdinfo."""
    found: dict[str, set[int]] = {"prog": set(), "link": set(), "map": set()}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            for kind, number in re.findall(r"^(prog|link|map)_id:\s+(\d+)$", file.read_text(), re.MULTILINE):
                found[kind].add(int(number))
    return found


def bpftool(*words: str) -> list[dict[str, object]]:
    argv = ["bpftool", "--json", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return list(json.loads(done.stdout.strip() or "[]"))  # an empty cgroup prints nothing


def alive(objects: dict[str, set[int]]) -> dict[str, set[int]]:
    """Those of some objects that the kernel still has. (bpftool would look at all there are on this machine,
    and fail if one of somebody else's comes or goes meanwhile.)"""
    found = {kind: set(filter(partial(exists, kind), ids)) for kind, ids in objects.items()}
    return {kind: ids for kind, ids in found.items() if ids}


def exists(kind: str, number: int) -> bool:
    """Whether there is a prog, link or map of this number."""
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    descriptor = getattr(library, f"bpf_{kind}_get_fd_by_id")(number)
    if descriptor < 0:
        assert ctypes.get_errno() == errno.ENOENT, os.strerror(ctypes.get_errno())
        return False
    os.close(descriptor)
    return True


def filters(space: Namespace, device: str) -> list[tuple[str, str]]:
    """The tc filters of clsact on a device, in and out, that are programs."""
    show = ("tc", "filter", "show", "dev", device)
    said = "".join(space.run(*show, side, check=False) for side in ("ingress", "egress"))
    return [(found[1], found[2]) for found in re.finditer(r"pref (\d+) .* (interface_\w+):", said)]


def attached(space: Namespace) -> str:
    """What is on the network devices of a namespace: XDP and tc, but this bpftool knows no tcx."""
    (found,) = json.loads(space.run("bpftool", "--json", "net", "show"))
    return "".join(json.dumps(found[kind]) for kind in ("xdp", "tc") if found[kind])


def monitored(netmond: Netmond) -> set[str]:
    """The interfaces monitored this moment."""
    return {row["name"] for row in netmond.peek("Interfaces") if row["monitored"]}


@pytest.mark.parametrize(
    ("number", "mode"),
    [
        (signal.SIGTERM, "auto"),
        (signal.SIGTERM, "xdp"),
        (signal.SIGINT, "xdp-generic"),
        (signal.SIGKILL, "auto"),
        (signal.SIGKILL, "xdp"),
        (signal.SIGKILL, "xdp-generic"),
    ],
)
def test_nothing_stays_behind(scene: Scene, number: signal.Signals, mode: str) -> None:
    """Whichever way the daemon goes: no program, link or map of its own is left in the kernel, nothing on a
    device or cgroup; and the next one starts."""
    device = scene.link.near_device
    netmond = scene.netmond(config={f"interface.{device}.attach": mode})
    objects = bpf_objects(netmond.pid)
    names = set(map(libbpf.program_name, objects["prog"]))
    assert names >= {"meter_ingress", "meter_egress", "socket_created"}
    assert alive(objects) == objects
    assert bool(attached(scene.near)) == mode.startswith("xdp")
    assert bpftool("cgroup", "show", str(scene.slice.directory)) != []

    code = netmond.stop(number)

    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    eventually(lambda: alive(objects) == {}, "the kernel has freed everything")
    assert attached(scene.near) == ""
    assert filters(scene.near, device) == []
    assert bpftool("cgroup", "show", str(scene.slice.directory)) == []
    assert not list(scene.machine.directory.glob("netmond/state/*.new"))
    netmond.start()
    assert netmond.interface(device)["monitored"]


def test_orderly_end_says_so(scene: Scene) -> None:
    """After SIGTERM the last figures are logged and no complaint is."""
    netmond = scene.netmond()

    netmond.stop()

    assert "Traceback" not in netmond.log
    assert "rror" not in netmond.log


def test_signal_during_the_start(scene: Scene) -> None:
    """SIGTERM while the programs are still being compiled ends it, too, and leaves nothing."""
    netmond = scene.daemon()
    process = netmond.launch()

    process.popen.send_signal(signal.SIGTERM)

    process.popen.wait(DEADLINE)
    assert attached(scene.near) == ""
    assert bpftool("cgroup", "show", str(scene.slice.directory)) == []


def test_two_daemons(scene: Scene) -> None:
    """A second daemon on the same bus is refused in one line; the first does not notice."""
    netmond = scene.netmond()
    argv = scene.near.command([sys.executable, "-m", "netmond", *netmond.arguments])
    second = scene.machine.start(argv, env=netmond.environment, cwd=ROOT)

    said, _ = second.popen.communicate(timeout=2 * DEADLINE)

    assert second.popen.returncode == 1
    assert [line for line in said.splitlines() if line.startswith("netmond: ")] != []
    assert "Traceback" not in said
    assert netmond.feature("bus") == ("on", "")


# -- kernels without tcx ---------------------------------------------------------------------------------


def test_clsact_counts_and_goes(scene: Scene) -> None:
    """Where there is no tcx the programs are filters of clsact: same figures, and gone after SIGTERM."""
    device = scene.link.near_device
    netmond = scene.netmond(program=OLDER_KERNEL)
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])

    user.do("exchange", name="a", count=23, size=101)

    row = netmond.interface(device)
    assert row["hook"] == "tc"
    for direction in ("in", "out"):
        assert row["classes"][f"{direction}_ipv4_bytes"] == 23 * 143
    assert filters(scene.near, device) == OURS
    netmond.stop()
    assert filters(scene.near, device) == []


def test_clsact_leftovers_are_removed(scene: Scene) -> None:
    """Filters survive SIGKILL; the next start removes them, and only them, also on interfaces that it does
    not monitor."""
    device = scene.link.near_device
    other = scene.machine.link(scene.near, scene.far, number=2).near_device
    netmond = scene.netmond(program=OLDER_KERNEL, interfaces=[device, other])
    loaded = Compilation(interface_unit(targets=1, forwarded=1)).result()
    with entered(scene.near):
        program = loaded.programs["interface_ingress"]
        libbpf.tc_attach(program, scene.near.index(device), libbpf.TC_INGRESS, handle=1, priority=7)
    loaded.close()
    strangers = [("7", "interface_ingre")]
    netmond.stop(signal.SIGKILL)
    assert filters(scene.near, device) == strangers + OURS
    assert filters(scene.near, other) == OURS

    again = scene.netmond(interfaces=[device])

    assert again.interface(device)["hook"] == "tcx"
    assert filters(scene.near, other) == []
    assert filters(scene.near, device) == strangers
    again.stop()
    assert filters(scene.near, device) == strangers


def test_clsact_restart_does_not_count_twice(scene: Scene) -> None:
    """A daemon that was killed and started again on such a kernel counts each packet once."""
    device = scene.link.near_device
    netmond = scene.netmond(program=OLDER_KERNEL)
    netmond.stop(signal.SIGKILL)
    netmond.start()
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])

    user.do("exchange", name="a", count=23, size=101)

    assert netmond.interface(device)["classes"]["in_ipv4_packets"] == 23
    assert netmond.user(USER) == (23, 23 * 129) * 2
    assert filters(scene.near, device) == OURS


# -- interfaces that come and go -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "xdp"])
def test_interface_vanishes_and_returns(scene: Scene, mode: str) -> None:
    """The daemon goes on without it, says so, and monitors it again as soon as it is back; the figures of
    the users go on where they were."""
    device = scene.link.near_device
    netmond = scene.netmond(config={f"interface.{device}.attach": mode})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["::", 0])
    for round_ in (1, 2, 3):
        user.do("udp", name=f"a{round_}", peer=["10.23.1.2", port])
        user.do("exchange", name=f"a{round_}", count=23, size=101)
        row = netmond.interface(device)
        assert row["monitored"]
        assert row["classes"]["out_ipv4_packets"] == row["classes"]["in_ipv4_packets"] == 23
        assert netmond.user(USER) == (23 * round_, 23 * round_ * 129) * 2

        scene.near.ip(f"link delete {device}")
        eventually(lambda: device not in {row["name"] for row in netmond.peek("Interfaces")}, "it has gone")
        state, reason = netmond.feature("interfaces")
        assert state == "degraded"
        assert device in reason

        scene.machine.link(scene.near, scene.far)
        eventually(lambda: device in monitored(netmond), "it is back")
        eventually(lambda: netmond.feature("interfaces") == ("on", ""), "all is well")


def test_figures_are_fresh_when_somebody_asks(scene: Scene) -> None:
    """With minutes between two readings, what is asked for is no older than [daemon] interval."""
    netmond = scene.netmond(config={"daemon.idle_interval": 60, "output.csv.interval": 3600})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    def packets() -> list[int]:
        return [row["out_packets"] for row in netmond.peek("Users") if row["uid"] == USER]

    eventually(lambda: packets() == [23], "the 23 datagrams are there")


def test_an_output_is_fed_in_time(scene: Scene) -> None:
    """Rows that are due each second are written each second, though nobody asks for minutes."""
    netmond = scene.netmond(config={"daemon.idle_interval": 60, "output.csv.interval": 1})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])

    def has_sent(total: int) -> bool:
        """The running total in the last row."""
        lines = "".join(file.read_text() for file in netmond.logs.glob(f"users/{USER}/*.log")).splitlines()
        return bool(lines) and lines[-1].split(",")[6:7] == [str(total)]

    for number in range(1, 4):
        user.do("exchange", name="a", count=1, size=101)
        eventually(partial(has_sent, 129 * number), "its row is there")


def test_interface_that_appears_counts_from_its_first_packet(scene: Scene) -> None:
    """An interface on the list that comes into being later is monitored at once, not at the next tick."""
    netmond = scene.netmond(interfaces=[scene.link.near_device, "far2"], config={"daemon.interval": 30})
    server, user = scene.server(), scene.user()

    link = scene.machine.link(scene.near, scene.far, number=2)
    eventually(lambda: "Monitoring far2" in netmond.log, "it is monitored")
    port = server.do("echo_server", local=["10.23.2.2", 0])
    user.do("udp", name="a", peer=["10.23.2.2", port])
    user.do("exchange", name="a", count=23, size=101)

    netmond.configure({"daemon.interval": 0.1})
    netmond.call("Reload", ("a{sv}",), {})
    netmond.call("MonitorInterface", ("s", "a{sv}"), scene.link.near_device, {})  # makes a tick
    (row,) = [row for row in netmond.peek("Interfaces") if row["name"] == link.near_device]
    assert row["classes"]["out_ipv4_packets"] == 23


def test_interface_renamed(scene: Scene) -> None:
    """Monitored by name: an interface that takes another name is let go, and taken up again with the old."""
    device = scene.link.near_device
    netmond = scene.netmond()

    scene.near.ip(f"link set {device} down", f"link set {device} name other0", "link set other0 up")
    eventually(lambda: not monitored(netmond), "it is let go")
    assert attached(scene.near) == ""

    scene.near.ip("link set other0 down", f"link set other0 name {device}", f"link set {device} up")
    eventually(lambda: device in monitored(netmond), "it is taken up again")


@pytest.mark.parametrize("mode", ["auto", "xdp"])
def test_interface_moved_to_another_namespace(scene: Scene, mode: str) -> None:
    """An interface that is given to a container takes none of our programs with it, and counts again when
    it comes back."""
    device = scene.link.near_device
    netmond = scene.netmond(config={f"interface.{device}.attach": mode})
    other = scene.machine.namespace("other")
    objects = bpf_objects(netmond.pid)

    scene.near.ip(f"link set {device} netns {other.name}")
    eventually(lambda: device not in {row["name"] for row in netmond.peek("Interfaces")}, "it has gone")
    eventually(lambda: len(objects["link"]) - len(alive(objects)["link"]) == 2, "its links are gone")
    assert attached(other) == ""

    other.ip(f"link set {device} netns {scene.near.name}")
    scene.link.furnish(far=False)
    eventually(lambda: device in monitored(netmond), "it is taken up again")
    scene.user().do("refused", peer=["10.23.1.2", 9], count=23)
    assert netmond.interface(device)["classes"]["in_ipv4_packets"] == 23


def test_interface_added_and_removed_by_hand(scene: Scene) -> None:
    """`interface add` and `remove` change what is monitored at once, and how."""
    device = scene.link.near_device
    netmond = scene.netmond(interfaces=["lo"])
    for mode, hook in (("auto", "tcx"), ("xdp", "xdp"), ("xdp-generic", "xdp-generic"), ("tc", "tcx")):
        assert netmond.ctl("interface", "add", device, "--attach", mode).code == 0
        (row,) = [row for row in netmond.json("interfaces") if row["name"] == device]
        assert (row["monitored"], row["hook"]) == (True, hook)
    assert netmond.ctl("interface", "remove", device).code == 0
    (row,) = [row for row in netmond.json("interfaces") if row["name"] == device]
    assert (row["monitored"], row["hook"]) == (False, "")
    assert device not in attached(scene.near)


def test_nothing_leaks(scene: Scene) -> None:
    """Interfaces and targets added and removed over and over leave descriptors, objects and memory as they
    were."""
    device = scene.link.near_device
    netmond = scene.netmond(interfaces=["lo"])
    targets = [f"10.{number // 256}.{number % 256}.0/24" for number in range(101)]
    sizes = []
    for _ in range(2):
        for _ in range(11):
            netmond.call("MonitorInterface", ("s", "a{sv}"), device, {"attach": ["s", "xdp-generic"]})
            netmond.call("UnmonitorInterface", ("s", "a{sv}"), device, {})
            netmond.add_targets(*targets)
            netmond.call("RemoveTargets", ("as", "a{sv}"), targets, {})
        objects = {kind: len(ids) for kind, ids in bpf_objects(netmond.pid).items()}
        sizes.append((netmond.descriptors(), objects, netmond.resident()))

    assert sizes[0][:2] == sizes[1][:2]
    assert sizes[1][2] - sizes[0][2] < 1 << 20


def test_reload_takes_up_a_new_configuration(scene: Scene) -> None:
    """Interfaces, targets and the interval change on reload, and counting goes on."""
    device = scene.link.near_device
    netmond = scene.netmond(interfaces=["lo"])
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    netmond.configure({"interfaces.monitor": [device], "targets.addresses": ["10.23.1.2"]})
    assert netmond.ctl("reload").code == 0
    user.do("exchange", name="a", count=29, size=101)

    assert netmond.target("10.23.1.2") == (29, 29 * 129) * 2
    assert netmond.interface(device)["classes"]["in_ipv4_packets"] == 29
    assert not netmond.interface("lo")["monitored"]
    assert counted(netmond.flows(USER)[0]) == (52, 52 * 129) * 2


def test_sighup_reloads(scene: Scene) -> None:
    """kill -HUP does what `netmonctl reload` does."""
    netmond: Netmond = scene.netmond()

    netmond.configure({"targets.addresses": ["192.0.2.7"]})
    os.kill(netmond.pid, signal.SIGHUP)

    eventually(lambda: netmond.peek("Targets"), "the target of the file is there")
