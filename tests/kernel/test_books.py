"""Closed books: what the kernel counted on an interface is accounted for, on every kind of interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import pytest

from netmonctl.errors import ExitCode
from tests.kernel.agent import Agent
from tests.kernel.capture import send_frames
from tests.kernel.conftest import Crossing, Scene
from tests.kernel.deadline import eventually
from tests.kernel.machine import Link, Namespace
from tests.kernel.running import Netmond

T = TypeVar("T")

Amount = tuple[int, int]
Book = dict[str, Amount]
NOTHING = (0, 0)
GAMES = 5  # a user of every Debian: a message bus turns away those it cannot look up


class Audit:
    """An interface's books and the kernel's own counters, from now on."""

    def __init__(self, netmond: Netmond, space: Namespace, device: str) -> None:
        self._netmond, self._space, self._device = netmond, space, device
        netmond.settle()  # books begin with the first tick
        self._books, self._kernel = self._at_rest()

    def grown(self) -> dict[str, Book]:
        """direction -> line -> packets and bytes since. The sum is what the kernel counted, to the byte."""
        books, kernel = self._at_rest()
        grown = {
            direction: {
                line: (packets - before[0], size - before[1])
                for line, (packets, size) in books[direction].items()
                for before in [self._books[direction].get(line, NOTHING)]
            }
            for direction in books
        }
        for direction, theirs in (("in", "rx"), ("out", "tx")):
            counted = [
                kernel[f"{theirs}_{unit}"] - self._kernel[f"{theirs}_{unit}"]
                for unit in ("packets", "bytes")
            ]
            assert grown[direction]["kernel"] == tuple(counted)
        return grown

    def _at_rest(self) -> tuple[dict[str, Book], dict[str, int]]:
        """The books and the kernel's own counters, with no packet between the two."""

        def look() -> tuple[dict[str, Book], dict[str, int]] | None:
            before = self._space.statistics(self._device)
            self._netmond.settle()
            books = self.read()
            return (books, before) if self._space.statistics(self._device) == before else None

        found = eventually(look, f"{self._device} is quiet")
        assert found is not None
        return found

    def read(self) -> dict[str, Book]:
        """The books as they are known this moment, from their beginning."""
        rows, _ = self._netmond.call("ListBooks", ("a{sv}",), {"interface": ["s", self._device]})
        found: dict[str, Book] = {"in": {}, "out": {}}
        for row in rows:
            found[row["direction"]][row["line"]] = row["line_packets"], row["line_bytes"]
        return found


def sums_up(book: Book) -> bool:
    """Whether the lines are what the kernel counted."""
    parts = [amount for line, amount in book.items() if line not in ("kernel", "wire")]
    return book["kernel"] == tuple(map(sum, zip(*parts, strict=True)))


def closed(books: Mapping[str, Book]) -> bool:
    """Whether nothing at all is unexplained."""
    return all(sums_up(book) and book["unattributed"] == NOTHING for book in books.values())


def nearly_closed(books: Mapping[str, Book]) -> bool:
    """Whether at most a thousandth of the packets and bytes is unexplained."""
    return all(
        sums_up(book)
        and abs(book["unattributed"][0]) * 1000 <= book["kernel"][0]
        and abs(book["unattributed"][1]) * 1000 <= book["kernel"][1]
        for book in books.values()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How near and far are connected. `devices`: near's, those on top of others last."""

    near: Namespace
    devices: tuple[str, ...]
    bottom: tuple[str, ...]
    addresses: Mapping[int, str]  #: far's by family
    offload: Callable[[bool], None]


def _veth(scene: Scene) -> Way:
    link = scene.link
    return _way(scene, (link.near_device,), (link,), {f: link.address(f, far=True) for f in (4, 6)})


def _vlan(scene: Scene) -> Way:
    link = scene.link
    for space, device in ((scene.near, link.near_device), (scene.far, link.far_device)):
        space.ip(f"link add link {device} name vlan7 type vlan id 7")
    return _on_top(scene, "vlan7", (link,))


def _bond(scene: Scene) -> Way:
    links = scene.link, scene.machine.link(scene.near, scene.far, number=2)
    for far, space in ((False, scene.near), (True, scene.far)):
        space.ip("link add top type bond mode balance-rr miimon 100")
        for link in links:
            device = link.far_device if far else link.near_device
            space.ip(f"link set {device} down", f"link set {device} master top", f"link set {device} up")
    return _on_top(scene, "top", links)


def _bridge(scene: Scene) -> Way:
    link = scene.link
    for space, device in ((scene.near, link.near_device), (scene.far, link.far_device)):
        space.ip("link add top type bridge", f"link set {device} master top")
    return _on_top(scene, "top", (link,))


def _on_top(scene: Scene, device: str, links: tuple[Link, ...]) -> Way:
    """Near and far with addresses on an interface that stands on others."""
    for number, space in ((1, scene.near), (2, scene.far)):
        space.ip(
            f"link set {device} addrgenmode none arp on up",
            f"addr add 10.77.0.{number}/24 dev {device}",
            f"addr add fd77::{number}/64 dev {device} nodad",
        )
        space.keep_neighbours(device)
    lower = tuple(link.near_device for link in links)
    return _way(scene, (*lower, device), links, {4: "10.77.0.2", 6: "fd77::2"})


def _way(
    scene: Scene, devices: tuple[str, ...], links: tuple[Link, ...], addresses: Mapping[int, str]
) -> Way:
    def offload(wanted: bool) -> None:
        for link in links:
            link.offload(wanted)

    bottom = tuple(link.near_device for link in links)
    return Way(near=scene.near, devices=devices, bottom=bottom, addresses=addresses, offload=offload)


WAYS = {"veth": _veth, "vlan": _vlan, "bond": _bond, "bridge": _bridge}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.interface_kind(name)) for name in WAYS])
def way(request: pytest.FixtureRequest, scene: Scene) -> Way:
    """Each of the ways."""
    return WAYS[request.param](scene)


def host(netmond: Netmond) -> tuple[int, ...]:
    """The host's total: packets and bytes in and out."""
    found = netmond.status()["host"]
    return tuple(found[name] for name in ("in_packets", "in_bytes", "out_packets", "out_bytes"))


def beside_host(netmond: Netmond, look: Callable[[], T]) -> tuple[T, tuple[int, ...]]:
    """What is there to see while the host's total stands still, and that: neighbours may still ask for each
    other's addresses."""

    def attempt() -> tuple[T, tuple[int, ...]] | None:
        total = host(netmond)
        found = look()
        return (found, total) if host(netmond) == total else None

    found = eventually(attempt, "the host is silent")
    assert found is not None
    return found


def audits(netmond: Netmond, way: Way) -> dict[str, Audit]:
    return {device: Audit(netmond, way.near, device) for device in way.devices}


def test_udp_without_offload(scene: Scene, way: Way) -> None:
    """Every packet and byte has its line, also those of datagrams in fragments, ARP and echo replies. The
    host's total is that of the lowest interfaces."""
    way.offload(False)
    netmond = scene.netmond(cgroup=None, interfaces=way.devices)
    server, user = scene.server(), scene.user()
    ports = {}
    for family, address in way.addresses.items():
        ports[family] = server.do("echo_server", local=[address, 0])
        user.do("udp", name=f"u{family}", peer=[address, ports[family]])
    before, total = beside_host(netmond, lambda: audits(netmond, way))

    for family, address in way.addresses.items():
        for size in (1, 101, 1400, 5101):
            user.do("exchange", name=f"u{family}", count=23, size=size)
        user.do("ping", address=address, count=3, size=57)

    books, now = beside_host(netmond, lambda: {device: audit.grown() for device, audit in before.items()})
    assert {device: book for device, book in books.items() if not closed(book)} == {}
    top, sizes = books[way.devices[-1]], 23 * (1 + 101 + 1400 + 5101)
    assert top["out"]["users"] == (2 * (4 * 23 + 3), 2 * sizes + 4 * 23 * (28 + 48) + 3 * (85 + 105))
    assert top["in"]["users"] == (2 * 4 * 23, 2 * sizes + 4 * 23 * (28 + 48))
    assert top["in"]["fragments"][0] == 2 * 3 * 23
    for lower in way.devices[:-1]:
        assert books[lower]["out"]["users"] == books[lower]["in"]["users"] == NOTHING
        assert books[lower]["out"]["upper"][0] == books[lower]["out"]["kernel"][0]
    wires = [books[device][direction]["wire"] for direction in ("in", "out") for device in way.bottom]
    count = len(way.bottom)
    expected = (*map(sum, zip(*wires[:count], strict=True)), *map(sum, zip(*wires[count:], strict=True)))
    assert tuple(after - then for after, then in zip(now, total, strict=True)) == expected


def test_tcp_with_offload(scene: Scene, way: Way) -> None:
    """Super-packets, merged and split: at most a thousandth is unexplained."""
    way.offload(True)
    netmond = scene.netmond(cgroup=None, interfaces=way.devices)
    server, user = scene.server(), scene.user()
    before = audits(netmond, way)

    for family, address in way.addresses.items():
        port = server.do("echo_server", local=[address, 0])
        user.do("tcp", name=f"t{family}", peer=[address, port])
        user.do("exchange", name=f"t{family}", count=101, size=200_003)
        user.do("hang_up", name=f"t{family}")

    books = {device: audit.grown() for device, audit in before.items()}
    assert {device: book for device, book in books.items() if not nearly_closed(book)} == {}
    top = books[way.devices[-1]]
    for direction in ("in", "out"):
        assert top[direction]["users"][1] > 2 * 101 * 200_003
        assert top[direction]["wire"][0] > top[direction]["users"][0]


# -- other ways ----------------------------------------------------------------------------------------


def test_loopback(scene: Scene) -> None:
    """What lo sends it receives: both have their users, and the host's total has each packet once."""
    netmond = scene.netmond(cgroup=None, interfaces=["lo"])
    user = scene.user()
    port = user.do("echo_server", local=["127.0.0.1", 0])
    audit, total = Audit(netmond, scene.near, "lo"), host(netmond)

    user.do("udp", name="u", peer=["127.0.0.1", port])
    user.do("exchange", name="u", count=23, size=101)
    books = audit.grown()

    assert closed(books)
    assert books["in"]["users"] == books["out"]["users"] == (46, 46 * 129)
    grown = [now - then for now, then in zip(host(netmond), total, strict=True)]
    assert grown == [0, 0, 46, 46 * 129]

    user.do("tcp", name="t", peer=["127.0.0.1", port])
    user.do("exchange", name="t", count=101, size=200_003)
    assert nearly_closed(audit.grown())


def test_forwarding(crossing: Crossing) -> None:
    """What comes in to leave elsewhere is forwarded, on either side, and counted once for the host."""
    devices = crossing.left.near_device, crossing.right.near_device
    netmond = crossing.netmond(cgroup=None)
    before = {device: Audit(netmond, crossing.left.near, device) for device in devices}
    total = host(netmond)

    for family in (4, 6):
        crossing.exchange(family, count=23, size=101)
        crossing.exchange(family, count=7, size=5101)
    Agent(crossing.left.far).do("ping", address=crossing.right.address(4, far=True), count=5, size=57)

    books = {device: audit.grown() for device, audit in before.items()}
    assert {device: book for device, book in books.items() if not closed(book)} == {}
    for book in books.values():
        assert book["in"]["forwarded"] == book["out"]["forwarded"]
        assert book["in"]["forwarded"][0] == book["in"]["kernel"][0] == 2 * (23 + 4 * 7) + 5
    grown = [now - then for now, then in zip(host(netmond), total, strict=True)]
    assert grown == [*map(sum, zip(*(book["in"]["wire"] for book in books.values()), strict=True)), 0, 0]


def test_forwarded_tcp_with_offload(crossing: Crossing) -> None:
    """Super-packets of others that pass."""
    for link in (crossing.left, crossing.right):
        link.far.run("ethtool", "-K", link.far_device, "tso", "on", "gso", "on")
    devices = crossing.left.near_device, crossing.right.near_device
    netmond = crossing.netmond(cgroup=None)
    before = {device: Audit(netmond, crossing.left.near, device) for device in devices}
    server, client = Agent(crossing.right.far), Agent(crossing.left.far)

    for family in (4, 6):
        address = crossing.right.address(family, far=True)
        port = server.do("echo_server", local=[address, 0])
        client.do("tcp", name=f"t{family}", peer=[address, port])
        client.do("exchange", name=f"t{family}", count=53, size=200_003)

    books = {device: audit.grown() for device, audit in before.items()}
    assert {device: book for device, book in books.items() if not nearly_closed(book)} == {}
    assert all(book["in"]["forwarded"][1] > 2 * 53 * 200_003 for book in books.values())


def test_between_ports_of_a_bridge(bridged: Crossing) -> None:
    """What a bridge passes on is forwarded on both ports, not handed up, and once the host's."""
    links = bridged.left, bridged.right
    netmond = bridged.netmond(cgroup=None, interfaces=["br0", *(link.near_device for link in links)])
    server, client = Agent(bridged.right.far), Agent(bridged.left.far)
    port = server.do("echo_server", local=["10.77.0.2", 0])
    client.do("udp", name="a", peer=["10.77.0.2", port])
    client.do("exchange", name="a")  # neighbours are known from here on
    before = {link.near_device: Audit(netmond, link.near, link.near_device) for link in links}
    total = host(netmond)

    client.do("exchange", name="a", count=23, size=101)

    for audit in before.values():
        books = audit.grown()
        assert closed(books)
        assert books["in"]["forwarded"] == books["out"]["forwarded"] == (23, 23 * 129)
    grown = [now - then for now, then in zip(host(netmond), total, strict=True)]
    assert grown == [46, 46 * 143, 0, 0]


def test_in_here_out_there(scene: Scene) -> None:
    """A socket whose packets leave by another interface than the answers come in by."""
    other = scene.machine.link(scene.near, scene.far, number=2)
    devices = scene.link.near_device, other.near_device
    for space in (scene.near, scene.far):
        space.sysctl({"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0"})
    scene.far.sysctl({f"net.ipv4.conf.{other.far_device}.rp_filter": "0"})
    near, far = scene.link.address(4), scene.link.address(4, far=True)
    scene.near.ip(f"route add {far}/32 via {other.address(4, far=True)} dev {other.near_device} src {near}")
    netmond = scene.netmond(cgroup=None, interfaces=devices)
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=[far, 0])
    before = {device: Audit(netmond, scene.near, device) for device in devices}

    user.do("udp", name="u", peer=[far, port])
    user.do("exchange", name="u", count=23, size=101)

    back, there = (before[device].grown() for device in devices)
    assert closed(back)
    assert closed(there)
    assert (there["out"]["users"], there["in"]["users"]) == ((23, 23 * 129), NOTHING)
    assert (back["out"]["users"], back["in"]["users"]) == (NOTHING, (23, 23 * 129))


def test_server_on_two_interfaces(scene: Scene) -> None:
    """One UDP socket that serves two networks at once, and one TCP connection that changes its way."""
    links = scene.link, scene.machine.link(scene.near, scene.far, number=2)
    devices = [link.near_device for link in links]
    netmond = scene.netmond(cgroup=None, interfaces=devices)
    far, user = scene.server(), scene.user()
    port = user.do("echo_server", local=["0.0.0.0", 0])
    before = {device: Audit(netmond, scene.near, device) for device in devices}

    for name, link in zip("ab", links, strict=True):
        far.do("udp", name=name, peer=[link.address(4), port])
    for _ in range(7):
        far.do("exchange", name="a", count=3, size=101)
        far.do("exchange", name="b", count=5, size=211)

    for device, count, size in zip(devices, (21, 35), (129, 239), strict=True):
        books = before[device].grown()
        assert closed(books)
        assert books["in"]["users"] == books["out"]["users"] == (count, count * size)


def test_what_the_kernel_answers(scene: Scene) -> None:
    """Echo replies and resets leave without a socket. For whom a refused packet was, nobody knows."""
    netmond = scene.netmond(cgroup=None)
    server = scene.server()
    audit = Audit(netmond, scene.near, scene.link.near_device)

    for family in (4, 6):
        server.do("ping", address=scene.link.address(family), count=23, size=57)
    books = audit.grown()
    assert closed(books)
    assert books["in"]["system"] == books["out"]["system"] == (46, 23 * (85 + 105))

    server.do("refused", peer=[scene.link.address(4), 9], count=29)
    books = audit.grown()
    assert books["out"]["system"] == (46 + 29, 23 * (85 + 105) + 29 * 40)
    assert books["out"]["unattributed"] == NOTHING
    assert books["in"]["unattributed"] == (29, 29 * 60)


def test_queue_that_drops(scene: Scene) -> None:
    """What a queueing discipline drops has left the socket, and never reaches the driver."""
    device = scene.link.near_device
    # A packet in eight seconds: however long the sender takes, what the queue has no room for is dropped.
    limit = ("tbf", "rate", "1kbit", "burst", "5kb", "limit", "10kb")
    scene.near.run("tc", "qdisc", "add", "dev", device, "root", *limit)
    netmond = scene.netmond(cgroup=None)
    server, user = scene.server(), scene.user()
    port = server.do("udp", name="s", local=[scene.link.address(4, far=True), 0])
    audit = Audit(netmond, scene.near, device)

    user.do("udp", name="u", peer=[scene.link.address(4, far=True), port])
    user.do("send", name="u", count=201, size=1001)

    book = audit.grown()["out"]
    assert sums_up(book)
    assert book["unattributed"] == NOTHING
    assert book["users"] == (201, 201 * 1029)
    waiting = book.get("queued", NOTHING)[0]
    assert book["dropped"][0] + waiting == book["kernel"][0] - 201 < -100


@pytest.mark.parametrize("hook", ["xdp", "xdp-generic"])
def test_xdp(scene: Scene, hook: str) -> None:
    """Where frames are seen before the network stack merges them or takes their headers off."""
    device, address = scene.link.near_device, scene.link.address(4, far=True)
    netmond = scene.netmond(cgroup=None, config={f"interface.{device}.attach": hook})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=[address, 0])
    audit = Audit(netmond, scene.near, device)

    user.do("udp", name="u", peer=[address, port])
    user.do("exchange", name="u", count=23, size=101)
    user.do("exchange", name="u", count=7, size=5101)
    books = audit.grown()
    assert closed(books)
    assert books["in"]["users"][1] >= 23 * 129 + 7 * 5129

    user.do("tcp", name="t", peer=[address, port])
    user.do("exchange", name="t", count=53, size=200_003)
    assert nearly_closed(audit.grown())


def test_in_motion(scene: Scene, way: Way) -> None:
    """While traffic flows at full speed, counters that are read one after the other are no error."""
    way.offload(True)
    netmond = scene.netmond(cgroup=None, interfaces=way.devices)
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=[way.addresses[4], 0])
    user.do("tcp", name="t", peer=[way.addresses[4], port])
    before = audits(netmond, way)

    user.begin("exchange", name="t", count=997, size=200_003)
    seen = 0
    while seen < 997 * 200_003:
        netmond.settle()
        for device, audit in before.items():
            book = audit.read()
            assert all(map(sums_up, book.values()))
            shares = {
                direction: abs(lines["unattributed"][1]) / max(lines["kernel"][1], 1)
                for direction, lines in book.items()
            }
            assert max(shares.values()) <= 0.001, (device, book)
            seen = book["out"]["kernel"][1]
    user.end()


def test_on_the_command_line(scene: Scene) -> None:
    """The tables with the sum of what is unexplained, for those who may see everybody's figures."""
    device = scene.link.near_device
    netmond = scene.netmond(cgroup=None)
    netmond.settle()

    said = netmond.ctl("interfaces", "--books", device)

    assert said.code == 0
    assert said.out.startswith(f"{device}, received since ")
    assert said.out.endswith("0.0000 % unexplained: 0 of 0 bytes.\n")
    lines = {row["line"] for row in netmond.json("interfaces", "--books")}
    assert lines == {"kernel", "users", "unattributed", "wire"}
    assert netmond.ctl("interfaces", "--books", uid=GAMES).code == ExitCode.NOT_ALLOWED
    assert "Machine: in 0 B in 0 packets" in netmond.ctl("status").out


# -- once ----------------------------------------------------------------------------------------------


def test_target_on_stacked_interfaces(scene: Scene, way: Way) -> None:
    """A target's packet counts once, however many monitored interfaces it passes."""
    netmond = scene.netmond(cgroup=None, interfaces=way.devices)
    netmond.add_targets(way.addresses[4])
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=[way.addresses[4], 0])

    user.do("udp", name="u", peer=[way.addresses[4], port])
    user.do("exchange", name="u", count=23, size=101)

    assert netmond.target(way.addresses[4]) == (23, 23 * 129) * 2


def test_bridge_of_which_one_port_is_monitored(scene: Scene) -> None:
    """Then the bridge counts for the host, and its port what does not reach the bridge: nothing here."""
    link = scene.link
    other = scene.machine.link(scene.near, scene.far, number=2)
    scene.near.ip("link add top type bridge", f"link set {link.near_device} master top")
    scene.near.ip(f"link set {other.near_device} master top", "link set top addrgenmode none up")
    scene.near.ip("addr add 10.77.0.1/24 dev top", "addr add 10.78.0.1/24 dev top")
    for number, device in ((77, link.far_device), (78, other.far_device)):
        scene.far.ip(f"link set {device} arp on", f"addr add 10.{number}.0.2/24 dev {device}")
    scene.near.keep_neighbours("top")
    scene.far.keep_neighbours(link.far_device, other.far_device)
    netmond = scene.netmond(cgroup=None, interfaces=["top", link.near_device])
    server, user = scene.server(), scene.user()
    for number in (77, 78):
        port = server.do("echo_server", local=[f"10.{number}.0.2", 0])
        user.do("udp", name=f"u{number}", peer=[f"10.{number}.0.2", port])
        user.do("exchange", name=f"u{number}")  # neighbours are known from here on
    netmond.settle()
    before = host(netmond)

    for number in (77, 78):
        user.do("exchange", name=f"u{number}", count=23, size=101)

    netmond.settle()
    grown = [now - then for now, then in zip(host(netmond), before, strict=True)]
    assert grown == [46, 46 * 143, 46, 46 * 143]


def test_cable_with_both_ends_here(scene: Scene) -> None:
    """A frame that leaves one end of a veth and comes in at the other is one."""
    scene.near.ip(
        "link add one type veth peer name other",
        *(f"link set {device} addrgenmode none arp off up" for device in ("one", "other")),
    )
    netmond = scene.netmond(cgroup=None, interfaces=["one", "other"])
    netmond.settle()
    before = host(netmond)

    send_frames(scene.near, "one", [bytes(12) + b"\x88\xb5" + bytes(46)] * 23)

    netmond.settle()
    grown = [now - then for now, then in zip(host(netmond), before, strict=True)]
    assert grown == [0, 0, 23, 23 * 60]
