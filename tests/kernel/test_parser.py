"""The packet parser (bpf/parse.h) against scapy: a million packets, alike but for named reasons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from netmond.rdma.opcodes import NAMES
from tests.kernel.frames import FRAMES, Frame
from tests.kernel.packet_facts import Facts
from tests.kernel.parser import Parser

ROOT = Path(__file__).resolve().parents[2]
PACKETS = int(os.environ.get("NETMOND_PARSER_PACKETS", "1000000"))
ROCE_PACKETS = int(os.environ.get("NETMOND_ROCE_PACKETS", "5000"))
SEED = int(os.environ.get("NETMOND_PARSER_SEED", "23"))
KINDS = ("ipv4", "ipv6", "arp", "other", "malformed")
FOUR = {"src": "192.0.2.1", "dst": "192.0.2.2"}
SIX = {"src": "2001:db8::1", "dst": "2001:db8::2"}


@pytest.mark.timeout(1800)
def test_a_million_packets() -> None:
    """Random, mutated and crafted packets: addresses, ports, protocol, fragments, lengths of all headers and
    class as scapy has them, but for the named differences, each of which occurs; the programs count each
    packet once, as often as the kernel ran them. They are always the same: another NETMOND_PARSER_SEED gives
    others.
    """
    cpus = sorted(os.sched_getaffinity(0))
    share = -(-PACKETS // len(cpus))
    command = (sys.executable, "-m", "tests.kernel.parser_run")
    children = [
        subprocess.Popen(
            [*command, str(cpu), str(SEED + number), str(share)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for number, cpu in enumerate(cpus)
    ]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0] * len(cpus)
    results: list[dict[str, Any]] = [json.loads(text) for text in said]
    kinds: Counter[str] = sum((Counter(result["kinds"]) for result in results), Counter())
    differences: Counter[str] = sum((Counter(result["differences"]) for result in results), Counter())
    shown = "\n".join(text for result in results for text in result["shown"])

    assert sum(result["disagreements"] for result in results) == 0, f"among them:\n{shown}"
    assert sum(result["frames"] for result in results) == kinds.total() >= PACKETS
    for result in results:
        assert sum(result["counted"].values()) == result["runs"]
    assert min(differences.values()) > 0, differences
    assert min(kinds[kind] for kind in KINDS) > PACKETS // 100


# -- what was found that way, and put right --------------------------------------------------------------


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    allowed = os.sched_getaffinity(0)
    made = Parser(min(allowed))
    yield made
    made.close()
    os.sched_setaffinity(0, allowed)


def facts(parser: Parser, packet: Any) -> Facts:
    """What the parser says of an IP packet."""
    return parser.parse(bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet))


@pytest.mark.parametrize("frame", FRAMES, ids=[frame.name for frame in FRAMES])
def test_frames_of_the_other_tests(parser: Parser, frame: Frame) -> None:
    """The parser sees them as those tests do."""
    assert parser.parse(frame.data).kind == ("malformed" if frame.malformed else frame.kind)


@pytest.mark.parametrize("length", [28, 33])
def test_padding_is_no_header(parser: Parser, length: int) -> None:
    """What lies behind the end that the IP header gives are no ports, in a frame padded to 60 bytes."""
    four = IP(**FOUR, proto=6, len=length) / Raw(bytes([0xAB] * 26))
    six = IPv6(**SIX, nh=6, plen=length - 20) / Raw(bytes([0xAB] * 26))

    for packet in (four, six):
        found = facts(parser, packet)
        assert (found.source_port, found.destination_port, found.transport_header) == (0, 0, 0)
        assert found.protocol == 6


def test_ports_within_the_length(parser: Parser) -> None:
    """Up to that end they are."""
    found = facts(parser, IP(**FOUR) / UDP(sport=7, dport=9) / Raw(b""))

    assert (found.length, found.source_port, found.destination_port) == (28, 7, 9)


def test_header_longer_than_its_packet(parser: Parser) -> None:
    """A total length that leaves out a part of the header is wrong, as the kernel has it (ip_rcv); so is a
    payload length that cuts extension headers. None at all (0) is not: the kernel's own large packets."""
    options = [bytes(8)]

    assert facts(parser, IP(**FOUR, ihl=7, len=27, options=options) / UDP()).kind == "malformed"
    assert facts(parser, IP(**FOUR, ihl=7, len=28, options=options) / UDP()).kind == "ipv4"
    assert facts(parser, IP(**FOUR, ihl=7, len=0, options=options) / UDP()).kind == "ipv4"
    assert (
        facts(parser, IPv6(**SIX, plen=15) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()).kind == "malformed"
    )
    assert facts(parser, IPv6(**SIX, plen=16) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()).kind == "ipv6"
    assert facts(parser, IPv6(**SIX, plen=0) / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt()).kind == "ipv6"


def test_headers_that_end_with_the_frame(parser: Parser) -> None:
    """Options and extension headers are whole, or the packet is malformed."""
    four = bytes(Ether() / IP(**FOUR, ihl=7, len=28, options=[bytes(8)]))
    six = bytes(Ether() / IPv6(**SIX) / IPv6ExtHdrFragment() / IPv6ExtHdrDestOpt(nh=59))

    for whole, kind in ((four, "ipv4"), (six, "ipv6")):
        assert parser.parse(whole).kind == kind
        for missing in range(1, 9):
            assert parser.parse(whole[:-missing]).kind == "malformed", missing


def test_authentication_header(parser: Parser) -> None:
    """Its length is in units of four bytes, and covers at least its fixed part (RFC 4302)."""
    found = facts(parser, IPv6(**SIX) / AH(nh=17, payloadlen=4, icv=bytes(12)) / UDP(sport=7, dport=9))

    assert (found.protocol, found.ip_header, found.source_port) == (17, 40 + 24, 7)
    assert facts(parser, IPv6(**SIX) / AH(nh=17, payloadlen=0) / UDP()).kind == "malformed"


@pytest.mark.parametrize("count", [7, 8, 9])
def test_many_extension_headers(parser: Parser, count: int) -> None:
    """Eight are read, more are too many."""
    packet = IPv6(**SIX) / IPv6ExtHdrHopByHop()
    for _ in range(count - 1):
        packet /= IPv6ExtHdrDestOpt()
    found = facts(parser, packet / TCP(sport=7, dport=9))

    assert found.kind == ("ipv6" if count <= 8 else "malformed")
    assert found.ip_header == (40 + 8 * count if count <= 8 else 0)


def test_mobility_header_is_the_last(parser: Parser) -> None:
    """Nothing follows it (RFC 6275 6.1.1): it is the packet's protocol, not on the way to another."""
    found = facts(parser, IPv6(**SIX, nh=135) / Raw(bytes([17, 0, 1, 0, 0, 0, 0, 0]) + bytes(8)))

    assert (found.protocol, found.ip_header, found.source_port) == (135, 40, 0)


# -- RoCE -----------------------------------------------------------------------------------------------


def test_roce() -> None:
    """What is counted as RDMA is what scapy's layers GRH and BTH say, but for the named differences, each of
    which occurs; every opcode that is defined is known. NETMOND_PARSER_SEED as above."""
    command = [
        "unshare",
        "--net",
        sys.executable,
        "-m",
        "tests.kernel.roce_run",
        str(SEED),
        str(ROCE_PACKETS),
    ]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    result = json.loads(said)

    shown = "\n".join(result["shown"])
    assert result["disagreements"] == 0, f"among them:\n{shown}"
    assert min(result["differences"].values()) > 0, result["differences"]
    assert min(result["versions"][version] for version in "012") > ROCE_PACKETS // 20
    assert result["opcodes"] == len(NAMES)
