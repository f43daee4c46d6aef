"""The thread that reads RDMA devices: only where there are some, only when asked, in nobody's way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from netmond.rdma import sampler as module
from netmond.rdma.sampler import Sample, Sampler
from tests.kernel.deadline import eventually
from tests.unit.rdma_tree import RdmaTree

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> RdmaTree:
    return RdmaTree(tmp_path)


@pytest.fixture
def sampler(tree: RdmaTree) -> Iterator[Sampler]:
    sampler = Sampler(tree.root)
    yield sampler
    sampler.close()


def opened(tree: RdmaTree) -> int:
    """How many of its files this process has open."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # others close theirs meanwhile
            found += Path(f"/proc/self/fd/{number}").readlink().is_relative_to(tree.sys)
    return found


def sampled(sampler: Sampler) -> Sample:
    """The sample that a look brings."""
    before = sampler.sample
    sampler.look()
    eventually(lambda: sampler.sample is not before)
    return sampler.sample


def opened_for_writing(pipe: Path) -> list[int]:
    """The descriptor, if somebody reads or waits to."""
    try:
        return [os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)]
    except OSError:
        return []


class TestWithoutDevices:
    def test_no_thread(self, sampler: Sampler) -> None:
        """Where there is no device nothing is started, however often somebody looks."""
        for _ in range(3):
            sampler.look()

        assert not sampler.present
        assert sampler._thread is None
        assert sampler.sample == Sample()

    def test_no_class(self, tmp_path: Path) -> None:
        """Nor where the kernel has no such class."""
        sampler = Sampler(tmp_path / "sys/class/infiniband")
        sampler.look()
        sampler.close()

        assert not sampler.present

    def test_no_imports(self, tmp_path: Path) -> None:
        """Nor are the modules loaded that read devices."""
        code = (
            "import sys\nfrom pathlib import Path\nfrom netmond.rdma.sampler import Sampler\n"
            f"Sampler(Path({str(tmp_path)!r})).look()\n"
            "print(*sorted(name for name in sys.modules if name.startswith('netmond.')))"
        )

        loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

        assert loaded.stdout.split() == ["netmond.model", "netmond.rdma", "netmond.rdma.sampler"]


class TestLooks:
    def test_a_reading_each(self, tree: RdmaTree, sampler: Sampler) -> None:
        """Each look brings a sample; one that was taken is not changed any more."""
        tree.rxe("rxe0")
        first = sampled(sampler)
        tree.set("rxe0", sent_pkts=5)
        second = sampled(sampler)

        assert [port.totals.max() for sample in (first, second) for port in sample.ports] == [0, 5]
        assert second.interval > first.interval == 0.0

    def test_a_device_that_comes(self, tree: RdmaTree, sampler: Sampler) -> None:
        """It is met at the next look, and so is the last one's end."""
        sampler.look()
        tree.rxe("rxe0")
        assert [port.device for port in sampled(sampler).ports] == ["rxe0"]
        tree.remove("rxe0")

        assert sampled(sampler).ports == ()
        assert not sampler.present

    def test_a_device_that_hangs(self, tree: RdmaTree, sampler: Sampler) -> None:
        """Nobody waits for it but the thread; here a counter is a pipe that nobody writes to."""
        tree.rxe("rxe0")
        before = sampled(sampler)
        tree.remove("rxe0")
        tree.rxe("rxe0")
        file = tree.port("rxe0") / "hw_counters/sent_pkts"
        file.unlink()
        os.mkfifo(file)

        for _ in range(3):
            sampler.look()
        assert sampler.sample is before
        (end,) = eventually(lambda: opened_for_writing(file), "the thread waits for the pipe")

        eventually(lambda: sampler.sample is not before)
        os.close(end)
        assert ("hw_counters", "sent_pkts") not in sampler.sample.ports[0].names

    def test_what_nobody_foresaw(
        self,
        tree: RdmaTree,
        sampler: Sampler,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """An error of ours is logged and told, and the next look tries again."""
        tree.rxe("rxe0")
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, module.__name__):
            patch.setattr("netmond.rdma.sysfs.Devices.read", lambda *_: 1 / 0)
            assert sampled(sampler).reason == "devices cannot be read: division by zero"

        assert "cannot be read" in caplog.text
        assert sampled(sampler).reason != "devices cannot be read: division by zero"

    def test_the_end(self, tree: RdmaTree) -> None:
        """close() ends the thread, and its files are closed."""
        tree.rxe("rxe0")
        sampler = Sampler(tree.root)
        sampled(sampler)
        assert sampler._thread
        runs = sampler._thread.is_alive
        assert opened(tree) > 0
        sampler.close()

        eventually(lambda: not runs(), "close() waits, but not for long")
        assert opened(tree) == 0
