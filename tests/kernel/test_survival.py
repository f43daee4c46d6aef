"""Restart without loss: daemons are killed and replaced amidst traffic, and every byte counts once."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kernel import iperf
from tests.kernel.conftest import USER, Scene
from tests.kernel.running import ROOT, Netmond
from tests.kernel.test_interfaces import at_rest
from tests.kernel.test_restart import Talk, echoes
from tests.kernel.test_users import check

TCP, UDP = 1235, 1236
KILLS = 100
#: An interface's figures, and the kernel's, who counts behind segmentation here.
KERNELS = {
    "in_packets": "rx_packets",
    "in_bytes": "rx_bytes",
    "out_packets": "tx_packets",
    "out_bytes": "tx_bytes",
}


def lasting(scene: Scene, **config: object) -> Netmond:
    """A daemon, not started, that can leave its counting to the next."""
    netmond = scene.daemon(config=config)
    scene.machine.bpffs(netmond.run / "bpf")
    return netmond


def pinned(netmond: Netmond) -> set[str]:
    """What is in the BPF file system, but for what the kernel itself shows there."""
    return {path.name for path in (netmond.run / "bpf").iterdir()} - {"maps.debug", "progs.debug"}


def units(netmond: Netmond) -> list[str]:
    """The units that are pinned, one for each build there is of them."""
    return sorted(name.partition("-")[0] for name in pinned(netmond))


class Traffic:
    """Two users with an iperf3 each, which outlive every daemon: TCP over IPv4, UDP over IPv6."""

    def __init__(self, scene: Scene, netmond: Netmond) -> None:
        self._scene = scene
        self._before = at_rest(netmond, scene.near, scene.link.near_device)
        flags = {TCP: ["--bitrate=20M"], UDP: ["--bitrate=5M", "--udp", "--length=1200"]}
        self._talks = {
            uid: iperf.start(
                scene.link, scene.near, scene.link.address(family, far=True), "--time=3600", *flags[uid],
                uid=uid, cgroup=scene.unit,
            )
            for uid, family in ((TCP, 4), (UDP, 6))
        }  # fmt: skip

    def end(self, netmond: Netmond) -> None:
        """Stops it, and holds what the users have against what the far end captured, and what the interface
        has against what the kernel counted there."""
        for uid, talk in self._talks.items():
            done = talk.interrupt()
            assert len(done.packets) > 1000
            check(netmond.user(uid), done.packets, self._scene.link.near_addresses)
        row, kernel = self._before
        later, kernel_later = at_rest(netmond, self._scene.near, self._scene.link.near_device)
        for name, kernels in KERNELS.items():
            assert later[name] - row[name] == kernel_later[kernels] - kernel[kernels]


def kill_within(netmond: Netmond, seconds: float, chance: random.Random) -> None:
    """SIGKILL at some moment; the daemon has not ended before by itself."""
    with suppress(subprocess.TimeoutExpired):
        code = netmond.process.popen.wait(chance.uniform(0, seconds))
        raise AssertionError(f"netmond ended with {code}:\n{netmond.log}")
    netmond.stop(signal.SIGKILL)


@pytest.mark.timeout(300)  # a minute, and more beside others
def test_a_hundred_kills(scene: Scene) -> None:
    """SIGKILL at random moments, amidst a tick or the start: the users have every packet, once."""
    netmond, chance = lasting(scene), random.Random(23)
    netmond.start()
    traffic = Traffic(scene, netmond)

    for number in range(KILLS):
        kill_within(netmond, 0.3, chance)
        if number % 3:
            netmond.start()
        else:
            netmond.launch()
    netmond.stop(signal.SIGKILL)
    netmond.start()

    traffic.end(netmond)
    assert units(netmond) == ["interfaces", "sockets"]
    assert "cannot" not in netmond.log


#: The records that change, and the line that is to be the first; what shares a word stays together.
FIRST = {"direction": 5, "slot": 1, "flow": 4, "tally": 3, "port_direction": 2}
SLOT = 'SLOT = np.dtype([("in", DIRECTION), ("out", DIRECTION)])'
SLOT_IN_LINES = 'SLOT = np.dtype(\n    [\n        ("in", DIRECTION),\n        ("out", DIRECTION),\n    ]\n)'


def changed(directory: Path) -> Path:
    """A copy of the source tree whose records have another order and size, and a field more."""
    for name in ("bpf", "netmond"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    header, mirror = directory / "bpf/types.h", directory / "netmond/kernel/wire.py"
    records, dtypes = header.read_text(), mirror.read_text().replace(SLOT, SLOT_IN_LINES)
    for name, first in FIRST.items():
        records = turned(records, f"\nstruct {name} {{\n", "};\n", first, "    u64 newer;\n")
        begin = f"\n{name.upper()} = np.dtype(\n    [\n"
        dtypes = turned(dtypes, begin, "    ]\n", first, '        ("newer", "u8"),\n')
    header.write_text(records)
    mirror.write_text(dtypes)
    return directory


def turned(text: str, begin: str, end: str, first: int, more: str) -> str:
    """The text with the lines between two others beginning with another one, behind one that is new."""
    before, _, rest = text.partition(begin)
    between, _, after = rest.partition(end)
    lines = between.splitlines(keepends=True)
    assert len(lines) > first, begin
    return "".join([before, begin, more, *lines[first:], *lines[:first], end, after])


def test_another_layout(scene: Scene) -> None:
    """An upgrade to a package whose records have another layout, and back, several times, killed at random
    moments of the change: the users have every packet, once, and of the older builds nothing stays."""
    netmond, chance = lasting(scene), random.Random(29)
    newer = changed(scene.machine.directory / "newer")
    netmond.start()
    (old,) = [pinned(netmond)]
    traffic = Traffic(scene, netmond)

    for number in range(6):
        netmond.stop(signal.SIGKILL)
        netmond.source = ROOT if number % 2 else newer
        if number > 1:
            netmond.launch()
            kill_within(netmond, 2, chance)
        netmond.start()
        assert units(netmond) == ["interfaces", "sockets"]
        assert pinned(netmond).isdisjoint(old)
        old = pinned(netmond)

    traffic.end(netmond)
    assert "cannot" not in netmond.log


def spoil(data: bytes, chance: random.Random) -> bytes:
    """Damaged in one byte, or cut short, wherever."""
    at = chance.randrange(len(data))
    return data[:at] + (bytes([data[at] ^ 0x10]) + data[at + 1 :] if chance.random() < 0.5 else b"")


def test_a_damaged_checkpoint(scene: Scene) -> None:
    """What was saved on the disk is what counting goes on from, and the log says so; nothing counts twice,
    and the next kill costs nothing again."""
    netmond, talk, chance = lasting(scene), Talk(scene), random.Random(31)
    netmond.start()
    talk.exchange(USER, 1009)
    netmond.settle()
    assert netmond.ctl("reload").code == 0  # saves the totals
    file = netmond.run / "sockets.checkpoint"

    for number in range(1, 4):
        talk.exchange(USER, 2003)
        netmond.settle()
        netmond.stop(signal.SIGKILL)
        file.write_bytes(spoil(file.read_bytes(), chance))
        netmond.start()
        assert netmond.log.count(f"cannot use {file}") == number
        assert netmond.user(USER) == echoes(1009)

    talk.exchange(USER, 23)
    netmond.settle()
    netmond.stop(signal.SIGKILL)
    talk.exchange(USER, 29)
    netmond.start()
    assert netmond.user(USER) == echoes(1009 + 23 + 29)
    assert units(netmond) == ["interfaces", "sockets"]


def test_what_belongs_to_others(scene: Scene) -> None:
    """Whatever is in the BPF file system under other names stays as it is; what an older version of netmond
    left without a checkpoint goes."""
    netmond = lasting(scene)
    root = netmond.run / "bpf"
    foreign = root / "somebody" / "map"
    stale = root / "sockets-0123456789ab-1" / "maps" / "slots"
    for path in (foreign, stale):
        path.parent.mkdir(parents=True)
        description = ["type", "array", "key", "4", "value", "4", "entries", "1", "name", "netmond_test"]
        subprocess.run(["bpftool", "map", "create", path, *description], check=True)

    netmond.start()
    talk = Talk(scene)
    talk.exchange(USER, 23)
    netmond.stop(signal.SIGKILL)
    talk.exchange(USER, 29)
    netmond.start()

    assert netmond.user(USER) == echoes(23 + 29)
    assert units(netmond) == ["interfaces", "sockets", "somebody"]
    assert foreign.exists()
    assert not stale.exists()
    assert netmond.stop() == 0
    assert pinned(netmond) == {"somebody"}


@pytest.mark.parametrize("keep", ["restart", "always"])
def test_an_orderly_end(scene: Scene, keep: str) -> None:
    """By default to stop is to stop: nothing stays, and nothing is counted until the next start. With
    keep_counting = "always" counting goes on."""
    netmond, talk = lasting(scene, **{"daemon.keep_counting": keep}), Talk(scene)
    netmond.start()
    talk.exchange(USER, 23)

    assert netmond.stop() == 0
    left = units(netmond)
    talk.exchange(USER, 1009)
    netmond.start()
    talk.exchange(USER, 29)

    goes_on = keep == "always"
    assert left == (["interfaces", "sockets"] if goes_on else [])
    assert netmond.user(USER) == echoes(23 + 29 + (1009 if goes_on else 0))
