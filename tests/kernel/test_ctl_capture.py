"""netmonctl capture with the real daemon: what it writes is what tcpdump saw, and tshark reads it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from netmonctl.pcapng import Frame, Reader, Statistics
from tests.kernel.agent import Agent
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.running import ROOT, Netmond
from tests.kernel.test_capture import Tcpdump
from tests.kernel.test_lifecycle import alive, bpf_objects

COUNT = 23
#: What tshark says of itself, not of the file.
ABOUT_ROOT = 'Running as user "root" and group "root". This could be dangerous.'


@pytest.fixture(autouse=True)
def _tshark() -> None:
    if shutil.which("tshark") is None:
        pytest.skip("needs tshark (Debian package tshark)")


class Capture:
    """netmonctl capture in the background, once it has begun."""

    def __init__(self, netmond: Netmond, *words: str, stdout: int = subprocess.PIPE) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "netmonctl", "capture", *words],
            cwd=ROOT, env=netmond.environment, stdout=stdout, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.popen.stderr is not None
        begun = self.popen.stderr.readline().decode()
        assert begun.startswith("Capturing on "), begun

    def stop(self) -> tuple[bytes, str]:
        """Ctrl-C: what it printed, and its last line on standard error."""
        self.popen.send_signal(signal.SIGINT)
        out, error = self.popen.communicate(timeout=2 * DEADLINE)
        assert self.popen.returncode == 0, error
        return out or b"", error.decode()


@contextmanager
def capturing(netmond: Netmond, *words: str, stdout: int = subprocess.PIPE) -> Iterator[Capture]:
    made = Capture(netmond, *words, stdout=stdout)
    try:
        yield made
    finally:
        made.popen.kill()
        made.popen.communicate()


def tshark(*words: str, data: bytes | None = None) -> list[str]:
    """Its lines; it has nothing to complain about."""
    done = subprocess.run(["tshark", "-n", *words], input=data, capture_output=True, check=True)
    complaints = set(done.stderr.decode().splitlines()) - {ABOUT_ROOT}
    assert not complaints
    return done.stdout.decode().splitlines()


def frames_of(data: bytes) -> list[Frame]:
    """Those of a complete file."""
    reader = Reader()
    found = [item for item in reader.feed(data) if isinstance(item, Frame)]
    reader.close()
    return found


def idle(netmond: Netmond) -> None:
    """Waits until there is no session."""
    eventually(lambda: not netmond.json("sessions"), "no session is left")


def talk(scene: Scene, *, count: int = COUNT, size: int = 101, family: int = 4) -> tuple[Agent, int]:
    """Datagrams of the user and their echoes."""
    server, user = scene.server(), scene.user(USER)
    address = scene.link.address(family, far=True)
    port = int(server.do("echo_server", local=[address, 0]))
    user.do("udp", name="a", peer=[address, port])
    user.do("exchange", name="a", count=count, size=size)
    return user, port


def test_as_tcpdump(scene: Scene, tmp_path: Path) -> None:
    """The same frames in the same order, byte for byte; tshark reads them all, and the counts add up."""
    netmond = scene.netmond()
    device = scene.link.near_device
    ours = tmp_path / "ours.pcapng"
    with capturing(netmond, "-i", device, "-w", str(ours), "ip or ip6") as capture:
        tcpdump = Tcpdump(scene.near, device, "ip or ip6")
        talk(scene)
        user, port = talk(scene, family=6, size=1200)
        user.do("tcp", name="b", peer=[scene.link.address(6, far=True), port])
        user.do("exchange", name="b", count=COUNT, size=1000)
        _, error = capture.stop()

    found = frames_of(ours.read_bytes())
    tcpdump.stop(len(found))
    assert error == f"{len(found)} packets captured, {filtered(ours)} filtered, 0 dropped by the kernel\n"
    assert len(tshark("-r", str(ours))) == len(found)
    names = ("frame.len", "ip.id", "udp.checksum", "tcp.seq_raw")
    fields = [word for name in names for word in ("-e", name)]
    expected = tshark("-r", str(tcpdump.file), "-T", "fields", *fields)
    mine = tshark("-r", str(ours), "-T", "fields", *fields)
    assert mine == expected
    assert len(expected) > 6 * COUNT
    assert all(frame.interface.name == device for frame in found)
    assert sorted(found, key=lambda frame: frame.time) == found


def filtered(path: Path) -> int:
    """What the file itself says."""
    items = list(Reader().feed(path.read_bytes()))
    known = [item for item in items if isinstance(item, Statistics)]
    return sum((item.received or 0) - (item.accepted or 0) for item in known)


def test_lines(scene: Scene) -> None:
    """Each packet of the user, with user, process and unit; as many as were asked for."""
    netmond = scene.netmond()
    words = ["-i", scene.link.near_device, "-c", str(2 * COUNT), "--user", str(USER), "--json", "udp"]
    with capturing(netmond, *words) as capture:
        _, port = talk(scene)
        out, error = capture.popen.communicate(timeout=2 * DEADLINE)
    rows: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]

    assert [row["direction"] for row in rows] == ["out", "in"] * COUNT
    assert {(row["uid"], row["unit"], row["process"], row["protocol"], row["length"]) for row in rows} == {
        (USER, scene.unit.name, "python3", "udp", 143)
    }
    assert {row["destination_port"] for row in rows[::2]} == {port}
    assert {row["source_port"] for row in rows[1::2]} == {port}
    assert error.decode().startswith(f"{2 * COUNT} packets captured, ")
    idle(netmond)


def test_into_a_pipe(scene: Scene) -> None:
    """As in ``netmonctl capture -w - | wireshark -k -i -``: packets are there as soon as they pass."""
    netmond = scene.netmond()
    reading, writing = os.pipe()
    with capturing(netmond, "-i", scene.link.near_device, "-w", "-", "udp", stdout=writing) as capture:
        os.close(writing)
        argv = ["tshark", "-n", "-l", "-i", "-", "-T", "fields", "-e", "udp.length", "-e", "frame.comment"]
        reader = subprocess.Popen(
            argv, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        os.close(reading)
        assert reader.stdout is not None
        talk(scene)
        lines = [reader.stdout.readline() for _ in range(2 * COUNT)]
        capture.stop()
        rest, _ = reader.communicate(timeout=2 * DEADLINE)

    assert not [line for line in lines if not line.startswith("109\t") or f"uid={USER}" not in line]
    assert (rest, reader.returncode) == ("", 0)
    idle(netmond)


def test_ring(scene: Scene, tmp_path: Path) -> None:
    """Each file is complete, and all of them are what passed."""
    netmond = scene.netmond()
    path = tmp_path / "ring"
    with capturing(netmond, "-i", scene.link.near_device, "-w", str(path), "-C", "1", "udp") as capture:
        talk(scene, count=1000, size=1400)
        eventually(lambda: len(os.listdir(tmp_path)) == 4, "there are four files")
        capture.stop()

    found = []
    for name in ("ring", "ring1", "ring2", "ring3"):
        data = (tmp_path / name).read_bytes()
        assert len(tshark("-r", str(tmp_path / name))) == len(frames_of(data))
        found += frames_of(data)
    assert len(found) == 2000
    assert all(frame.length == 1442 for frame in found)


def test_killed(scene: Scene) -> None:
    """Nothing is left of a client that is killed: no process, no program, no session."""
    netmond = scene.netmond()
    with capturing(netmond, "-i", scene.link.near_device, "-w", "-") as capture:
        (session,) = netmond.json("sessions")
        assert json.loads(session["options"])["interfaces"] == [scene.link.near_device]
        workers = Path(f"/proc/{netmond.pid}/task/{netmond.pid}/children").read_text().split()
        programs = {"prog": set().union(*(bpf_objects(int(pid))["prog"] for pid in workers))}
        assert programs["prog"]
        assert alive(programs) == programs
        capture.popen.kill()
        idle(netmond)
    eventually(lambda: not alive(programs), "no program is left")


def test_refused(scene: Scene) -> None:
    """One line that says why, from libpcap, the kernel and the routes."""
    netmond = scene.netmond()
    on = ("-i", scene.link.near_device)

    for words, code, complaint in (
        ((*on, "port", "nowhere"), 2, "nowhere"),
        (("-i", "nothing0"), 5, "there is no interface nothing0"),
        ((), 1, "default route"),
    ):
        said = netmond.ctl("capture", *words)
        assert said.code == code
        assert complaint in said.line
    idle(netmond)


def test_library(scene: Scene) -> None:
    """The example that is installed, and frames in an event loop."""
    netmond = scene.netmond()
    device = scene.link.near_device
    example = [sys.executable, str(ROOT / "packaging/examples/hexdump.py"), device, str(2 * COUNT), "udp"]
    code = f"""
import asyncio
from netmond import capture
async def main():
    async with capture.open(interface={device!r}, user={USER}, filter="udp", count={2 * COUNT}) as frames:
        print("ready", flush=True)
        found = [frame async for frame in frames]
    print({{(frame.uid, frame.unit, frame.process, frame.length) for frame in found}}, frames.dropped)
    try:
        async with capture.open(interface={device!r}, filter="port nowhere"):
            pass
    except capture.BadFilter:
        print("no filter")
asyncio.run(main())
"""
    how: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.PIPE, "text": True}
    environment = netmond.environment | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(example, env=environment, **how)
    second = subprocess.Popen([sys.executable, "-c", code], env=environment, **how)
    try:
        assert second.stdout is not None
        assert second.stdout.readline() == "ready\n"
        eventually(lambda: len(netmond.json("sessions")) == 2, "both capture")
        talk(scene)
        shown, _ = first.communicate(timeout=2 * DEADLINE)
        told, _ = second.communicate(timeout=2 * DEADLINE)
    finally:
        for process in (first, second):
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert shown.count(" 143 bytes of ") == 2 * COUNT
    assert told == f"{{({USER}, '{scene.unit.name}', 'python3', 143)}} 0\nno filter\n"
