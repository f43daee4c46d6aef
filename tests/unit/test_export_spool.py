"""The spool: payloads come out in order, once, whatever the disk and the process do meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.export import spool as spool_module
from netmond.export.spool import MEMORY_PAYLOADS, Spool

ROOT = Path(__file__).parents[2]
BLOCK = 4096
PLENTY = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "json"


def take_all(spool: Spool) -> list[bytes]:
    """Everything in the spool, oldest first."""
    taken = []
    while (payload := spool.peek()) is not None:
        taken.append(payload)
        spool.pop()
    return taken


def file_of(directory: Path, place: int) -> Path:
    return sorted(directory.iterdir())[place]


def test_in_order(directory: Path) -> None:
    """First in, first out; looking removes nothing; what is gone leaves nothing on the disk."""
    spool = Spool(directory, PLENTY)
    assert spool.peek() is None
    for payload in (b"one", b"", b"three"):
        spool.append(payload)

    assert (spool.peek(), spool.peek(), len(spool)) == (b"one", b"one", 3)
    assert take_all(spool) == [b"one", b"", b"three"]
    assert (len(spool), spool.dropped, spool.problem, os.listdir(directory)) == (0, 0, "", [])
    with pytest.raises(IndexError):
        spool.pop()


def test_restart(directory: Path) -> None:
    """The next process goes on where this one ended, and adds behind it."""
    first = Spool(directory, PLENTY)
    for number in range(23):
        first.append(b"%d" % number)
    for _ in range(7):
        first.pop()
    first.close()
    second = Spool(directory, PLENTY)
    second.append(b"23")

    assert take_all(second) == [b"%d" % number for number in range(7, 24)]
    assert (first.dropped, second.dropped) == (0, 0)


def test_killed(directory: Path) -> None:
    """SIGKILL at any moment: what was appended is there, what was popped is not, and nothing is damaged."""
    script = (
        "import sys; from pathlib import Path; from netmond.export.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1]), 1 << 20)\n"
        "for number in range(10**9):\n"
        "    spool.append(b'%d' % number); print('append', number, flush=True)\n"
        "    if number >= 5: spool.pop(); print('pop', number - 5, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, directory], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(100)]
    process.send_signal(signal.SIGKILL)
    lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL

    said = [line.split() for line in lines]
    appended = max(int(number) for what, number in said if what == b"append")
    popped = max(int(number) for what, number in said if what == b"pop")
    spool = Spool(directory, PLENTY)
    left = [int(payload) for payload in take_all(spool)]
    assert left == list(range(left[0], left[-1] + 1))
    assert left[0] in (popped + 1, popped + 2)  # it may have died before it said so
    assert left[-1] in (appended, appended + 1)
    assert spool.dropped <= 1  # the one it was writing


def test_torn_at_every_byte(directory: Path) -> None:
    """A power failure leaves the last file shorter: it is dropped and counted, the others are delivered."""
    Spool(directory, PLENTY).append(b"whole")
    Spool(directory, PLENTY).append(b"torn" * 5)
    torn = file_of(directory, 1)
    content = torn.read_bytes()
    for length in range(len(content)):
        torn.write_bytes(content[:length])
        spool = Spool(directory, PLENTY)
        spool.append(b"next")

        assert (take_all(spool), spool.dropped) == ([b"whole", b"next"], 1)
        Spool(directory, PLENTY).append(b"whole")


@given(place=st.integers(0, 27), flip=st.integers(1, 255))
def test_damaged_at_any_byte(place: int, flip: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A changed byte is noticed wherever it is."""
    directory = tmp_path_factory.mktemp("spool")
    Spool(directory, PLENTY).append(b"damaged" * 3)
    path = file_of(directory, 0)
    content = bytearray(path.read_bytes())
    content[min(place, len(content) - 1)] ^= flip
    path.write_bytes(content)
    spool = Spool(directory, PLENTY)

    assert (spool.peek(), spool.dropped) == (None, 1)


def test_limit(directory: Path) -> None:
    """The oldest make room; the disk never holds more than the limit; also if it was higher before."""
    spool = Spool(directory, 5 * BLOCK)
    for number in range(8):
        spool.append(b"%d" % number)
    assert sum(BLOCK for _ in directory.iterdir()) == 5 * BLOCK
    assert spool.dropped == 3

    lower = Spool(directory, 2 * BLOCK)
    assert lower.dropped == 3
    assert take_all(lower) == [b"6", b"7"]


def test_large_payload(directory: Path) -> None:
    """A payload as large as the limit displaces all others; a larger one waits in memory."""
    spool = Spool(directory, 2 * BLOCK)
    spool.append(b"small")
    spool.append(bytes(2 * BLOCK - 8))
    spool.append(bytes(2 * BLOCK - 7))

    assert spool.dropped == 1
    assert list(map(len, take_all(spool))) == [2 * BLOCK - 8, 2 * BLOCK - 7]


def test_without_disk(directory: Path) -> None:
    """With limit 0 the last few are in memory, and lost with the process: counted."""
    spool = Spool(directory, 0)
    for number in range(MEMORY_PAYLOADS + 3):
        spool.append(b"%d" % number)

    assert not directory.exists()
    assert (spool.dropped, spool.peek(), len(spool), spool.problem) == (3, b"3", MEMORY_PAYLOADS, "")
    spool.pop()
    spool.close()
    assert (spool.dropped, spool.peek()) == (3 + MEMORY_PAYLOADS - 1, None)


def test_half_full(directory: Path) -> None:
    """Known before anything has to go."""
    disk, memory = Spool(directory, 4 * BLOCK), Spool(directory, 0)
    for spool, room in ((disk, 4), (memory, MEMORY_PAYLOADS)):
        for _ in range(room // 2):
            spool.append(b"payload")
        assert not spool.is_half_full()
        spool.append(b"payload")
        assert spool.is_half_full()
        assert spool.dropped == 0


def test_memory_is_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes in memory have a limit, too; the newest payload stays even if it alone is larger."""
    monkeypatch.setattr(spool_module, "MEMORY_BYTES", 100)
    spool = Spool(directory, 0)
    spool.append(bytes(60))
    spool.append(bytes(40))
    assert spool.dropped == 0
    spool.append(bytes(101))

    assert (spool.dropped, list(map(len, take_all(spool)))) == (2, [101])
    spool.append(bytes(100))
    assert (spool.dropped, len(spool)) == (2, 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mountpoint = tmp_path / "disk"
    mountpoint.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "netmond-test", mountpoint], check=True)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


def test_full_disk(small_disk: Path) -> None:
    """On a full disk payloads wait in memory, said with a remedy; order is kept when there is room again."""
    spool = Spool(small_disk / "spool", PLENTY)
    spool.append(b"disk")
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(64 << 10))
    spool.append(bytes(5000))
    spool.append(b"memory")
    assert "No space left on device" in spool.problem
    assert "make room" in spool.problem
    ballast.unlink()
    spool.append(b"disk again")

    assert (spool.problem, spool.dropped) == ("", 0)
    assert take_all(spool) == [b"disk", bytes(5000), b"memory", b"disk again"]
    assert os.listdir(small_disk / "spool") == []


def test_unusable_directory(tmp_path: Path) -> None:
    """Something else where the directory should be: the spool works in memory and says so."""
    (tmp_path / "spool").write_text("in the way")
    spool = Spool(tmp_path / "spool" / "json", PLENTY)
    assert "Not a directory" in spool.problem
    spool.append(b"one")

    assert take_all(spool) == [b"one"]


def test_removed_under_its_feet(directory: Path) -> None:
    """Files or the directory that somebody removed are counted as dropped, and made again."""
    spool = Spool(directory, PLENTY)
    for payload in (b"one", b"two", b"three"):
        spool.append(payload)
    file_of(directory, 0).unlink()
    assert (spool.peek(), spool.dropped) == (b"two", 1)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    spool.append(b"four")

    assert (take_all(spool), spool.dropped, spool.problem) == ([b"four"], 3, "")


def test_foreign_files_stay(directory: Path) -> None:
    """Only files with our names are read or removed."""
    directory.mkdir(parents=True)
    (directory / "README").write_text("not ours")
    spool = Spool(directory, PLENTY)
    spool.append(b"one")

    assert take_all(spool) == [b"one"]
    assert os.listdir(directory) == ["README"]


def test_private(directory: Path) -> None:
    """Nobody else may read what is in it."""
    Spool(directory, PLENTY).append(b"secret")

    assert directory.stat().st_mode & 0o777 == 0o700
    assert file_of(directory, 0).stat().st_mode & 0o777 == 0o600


@given(steps=st.lists(st.sampled_from(["append", "pop", "restart"]), max_size=40))
def test_like_a_queue(steps: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any order of calls and restarts gives what a queue of the limit's length gives."""
    directory = tmp_path_factory.mktemp("spool")
    spool, model = Spool(directory, 7 * BLOCK), deque[bytes](maxlen=7)
    for number, step in enumerate(steps):
        if step == "append":
            spool.append(b"%d" % number)
            model.append(b"%d" % number)
        elif step == "restart":
            spool.close()
            spool = Spool(directory, 7 * BLOCK)
        elif model:
            spool.pop()
            model.popleft()
        assert (spool.peek(), len(spool)) == (model[0] if model else None, len(model))
    assert take_all(spool) == list(model)
