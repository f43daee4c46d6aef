"""Filters converted to eBPF against libpcap's own interpreter: the same frames, the same verdicts.

NETMOND_FILTER_SEED repeats a run; NETMOND_FILTER_FRAMES makes it a longer one.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scapy.utils import wrpcap

from netmond.errors import LimitExceeded
from netmond.frames.expressions import ETHERNET, RAW, Classic, Instruction, compile_filter, translate
from netmond.frames.filter_source import source
from tests.kernel.filter_expressions import EXPRESSIONS, expressions
from tests.kernel.filter_frames import frames
from tests.kernel.filter_run import Filters, plain_functions, whole_functions
from tests.kernel.libpcap import Judge, interpret

SEED = int(os.environ.get("NETMOND_FILTER_SEED", secrets.randbits(32)))
FRAMES = int(os.environ.get("NETMOND_FILTER_FRAMES", "2000"))


def programs(texts: Sequence[str], linktype: int = ETHERNET) -> list[Classic]:
    """As libpcap compiles them, all at once."""
    made = translate([(linktype, text) for text in texts])
    wrong = [(text, each) for text, each in zip(texts, made, strict=True) if isinstance(each, str)]
    assert wrong == []
    return [each for each in made if not isinstance(each, str)]


def compared(
    functions: Sequence[tuple[str, str]], truths: Sequence[Callable[[bytes], bool]], seen: Sequence[bytes]
) -> tuple[list[str], list[int]]:
    """Where kernel and truth do not agree, and how many frames each function took."""
    found, taken = [], [0] * len(functions)
    with closing(Filters(functions)) as filters:
        for frame in seen:
            for place, verdict in enumerate(filters.judge(frame)):
                taken[place] += verdict
                if verdict != truths[place](frame):
                    found.append(f"seed {SEED}: {place} says {verdict} of {frame.hex()}")
    return found, taken


def test_every_primitive() -> None:
    """200 expressions on thousands of frames, whole, cut and mutated; most take some and leave some."""
    truths = [Judge(text).judge for text in EXPRESSIONS]

    found, taken = compared(plain_functions(programs(EXPRESSIONS)), truths, frames(SEED, FRAMES))

    assert len(EXPRESSIONS) > 150
    assert found == []
    assert sum(0 < count < FRAMES for count in taken) > 0.9 * len(EXPRESSIONS)


def test_without_link_header() -> None:
    """The same on IP packets as such."""
    texts = [text for text in EXPRESSIONS if _compiles(text, RAW)]
    packets = [frame[14:] for frame in frames(SEED, FRAMES // 2)]
    truths = [Judge(text, RAW).judge for text in texts]

    found, taken = compared(plain_functions(programs(texts, RAW)), truths, packets)

    assert found == []
    assert sum(map(bool, taken)) > len(texts) / 2


def _compiles(text: str, linktype: int = ETHERNET) -> bool:
    with suppress(ValueError):
        Judge(text, linktype)
        return True
    return False


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],  # a batch is compiled for seconds: nothing is made smaller
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(expressions(), min_size=40, max_size=60))
def test_put_together(texts: list[str]) -> None:
    """Any primitives by and, or, not, with comparisons of sums of bytes."""
    texts = [text for text in texts if _compiles(text)]
    truths = [Judge(text).judge for text in texts]

    found, _ = compared(plain_functions(programs(texts)), truths, frames(SEED, 1000))

    assert found == [], "\n".join(texts)


def test_any_program() -> None:
    """Programs of every instruction there is, also such as libpcap never makes: division by an index that is
    zero, shifts by more than 31, indexes near 2^32, results of the accumulator."""
    random = Random(SEED)
    made = [_WRAPPING, *(_any_program(random) for _ in range(120))]
    seen = frames(SEED, 600)

    found, taken = compared(plain_functions(made), [partial(interpret, each) for each in made], seen)

    assert found == []
    assert sum(0 < count < len(seen) for count in taken) > len(made) / 4


#: X = 20; A = the byte at X + 2^32 - 10, which is not the tenth; match
_WRAPPING = (Instruction(0x01, 0, 0, 20), Instruction(0x50, 0, 0, 0xFFFFFFF6), Instruction(0x06, 0, 0, 1))


def _any_program(random: Random) -> Classic:
    """Random steps that only jump forward, and a return at the end."""
    number = (0, 1, 2, 7, 12, 14, 23, 30, 31, 32, 33, 60, 124, 126, 127, 128, 255, 0x7FFFFFFF, 0xFFFFFFFF)
    steps = [Instruction(0x02, 0, 0, place) for place in range(3)]  # memory begins with what is known
    count = random.randrange(6, 24)
    while len(steps) < count:
        kind, k = random.randrange(10), random.choice(number)
        left = count - len(steps) - 1
        if kind < 2:  # ld, ldx of a constant place, mostly one that is there
            steps.append(Instruction(random.choice((0x20, 0x28, 0x30)), 0, 0, random.randrange(60)))
        elif kind == 2:
            steps.append(Instruction(random.choice((0x40, 0x48, 0x50)), 0, 0, k))
        elif kind == 3:
            steps.append(Instruction(random.choice((0x00, 0x01, 0x80, 0x81)), 0, 0, k))
        elif kind == 4:
            steps.append(Instruction(random.choice((0x60, 0x61, 0x02, 0x03)), 0, 0, random.randrange(3)))
        elif kind == 5:
            steps.append(Instruction(random.choice((0x07, 0x87, 0xB1)), 0, 0, random.randrange(40)))
        elif kind < 8:
            operation = random.choice((0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0))
            by_index = random.choice((0, 8)) if operation != 0x80 else 0
            if operation in (0x30, 0x90) and not by_index:
                k = k or 3
            if operation in (0x60, 0x70):
                k %= 32
            steps.append(Instruction(0x04 | operation | by_index, 0, 0, k))
        else:
            operation = random.choice((0x10, 0x20, 0x30, 0x40)) | random.choice((0, 8))
            jumps = random.randrange(left + 1), random.randrange(left + 1)
            steps.append(Instruction(0x05 | operation, *jumps, k))
    return (*steps, Instruction(random.choice((0x06, 0x16)), 0, 0, 1))


#: Filters that do not speak of tags
_UNTAGGED = (
    "tcp", "not tcp", "ip6 and udp", "host 10.0.0.1 and not port 80", "arp or icmp", "ether multicast",
    "tcp[tcpflags] & tcp-syn != 0", "ip[6:2] & 0x1fff != 0", "net 10.0.0.0/8 or ip6", "mpls", "pppoes 7",
)  # fmt: skip
_OF_TAGS = ("vlan", "vlan 5 and tcp", "not vlan", "tcp or vlan 6")


def whole(texts: Sequence[str]) -> list[tuple[str, str]]:
    return whole_functions([compile_filter(text, [ETHERNET])[ETHERNET] for text in texts])


def is_tagged(frame: bytes) -> bool:
    return frame[12:14] in (b"\x81\x00", b"\x88\xa8", b"\x91\x00")


def on_a_socket(text: str) -> Callable[[bytes], bool]:
    """The truth for a packet socket, which gets a frame's tag apart."""
    judge = Judge(text).judge
    return lambda frame: judge(frame[:12] + frame[16:] if is_tagged(frame) else frame)


def test_tags() -> None:
    """A filter that does not speak of tags judges a frame as if it had none, as on a packet socket; one that
    does means what pcap-filter(7) says."""
    seen = [frame for frame in frames(SEED, FRAMES // 4) if len(frame) >= 18]  # with whole tags
    truths = [on_a_socket(text) for text in _UNTAGGED] + [Judge(text).judge for text in _OF_TAGS]

    found, _ = compared(whole(_UNTAGGED + _OF_TAGS), truths, seen)

    assert found == []
    assert sum(map(is_tagged, seen)) > len(seen) // 10


def test_as_tcpdump(tmp_path: Path) -> None:
    """What tcpdump finds in a file of these frames."""
    texts = EXPRESSIONS[:: len(EXPRESSIONS) // 12]
    seen = [frame for frame in frames(SEED, FRAMES // 4) if frame]
    file = tmp_path / "frames.pcap"
    wrpcap(str(file), seen, linktype=1)

    _, taken = compared(plain_functions(programs(texts)), [Judge(text).judge for text in texts], seen)

    for text, count in zip(texts, taken, strict=True):
        command = ["tcpdump", "-r", str(file), "-w", str(tmp_path / "found.pcap"), text]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        said = subprocess.run(
            ["capinfos", "-Mc", "-T", "-r", str(tmp_path / "found.pcap")],
            check=True,
            capture_output=True,
            text=True,
        )
        assert int(said.stdout.split("\t")[1]) == count, text


@pytest.mark.parametrize(
    "text",
    [
        " or ".join(f"host 2001:db8::{host:x}" for host in range(200)),
        " or ".join(f"host 10.{host % 7}.{host * 7 % 256}.{host}" for host in range(200)),
        " or ".join(f"(host 10.0.0.{host} and port {host + 1000})" for host in range(40)),
    ],
    ids=["200 IPv6 hosts", "200 IPv4 hosts", "40 hosts with ports"],
)
def test_large_ones(text: str) -> None:
    """The kernel takes them, and they are right."""
    seen = [frame for frame in frames(SEED, 300) if len(frame) >= 18]

    found, _ = compared(whole([text]), [on_a_socket(text)], seen)

    assert found == []


def test_too_large() -> None:
    """A clear word about how much is too much."""
    text = " or ".join(f"host 2001:db8::{host:x}" for host in range(240))
    filters = compile_filter(text, [ETHERNET])

    with pytest.raises(LimitExceeded, match=r"8\d\d\d instructions, 8192 are allowed"):
        source(filters)
