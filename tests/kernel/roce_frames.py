"""Frames of RDMA over Ethernet, made by scapy."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from scapy.contrib.roce import BTH, GRH
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

PORT = 4791
WRITE_ONLY, ACKNOWLEDGE = 0x0A, 0x11
_BTH, _CRC, _GRH = 12, 4, 40  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a packet's BTH says, and how much is behind it."""

    opcode: int = WRITE_ONLY
    queue_pair: int = 0x11
    partition_key: int = 0xFFFF
    sequence: int = 0
    payload: int = 101

    @property
    def size(self) -> int:
        """Bytes from the BTH on, with the invariant CRC."""
        return _BTH + self.payload + _CRC

    def bth(self) -> Any:
        header = BTH(
            opcode=self.opcode, dqpn=self.queue_pair, pkey=self.partition_key, psn=self.sequence, icrc=0
        )
        return header / Raw(bytes(self.payload))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """From whom to whom."""

    source: str
    destination: str
    source_mac: str
    destination_mac: str
    vlan: int = 0

    @property
    def family(self) -> int:
        return 6 if ":" in self.destination else 4

    def frame(self, version: int, kind: Kind) -> bytes:
        return self.first(kind) if version == 1 else self.second(kind)

    def _ethernet(self, type_: int) -> Any:
        ether = Ether(src=self.source_mac, dst=self.destination_mac)
        if self.vlan:
            return ether / Dot1Q(vlan=self.vlan, type=type_)
        ether.type = type_
        return ether

    def first(self, kind: Kind) -> bytes:
        """RoCE v1, between GIDs."""
        route = GRH(
            paylen=kind.size,
            nexthdr=0x1B,
            hoplmt=1,
            sgid=int(IPv6Address(self.source)),
            dgid=int(IPv6Address(self.destination)),
        )
        return bytes(self._ethernet(0x8915) / route / kind.bth())

    def second(self, kind: Kind) -> bytes:
        """RoCE v2."""
        udp = UDP(sport=49_441, dport=PORT)
        if self.family == 4:
            ip = IP(src=self.source, dst=self.destination, flags="DF", id=0)
            return bytes(self._ethernet(0x0800) / ip / udp / kind.bth())
        ip = IPv6(src=self.source, dst=self.destination)
        return bytes(self._ethernet(0x86DD) / ip / udp / kind.bth())

    def size(self, version: int, kind: Kind) -> int:
        """Bytes as flows count them: from the IP header on, or from the global route header on."""
        if version == 1:
            return _GRH + kind.size
        return (20 if self.family == 4 else 40) + 8 + kind.size
