"""The loss ledger: what the kernel saw is what was counted and what is in the ledger, to the packet.

How often a program ran is the kernel's own figure (BPF_ENABLE_STATS), not netmond's.
"""

from __future__ import annotations

import socket
import sys

import pytest

from tests.kernel.agent import Agent
from tests.kernel.capture import send_frames
from tests.kernel.conftest import USER, Crossing, Scene
from tests.kernel.deadline import eventually
from tests.kernel.frames import FRAMES
from tests.kernel.iperf import run as iperf
from tests.kernel.ledger import PAGE_OF_SLOTS, Account, interfaces, meter
from tests.kernel.run_counts import counting_runs, run_counts_of
from tests.kernel.running import total

FLOOD = 20_000  # packets of one sender
NEAR, FAR = "10.23.1.1", "10.23.1.2"
SIX_NEAR, SIX_FAR = "fd23:0:0:1::1", "fd23:0:0:1::2"
NEARS, FARS = (NEAR, SIX_NEAR, NEAR), (FAR, SIX_FAR, FAR)

#: Sends a packet as it is, so many times, from a raw socket without a peer (raw(7), ipv6(7)).
RAW_SENDER = """
import socket, sys
family, peer, packet = int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sender:
    if family == socket.AF_INET6:
        sender.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
    for _ in range(int(sys.argv[4])):
        sender.sendto(packet, (peer, 0))
"""


def check_meter(account: Account) -> None:
    """Each packet that a program saw is in a slot, in the overflow table, or in the ledger as nobody's. What
    went without a slot is the ledger's figure, and peers hold what their sockets do but for what it says."""
    counted, lost = account.counted, account.lost
    nobodys = lost["overflow-full"] + lost["no-socket"] + lost["rdma"]
    without = counted["overflow in"] + counted["overflow out"] + lost["overflow-full"]

    assert account.seen["meter_ingress"] + account.seen["meter_egress"] == nobodys + sum(
        counted[f"{where} {side}"] for where in ("slots", "overflow") for side in ("in", "out")
    )
    if not nobodys:
        assert account.seen["meter_ingress"] == counted["slots in"] + counted["overflow in"]
        assert account.seen["meter_egress"] == counted["slots out"] + counted["overflow out"]
    assert lost["no-slot-packets"] + lost["no-storage"] == without
    assert counted["unconnected"] == counted["peers"] + lost["peers-full"] + lost["no-peer"]


def check_interfaces(account: Account) -> None:
    """Each frame that a program saw is in an interface's total and one class, or met one just taken off."""
    counted, lost = account.counted, account.lost
    seen = account.seen
    ingress = seen["interface_ingress"] + seen["interface_xdp"]

    assert ingress + seen["interface_egress"] == counted["in"] + counted["out"] + lost["no-port"]
    if not lost["no-port"]:
        assert (ingress, seen["interface_egress"]) == (counted["in"], counted["out"])
    for side in ("in", "out"):
        classes = [counted[f"{side} {name}"] for name in ("ipv4", "ipv6", "arp", "other")]
        assert sum(classes) == counted[side]


def sink(agent: Agent, address: str) -> list[object]:
    """A UDP socket that never answers; where it is."""
    return [address, agent.do("udp", name="sink", local=[address, 0])]


def flood(senders: list[Agent], peers: list[list[object]], *, sockets: int = 23) -> None:
    """Every sender sends to its peer as fast as it can, from so many sockets."""
    for agent, peer in zip(senders, peers, strict=True):
        for number in range(sockets):
            agent.do("udp", name=f"f{number}", peer=peer)
        agent.begin("spray", prefix="f", senders=sockets, count=FLOOD, size=23)
    for agent in senders:
        agent.end()


class TestMeter:
    def test_ordinary_traffic(self, scene: Scene) -> None:
        """TCP with and without super-packets, UDP, pings, servers with many peers, short connections."""
        with meter(scene.slice) as ledger:
            server, user, raw = scene.server(), scene.user(), scene.user(0)
            for address in (FAR, SIX_FAR):
                peer = [address, server.do("echo_server", local=[address, 0])]
                for kind in ("udp", "tcp"):
                    user.do(kind, name=kind, peer=peer)
                    user.do("exchange", name=kind, count=23, size=101)
                raw.do("ping", address=address, count=7, size=101, raw=True)
            port = user.do("echo_server", local=[NEAR, 0])
            for number in range(29):
                server.do("udp", name=f"c{number}", peer=[NEAR, port])
                server.do("exchange", name=f"c{number}", count=3, size=101)
            short = server.do("short_server", local=[FAR, 0])
            user.do("storm", peer=[FAR, short], count=101, size=23)
            scene.link.offload(True)
            iperf(scene.link, scene.near, FAR, uid=USER, cgroup=scene.unit)

            account = ledger.read()
        check_meter(account)
        assert set(account.lost.values()) == {0}
        assert account.seen["meter_ingress"] > 1000

    def test_flood_both_ways(self, scene: Scene) -> None:
        """Three processes send as fast as they can and three others send to them, with a page of slots and
        hardly any room in the other tables: they are full all the time."""
        with meter(scene.slice, slots=PAGE_OF_SLOTS, peers=7, overflows=1) as ledger:
            ours = [scene.user(USER + number) for number in range(3)]
            theirs = [scene.server() for _ in ours]
            to_them = [sink(agent, address) for agent, address in zip(theirs, FARS, strict=True)]
            to_us = [sink(agent, address) for agent, address in zip(ours, NEARS, strict=True)]

            for agent, peer in zip(theirs, to_us, strict=True):  # servers have slots, and so they have peers
                agent.do("udp", name="first", peer=peer)
                agent.do("send", name="first")
            eventually(lambda: ledger.count()["slots in"] == 3, "three servers have slots")

            flood([*ours, *theirs], [*to_them, *to_us])

            account = ledger.read()
        check_meter(account)
        assert account.seen["meter_egress"] == 3 * FLOOD
        assert account.seen["meter_ingress"] > FLOOD
        for name in ("no-slot-sockets", "no-slot-packets", "overflow-full", "peers-full"):
            assert account.lost[name] > 0, name

    @pytest.mark.parametrize("program", ["meter_ingress", "meter_egress"])
    def test_one_program_alone(self, scene: Scene, program: str) -> None:
        """Each program by itself, with every table full."""
        with meter(scene.slice, slots=1, peers=7, overflows=1) as ledger:
            users = [scene.user(USER + number) for number in range(3)]
            servers = [scene.server() for _ in users]
            if program == "meter_ingress":
                flood(servers, [sink(agent, NEAR) for agent in users])
            else:
                flood(users, [sink(agent, FAR) for agent in servers])

            account = ledger.read()
        check_meter(account)
        assert [name for name, runs in account.seen.items() if runs > 1000] == [program]
        assert account.lost["overflow-full"] > 0

    @pytest.mark.parametrize("family", [4, 6])
    def test_headers_that_say_nothing(self, scene: Scene, family: int) -> None:
        """A raw socket sends what is no IP packet at all: its packets are its user's, and no peer's."""
        address, packet = (FAR, "55" + 31 * "00") if family == 4 else (SIX_FAR, "f0" + 47 * "00")
        number = socket.AF_INET if family == 4 else socket.AF_INET6
        with meter(scene.slice) as ledger:
            command = [sys.executable, "-c", RAW_SENDER, str(int(number)), address, packet, "23"]
            scene.machine.start(scene.near.command(command, cgroup=scene.unit)).wait()

            account = ledger.read()
        check_meter(account)
        assert account.seen["meter_egress"] == account.lost["no-peer"] == 23

    def test_sockets_without_storage(self, scene: Scene) -> None:
        """Where sockets may have no memory of their own (optmem_max), their packets are counted by user and
        unit, as far as that table has room."""
        scene.near.sysctl({"net.core.optmem_max": "0"})
        with meter(scene.slice, overflows=1) as ledger:
            users, server = [scene.user(USER + number) for number in range(3)], scene.server()
            flood(users, [sink(server, FAR)] * 3)

            account = ledger.read()
        check_meter(account)
        assert account.seen["meter_egress"] == account.lost["no-storage"] == 3 * FLOOD
        assert account.counted["overflow out"] + account.lost["overflow-full"] == 3 * FLOOD
        assert min(account.counted["overflow out"], account.lost["overflow-full"]) > 0

    def test_sockets_older_than_the_meter(self, scene: Scene) -> None:
        """What was open before is counted from the first packet on."""
        server, user = scene.server(), scene.user()
        peer = [FAR, server.do("echo_server", local=[FAR, 0])]
        for kind in ("udp", "tcp"):
            user.do(kind, name=kind, peer=peer)
        with meter(scene.slice) as ledger:
            for kind in ("udp", "tcp"):
                user.do("exchange", name=kind, count=23, size=101)

            account = ledger.read()
        check_meter(account)
        assert account.seen["meter_egress"] >= 46

    def test_daemon_that_gives_slots_back(self, scene: Scene) -> None:
        """The same of a whole daemon that takes rows out and gives slots back while its tables are full: its
        users' totals are what the kernel saw, but for what the ledger says."""
        with counting_runs():
            netmond = scene.netmond(config={"meter.slots": PAGE_OF_SLOTS, "meter.peers": 16})
            ours = [scene.user(USER + number) for number in range(2)]
            theirs = [scene.server() for _ in ours]
            port = theirs[0].do("short_server", local=[FAR, 0])
            to_them, to_us = [sink(agent, FAR) for agent in theirs], [sink(agent, NEAR) for agent in ours]
            for agent, peer in zip(theirs, to_us, strict=True):
                agent.do("udp", name="first", peer=peer)
                agent.do("send", name="first")
            eventually(
                lambda: len(netmond.peek("Flows", kind="peer")) == 2, "two servers have slots and peers"
            )
            flood([*ours, *theirs], [*to_them, *to_us])
            for agent in ours:
                agent.do("close_all")
            ours[0].do("storm", peer=[FAR, port], count=1009, size=23)

            def seen() -> int:
                runs = run_counts_of(netmond.pid)
                return runs["meter_ingress"] + runs["meter_egress"]

            def counted() -> tuple[int, int] | None:
                before = seen()
                netmond.settle()
                users = total(netmond.peek("Users"))
                return (before, users.in_packets + users.out_packets) if seen() == before else None

            found = eventually(counted, "no packet is under way")
        assert found is not None
        assert found[0] == found[1] + netmond.loss("meter.overflow-full") + netmond.loss("meter.no-socket")
        assert found[0] > 2 * FLOOD
        assert netmond.loss("meter.no-slot-packets") > 0
        assert netmond.loss("meter.peers-full") > 0


class TestInterfaces:
    @pytest.mark.parametrize("mode", ["tc", "xdp", "xdp-generic"])
    def test_flood(self, scene: Scene, mode: str) -> None:
        """Ordinary traffic and a flood both ways."""
        with interfaces(scene.near) as ledger:
            ledger.put_on(scene.link.near_device, mode)
            ours, theirs = scene.user(), scene.server()
            port = theirs.do("echo_server", local=[FAR, 0])
            ours.do("tcp", name="tcp", peer=[FAR, port])
            ours.do("exchange", name="tcp", count=23, size=1009)
            flood([ours, theirs], [sink(theirs, SIX_FAR), sink(ours, SIX_NEAR)])

            account = ledger.read()
        check_interfaces(account)
        assert account.lost == dict.fromkeys(account.lost, 0)
        assert account.seen["interface_egress"] > FLOOD
        assert account.seen["interface_ingress" if mode == "tc" else "interface_xdp"] > FLOOD // 2

    @pytest.mark.parametrize("mode", ["tc", "xdp", "xdp-generic"])
    def test_malformed(self, scene: Scene, mode: str) -> None:
        """Frames of every kind, in and out: those that are damaged are in the ledger as well as counted."""
        with interfaces(scene.near) as ledger:
            ledger.put_on(scene.link.near_device, mode)
            frames = [frame.data for frame in FRAMES for _ in range(7)]
            send_frames(scene.far, scene.link.far_device, frames)
            send_frames(scene.near, scene.link.near_device, frames)

            account = ledger.read()
        check_interfaces(account)
        assert account.counted["in"] == account.counted["out"] == len(frames)
        assert account.lost["malformed"] == 2 * 7 * sum(frame.malformed for frame in FRAMES)

    def test_full_table_of_forwarded_flows(self, crossing: Crossing) -> None:
        """Each packet that left and was not made here is in the table or in the ledger."""
        with interfaces(crossing.left.near, forwarded=5) as ledger:
            ledger.put_on(crossing.right.near_device)
            client, server = Agent(crossing.left.far), Agent(crossing.right.far)
            address = crossing.right.address(4, far=True)
            flood([client], [sink(server, address)])

            account = ledger.read()
        check_interfaces(account)
        assert account.seen["interface_egress"] > FLOOD // 2
        assert (
            account.seen["interface_egress"] == account.counted["forwarded"] + account.lost["forwarded-full"]
        )
        assert account.counted["forwarded"] > 0
        assert account.lost["forwarded-full"] > 0

    @pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
    @pytest.mark.parametrize("mode", ["tc", "xdp", "xdp-generic"])
    def test_taken_off_while_traffic_flows(self, scene: Scene, mode: str, known: bool) -> None:
        """An interface is taken off the list, and detached, amidst a flood both ways: what the programs saw
        in between is in the ledger, and another interface's figures are not touched."""
        other = scene.machine.link(scene.near, scene.far, number=2)
        with interfaces(scene.near) as ledger:
            for device in (scene.link.near_device, other.near_device):
                ledger.put_on(device, mode)
            agents = [scene.user(), scene.server(), scene.user(), scene.server()]
            addresses = [FAR, NEAR, other.address(4, far=True), other.address(4)]
            receivers = [agents[1], agents[0], agents[3], agents[2]]
            peers = [sink(agent, address) for agent, address in zip(receivers, addresses, strict=True)]
            for agent, peer in zip(agents, peers, strict=True):
                agent.do("udp", name="f0", peer=peer)
                agent.begin("spray_on", name="f0", size=23)
            eventually(lambda: ledger.count()["in"] > 1000, "the flood is here")
            ledger.forget(scene.link.near_device, known=known)
            eventually(lambda: ledger.lost()["no-port"] > 100, "the programs still see it")
            ledger.take_off(scene.link.near_device)
            for agent in agents:
                agent.begin("close", name="f0")
                agent.end()
                agent.end()

            account = ledger.read()
        check_interfaces(account)
        assert account.lost["no-port"] > 100

    def test_deleted_while_traffic_flows(self, scene: Scene) -> None:
        """The interface itself goes: its figures are those of what passed before."""
        with interfaces(scene.near) as ledger:
            ledger.put_on(scene.link.near_device)
            theirs = scene.server()
            theirs.do("udp", name="f0", peer=sink(scene.user(), NEAR))
            theirs.begin("spray_until_error", name="f0", size=23)
            eventually(lambda: ledger.count()["in"] > 1000, "the flood is here")
            scene.near.ip(f"link delete {scene.link.near_device}")
            theirs.end()

            account = ledger.read()
        check_interfaces(account)
        assert account.counted["in"] > 1000
