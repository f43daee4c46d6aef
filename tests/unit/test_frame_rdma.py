"""RDMA packets as lines of text: RoCE v1 and v2, InfiniBand; what tshark sees in them, too."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from netmonctl.capture_lines import Objects
from netmonctl.frame_rdma import OPCODES
from netmonctl.frame_text import ERF, ETHERNET, INFINIBAND, summary
from netmonctl.pcapng import Frame, Reader
from netmond.rdma.opcodes import NAMES
from tests.unit.pcapng_maker import Maker

pytest.importorskip("scapy", reason="needs scapy (Debian package python3-scapy)")

from scapy.contrib.roce import AETH, BTH
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FOUR = ETHER / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=49152, dport=4791)
SIX = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=49152, dport=4791)
ADDRESSES = "IP 192.0.2.1.49152 > 192.0.2.2.4791: RoCEv2 "

WRITE, SEND, ACK, ATOMIC_ACK, ADD = 0x0A, 0x04, 0x11, 0x12, 0x14
RETH = struct.pack("!QII", 0x7F00_1000, 0x77, 64)
ICRC = bytes(4)


def bth(opcode: int, **more: int) -> Packet:
    return BTH(**{"opcode": opcode, "pkey": 0xFFFF, "dqpn": 0x11, "psn": 5, **more})


def headers(opcode: int) -> bytes:
    """A base transport header and as many bytes of zero as its extended headers can take."""
    return bytes(bth(opcode))[:12] + bytes(40)


def v1(packet: bytes) -> bytes:
    """RoCE v1: a global route header in an Ethernet frame."""
    route = struct.pack("!IHBB", 6 << 28, len(packet), 0x1B, 64)
    ends = bytes.fromhex("fe80" + "0" * 27 + "1fe80" + "0" * 27 + "2")
    return bytes(Ether(src=ETHER.src, dst=ETHER.dst, type=0x8915)) + route + ends + packet


def infiniband(packet: bytes, routed: bool = False) -> bytes:
    """A frame with a local route header from LID 3 to LID 4, and the two bytes of checksum at its end."""
    route = v1(packet)[14:54] if routed else b""
    words = (8 + len(route) + len(packet)) // 4
    return struct.pack("!BBHHH", 0, 3 if routed else 2, 4, words, 3) + route + packet + bytes(2)


def erf(frame: bytes) -> bytes:
    """The same as ibdump writes it, and as Wireshark can read it."""
    return struct.pack("!QBBHHH", 0, 21, 4, 16 + len(frame), 0, len(frame)) + frame


def text(frame: Packet | bytes, linktype: int = ETHERNET) -> str:
    data = bytes(frame)
    return summary(linktype, data, len(data))[0]


#: Link type, and how to make a frame of a base transport header and what follows it.
WRAPPED: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "roce_v1": (ETHERNET, v1),
    "roce_v2": (ETHERNET, lambda data: bytes(FOUR / data)),
    "infiniband": (ERF, lambda data: erf(infiniband(data))),
}


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (
            bth(WRITE, ackreq=1) / (RETH + bytes(64)),
            "RC RDMA_WRITE_ONLY, qp 0x11, psn 5, pkey 0xffff, ack requested, va 0x7f001000, rkey 0x77, "
            "dma length 64, length 64",
        ),
        (bth(SEND) / bytes(7), "RC SEND_ONLY, qp 0x11, psn 5, pkey 0xffff, length 7"),
        (bth(SEND, padcount=1) / bytes(8), "RC SEND_ONLY, qp 0x11, psn 5, pkey 0xffff, length 7"),
        (
            bth(SEND + 1) / struct.pack("!I", 0xBEEF),
            "RC SEND_ONLY_WITH_IMMEDIATE, qp 0x11, psn 5, pkey 0xffff, imm 0xbeef, length 0",
        ),
        (bth(ACK) / AETH(msn=3), "RC ACKNOWLEDGE, qp 0x11, psn 5, pkey 0xffff, msn 3, length 0"),
        (
            bth(ACK) / AETH(syndrome=0x2C, msn=3),
            "RC ACKNOWLEDGE, qp 0x11, psn 5, pkey 0xffff, rnr nak timer 12, msn 3, length 0",
        ),
        (
            bth(ACK) / AETH(syndrome=0x60, msn=3),
            "RC ACKNOWLEDGE, qp 0x11, psn 5, pkey 0xffff, nak psn sequence error, msn 3, length 0",
        ),
        (
            bth(ATOMIC_ACK) / struct.pack("!IQ", 7, 0x2A),
            "RC ATOMIC_ACKNOWLEDGE, qp 0x11, psn 5, pkey 0xffff, msn 7, was 0x2a, length 0",
        ),
        (
            bth(ADD) / struct.pack("!QIQQ", 0x1000, 1, 2, 3),
            "RC FETCH_ADD, qp 0x11, psn 5, pkey 0xffff, va 0x1000, rkey 0x1, swap or add 0x2, compare 0x3, "
            "length 0",
        ),
        (
            bth(0x64, dqpn=1) / (struct.pack("!II", 0x8001_0000, 2) + bytes(256)),
            "UD SEND_ONLY, qp 0x1, psn 5, pkey 0xffff, from qp 0x2, qkey 0x80010000, length 256",
        ),
        (
            bth(0x44) / (struct.pack("!III", 1, 0x8001_0000, 2) + bytes(4)),
            "RD SEND_ONLY, qp 0x11, psn 5, pkey 0xffff, from qp 0x2, qkey 0x80010000, length 4",
        ),
        (
            bth(0x51) / struct.pack("!II", 1, 3),
            "RD ACKNOWLEDGE, qp 0x11, psn 5, pkey 0xffff, msn 3, length 0",
        ),
        (
            bth(0xA4) / (struct.pack("!I", 9) + bytes(4)),
            "XRC SEND_ONLY, qp 0x11, psn 5, pkey 0xffff, srq 0x9, length 4",
        ),
        (
            bth(0x81, becn=1, psn=0) / bytes(16),
            "CNP, qp 0x11, psn 0, pkey 0xffff, becn, length 16",
        ),
    ],
)
def test_as_people_read_it(packet: Packet, expected: str) -> None:
    """Operation, destination queue pair, sequence number, partition; then what the operation needs."""
    assert text(FOUR / packet) == ADDRESSES + expected


def test_over_ipv6_and_vlans() -> None:
    """The header is the same wherever UDP is."""
    tagged = ETHER / Dot1Q(vlan=5) / FOUR[IP] / bth(SEND)

    assert text(SIX / bth(SEND)).startswith("IP6 2001:db8::1.49152 > 2001:db8::2.4791: RoCEv2 RC SEND_ONLY")
    assert text(tagged).startswith(f"vlan 5, p 0, {ADDRESSES}RC SEND_ONLY, qp 0x11")


def test_version_1() -> None:
    """The addresses are those of the global route header."""
    packet = bytes(bth(WRITE))[:12] + RETH + bytes(64) + ICRC

    assert text(v1(packet)) == (
        "GRH fe80::1 > fe80::2: RoCEv1 RC RDMA_WRITE_ONLY, qp 0x11, psn 5, pkey 0xffff, va 0x7f001000, "
        "rkey 0x77, dma length 64, length 64"
    )


@pytest.mark.parametrize("routed", [False, True])
def test_infiniband(routed: bool) -> None:
    """Queue pair and local identifier of both ends, and the opcode's number."""
    packet = bytes(bth(WRITE))[:12] + RETH + bytes(64) + ICRC
    datagram = bytes(bth(0x64))[:12] + struct.pack("!II", 0x8001_0000, 194) + bytes(32) + ICRC

    assert text(infiniband(packet, routed), INFINIBAND).startswith(
        "IB ?:3 -> 17:4 proto=10 RC RDMA_WRITE_ONLY, qp 0x11, psn 5"
    )
    assert text(infiniband(packet, routed), INFINIBAND).endswith("length 64")
    assert text(infiniband(datagram, routed), INFINIBAND).startswith(
        "IB 194:3 -> 17:4 proto=100 UD SEND_ONLY"
    )


def test_infiniband_without_transport() -> None:
    """Raw packets have neither queue pair nor opcode."""
    assert text(struct.pack("!BBHHH", 0, 0, 4, 5, 3) + bytes(12), INFINIBAND) == "IB 3 > 4, raw, length 20"


def test_values_have_the_names_of_flows() -> None:
    """What ``netmonctl flows --json`` calls them."""
    _, values = summary(ETHERNET, bytes(FOUR / bth(WRITE) / RETH), 100)

    assert {
        "traffic_type": "roce_v2", "opcode": "RC_RDMA_WRITE_ONLY", "queue_pair": 17,
        "partition_key": 0xFFFF, "sequence": 5, "source": "192.0.2.1", "protocol": "udp",
    }.items() <= values.items()  # fmt: skip


@pytest.mark.parametrize(
    "payload", [b"", b"plain text, no RDMA", bytes([0x1F]) + bytes(20), b"\4\1" + bytes(20)]
)
def test_another_protocol_at_that_port(payload: bytes) -> None:
    """Any program may use the port: an unknown opcode or version is not RDMA."""
    assert text(FOUR / payload) == f"IP 192.0.2.1.49152 > 192.0.2.2.4791: UDP, length {len(payload)}"


def test_cut_short() -> None:
    """The lengths are those of the wire; where the bytes end, the layer is named."""
    whole = bytes(FOUR / bth(WRITE) / (RETH + bytes(64)))

    assert summary(ETHERNET, whole[:70], len(whole))[0] == text(whole)
    assert summary(ETHERNET, whole[:60], len(whole))[0].endswith("pkey 0xffff[|bth]")
    assert summary(ETHERNET, v1(b"")[:40], 40)[0] == "[|grh]"
    assert summary(INFINIBAND, infiniband(b"")[:6], 100)[0] == "[|lrh]"


@given(some.sampled_from(sorted(WRAPPED)), some.binary(max_size=80), some.integers(0, 1 << 18))
def test_anything(kind: str, packet: bytes, length: int) -> None:
    """Neither an error nor a character that a terminal could act upon."""
    linktype, wrapped = WRAPPED[kind]
    line, values = summary(linktype, wrapped(packet), length)

    assert line.isprintable()
    assert line.isascii()
    json.dumps(values)


def test_from_a_file() -> None:
    """Frames of InfiniBand in a pcapng stream, such as Wireshark writes them."""
    maker = Maker()
    frame = infiniband(bytes(bth(SEND))[:12] + bytes(8) + ICRC)
    stream = maker.section() + maker.interface("mlx5_0", linktype=INFINIBAND) + maker.packet(frame)
    (found,) = Reader().feed(stream)
    assert isinstance(found, Frame)
    (line,) = Objects().of(found)

    assert json.loads(line)["summary"].startswith("IB ?:3 -> 17:4 proto=4 RC SEND_ONLY")
    assert json.loads(line)["destination_lid"] == 4


def pcap(path: Path, linktype: int, frames: list[bytes]) -> None:
    """A file as pcap-savefile(5) has it."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, linktype))
        for data in frames:
            file.write(struct.pack("<IIII", 0, 0, len(data), len(data)) + data)


#: What a soft-RoCE adapter sent, cut after the headers, with the length of the frame: the first packet of
#: an ``ib_write_bw``, the last of one of its writes, and what answered it.
RECORDED = {
    (
        "1a1a61652c180ab6159943c408004500043cbdc740004011247fc6336401c6336402c14412b7042800000600ffff00000012"
        "00f45951000055b5b26de000000003c100004000"
    ): (1098, "RDMA_WRITE_FIRST, qp 0x12, psn 16013649, pkey 0xffff, va 0x55b5b26de000, rkey 0x3c1, "
        "dma length 16384, length 1024"),
    (
        "1a1a61652c180ab6159943c408004500042cbdd6400040112480c6336401c6336402c14412b7041800000800ffff00000012"
        "80f45960"
    ): (1082, "RDMA_WRITE_LAST, qp 0x12, psn 16013664, pkey 0xffff, ack requested, length 1024"),
    (
        "0ab6159943c41a1a61652c18080045000030d805400040110e4dc6336402c6336401c14412b7001c00001100ffff00000012"
        "00f459601f00000143a8d6c2"
    ): (62, "ACKNOWLEDGE, qp 0x12, psn 16013664, pkey 0xffff, msn 1, length 0"),
}  # fmt: skip


@pytest.mark.parametrize("frame", RECORDED)
def test_recorded(frame: str) -> None:
    """Real packets of rdma_rxe on Linux 6.1."""
    length, expected = RECORDED[frame]
    line, _ = summary(ETHERNET, bytes.fromhex(frame), length)

    assert line.endswith(f".4791: RoCEv2 RC {expected}")


def test_opcodes_are_those_of_flows() -> None:
    """The service, which shares no code with its client, calls them the same."""
    assert OPCODES == NAMES


#: What tshark and we both read in a packet, and by which of our names.
FIELDS = {
    "infiniband.bth.opcode": "number", "infiniband.bth.destqp": "queue_pair",
    "infiniband.bth.psn": "sequence", "infiniband.bth.p_key": "partition_key",
    "infiniband.deth.srcqp": "source_queue_pair", "infiniband.lrh.slid": "source_lid",
    "infiniband.lrh.dlid": "destination_lid",
}  # fmt: skip
_NUMBERS = {name: number for number, name in OPCODES.items()}


@pytest.mark.parametrize("kind", WRAPPED)
def test_as_tshark(kind: str, tmp_path: Path) -> None:
    """The same opcode, queue pairs, sequence number, partition and identifiers, with every opcode."""
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark (Debian package tshark)")
    opcodes = sorted(OPCODES)
    linktype, wrapped = WRAPPED[kind]
    frames = [wrapped(headers(opcode) + bytes(64) + ICRC) for opcode in opcodes]
    pcap(tmp_path / "frames.pcap", linktype, frames)
    command = ["tshark", "-n", "-r", str(tmp_path / "frames.pcap"), "-T", "fields"]
    command += [word for field in FIELDS for word in ("-e", field)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    ours = [dict(summary(linktype, frame, len(frame))[1]) for frame in frames]
    for values in ours:
        values["number"] = _NUMBERS[values["opcode"]]
    theirs = [
        {name: int(word, 0) for name, word in zip(FIELDS.values(), line.split("\t"), strict=True) if word}
        for line in done.stdout.splitlines()
    ]
    assert len(theirs) == len(ours)
    assert [values["number"] for values in theirs] == opcodes
    for seen, told in zip(theirs, ours, strict=True):
        assert {name: told.get(name) for name in seen} == seen
