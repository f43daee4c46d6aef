"""netmonctl capture --read: a file's packets as lines, without netmond."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from netmonctl.errors import ExitCode
from netmonctl.frame_text import INFINIBAND
from tests.unit.pcapng_maker import Maker
from tests.unit.test_ctl_commands import Fake, Ran

MAKE = Maker()
OWNER = 'user=alice uid=1000 process="a b" pid=4211'
#: UDP from 192.0.2.1 port 1 to 192.0.2.2 port 7654, without payload.
UDP = bytes.fromhex("02" * 12 + "0800" + "4500001c0000000040110000c0000201c0000202" + "00011de600080000")
#: InfiniBand from LID 3 to LID 4: an RC SEND_ONLY of 8 bytes to queue pair 17.
SEND = struct.pack("!BBHHHBBHII", 0, 2, 4, 8, 3, 4, 0, 0xFFFF, 17, 5) + bytes(14)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three packets of two interfaces."""
    path = tmp_path / "packets.pcapng"
    path.write_bytes(
        MAKE.section()
        + MAKE.interface("eth0")
        + MAKE.interface("mlx5_0", linktype=INFINIBAND)
        + MAKE.packet(UDP, time=10**9, direction=2, comment=OWNER)
        + MAKE.packet(SEND, time=2 * 10**9, interface=1)
        + MAKE.packet(UDP, time=3 * 10**9)
    )
    return path


def read(file: Path | str, *words: str) -> Ran:
    """As if netmond were not there: any call of it is an error."""
    return Ran(Fake({}), "capture", "--read", str(file), *words)


def test_lines(file: Path) -> None:
    """As when they passed, with whose they were."""
    ran = read(file)

    assert (ran.code, ran.stderr, ran.fake.calls) == (ExitCode.OK, "", [])
    assert ran.stdout.splitlines() == [
        "00:00:01.000000 eth0 Out IP 192.0.2.1.1 > 192.0.2.2.7654: UDP, length 0  alice a b[4211]",
        "00:00:02.000000 mlx5_0 IB ?:3 -> 17:4 proto=4 RC SEND_ONLY, qp 0x11, psn 5, pkey 0xffff, length 8",
        "00:00:03.000000 eth0 IP 192.0.2.1.1 > 192.0.2.2.7654: UDP, length 0",
    ]


def test_for_programs(file: Path) -> None:
    """An object for each packet; as many as wanted."""
    lines = [json.loads(line) for line in read(file, "--json", "-c", "2").stdout.splitlines()]

    assert [line["interface"] for line in lines] == ["eth0", "mlx5_0"]
    assert lines[1]["traffic_type"] == "infiniband"
    assert (lines[1]["source_lid"], lines[1]["queue_pair"]) == (3, 17)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["udp"], "; a filter is"), (["-i", "eth0"], "; --interface is"), (["-w", "other"], "; --write is"),
        (["-u", "alice"], "; --user is"), (["-s", "64"], "; --snaplen is"),
        (["-Q", "in"], "; --direction is"),
    ],
)  # fmt: skip
def test_what_is_for_packets_that_pass(file: Path, words: list[str], named: str) -> None:
    """Neither filters nor owners are looked for in a file; the error names what was written."""
    ran = read(file, *words)

    assert ran.code == ExitCode.USAGE
    assert named in ran.stderr


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """In one line, with the file's name."""
    other = tmp_path / "other"
    other.write_bytes(bytes.fromhex("d4c3b2a1") + bytes(100))
    cut = tmp_path / "cut"
    cut.write_bytes((MAKE.section() + MAKE.interface("eth0"))[:-4])
    for path, reason in (
        (tmp_path / "none", "No such file or directory"),
        (other, "this is no pcapng"),
        (cut, "cut off"),
    ):
        ran = read(path)
        assert (ran.code, ran.stdout) == (ExitCode.FAILURE, "")
        assert ran.stderr.startswith(f"netmonctl: {path}: ")
        assert reason in ran.stderr
        assert ran.stderr.count("\n") == 1
