"""Interfaces: their totals are the kernel's own, and every frame is in the right class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from netmond.kernel import programs
from tests.kernel.capture import Figures, send_frames
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.frames import FRAMES, Frame
from tests.kernel.machine import Link, Namespace
from tests.kernel.running import Netmond, Row
from tests.kernel.strangers import SCHED_CLS, stranger
from tests.kernel.tun import Tun, reflected

HOOKS = ("tc", "xdp", "xdp-generic")
CLASSES = ("ipv4", "ipv6", "arp", "other")
TIMES = 7
TCX_PASS = 0


def at_rest(netmond: Netmond, space: Namespace, device: str) -> tuple[Row, dict[str, int]]:
    """An interface's row and the kernel's counters, with no packet between the two readings."""

    def read() -> tuple[Row, dict[str, int]] | None:
        before = space.statistics(device)
        row = netmond.interface(device)
        return (row, before) if space.statistics(device) == before else None

    found = eventually(read, f"{device} is quiet")
    assert found is not None
    return found


def make_traffic(scene: Scene, link: Link) -> None:
    """Some of each family, TCP and UDP, with packets of every size."""
    server, user = scene.server(), scene.user()
    for family in (4, 6):
        port = server.do("echo_server", local=[link.address(family, far=True), 0])
        peer = [link.address(family, far=True), port]
        user.do("udp", name="u", peer=peer)
        user.do("tcp", name="t", peer=peer)
        for size in (1, 101, 1400):
            user.do("exchange", name="u", count=23, size=size)
            user.do("exchange", name="t", count=23, size=size)
        user.do("exchange", name="t", count=7, size=100_003)


@pytest.mark.parametrize("mode", ["auto", "tc", "xdp", "xdp-generic"])
def test_totals_are_the_kernels(scene: Scene, mode: str) -> None:
    """Packets and bytes in both directions grow as /sys/class/net/…/statistics does.

    The kernel counts what native XDP on a veth receives without its Ethernet header; packets are equal.
    """
    device = scene.link.near_device
    netmond = scene.netmond(config={f"interface.{device}.attach": mode})
    row, kernel = at_rest(netmond, scene.near, device)

    make_traffic(scene, scene.link)

    later, kernel_later = at_rest(netmond, scene.near, device)
    grown = {name: later[name] - row[name] for name in Figures._fields}
    kernels = {name: kernel_later[name] - kernel[name] for name in kernel}
    assert later["hook"] == ("tcx" if mode in ("auto", "tc") else mode)
    assert (grown["in_packets"], grown["out_packets"]) == (kernels["rx_packets"], kernels["tx_packets"])
    assert grown["out_bytes"] == kernels["tx_bytes"]
    ethernet = 14 * kernels["rx_packets"] if mode == "xdp" else 0
    assert grown["in_bytes"] == kernels["rx_bytes"] + ethernet
    assert {name: later[f"kernel_{name}"] for name in ("rx_packets", "tx_bytes")} == {
        name: kernel_later[name] for name in ("rx_packets", "tx_bytes")
    }
    assert grown["in_packets"] > 2 * 2 * 3 * 23
    assert scene.near.statistics(device)["tx_dropped"] == 0


def test_totals_with_offload(scene: Scene) -> None:
    """With super-packets, the stack figures are the kernel's, the wire figures those of the segments."""
    device = scene.link.near_device
    scene.link.offload(True)
    netmond = scene.netmond()
    row, kernel = at_rest(netmond, scene.near, device)

    make_traffic(scene, scene.link)

    later, kernel_later = at_rest(netmond, scene.near, device)
    grown = {name: later[name] - row[name] for name in later if name.endswith(("_packets", "_bytes"))}
    kernels = {name: kernel_later[name] - kernel[name] for name in kernel}
    assert grown["out_stack_packets"] == kernels["tx_packets"]
    assert grown["out_stack_bytes"] == kernels["tx_bytes"]
    merged = grown["out_packets"] - grown["out_stack_packets"]
    assert merged > 7
    ipv4 = later["classes"]["out_ipv4_packets"] - row["classes"]["out_ipv4_packets"]
    assert ipv4 < grown["out_packets"]
    surplus = grown["out_bytes"] - grown["out_stack_bytes"]
    # Ethernet, IP and TCP with timestamps, for each segment beyond the first: 66 bytes, or 86 with IPv6
    assert surplus in {66 * four + 86 * (merged - four) for four in range(merged + 1)}


@pytest.mark.parametrize("attach_type", [programs.TCX_INGRESS, programs.TCX_EGRESS], ids=["in", "out"])
def test_beside_others(scene: Scene, attach_type: int) -> None:
    """A program of somebody else that was there first and ends the chain (TCX_PASS) hides no packet."""
    device = scene.link.near_device
    with stranger(scene.near, device, SCHED_CLS, attach_type, TCX_PASS):
        netmond = scene.netmond()
        row, kernel = at_rest(netmond, scene.near, device)

        make_traffic(scene, scene.link)

        later, kernel_later = at_rest(netmond, scene.near, device)
    for ours, theirs in (("in", "rx"), ("out", "tx")):
        grown = later[f"{ours}_packets"] - row[f"{ours}_packets"]
        assert grown == kernel_later[f"{theirs}_packets"] - kernel[f"{theirs}_packets"]


@pytest.mark.parametrize("mode", ["auto", "xdp-generic"])
def test_loopback(scene: Scene, mode: str) -> None:
    """On lo each packet is sent and received once; both are counted, as the kernel does."""
    netmond = scene.netmond(interfaces=["lo"], config={"interface.lo.attach": mode})
    row, kernel = at_rest(netmond, scene.near, "lo")
    user = scene.user()
    port = user.do("echo_server", local=["127.0.0.1", 0])

    user.do("udp", name="a", peer=["127.0.0.1", port])
    user.do("exchange", name="a", count=23, size=101)

    later, kernel_later = at_rest(netmond, scene.near, "lo")
    assert later["in_packets"] - row["in_packets"] == later["out_packets"] - row["out_packets"] == 46
    assert later["in_bytes"] - row["in_bytes"] == kernel_later["rx_bytes"] - kernel["rx_bytes"]
    assert netmond.user(USER) == (46, 46 * 129, 46, 46 * 129)


def test_bridge(scene: Scene) -> None:
    """A bridge with the link as its port: both see the packets, each with its own figures."""
    for space, device, address in (
        (scene.near, scene.link.near_device, "10.77.0.1/24"),
        (scene.far, scene.link.far_device, "10.77.0.2/24"),
    ):
        space.ip(
            "link add top type bridge",
            f"link set {device} master top",
            "link set top addrgenmode none up",
            f"addr add {address} dev top",
        )
    netmond = scene.netmond(interfaces=["top", scene.link.near_device])
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.77.0.2", 0])
    user.do("udp", name="a", peer=["10.77.0.2", port])
    user.do("exchange", name="a")  # neighbours are known from here on
    row, kernel = at_rest(netmond, scene.near, "top")
    lower = netmond.interface(scene.link.near_device)

    user.do("exchange", name="a", count=23, size=101)

    later, kernel_later = at_rest(netmond, scene.near, "top")
    assert later["kind"] == "bridge"
    assert later["out_bytes"] - row["out_bytes"] == kernel_later["tx_bytes"] - kernel["tx_bytes"]
    assert later["in_packets"] - row["in_packets"] == kernel_later["rx_packets"] - kernel["rx_packets"]
    for each, before in ((later, row), (netmond.interface(scene.link.near_device), lower)):
        for direction in ("in", "out"):
            name = f"{direction}_ipv4_bytes"
            assert each["classes"][name] - before["classes"][name] == 23 * 143


def test_tun(scene: Scene) -> None:
    """An interface without a link-layer header: IP from the first byte on."""
    with Tun(scene.near, "tun0") as tun:
        scene.near.ip("link set tun0 addrgenmode none up", "addr add 10.77.0.1/24 dev tun0")
        netmond = scene.netmond(interfaces=["tun0"])
        user = scene.user()
        user.do("udp", name="a", peer=["10.77.0.2", 7])
        row, kernel = at_rest(netmond, scene.near, "tun0")

        user.begin("exchange", name="a", count=23, size=101)
        for _ in range(23):
            tun.send(reflected(tun.receive()))
        user.end()

        later, kernel_later = at_rest(netmond, scene.near, "tun0")
    assert later["kind"] == "tun"
    for direction, theirs in (("in", "rx"), ("out", "tx")):
        grown = later[f"{direction}_bytes"] - row[f"{direction}_bytes"]
        assert grown == 23 * 129
        assert grown == kernel_later[f"{theirs}_bytes"] - kernel[f"{theirs}_bytes"]
        assert later["classes"][f"{direction}_ipv4_packets"] == 23
    assert netmond.user(USER) == (23, 23 * 129) * 2


def test_segments_that_nobody_has_counted(scene: Scene) -> None:
    """A super-packet from outside (virtio, tun) does not say how many segments it stands for."""
    payload = bytes(6 * 1000 + 7)
    packet = bytes(IP(src="10.77.0.2", dst="10.77.0.1") / TCP(sport=7, dport=9, flags="A") / payload)
    with Tun(scene.near, "tun0", offload=True) as tun:
        scene.near.ip("link set tun0 addrgenmode none up", "addr add 10.77.0.1/24 dev tun0")
        netmond = scene.netmond(interfaces=["tun0"])

        tun.send_segments(packet, headers=40, size=1000)

        row = netmond.interface("tun0")
    assert (row["in_stack_packets"], row["in_stack_bytes"]) == (1, 6047)
    assert (row["in_packets"], row["in_bytes"]) == (7, 6007 + 7 * 40)


# -- classes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks(shared: Scene) -> dict[str, Link]:
    """One link for each way of attaching."""
    links = {"tc": shared.link}
    for number, hook in enumerate(HOOKS[1:], 2):
        links[hook] = shared.machine.link(shared.near, shared.far, number=number)
    return links


@pytest.fixture(scope="module")
def netmond(shared: Scene, hooks: Mapping[str, Link]) -> Netmond:
    """A daemon that monitors all of them."""
    config = {f"interface.{link.near_device}.attach": hook for hook, link in hooks.items()}
    return shared.netmond(config=config, interfaces=[link.near_device for link in hooks.values()])


def classes(row: Row, direction: str) -> dict[str, tuple[int, int]]:
    """Packets and bytes of each class."""
    found: dict[str, Any] = row["classes"]
    return {
        name: (found[f"{direction}_{name}_packets"], found[f"{direction}_{name}_bytes"])
        for name in (*CLASSES, "multicast")
    }


@pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])
def test_classes(shared: Scene, hooks: Mapping[str, Link], netmond: Netmond, frame: Frame) -> None:
    """A frame is in its class, with all its bytes, however the programs are attached, in and out.

    A damaged one is "other", and in the ledger.
    """

    def read() -> tuple[dict[str, Row], int]:
        rows = {row["name"]: row for row in netmond.peek("Interfaces")}
        of_hooks = {hook: rows[link.near_device] for hook, link in hooks.items()}
        return of_hooks, netmond.loss("interfaces.malformed")

    before, damaged = read()
    for link in hooks.values():
        send_frames(shared.far, link.far_device, [frame.data] * TIMES)
    send_frames(shared.near, shared.link.near_device, [frame.data] * TIMES)
    netmond.settle()
    after, damaged_later = read()

    grown = {
        f"{hook} {direction}": {
            name: (packets - was[name][0], size - was[name][1])
            for was in [classes(before[hook], direction)]
            for name, (packets, size) in classes(after[hook], direction).items()
        }
        for hook, direction in (*((hook, "in") for hook in HOOKS), ("tc", "out"))
    }
    count = (TIMES, TIMES * len(frame.data))
    expected = {name: count if name == frame.kind else (0, 0) for name in CLASSES}
    expected["multicast"] = count if frame.multicast else (0, 0)
    assert grown == dict.fromkeys(grown, expected)
    assert damaged_later - damaged == (4 * TIMES if frame.malformed else 0)
