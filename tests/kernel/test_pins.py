"""What is left in a BPF file system: builds, their links, and what daemons do with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.errors import KernelError
from netmond.kernel import libbpf, programs
from netmond.kernel.compile import Compilation, Loaded
from netmond.kernel.pins import Generation, Links, is_bpffs
from netmond.kernel.programs import interface_unit
from netmond.kernel.tables import InterfaceTables
from netmond.ports import Ports
from tests.kernel.capture import entered
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Machine
from tests.kernel.running import ROOT, Netmond, Said
from tests.kernel.test_lifecycle import alive, attached, bpf_objects, bpftool

UNIT = interface_unit(targets=1, forwarded=1)
ONE, OTHER = "0123456789ab", "ba9876543210"
EGRESS = "interface_egress"


@pytest.fixture
def root(machine: Machine) -> Path:
    directory = machine.directory / "bpf"
    machine.bpffs(directory)
    return directory


@pytest.fixture
def load() -> Iterator[Callable[[], Loaded]]:
    """Makes a build of the interface programs."""
    builds: list[Loaded] = []

    def build() -> Loaded:
        builds.append(Compilation(UNIT).result())
        return builds[-1]

    yield build
    for each in builds:
        each.close()


def names_in(root: Path) -> set[str]:
    """What is in a BPF file system, but for what the kernel puts there for debugging."""
    return {name for name in os.listdir(root) if not name.endswith(".debug")}


def bpf_descriptors() -> int:
    """How many of BPF objects are open here. (What an earlier test used may be closed at any time.)"""
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            count += os.readlink(entry.path).startswith("anon_inode:bpf")
    return count


def no_new_one() -> int:
    raise AssertionError("there is a link already")


def identity(link: int) -> str:
    """The kernel's number of a link."""
    lines = Path(f"/proc/self/fdinfo/{link}").read_text().splitlines()
    (number,) = [line.split()[1] for line in lines if line.startswith("link_id:")]
    return number


# -- generations -------------------------------------------------------------------------------------------


def test_a_build_is_saved_and_taken_up(root: Path, load: Callable[[], Loaded]) -> None:
    """The same maps and programs, by name, and what was noted; removing it leaves nothing."""
    loaded = load()
    saved = Generation.save(root, UNIT, ONE, loaded)

    (found,) = Generation.all(root, UNIT.name)
    again = found.load(UNIT, ("a note",))

    assert found == saved
    assert Generation.all(root, "sockets") == []
    assert set(again.programs) == set(loaded.programs)
    assert {name: libbpf.map_id(map_) for name, map_ in again.maps.items()} == {
        name: libbpf.map_id(map_) for name, map_ in loaded.maps.items()
    }
    assert again.notes == ("a note",)
    again.close()
    found.remove()
    assert names_in(root) == set()


def test_builds_beside_each_other(root: Path, load: Callable[[], Loaded]) -> None:
    """Also two of the same source: each has a number of its own."""
    saved = [Generation.save(root, UNIT, fingerprint, load()) for fingerprint in (ONE, ONE, OTHER)]

    assert len({each.path for each in saved}) == len({each.id for each in saved}) == 3
    saved[1].remove()
    assert set(Generation.all(root, UNIT.name)) == {saved[0], saved[2]}


def test_an_incomplete_build(root: Path, load: Callable[[], Loaded]) -> None:
    """Without one of its maps it cannot be taken up, and no descriptor stays open; without a program that
    the kernel once refused it can."""
    saved = Generation.save(root, UNIT, ONE, load())
    (saved.path / "programs" / "interface_xdp").unlink()
    with pytest.raises(KernelError, match="interface_xdp: No such file"):
        saved.load(UNIT, ())
    optional = tuple(replace(each, loss="something") for each in UNIT.programs)

    saved.load(replace(UNIT, programs=optional), ()).close()

    (saved.path / "maps" / "forwarded").unlink()
    before = bpf_descriptors()
    with pytest.raises(KernelError, match="forwarded: No such file"):
        saved.load(replace(UNIT, programs=optional), ())
    assert bpf_descriptors() == before


def test_what_belongs_to_others(root: Path, load: Callable[[], Loaded]) -> None:
    """Whatever is not called as ours are is no build, and stays."""
    loaded = load()
    for name in (
        "somebody",
        "interfaces",
        f"interfaces-{ONE}",
        f"interfaces-{ONE}-x",
        f"x-interfaces-{ONE}-1",
    ):
        (root / name).mkdir()
    libbpf.pin(loaded.maps["ports"], root / "map")
    others = names_in(root)

    Generation.save(root, UNIT, ONE, loaded).remove()

    assert Generation.all(root, UNIT.name) == []
    assert names_in(root) == others


def test_no_bpf_file_system(machine: Machine, load: Callable[[], Loaded]) -> None:
    """A directory elsewhere is told apart, and nothing can be saved there."""
    assert not is_bpffs(machine.directory)
    assert not is_bpffs(machine.directory / "nowhere")

    with pytest.raises(KernelError, match="cannot pin"):
        Generation.save(machine.directory, UNIT, ONE, load())


# -- links -------------------------------------------------------------------------------------------------


class Device:
    """The near end of a scene's link, and builds that count what leaves there."""

    def __init__(self, scene: Scene, root: Path, load: Callable[[], Loaded]) -> None:
        self._space, self._root, self._load = scene.near, root, load
        self.index = scene.near.index(scene.link.near_device)
        self.name = f"{self.index}-{EGRESS}"
        self.created = 0

    def build(self, fingerprint: str) -> tuple[Generation, Loaded]:
        loaded = self._load()
        return Generation.save(self._root, UNIT, fingerprint, loaded), loaded

    def create(self, loaded: Loaded) -> Callable[[], int]:
        def create() -> int:
            self.created += 1
            with entered(self._space):
                return libbpf.create_link(loaded.programs[EGRESS], self.index, programs.TCX_EGRESS)

        return create

    def counting(self, loaded: Loaded) -> Callable[[], int]:
        """Lets a build count; how many packets it has counted."""
        ports = Ports(InterfaceTables.open(loaded.maps, targets=1, forwarded=1))
        ports.open(self.index, link_header=14, loopback=False)
        return lambda: int(ports.current().counters[0, 2])


@pytest.fixture
def device(scene: Scene, load: Callable[[], Loaded]) -> Device:
    root = scene.machine.directory / "bpf"
    scene.machine.bpffs(root)
    return Device(scene, root, load)


def test_a_link_is_taken_over(device: Device) -> None:
    """It is made once, outlasts whoever made it, and is the same one for the next; closing it ends it."""
    own, loaded = device.build(ONE)
    first = Links(own).attach(device.name, loaded.programs[EGRESS], device.create(loaded))
    made = identity(first._descriptor)
    os.close(first._descriptor)  # as the kernel does for a process that was killed

    second = Links(own).attach(device.name, loaded.programs[EGRESS], no_new_one)

    assert identity(second._descriptor) == made
    assert alive({"link": {int(made)}})
    second.close()
    assert os.listdir(own.path / "links") == []
    eventually(lambda: not alive({"link": {int(made)}}), "the link is gone")


def test_a_link_without_pins(device: Device) -> None:
    """It ends with the process."""
    _, loaded = device.build(ONE)
    link = Links().attach(device.name, loaded.programs[EGRESS], device.create(loaded))
    number = int(identity(link._descriptor))

    link.close()

    eventually(lambda: not alive({"link": {number}}), "the link is gone")


def test_the_interface_of_a_link_is_gone(scene: Scene, device: Device) -> None:
    """A new one is made where it is again; until then the failure is the caller's."""
    own, loaded = device.build(ONE)
    os.close(Links(own).attach(device.name, loaded.programs[EGRESS], device.create(loaded))._descriptor)
    scene.near.ip(f"link delete {scene.link.near_device}")
    with pytest.raises(KernelError, match="cannot attach"):
        Links(own).attach(device.name, loaded.programs[EGRESS], device.create(loaded))
    assert os.listdir(own.path / "links") == []
    scene.machine.link(scene.near, scene.far)
    device.index = scene.near.index(scene.link.near_device)

    Links(own).attach(device.name, loaded.programs[EGRESS], device.create(loaded)).close()

    assert device.created == 3


def test_links_nobody_asks_for(device: Device) -> None:
    """Those that were dropped end at once, of this build and of former ones; the rest at the sweep."""
    (own, loaded), (former, _) = device.build(ONE), device.build(OTHER)
    descriptor = device.create(loaded)()
    names = ["dropped", "forgotten", "kept"]  # names of one and the same
    for generation in (own, former):
        for name in names:
            libbpf.pin(descriptor, generation.path / "links" / name)
    links = Links(own, [former])

    links.drop("dropped")

    assert sorted(os.listdir(own.path / "links")) == sorted(os.listdir(former.path / "links")) == names[1:]
    kept = links.attach("kept", loaded.programs[EGRESS], no_new_one)
    links.sweep()
    assert os.listdir(own.path / "links") == ["kept"]
    assert not (former.path / "links").exists()
    kept.close()
    os.close(descriptor)


def test_a_link_of_another_kind(device: Device, load: Callable[[], Loaded]) -> None:
    """Where the program of a former link cannot be replaced, a new link is made, and the former ends."""
    (former, before), (own, loaded) = device.build(OTHER), device.build(ONE)
    with entered(device._space):
        descriptor = libbpf.create_link(
            before.programs["interface_xdp"], device.index, programs.XDP, libbpf.XDP_FLAGS_SKB_MODE
        )
    libbpf.pin(descriptor, former.path / "links" / device.name)
    os.close(descriptor)

    link = Links(own, [former]).attach(device.name, loaded.programs[EGRESS], device.create(loaded))

    assert device.created == 1
    assert os.listdir(former.path / "links") == []
    assert os.listdir(own.path / "links") == [device.name]
    link.close()


def test_no_packet_goes_by_while_programs_are_replaced(scene: Scene, device: Device) -> None:
    """50 times, between two builds, at full speed: each packet is counted by the one or by the other."""
    builds = [device.build(fingerprint) for fingerprint in (ONE, OTHER)]
    counted = [device.counting(loaded) for _, loaded in builds]
    link = Links(builds[0][0]).attach(
        device.name, builds[0][1].programs[EGRESS], device.create(builds[0][1])
    )
    sender, sent = scene.user(), 0
    sender.do("udp", name="a", peer=["10.23.1.2", 9])
    scene.server().do("udp", name="sink", local=["10.23.1.2", 9])  # nobody answers

    for number in range(1, 51):
        sender.begin("send", name="a", count=20_000, size=18)
        sent += 20_000
        (former, _), (own, loaded) = builds[number % 2 - 1], builds[number % 2]
        before = [each() for each in counted]
        eventually(lambda: counted[number % 2 - 1]() > before[number % 2 - 1], "packets are on their way")  # noqa: B023
        os.close(link._descriptor)
        link = Links(own, [former]).attach(device.name, loaded.programs[EGRESS], no_new_one)
        sender.end()

    assert sum(each() for each in counted) == sent
    assert all(each() > 0 for each in counted)
    assert device.created == 1
    link.close()


# -- daemons -----------------------------------------------------------------------------------------------


@pytest.fixture
def netmond(scene: Scene) -> Netmond:
    """One that may leave something, not started yet."""
    made = scene.daemon()
    scene.machine.bpffs(made.run / "bpf")
    return made


def left(netmond: Netmond) -> tuple[set[str], set[str]]:
    """Units with pinned builds, and files of the run directory, but for a checkpoint that is being written,
    or was when the daemon was killed."""
    units = {name.partition("-")[0] for name in names_in(netmond.run / "bpf")}
    files = {name for name in os.listdir(netmond.run) if not name.endswith(".new")}
    return units, files - {"bpf"}


NOTHING: tuple[set[str], set[str]] = (set(), set())
EVERYTHING = {"sockets", "interfaces"}, {"sockets.checkpoint", "interfaces.checkpoint"}


def run_netmond(netmond: Netmond, *words: str) -> Said:
    """netmond with these options, --detach if there are none, in the daemon's namespace."""
    argv = netmond.space.command(
        [sys.executable, "-m", "netmond", *netmond.arguments, *(words or ["--detach"])]
    )
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=netmond.environment,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def talk(scene: Scene) -> Callable[[int], None]:
    """A user's UDP socket that exchanges so many datagrams with the far side."""
    port = scene.server().do("echo_server", local=["10.23.1.2", 0])
    user = scene.user()
    user.do("udp", name="a", peer=["10.23.1.2", port])

    def exchange(count: int) -> None:
        user.do("exchange", name="a", count=count, size=101)

    return exchange


def test_detach(scene: Scene, netmond: Netmond, load: Callable[[], Loaded]) -> None:
    """After SIGKILL counting goes on until it is ended: then nothing is left in the kernel or the directory
    but what others have there."""
    netmond.start()
    objects = bpf_objects(netmond.pid)
    netmond.stop(signal.SIGKILL)
    libbpf.pin(load().maps["ports"], netmond.run / "bpf" / "map")
    (netmond.run / "bpf" / "somebody").mkdir()
    assert left(netmond)[1] == EVERYTHING[1]
    assert alive(objects)["link"] == objects["link"]
    assert bpftool("cgroup", "show", str(scene.slice.directory)) != []

    said = run_netmond(netmond)

    assert (said.code, said.out, said.err) == (0, "", "")
    assert left(netmond) == ({"map", "somebody"}, set())
    eventually(lambda: alive(objects) == {}, "the kernel has freed everything")
    assert bpftool("cgroup", "show", str(scene.slice.directory)) == []
    assert run_netmond(netmond).code == 0  # nothing to do is no error


def test_detach_while_it_runs(scene: Scene, netmond: Netmond) -> None:
    """Refused in a line, and the daemon does not notice."""
    netmond.start()
    exchange = talk(scene)

    said = run_netmond(netmond)

    assert said.code == 1
    assert said.line == f"netmond: another netmond uses {netmond.run}: stop it first"
    exchange(23)
    assert netmond.user(USER) == (23, 23 * 129) * 2
    assert left(netmond) == EVERYTHING


def test_two_daemons_in_one_directory(scene: Scene, netmond: Netmond) -> None:
    """The second is refused in a line before it touches anything, and the first does not notice."""
    netmond.start()
    before = left(netmond)
    second = scene.daemon()  # on a bus of its own

    code = second.launch().popen.wait(2 * DEADLINE)

    assert code == 1
    complaint = f"netmond: another netmond uses {netmond.run}: stop it first"
    assert [line for line in second.log.splitlines() if line.startswith("netmond: ")] == [complaint]
    assert left(netmond) == before
    assert netmond.feature("restart") == ("on", "")


def test_stopped(scene: Scene, netmond: Netmond) -> None:
    """SIGTERM, and no unit that would take care: nothing is left."""
    netmond.start()
    assert netmond.feature("restart") == ("on", "")
    assert left(netmond) == EVERYTHING
    objects = bpf_objects(netmond.pid)

    assert netmond.stop() == 0

    assert left(netmond) == NOTHING
    eventually(lambda: alive(objects) == {}, "the kernel has freed everything")
    assert attached(scene.near) == ""


@pytest.mark.parametrize("keep", ["restart", "always"])
def test_counting_goes_on(
    scene: Scene, netmond: Netmond, keep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SIGTERM, if a unit takes care of the rest or the configuration says so; all figures go on."""
    if keep == "restart":
        monkeypatch.setenv("NETMOND_UNIT", "netmond.service")
    netmond.configure({"daemon.keep_counting": keep, "targets.addresses": ["10.23.1.2"]})
    netmond.start()
    exchange = talk(scene)
    exchange(23)
    (before,) = netmond.flows(USER)
    assert netmond.stop() == 0
    assert left(netmond) == EVERYTHING

    exchange(1009)
    netmond.start()
    exchange(7)

    (flow,) = netmond.flows(USER)
    assert flow["id"] == before["id"]
    assert flow["out_packets"] == 1039
    assert netmond.user(USER) == netmond.target("10.23.1.2") == (1039, 1039 * 129) * 2
    assert netmond.interface(scene.link.near_device)["classes"]["in_ipv4_packets"] == 1039
    netmond.stop()
    assert run_netmond(netmond).code == 0
    assert left(netmond) == NOTHING


def test_switched_off(scene: Scene, netmond: Netmond) -> None:
    """Nothing outlasts the daemon, however it ends; what was left before is not used."""
    netmond.configure({"daemon.keep_counting": "never"})
    netmond.start()
    objects = bpf_objects(netmond.pid)
    assert netmond.feature("restart") == ("off", "switched off by [daemon] keep_counting")
    assert left(netmond)[0] == set()

    netmond.stop(signal.SIGKILL)

    eventually(lambda: alive(objects) == {}, "the kernel has freed everything")
    assert left(netmond) == NOTHING


def test_a_part_that_is_switched_off(scene: Scene, netmond: Netmond) -> None:
    """What an earlier daemon counted with does not go on for nobody."""
    netmond.start()
    netmond.stop(signal.SIGKILL)
    assert left(netmond) == EVERYTHING

    netmond.configure({"meter.enabled": False})
    netmond.start()

    assert left(netmond) == ({"interfaces"}, {"interfaces.checkpoint"})
    assert netmond.stop() == 0


def test_a_start_that_fails(netmond: Netmond, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a bus it ends, in one line, and takes what it has attached already with it."""
    nowhere = {"DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent"}
    monkeypatch.setattr(Netmond, "environment", {**netmond.environment, **nowhere})

    said = run_netmond(netmond, "--log-level", "info")

    assert said.code == 1
    assert "cannot connect to D-Bus" in said.err.splitlines()[-1]
    assert left(netmond) == NOTHING


def test_without_a_bpf_file_system(scene: Scene) -> None:
    """Everything else works, and the reason is told."""
    netmond = scene.netmond()

    state, reason = netmond.feature("restart")

    assert state == "off"
    assert f"{netmond.run}/bpf is no bpffs" in reason
    assert netmond.interface(scene.link.near_device)["monitored"]
