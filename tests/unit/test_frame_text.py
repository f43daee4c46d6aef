"""Frames as lines of text: in tcpdump's words where it has any, and harmless whatever is in them."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from netmonctl.frame_text import ETHERNET, RAW, hexdump, summary

pytest.importorskip("scapy", reason="needs scapy (Debian package python3-scapy)")

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FOUR = ETHER / IP(src="192.0.2.1", dst="192.0.2.2")
SIX = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2")
BACK = IP(src="192.0.2.2", dst="192.0.2.1") / UDP(sport=5, dport=7777)
BACK6 = IPv6(src="2001:db8::2", dst="2001:db8::1") / UDP(sport=5, dport=7777)
SYN_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]


def tcp(flags: Any, **more: Any) -> Packet:
    return TCP(sport=51544, dport=7654, flags=flags, seq=7, ack=9, **more)


#: What the two say in the same words. Ports are of no protocol that tcpdump looks into.
ALIKE = [
    *(FOUR / tcp(flags) for flags in ("S", "SA", "A", "FA", "R", "RA", 0, "SEC")),
    FOUR / tcp("S", options=SYN_OPTIONS),
    FOUR / tcp("A", options=[("SAck", (1, 2, 5, 9)), ("NOP", None), ("NOP", None)]),
    FOUR / tcp("PA") / b"hello",
    FOUR / tcp("UPECA", urgptr=3) / b"xxxxx",
    FOUR / TCP(sport=51544, dport=7654, flags="PA", seq=0xFFFFFFFE, ack=1) / b"wraps",
    FOUR / UDP(sport=51544, dport=7654) / b"abc",
    FOUR / UDP(sport=51544, dport=7654),
    *(FOUR / ICMP(type=kind, id=3, seq=4) / b"abc" for kind in (0, 8)),
    *(FOUR / ICMP(type=3, code=code) / BACK for code in (0, 1, 3, 9, 10, 13)),
    FOUR / ICMP(type=3, code=2) / IP(src="192.0.2.2", dst="192.0.2.1", proto=99) / b"12345678",
    FOUR / ICMP(type=3, code=3) / IP(src="192.0.2.2", dst="192.0.2.1") / TCP(dport=7777),
    FOUR / ICMP(type=3, code=4, nexthopmtu=1400) / BACK,
    *(FOUR / ICMP(type=11, code=code) / BACK for code in (0, 1)),
    FOUR / ICMP(type=5, code=1, gw="192.0.2.9") / BACK,
    FOUR / IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=51544, dport=7654) / b"a",
    ETHER / ARP(op=1, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1", pdst="192.0.2.2"),
    ETHER / ARP(op=2, hwsrc="02:00:00:00:00:01", psrc="192.0.2.1", pdst="192.0.2.2"),
    SIX / tcp("S", options=SYN_OPTIONS),
    SIX / UDP(sport=51544, dport=7654) / b"abcd",
    SIX / ICMPv6EchoRequest(id=1, seq=2, data=b"xx"),
    SIX / ICMPv6EchoReply(id=1, seq=2, data=b"xx"),
    SIX / ICMPv6ND_NS(tgt="2001:db8::2"),
    SIX / ICMPv6ND_NA(tgt="2001:db8::2"),
    SIX / ICMPv6ND_RS(),
    SIX / ICMPv6ND_RA(),
    *(SIX / ICMPv6DestUnreach(code=code) / BACK6 for code in (0, 1, 3, 4)),
    SIX / ICMPv6TimeExceeded() / BACK6,
    SIX / ICMPv6PacketTooBig(mtu=1280) / BACK6,
]


def text(packet: Packet | bytes, linktype: int = ETHERNET, length: int | None = None) -> str:
    data = bytes(packet)
    return summary(linktype, data, len(data) if length is None else length)[0]


def pcap(path: Path, frames: list[bytes]) -> None:
    """A file as pcap-savefile(5) has it."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, ETHERNET))
        for data in frames:
            file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)


def test_as_tcpdump(tmp_path: Path) -> None:
    """Word for word, but for a blank that tcpdump doubles at times."""
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    frames = [bytes(packet) for packet in ALIKE]
    pcap(tmp_path / "frames.pcap", frames)
    command = ["tcpdump", "-r", str(tmp_path / "frames.pcap"), "-nn", "-t", "-S"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [text(frame) for frame in frames] == done.stdout.replace("  ", " ").splitlines()


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (
            ETHER / Dot1Q(vlan=5, prio=3) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=7654),
            "vlan 5, p 3, IP 192.0.2.1.1 > 192.0.2.2.7654: UDP, length 0",
        ),
        (
            ETHER / Dot1AD(vlan=9) / Dot1Q(vlan=5) / IP(src="192.0.2.1", dst="192.0.2.2") / ICMP(id=1),
            "vlan 9, p 0, vlan 5, p 0, IP 192.0.2.1 > 192.0.2.2: ICMP echo request, id 1, seq 0, length 8",
        ),
        (
            ETHER
            / IP(src="192.0.2.1", dst="192.0.2.2", flags="MF", id=5)
            / UDP(sport=1, dport=7654, len=99),
            "IP frag (id 5, offset 0+, length 8) 192.0.2.1.1 > 192.0.2.2.7654: UDP, length 91",
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", frag=10, id=5, proto=17) / b"rest",
            "IP frag (id 5, offset 80, length 4) 192.0.2.1 > 192.0.2.2: udp",
        ),
        (
            SIX / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=7654) / b"a",
            "IP6 HBH DSTOPT 2001:db8::1.1 > 2001:db8::2.7654: UDP, length 1",
        ),
        (
            SIX / IPv6ExtHdrFragment(m=1, id=77) / UDP(sport=1, dport=7654, len=99) / b"a",
            "IP6 frag (id 0x4d, offset 0+, length 9) 2001:db8::1.1 > 2001:db8::2.7654: UDP, length 91",
        ),
        (
            SIX / IPv6ExtHdrFragment(offset=2, id=77, nh=6) / b"rest",
            "IP6 frag (id 0x4d, offset 16, length 4) 2001:db8::1 > 2001:db8::2: tcp",
        ),
        (FOUR / UDP(sport=1, dport=2, len=3), "IP 192.0.2.1.1 > 192.0.2.2.2: truncated-udplength 3"),
        (FOUR / TCP(dataofs=2), "IP 192.0.2.1.20 > 192.0.2.2.80: tcp 20 [bad header length 8]"),
        (
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / b"abcdef",
            "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype experimental (0x88b5), length 20",
        ),
        (
            ETHER / IP(src="192.0.2.1", dst="192.0.2.2", proto=132) / b"12345678",
            "IP 192.0.2.1 > 192.0.2.2: sctp, length 8",
        ),
    ],
)
def test_in_our_words(packet: Packet, expected: str) -> None:
    """What tcpdump without -v and -e does not show, and people want to see."""
    assert text(packet) == expected


def test_no_link_header() -> None:
    """Of tunnels: either version."""
    assert text(FOUR[IP] / UDP(sport=1, dport=7654), RAW) == "IP 192.0.2.1.1 > 192.0.2.2.7654: UDP, length 0"
    assert text(SIX[IPv6] / ICMPv6ND_RS(), RAW).startswith("IP6 2001:db8::1 > 2001:db8::2: ICMP6, router")
    assert text(b"", RAW) == "[|ip]"
    assert text(b"abc", 228) == "link type 228, length 3"


def test_a_packet_yet_to_be_cut() -> None:
    """What is to be sent in segments may say nothing of its length."""
    packet = FOUR / tcp("A") / bytes(100)
    packet[IP].len = 0
    assert text(packet).endswith("seq 7:107, ack 9, win 8192, length 100")


def test_cut_short() -> None:
    """The lengths are those of the wire; where the bytes end, the layer is named."""
    whole = bytes(FOUR / tcp("PA") / b"hello")
    frame = whole + b"never captured"
    assert text(whole, length=len(whole)) == text(frame[: len(whole)], length=len(frame))
    assert text(whole[:54]) == text(whole)
    assert text(whole[:50]).endswith("IP 192.0.2.1.51544 > 192.0.2.2.7654: [|tcp]")
    assert text(whole[:35]).endswith("IP [|tcp]")
    assert text(whole[:20]) == "IP [|ip]"
    assert text(whole[:13]) == "[|ether]"
    options = bytes(FOUR / tcp("S", options=SYN_OPTIONS))
    assert "options [mss 1460,sackOK,[bad opt 8],[|tcp]], length 0" in text(options[:62])


def test_values() -> None:
    """The same for programs; of packets within packets those of the outer one."""
    inner = IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=1, dport=2)
    _, values = summary(ETHERNET, bytes(FOUR / inner), 62)
    assert (values["source"], values["protocol"]) == ("192.0.2.1", "ipip")
    assert "source_port" not in values
    _, values = summary(ETHERNET, bytes(ETHER / Dot1Q(vlan=5) / SIX[IPv6] / tcp("SA")), 78)
    assert json.loads(json.dumps(values)) == {
        "source_mac": "02:00:00:00:00:01", "destination_mac": "02:00:00:00:00:02", "vlans": [5],
        "source": "2001:db8::1", "destination": "2001:db8::2", "ttl": 64, "protocol": "tcp",
        "source_port": 51544, "destination_port": 7654, "flags": "S.", "seq": 7, "ack": 9, "window": 8192,
        "payload": 0,
    }  # fmt: skip


@given(
    some.sampled_from([ETHERNET, RAW, 228]),
    some.sampled_from([b"", *(bytes(packet) for packet in ALIKE)]),
    some.integers(0, 100),
    some.binary(max_size=100),
    some.integers(0, 1 << 18),
)
def test_anything(linktype: int, frame: bytes, kept: int, rest: bytes, length: int) -> None:
    """Neither an error nor a character that a terminal could act upon."""
    data = frame[:kept] + rest
    line, values = summary(linktype, data, length)

    assert line
    assert line.isprintable()
    assert line.isascii()
    json.dumps(values)
    assert all(row[1:].isprintable() for row in hexdump(data, characters=True))


def test_without_end() -> None:
    """Tags, extension headers and packets within packets end, however many there are."""
    tags = bytes.fromhex("81000001") * 10_000
    assert len(text(ETHER.__class__(type=0x8100) / tags)) < 300
    header = bytes(IPv6(nh=0, src="::1", dst="::2", plen=0xFFFF))
    assert len(text(header + bytes(8) * 8_000, RAW)) < 300
    assert len(text(bytes(IP(proto=4, len=0)) * 3_000, RAW)) < 300


def test_hexdump() -> None:
    """As tcpdump's -xx and -XX."""
    data = bytes(range(0x2E, 0x41)) + b"\x1b"

    assert list(hexdump(data, characters=False)) == [
        "\t0x0000:  2e2f 3031 3233 3435 3637 3839 3a3b 3c3d",
        "\t0x0010:  3e3f 401b",
    ]
    assert list(hexdump(data, characters=True)) == [
        "\t0x0000:  2e2f 3031 3233 3435 3637 3839 3a3b 3c3d  ./0123456789:;<=",
        "\t0x0010:  3e3f 401b                                >?@.",
    ]
    assert list(hexdump(b"", characters=True)) == []


def test_hexdump_as_tcpdump(tmp_path: Path) -> None:
    """Line for line."""
    if shutil.which("tcpdump") is None:
        pytest.skip("needs tcpdump")
    frame = bytes(FOUR / tcp("PA") / bytes(range(256)))
    pcap(tmp_path / "frame.pcap", [frame])
    for flag, characters in (("-xx", False), ("-XX", True)):
        command = ["tcpdump", "-r", str(tmp_path / "frame.pcap"), "-nn", "-t", "-S", flag]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert list(hexdump(frame, characters=characters)) == [
            line.rstrip() if not characters else line for line in done.stdout.splitlines()[1:]
        ]
