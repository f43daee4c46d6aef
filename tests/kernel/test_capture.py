"""Captures: every frame that tcpdump sees, byte for byte, or a count of it."""

from __future__ import annotations

import itertools
import secrets
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

from netmond.kernel.devices import devices
from netmond.kernel.taps import remove_leftovers
from tests.kernel.agent import Agent
from tests.kernel.capture import entered, send_frames
from tests.kernel.conftest import Crossing, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.ledger import Ledger, meter
from tests.kernel.machine import Namespace
from tests.kernel.pcapng import Frame, Section, read_pcap, read_pcapng
from tests.kernel.session import Refused, Session
from tests.kernel.test_lifecycle import alive, bpf_objects
from tests.kernel.tun import Tun, reflected

ETHERNET, RAW = 1, 101  # LINKTYPE_*
_USERS = itertools.count(5001)


class Tcpdump:
    """The witness: tcpdump -w on one interface."""

    def __init__(self, space: Namespace, device: str, *words: str) -> None:
        self.file = space.machine.directory / f"{secrets.token_hex(4)}.pcap"
        argv = ["tcpdump", "-i", device, "-w", str(self.file), "--nano", "-U", "--immediate-mode"]
        argv += ["-B", "32768", "-Z", "root", "-n", *words]
        self._process = space.machine.start(space.command(argv))
        assert self._process.popen.stdout is not None
        assert any("listening on" in line for line in self._process.popen.stdout)

    def stop(self, count: int) -> list[Frame]:
        """Waits until it has written so many frames, and returns all."""

        def written() -> bool:
            return len(read_pcap(self.file.read_bytes())) >= count

        eventually(written, f"tcpdump has written {count} frames")
        self._process.popen.send_signal(signal.SIGINT)
        self._process.popen.communicate(timeout=DEADLINE)
        return read_pcap(self.file.read_bytes())


def compare(space: Namespace, device: str, traffic: Callable[[], object], least: int) -> Section:
    """What a capture has of some traffic: tcpdump has the same, in the same order.

    Each frame of it must be the answer to the one before. least: so many frames, or more.
    """
    captured, seen = both(space, device, traffic, least)
    assert contents(captured.frames) == contents(seen)
    times = [frame.time for frame in captured.frames]
    assert times == sorted(times)
    for ours, theirs in zip(captured.frames, seen, strict=True):
        assert abs(ours.time - theirs.time) < 10**9
    return captured


def both(
    space: Namespace, device: str, traffic: Callable[[], object], least: int
) -> tuple[Section, list[Frame]]:
    """What a capture and tcpdump have of some traffic."""
    witness = Tcpdump(space, device)
    with Session(space, {"interfaces": [device]}) as session:
        traffic()
        session.wait_for_packets(least)
        captured = read_pcapng(session.stop())
    seen = witness.stop(len(captured.frames))
    assert len(captured.frames) == len(seen) >= least
    assert captured.received == captured.accepted == {device: len(seen)}
    assert captured.dropped == {device: 0}
    return captured, seen


def contents(frames: Iterable[Frame]) -> list[tuple[int, bytes]]:
    return [(frame.length, frame.data) for frame in frames]


@contextmanager
def exchange(scene: Scene) -> Iterator[Callable[..., None]]:
    """Does what is asked of a client in the near namespace, with an echo server in the far one."""
    with scene.server() as server, scene.user(uid=next(_USERS), cgroup=None) as client:

        def talk(family: int, kind: str = "udp", count: int = 5, size: int = 100) -> None:
            address = scene.link.address(family, far=True)
            port = server.do("echo_server", local=[address, 0])
            client.do(kind, name="a", peer=[address, port])
            client.do("exchange", name="a", count=count, size=size)
            client.do("hang_up" if kind == "tcp" else "close", name="a")

        yield talk


# -- every frame ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
def test_frames_of_both_directions(shared: Scene, family: int) -> None:
    """Datagrams, whole and in fragments, and a connection: as tcpdump has them, and which way they went."""
    with exchange(shared) as talk:

        def traffic() -> None:
            talk(family, "udp")
            talk(family, "udp", 3, 4001)
            talk(family, "tcp", 3, 503)

        captured = compare(shared.near, shared.link.near_device, traffic, 2 * (5 + 3 * 3))
    assert captured.interfaces == {shared.link.near_device: ETHERNET}
    ours = bytes.fromhex(shared.link.mac().replace(":", ""))
    for frame in captured.frames:
        assert frame.direction == ("out" if frame.data[6:12] == ours else "in")


def test_super_packets(scene: Scene) -> None:
    """What the stack handles as one frame, before a device cuts it, is one frame; so are jumbo frames."""
    near, far = scene.link.near_device, scene.link.far_device
    scene.link.offload(True)
    with exchange(scene) as talk:
        captured, seen = both(scene.near, near, lambda: talk(4, "tcp", 5, 200_000), 50)
        assert max(frame.length for frame in captured.frames) > 20_000
        # Two CPUs are at work: in what order they meet is another matter where tcpdump looks.
        for sender in {frame.data[6:12] for frame in seen}:
            ours, theirs = (
                [each for each in all_ if each.data[6:12] == sender] for all_ in (captured.frames, seen)
            )
            assert contents(ours) == contents(theirs)

        scene.link.offload(False)
        scene.near.ip(f"link set {near} mtu 9000")
        scene.far.ip(f"link set {far} mtu 9000")
        captured = compare(scene.near, near, lambda: talk(6, "udp", 3, 8900), 6)
        assert {frame.length for frame in captured.frames} == {8900 + 8 + 40 + 14}


def test_vlan_tags(shared: Scene) -> None:
    """One tag, which the kernel keeps beside the frame, or two, are where they were on the wire."""
    payload = bytes(range(64))
    ends = bytes.fromhex("020000000001020000000002")
    frames = [ends + struct.pack("!H", 0x88B5) + payload]
    for tags in ((0x8100, 0x2007), (0x88A8, 0x0065, 0x8100, 0x0FFE)):
        frames.append(ends + struct.pack(f"!{len(tags)}H", *tags) + struct.pack("!H", 0x88B5) + payload)
    device = shared.link.far_device

    captured = compare(
        shared.far, device, lambda: send_frames(shared.near, shared.link.near_device, frames), 3
    )

    assert [frame.data for frame in captured.frames] == frames
    assert [frame.length for frame in captured.frames] == list(map(len, frames))


def test_loopback(shared: Scene) -> None:
    """A frame that leaves and comes in at once is there once."""
    with Agent(shared.near) as server, Agent(shared.near) as client:
        port = server.do("echo_server", local=["127.0.0.1", 0])

        def traffic() -> None:
            client.do("udp", name="a", peer=["127.0.0.1", port])
            client.do("exchange", name="a", count=5, size=101)

        captured = compare(shared.near, "lo", traffic, 10)
    assert len(captured.frames) == 10


def test_a_layer_3_device(shared: Scene) -> None:
    """Frames of a tun device begin with the IP header, and a filter knows that."""
    with Tun(shared.near, "tun0") as tun, Agent(shared.near) as user:
        shared.near.ip("link set tun0 addrgenmode none up", "addr add 10.77.0.1/24 dev tun0")
        user.do("udp", name="a", peer=["10.77.0.2", 7])

        def traffic() -> None:
            user.begin("exchange", name="a", count=5, size=101)
            for _ in range(5):
                tun.send(reflected(tun.receive()))
            user.end()

        captured = compare(shared.near, "tun0", traffic, 10)
        assert captured.interfaces == {"tun0": RAW}
        with Session(shared.near, {"interfaces": ["tun0"], "filter": "udp dst port 7"}) as session:
            traffic()
            session.wait_for_packets(5)
            frames = read_pcapng(session.stop()).frames
    assert {(frame.direction, frame.length) for frame in frames} == {("out", 129)}


def test_bridge_and_its_ports(bridged: Crossing) -> None:
    """Several interfaces in one capture: each frame at each that it passes, in order of time."""
    space = bridged.left.near
    names = [bridged.left.near_device, bridged.right.near_device, "br0"]
    with Agent(bridged.right.far) as server, Agent(bridged.left.far) as client:
        port = server.do("echo_server", local=["10.77.0.2", 0])
        client.do("udp", name="a", peer=["10.77.0.2", port])
        client.do("exchange", name="a", count=1, size=99)  # so that addresses are known
        with Session(space, {"interfaces": ["any"], "filter": f"udp port {port}"}) as session:
            client.do("exchange", name="a", count=5, size=101)
            session.wait_for_packets(20)
            captured = read_pcapng(session.stop())
    assert set(names) <= captured.interfaces.keys()
    one_way = [(names[0], "in"), (names[1], "out")]
    back = [(names[1], "in"), (names[0], "out")]
    assert [(frame.interface, frame.direction) for frame in captured.frames] == 5 * [*one_way, *back]


# -- parts of them ---------------------------------------------------------------------------------------


def test_limits(shared: Scene) -> None:
    """So many frames and no more; so much of each; one direction; what a filter takes."""
    device = shared.link.near_device
    with exchange(shared) as talk:
        options = {"interfaces": [device], "count": 7, "snaplen": 60, "direction": "in", "filter": "udp"}
        with Session(shared.near, options) as session:
            talk(4, "tcp", 3)
            talk(4, "udp", 11, 300)
            captured = read_pcapng(session.end())
            told = session.progress()[-1]
    assert [(frame.direction, frame.length, len(frame.data)) for frame in captured.frames] == 7 * [
        ("in", 342, 60)
    ]
    assert (told["end"], told["packets"], told["bytes"]) == ("count", 7, 7 * 342)
    assert told["filtered"] > 3


@pytest.fixture(scope="module")
def metered(shared: Scene) -> Iterator[Ledger]:
    """The meter at work."""
    with meter(shared.slice, slots=256) as ledger:
        yield ledger


@pytest.mark.parametrize("who", ["users", "units", "processes", "pids"])
def test_whose_frames(shared: Scene, metered: Ledger, who: str) -> None:
    """Of two users, in two units, only the frames of one are captured, both ways, and say whose they are."""
    mine, other = next(_USERS), next(_USERS)
    elsewhere = shared.machine.cgroup(f"{shared.slice.path}/bar{other}.service")
    with (
        shared.server() as server,
        shared.user(uid=mine) as wanted,
        shared.user(uid=other, cgroup=elsewhere) as unwanted,
    ):
        for agent, name in ((wanted, "wanted"), (unwanted, "unwanted")):
            agent.do("rename", name=name)
        value = {"users": mine, "units": "foo.service", "processes": "wanted", "pids": wanted.pid}[who]
        given = {"tickets": metered.maps["owners"], "flows": metered.maps["flows"]}
        address = shared.link.address(4, far=True)
        port = server.do("echo_server", local=[address, 0])
        options = {"interfaces": [shared.link.near_device], who: [value]}
        with Session(shared.near, options, given=given, slots=256) as session:
            ports = {}
            for agent, kind in itertools.product((unwanted, wanted), ("udp", "tcp")):
                ports[agent, kind] = agent.do(kind, name=kind, peer=[address, port])
                agent.do("exchange", name=kind, count=5, size=100)
            session.wait_for_packets(20)
            captured = read_pcapng(session.stop())
            told = session.progress()[-1]
    for direction in ("in", "out"):
        frames = [frame for frame in captured.frames if frame.direction == direction]
        assert len(frames) >= 10
        assert {near_port(frame) for frame in frames} == {ports[wanted, "udp"], ports[wanted, "tcp"]}
    assert told["filtered"] >= 20
    said = captured.frames[-1].comment
    assert f"uid={mine} process=wanted pid={wanted.pid} unit=foo.service" in said


def near_port(frame: Frame) -> int:
    """Of TCP or UDP over IPv4."""
    return int(struct.unpack_from("!H", frame.data, 34 if frame.direction == "out" else 36)[0])


# -- what is lost is counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "not reading"])
def test_loss_is_exact(shared: Scene, reading: bool) -> None:
    """A ring of a page under flood, read or not: captured and dropped is sent, each way."""
    near, far = shared.link.near_device, shared.link.far_device
    frame = bytes.fromhex("02000000010102000000010288b5") + bytes(100)
    options = {"interfaces": [near], "buffer": 4096}
    with (
        Session(shared.near, {**options, "direction": "in"}, reading=reading) as into,
        Session(shared.near, {**options, "direction": "out"}, reading=reading) as out,
    ):
        send_frames(shared.far, far, [frame] * 20_000)
        send_frames(shared.near, near, [frame] * 15_000)
        for session, sent in ((into, 20_000), (out, 15_000)):
            captured = read_pcapng(session.stop())
            told = session.progress()[-1]
            assert told["packets"] == len(captured.frames)
            assert told["packets"] + told["dropped"] == sent
            assert told["dropped"] > 0
            assert captured.received == captured.accepted == {near: sent}
            assert captured.dropped == {near: told["dropped"]}
            assert all(each.data == frame for each in captured.frames)


def test_beside_the_daemon(scene: Scene) -> None:
    """netmond's own counters of an interface stay right while it is captured from."""
    device = scene.link.near_device
    with scene.netmond() as netmond, exchange(scene) as talk:
        before = netmond.interface(device)
        with Session(scene.near, {"interfaces": [device]}) as session:
            talk(4, "udp", 11, 100)
            session.wait_for_packets(22)
            captured = read_pcapng(session.stop())
        after = netmond.interface(device)
    for direction in ("in", "out"):
        frames = [frame for frame in captured.frames if frame.direction == direction]
        assert after[f"{direction}_packets"] - before[f"{direction}_packets"] == len(frames) == 11
        assert after[f"{direction}_bytes"] - before[f"{direction}_bytes"] == 11 * 142


# -- how it ends -------------------------------------------------------------------------------------------


def test_a_kill_leaves_nothing(shared: Scene) -> None:
    """All programs hang on the worker."""
    with Session(shared.near, {"interfaces": [shared.link.near_device, "lo"]}) as session:
        programs = {"prog": bpf_objects(session.process.pid)["prog"]}
        assert len(programs["prog"]) >= 2
        assert alive(programs) == programs
        session.process.popen.kill()
        session.process.popen.wait(DEADLINE)
        eventually(lambda: not alive(programs), "the programs are gone")


def filters(space: Namespace, device: str) -> int:
    """How many filters of captures are in a device's clsact."""
    shown = (space.run("tc", "filter", "show", "dev", device, way) for way in ("ingress", "egress"))
    return sum(text.count("direct-action") for text in shown if "capture_" in text)


def test_before_linux_6_6(scene: Scene) -> None:
    """Without tcx a capture is the same; what a killed worker leaves can be removed."""
    device = scene.link.near_device
    with exchange(scene) as talk:
        with Session(scene.near, {"interfaces": [device]}, module="tests.kernel.older_capture") as session:
            talk(4, "udp", 5)
            session.wait_for_packets(10)
            frames = read_pcapng(session.stop()).frames
        assert len(frames) == 10
        assert filters(scene.near, device) == 0
        with Session(scene.near, {"interfaces": [device]}, module="tests.kernel.older_capture") as session:
            session.process.popen.kill()
            session.process.popen.wait(DEADLINE)
            pid = session.process.pid
        assert filters(scene.near, device) == 2
        with entered(scene.near):
            assert remove_leftovers(devices(), pid + 1) == 0
            assert remove_leftovers(devices(), pid) == 2
            assert remove_leftovers(devices()) == 0
        assert filters(scene.near, device) == 0


def test_interfaces_that_vanish(scene: Scene) -> None:
    """A capture goes on without one of its interfaces, and ends when none is left."""
    scene.near.ip("link add gone0 type veth peer gone1", "link set gone0 up", "link set gone1 up")
    device = scene.link.near_device
    with Session(scene.near, {"interfaces": ["gone0", device], "filter": "udp"}) as session:
        scene.near.ip("link delete gone0")
        with exchange(scene) as talk:
            talk(4, "udp", 5)
        session.wait_for_packets(10)
        scene.near.ip(f"link delete {device}")
        captured = read_pcapng(session.end())
        assert session.progress()[-1]["end"] == "interface"
    assert len(captured.frames) == 10
    assert captured.received.keys() == {"gone0", device}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"interfaces": ["nope"]}, "there is no interface nope; there are lo"),
        ({}, "no interface has a default route; say which one is meant: lo"),
        ({"interfaces": ["lo"], "filter": "tcp prot 80"}, "filter: "),
        ({"interfaces": ["lo"], "pids": [1]}, "only the meter knows processes"),
    ],
)
def test_refusals(shared: Scene, options: dict[str, object], said: str) -> None:
    """One line that says what to do."""
    with pytest.raises(Refused, match=f"^{said}"):
        Session(shared.near, options)
