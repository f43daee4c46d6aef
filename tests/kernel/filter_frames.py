"""Frames for filters: of the few hosts, ports and kinds that the tests' filters name, whole and damaged."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

from scapy.contrib.igmp import IGMP
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from tests.kernel.frame_maker import FrameMaker

HOSTS4 = ("10.0.0.1", "10.0.0.2", "10.1.2.3", "192.0.2.7", "198.51.100.4", "224.0.0.1", "255.255.255.255")
HOSTS6 = ("2001:db8::1", "2001:db8::2", "2001:db8:1::7", "fe80::1", "ff02::1")
MACS = (
    "02:00:00:00:00:01",
    "02:00:00:00:00:02",
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "33:33:00:00:00:01",
)
PORTS = (22, 53, 80, 443, 1024, 5353, 8080, 65535)


def frames(seed: int, count: int) -> list[bytes]:
    """So many, the same for the same seed: a third whole, a third of those damaged, the rest anything."""
    random = Random(seed)
    whole = list(islice(_whole(random), count // 3))
    damaged = [_damaged(random, random.choice(whole)) for _ in range(count // 3)]
    others = list(islice(FrameMaker(seed), count - len(whole) - len(damaged)))
    return whole + damaged + others


def _whole(random: Random) -> Iterator[bytes]:
    pick = random.choice

    def transport() -> Any:
        ports = {"sport": pick(PORTS), "dport": pick(PORTS)}
        data = Raw(random.randbytes(pick((0, 1, 20, 100, 200, 600))))
        return pick((
            TCP(**ports, flags=pick(("S", "SA", "PA", "FA", "R")), options=pick(([], [("MSS", 9)]))) / data,
            UDP(**ports) / data,
            SCTP(**ports) / data,
        ))  # fmt: skip

    def ipv4() -> Any:
        options = pick(([], [], [IPOption_Router_Alert()]))
        header = {
            "src": pick(HOSTS4),
            "dst": pick(HOSTS4),
            "ttl": pick((1, 64)),
            "id": 7,
            "options": options,
        }
        fragment = pick(((0, 0), (0, 0), (0, 0), ("DF", 0), ("MF", 0), ("MF", 185), (0, 370)))
        inner = pick((transport, transport, lambda: ICMP(type=pick((0, 3, 8, 11))), IGMP))()
        return IP(**header, flags=fragment[0], frag=fragment[1], tos=pick((0, 0xB8))) / inner

    def ipv6() -> Any:
        header = IPv6(src=pick(HOSTS6), dst=pick(HOSTS6), hlim=pick((1, 64)), tc=pick((0, 0xB8)))
        inner = pick((transport, transport, ICMPv6EchoRequest, ICMPv6ND_NS))()
        return header / pick((inner, inner, IPv6ExtHdrFragment(offset=pick((0, 9)), m=1) / inner,
                              IPv6ExtHdrHopByHop() / inner))  # fmt: skip

    def arp() -> Any:
        return ARP(op=pick((1, 2, 3)), psrc=pick(HOSTS4), pdst=pick(HOSTS4), hwsrc=pick(MACS))

    def behind_ethernet(depth: int = 0) -> Any:
        made = pick((ipv4, ipv4, ipv4, ipv6, ipv6, arp))()
        if depth < 2 and random.random() < 0.25:
            tag = pick((Dot1Q, Dot1Q, Dot1AD))(vlan=pick((1, 5, 6)), prio=pick((0, 3)))
            return tag / behind_ethernet(depth + 1)
        if random.random() < 0.06:
            return MPLS(label=pick((3, 100)), s=1) / ipv4()
        if random.random() < 0.08:
            return PPPoE(sessionid=pick((1, 7))) / PPP(proto=0x21) / ipv4()
        return made

    while True:
        if random.random() < 0.04:
            made = Dot3(src=pick(MACS), dst=pick(MACS)) / LLC() / pick((STP(), SNAP() / Raw(b"x" * 30)))
        else:
            made = Ether(src=pick(MACS), dst=pick(MACS)) / behind_ethernet()
        yield bytes(made)


def _damaged(random: Random, frame: bytes) -> bytes:
    made = bytearray(frame)
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(made) + 1)
        how = random.randrange(3)
        if how == 0:
            del made[at:]
        elif how == 1 and made:
            made[at % len(made)] ^= 1 << random.randrange(8)
        elif made:
            made[at % min(len(made), 60)] = random.choice((0, 1, 6, 17, 0x45, 0x4F, 0x60, 0x81, 255))
    return bytes(made)
