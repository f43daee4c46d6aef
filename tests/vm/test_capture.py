"""Captures on Debian's own kernel, which has no tcx: filters of clsact, which must not stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import PATIENCE, main_pid, run
from tests.service.talk import DEVICE, FAR, Far, Talker
from tests.vm.watching import Watcher, no_session, packets, unpacked, watching, witness

pytestmark = pytest.mark.usefixtures("installed", "far")

_COUNT = 20


def filters() -> int:
    """How many programs there are at the uplink, both ways."""
    shown = (run("tc", "filter", "show", "dev", DEVICE, way).out for way in ("ingress", "egress"))
    return sum(len(re.findall(r"\bdirect-action\b", text)) for text in shown)


def has_head(file: Path) -> Callable[[Watcher], bool]:
    """Whether something was written to the file: the head of a capture, when it has begun."""
    return lambda _: file.exists() and file.stat().st_size > 0


def test_like_tcpdump(talkers: dict[str, Talker], tmp_path: Path) -> None:
    """The same packets in the same order, large ones whole; and no filter is left behind."""
    run("ethtool", "-K", DEVICE, "tso", "on", "gso", "on")
    before = filters()
    file = tmp_path / "frames.pcapng"
    argv = ["netmonctl", "capture", "-i", DEVICE, "-w", str(file), f"host {FAR}"]
    with witness(tmp_path) as seen, watching(*argv, out=tmp_path / "capture", begun=has_head(file)):
        assert filters() == before + 2
        talkers["erin"].do("tcp", name="t", peer=[FAR, Far.PORT])
        talkers["erin"].do("exchange", name="t", count=_COUNT, size=60_000)
        talkers["frank"].exchange(_COUNT, 100)

    eventually(no_session, "the session is over")
    assert unpacked(file) == packets(seen)
    assert len(packets(seen)) > 4 * _COUNT
    assert filters() == before


def test_killed(tmp_path: Path) -> None:
    """What a worker that was killed has left at the interface is taken away, and its reader is told."""
    before = filters()
    file = tmp_path / "frames.pcapng"
    argv = ["netmonctl", "capture", "-i", DEVICE, "-w", str(file)]
    with watching(*argv, out=tmp_path / "out", begun=has_head(file), end=failed) as capture:
        (pid,) = run("pgrep", "--parent", str(main_pid()), "--full", "netmond.frames").out.split()
        run("kill", "-KILL", pid)
        eventually(lambda: filters() == before, "its filters are gone")
    assert capture.error.read_text().endswith("\nnetmonctl: the capture ended early: its process died\n")
    eventually(no_session, "the session is over")


def failed(watcher: Watcher) -> None:
    assert watcher.process.wait(PATIENCE) == 1
