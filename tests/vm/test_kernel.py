"""What only a machine with Debian's own kernel can tell: netmond does all of its work there, exactly."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import complaints, main_pid, next_tick, rows, run, systemctl
from tests.service.talk import DEVICE, FAR, Far, Figures, Talker, figures

pytestmark = pytest.mark.usefixtures("installed", "far")

#: IPv4 and TCP headers with the timestamps option; a SYN has eight more bytes of options.
_HEADERS, _SYN = 20 + 32, 8


def uplink() -> dict[str, Any]:
    """The row of the only interface with a cable."""
    (row,) = [row for row in rows("Interfaces") if row["name"] == DEVICE]
    return row


def monitored() -> bool:
    return bool(uplink()["monitored"])


def test_kernel() -> None:
    """Linux 6.1 as Debian builds it."""
    assert os.uname().release.startswith("6.1.")
    assert "debian-kernel@lists.debian.org" in Path("/proc/version").read_text()


def test_every_feature() -> None:
    """Nothing is missing, neither for lack of a kernel function nor for the sandbox."""
    eventually(monitored, "the uplink is monitored")
    next_tick()

    assert complaints() == {}


@pytest.fixture
def connection(talkers: dict[str, Talker]) -> Talker:
    """A user's TCP connection to the far host, over a device that is given pieces of up to 64 KiB."""
    run("ethtool", "-K", DEVICE, "tso", "on", "gso", "on")
    talkers["erin"].do("tcp", name="t", peer=[FAR, Far.PORT])
    return talkers["erin"]


def the_flow() -> dict[str, Any]:
    """The row of the only TCP connection to the far host."""
    next_tick()
    (row,) = [row for row in rows("Flows") if row["protocol"] == "tcp" and row["remote"] == FAR]
    return row


def as_tcp_counts() -> Figures:
    """The figures of that connection from the kernel's TCP: segments and payload (tcp_info, by ss(8))."""
    said = run("ss", "--tcp", "--info", "--no-header", "dst", FAR).out

    def figure(name: str) -> int:
        return sum(map(int, re.findall(rf"\b{name}:(\d+)", said)))

    back, out = figure("segs_in"), figure("segs_out")
    return (
        back,
        back * _HEADERS + _SYN + figure("bytes_received"),
        out,
        out * _HEADERS + _SYN + figure("bytes_sent"),
    )


def test_segmentation_offload(connection: Talker) -> None:
    """What TCP hands down in large pieces is counted as the packets that are on the wire: as many, and as
    long, as TCP says."""
    connection.do("exchange", name="t", count=20, size=60_000)

    eventually(lambda: figures(the_flow()) == as_tcp_counts(), "netmond and TCP agree")
    row = the_flow()
    assert row["out_bytes"] > 20 * 60_000
    assert row["out_stack_packets"] < row["out_packets"] / 5
    assert row["out_stack_bytes"] < row["out_bytes"]


def test_interface(connection: Talker) -> None:
    """Frames of the uplink as the stack handles them are those that /sys/class/net counts."""
    eventually(monitored, "the uplink is monitored")
    next_tick()
    before = uplink()

    connection.do("exchange", name="t", count=20, size=60_000)
    next_tick()

    after = uplink()
    grown = {name: after[name] - before[name] for name in after if name.endswith(("_packets", "_bytes"))}
    for ours, kernels in (("in_stack", "kernel_rx"), ("out_stack", "kernel_tx")):
        for what in ("packets", "bytes"):
            assert grown[f"{ours}_{what}"] == grown[f"{kernels}_{what}"] > 0
    assert grown["out_packets"] > grown["out_stack_packets"]


def test_hook() -> None:
    """This kernel has no tcx, so there is one clsact filter each way; one that a killed daemon left is
    replaced."""
    eventually(monitored, "the uplink is monitored")
    assert uplink()["hook"] == "tc"
    pid = main_pid()
    systemctl("kill", "--signal=KILL", "netmond")
    eventually(lambda: main_pid() not in (0, pid), "a new daemon has come")
    eventually(lambda: systemctl("is-active", "netmond", check=False).code == 0, "it is ready")
    eventually(monitored, "the uplink is monitored again")

    for way in ("ingress", "egress"):
        filters = run("tc", "filter", "show", "dev", DEVICE, way).out
        assert len(re.findall(r"\bdirect-action\b", filters)) == 1, filters


def test_kernel_has_no_complaints() -> None:
    """No warning and no oops in the kernel's log after all that."""
    said = run("journalctl", "--dmesg", "--no-pager", "--output=cat").out

    assert re.findall(r".*(?:BUG:|WARNING:|Oops|Call Trace).*", said) == []
