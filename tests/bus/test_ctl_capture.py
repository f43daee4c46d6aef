"""netmonctl capture and sessions, and the library, against the real service; a worker plays packets."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from netmonctl.pcapng import Frame, Reader, Statistics
from netmond import capture
from netmond.model import Session
from netmond.sessions.supervisor import Sessions, Shared
from tests.bus.capture_worker import COMMENT, KINDS, MAKE, TIME, packet, payload
from tests.bus.conftest import Host
from tests.bus.private import DEADLINE, ROOT, unavailable, until
from tests.bus.snapshots import ALICE

LINE = "22:13:20.123456 eth0 In  IP 192.0.2.1.1024 > 192.0.2.2.7654: UDP, length 4"
OWNER = "  alice curl[4211] session-3.scope"
ONE = MAKE.section() + MAKE.interface("eth0") + packet(0)
END = MAKE.statistics(6, 2, 1)
TOTAL = "1 packets captured, 3 filtered, 2 dropped by the kernel\n"


@pytest.fixture(autouse=True)
def _packets(host: Host) -> None:
    """Sessions of the host are those of the worker here."""
    host.monitor.sessions = Sessions(lambda: host.monitor.config, Shared(), KINDS)


def environment(host: Host) -> dict[str, str]:
    known = {"PATH": "/usr/bin:/bin", "DBUS_SYSTEM_BUS_ADDRESS": host.bus.address, "LANG": "C.UTF-8"}
    return known | {"PYTHONPATH": str(ROOT), "TZ": "UTC"}


def start(host: Host, *words: str, uid: int | None = None, **how: Any) -> subprocess.Popen[bytes]:
    """netmonctl, both its outputs to be read unless `how` says otherwise."""
    streams: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    if uid is not None:
        if os.geteuid() != 0:
            unavailable("calling as other users needs root")
        how |= {"user": uid, "group": uid, "extra_groups": []}
    streams |= {"env": environment(host)} | how
    return subprocess.Popen([sys.executable, "-m", "netmonctl", *words], **streams)


def netmonctl(host: Host, *words: str, **how: Any) -> tuple[int, bytes, str]:
    """Exit code, standard output and error of a command."""
    with start(host, *words, **how) as process:
        out, error = process.communicate(timeout=DEADLINE)
        return process.returncode, out or b"", (error or b"").decode()


@contextmanager
def running(host: Host, *words: str, **how: Any) -> Iterator[subprocess.Popen[bytes]]:
    """netmonctl, once its session has begun."""
    with start(host, *words, **how) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"Capturing on ")
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def sessions(host: Host) -> Sequence[Session]:
    """Those there are now; asked where they live, in the daemon's loop."""

    async def listed() -> Sequence[Session]:
        return host.monitor.list_sessions()

    return host.loop.run(listed())


def is_idle(host: Host) -> Callable[[], bool]:
    return lambda: not sessions(host)


def read(data: bytes) -> list[Frame | Statistics]:
    """Everything of a complete stream."""
    reader = Reader()
    found = list(reader.feed(data))
    reader.close()
    return found


def test_lines(host: Host) -> None:
    """A line for each packet, with whose it is; on standard error the beginning and the sum."""
    code, out, error = netmonctl(host, "capture", "-c", "1", "-i", "eth0", "port", "7654")

    assert (code, out.decode()) == (0, f"{LINE}{OWNER}\n")
    assert error == f"Capturing on eth0, session 1. Ctrl-C ends it.\n{TOTAL}"


def test_bytes_of_a_packet(host: Host) -> None:
    """-x and -X, and as JSON."""
    _, out, _ = netmonctl(host, "capture", "-c1", "-X", "--no-legend")
    assert out.decode().splitlines()[1] == (
        "\t0x0000:  0200 0000 0002 0200 0000 0001 0800 4500  ..............E."
    )
    _, out, error = netmonctl(host, "capture", "-nc1", "--json", "--no-legend")
    assert json.loads(out) == {
        "time": TIME / 1e9, "time_ns": TIME, "interface": "eth0", "direction": "in", "length": 46,
        "captured": 46, "summary": LINE.partition(" In  ")[2], "source_mac": "02:00:00:00:00:01",
        "destination_mac": "02:00:00:00:00:02", "source": "192.0.2.1", "destination": "192.0.2.2", "ttl": 64,
        "protocol": "udp", "source_port": 1024, "destination_port": 7654, "payload": 4, "user": "alice",
        "uid": 1000, "process": "curl", "pid": 4211, "unit": "session-3.scope",
    }  # fmt: skip
    assert error == ""


def test_options(host: Host) -> None:
    """All that netmond is asked for; -n asks for nothing."""
    words = [
        "-i",
        "eth0",
        "-i",
        "lo",
        "-Q",
        "in",
        "-s96",
        "-B",
        "4096",
        "-u",
        "0",
        "--user",
        "77",
        "--pid",
        "7",
    ]
    words += [
        "--unit",
        "a.service",
        "--process",
        "curl",
        "--duration",
        "60",
        "-n",
        "tcp",
        "and",
        "port",
        "80",
    ]
    with running(host, "capture", *words):
        (session,) = sessions(host)
    known = json.loads(session.options)

    assert known == {
        "interfaces": ["eth0", "lo"], "direction": "in", "snaplen": 96, "buffer": 4 << 20, "users": [0, 77],
        "pids": [7], "units": ["a.service"], "processes": ["curl"], "duration": 60.0,
        "filter": "tcp and port 80",
    } | {name: value for name, value in known.items() if name in ("count", "comments")}  # fmt: skip
    until(is_idle(host))


@pytest.mark.parametrize(
    "words",
    [
        ["-w", "x.pcapng", "-X"],
        ["-w", "x.pcapng", "--json"],
        ["-W", "3", "-w", "x.pcapng"],
        ["-C", "1"],
        ["-C", "1", "-w", "-"],
        ["-C", "0", "-w", "x.pcapng"],
        ["-c", "many"],
        ["-s", "300000"],
        ["-Q", "sideways"],
        ["--port", "7"],
        ["--user", "nobody at all"],
        ["-w", "x.pcapng", "not", "a", "filter"],
    ],
    ids=" ".join,
)
def test_usage(host: Host, words: list[str], tmp_path: Path) -> None:
    """One line, status 2 (of a user that is not there 5), and nothing on the disk."""
    code, out, error = netmonctl(host, "capture", *words, cwd=tmp_path)

    assert (code, out, error.count("\n")) == (5 if "nobody at all" in words else 2, b"", 1)
    assert list(tmp_path.iterdir()) == []


def test_bad_filter_keeps_a_file(host: Host, tmp_path: Path) -> None:
    """What was in the file before a capture that did not begin."""
    (tmp_path / "old").write_bytes(b"precious")
    code, _, error = netmonctl(host, "capture", "-w", str(tmp_path / "old"), "not a filter")

    assert (code, error) == (2, "netmonctl: option filter: syntax error\n")
    assert (tmp_path / "old").read_bytes() == b"precious"


def test_not_for_everybody(host: Host) -> None:
    """Who may not is told what it takes."""
    code, _, error = netmonctl(host, "capture", uid=ALICE)

    assert (code, error.count("\n")) == (4, 1)
    assert "org.netmond1.capture" in error


def test_file(host: Host, tmp_path: Path) -> None:
    """Byte for byte what netmond sends, with the mode that umask leaves; what was there is gone."""
    path = tmp_path / "packets.pcapng"
    path.write_bytes(bytes(10_000))
    path.unlink()
    code, out, error = netmonctl(host, "capture", "-c1", "-w", str(path), umask=0o027)

    assert (code, out) == (0, b"")
    assert error.endswith(TOTAL)
    assert path.read_bytes() == ONE + END
    assert path.stat().st_mode & 0o777 == 0o640
    path.write_bytes(bytes(10_000))
    netmonctl(host, "capture", "-c1", "-w", str(path))
    assert path.read_bytes() == ONE + END


def test_pipe(host: Host) -> None:
    """To a program, which gets each packet at once; appended to a file, which splice(2) does not do."""
    with running(host, "capture", "-w", "-") as process:
        assert process.stdout is not None
        assert process.stdout.read(len(ONE)) == ONE
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=DEADLINE) == (END, TOTAL.encode())
        assert process.returncode == 0


def test_appended(host: Host, tmp_path: Path) -> None:
    """A shell's ``>>``, which splice(2) refuses."""
    with (tmp_path / "file").open("ab") as file:
        file.write(b"before")
        file.flush()
        assert netmonctl(host, "capture", "-c1", "-w-", stdout=file)[0] == 0

    assert (tmp_path / "file").read_bytes() == b"before" + ONE + END


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted(host: Host, tmp_path: Path, number: int) -> None:
    """The file is complete, and netmond has ended the session."""
    path = tmp_path / "packets.pcapng"
    with running(host, "capture", "-w", str(path)) as process:
        process.send_signal(number)
        _, error = process.communicate(timeout=DEADLINE)

    assert process.returncode == 0
    assert path.read_bytes().startswith(MAKE.section())
    assert isinstance(read(path.read_bytes())[-1], Statistics)
    assert error.endswith(b"3 filtered, 2 dropped by the kernel\n")
    until(is_idle(host))


def frames_of(path: Path) -> list[Frame]:
    return [item for item in read(path.read_bytes()) if isinstance(item, Frame)]


def clear(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def test_ring(host: Host, tmp_path: Path) -> None:
    """Files of a million bytes and a packet at most, or of some seconds, each complete; the oldest go."""
    count = 30_000
    path = tmp_path / "packets"
    words = ["capture", "-w", str(path), "-C1", "--no-legend"]
    assert netmonctl(host, *words, f"many {count}") == (0, b"", "")
    names = ["packets", *(f"packets{number}" for number in range(1, 5))]
    assert sorted(os.listdir(tmp_path)) == names
    frames = [frame for name in names for frame in frames_of(tmp_path / name)]
    assert [frame.data for frame in frames] == [payload(number) for number in range(count)]
    assert all(0 <= (tmp_path / name).stat().st_size - 1_000_000 < 200 for name in names[:-1])

    clear(tmp_path)
    assert netmonctl(host, *words[:-2], "-G", "10000", "--no-legend", f"many {count}") == (0, b"", "")
    assert [len(frames_of(tmp_path / name)) for name in ("packets", "packets1", "packets2")] == [10_000] * 3

    clear(tmp_path)
    assert netmonctl(host, *words, "-W", "3", f"many {count}") == (0, b"", "")
    assert sorted(os.listdir(tmp_path)) == ["packets0", "packets1", "packets2"]
    left = [frame.data for place in (2, 0, 1) for frame in frames_of(tmp_path / f"packets{place}")]
    assert left == [payload(number) for number in range(count - len(left), count)]


def test_all_of_many(host: Host, tmp_path: Path) -> None:
    """A fast capture, in a file and as lines."""
    path = tmp_path / "packets"
    assert netmonctl(host, "capture", "-w", str(path), "--no-legend", "many 100000") == (0, b"", "")
    reader = Reader()
    assert sum(isinstance(item, Frame) for item in reader.feed(path.read_bytes())) == 100_000
    _, out, _ = netmonctl(host, "capture", "many 20000")
    assert out.count(b"\n") == 20_000


def test_slow_reader(host: Host) -> None:
    """A reader that rests; then Ctrl-C reaches netmonctl nevertheless, and what it reads then is whole."""
    with running(host, "capture", "-w-", "many 100000") as process:
        process.send_signal(signal.SIGTERM)
        until(lambda: not any(session.until is None for session in sessions(host)))
        out, _ = process.communicate(timeout=DEADLINE)

    assert process.returncode == 0
    assert isinstance(read(out)[-1], Statistics)


@pytest.mark.parametrize("words", [["-w-"], [], ["--json"]], ids=str)
def test_reader_leaves(host: Host, words: list[str]) -> None:
    """As with ``| head``: it ends at once, also if no packet comes, and so does the session."""
    with running(host, "capture", *words) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(DEADLINE) == 0
    until(is_idle(host))


def test_killed(host: Host) -> None:
    """Nothing is left of a client that is killed."""
    with running(host, "capture", "-w-") as process:
        assert len(sessions(host)) == 1
        process.kill()
    until(is_idle(host))


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/dev/full", "No space left on device"),
        ("/nonexistent/file", "No such file or directory"),
        ("/", "Is a directory"),
        ("/dev/tty", "No such device or address"),
    ],
)
def test_cannot_be_written(host: Host, path: str, reason: str) -> None:
    """One line with the name of the file, and no session any more."""
    code, out, error = netmonctl(host, "capture", "-w", path, "--no-legend", start_new_session=True)

    assert (code, out, error) == (1, b"", f"netmonctl: {path}: {reason}\n")
    until(is_idle(host))


def test_ring_on_a_full_disk(host: Host, tmp_path: Path) -> None:
    """The same, where blocks are looked at."""
    (tmp_path / "ring0").symlink_to("/dev/full")
    path = tmp_path / "ring"

    assert netmonctl(host, "capture", "-w", str(path), "-C1", "-W1", "--no-legend") == (
        1, b"", f"netmonctl: {path}0: No space left on device\n",
    )  # fmt: skip
    until(is_idle(host))


def test_others_files(host: Host, tmp_path: Path) -> None:
    """In a directory like /tmp neither a link nor a file of somebody else is written to."""
    if os.geteuid() != 0:
        unavailable("files of other users need root")
    tmp_path.chmod(0o1777)
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "file").write_bytes(b"theirs")
    for name in ("link", "file"):
        os.chown(tmp_path / name, ALICE, ALICE, follow_symlinks=False)
        code, _, error = netmonctl(host, "capture", "-c1", "-w", str(tmp_path / name))
        assert (code, error.count("\n")) == (1, 1)
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "file").read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("how", "reason"), [("die", "its process died"), ("fail", "the ring is gone")], ids=["died", "failed"]
)
def test_ends_early(host: Host, tmp_path: Path, how: str, reason: str) -> None:
    """Status 1 and why; what had come is there."""
    code, _, error = netmonctl(host, "capture", "-w", str(tmp_path / "file"), how)

    assert code == 1
    assert error.splitlines()[-1] == f"netmonctl: the capture ended early: {reason}"
    assert (tmp_path / "file").read_bytes().startswith(ONE)


def test_netmond_stops(host: Host) -> None:
    """Sessions end with it."""
    with running(host, "capture") as process:
        host.loop.run(host.monitor.sessions.close())
        _, error = process.communicate(timeout=DEADLINE)

    assert process.returncode == 1
    assert error.endswith(b"netmonctl: the capture ended early: netmond stopped\n")


def test_longest(host: Host) -> None:
    """The limit of the configuration is no failure, but it is told."""
    code, _, error = netmonctl(host, "capture", "--duration", "0.1")
    assert (code, error.count("\n")) == (0, 2)


def on_terminal(host: Host, *words: str, enough: bytes = b"") -> tuple[int, str]:
    """Exit code, and what a terminal shows that is standard error and, with "-t" first, standard output.

    enough: when this is shown, Ctrl-C ends it.
    """
    own, other = pty.openpty()
    out = other if words[0] == "-t" else subprocess.DEVNULL
    with start(host, *words[words[0] == "-t" :], stdout=out, stderr=other) as process:
        os.close(other)
        shown = b""
        with suppress(OSError):  # the last writer is gone
            while data := os.read(own, 65536):
                shown += data
                if enough and enough in shown:
                    process.send_signal(signal.SIGINT)
                    enough = b""
        os.close(own)
        return process.wait(DEADLINE), shown.decode()


def test_refuses_a_terminal(host: Host) -> None:
    """Packets as they are, that is."""
    code, shown = on_terminal(host, "-t", "capture", "-w", "-")
    assert code == 2
    assert "packets are not for a terminal" in shown
    code, shown = on_terminal(host, "-t", "capture", "-w", "/dev/stdout")
    assert (code, shown) == (1, "netmonctl: /dev/stdout: packets are not for a terminal\r\n")


def test_progress(host: Host, tmp_path: Path) -> None:
    """A line that changes, and is gone in the end; not where packets are shown."""
    progress = b"\r1 packets, 46 B, 2 dropped, "
    code, shown = on_terminal(host, "capture", "-w", str(tmp_path / "file"), enough=progress)
    assert code == 0
    assert shown.endswith("\r\x1b[K" + TOTAL.replace("\n", "\r\n"))
    assert "\x1b[K" not in on_terminal(host, "-t", "capture", "--duration", "1")[1]


def test_over_ssh(host: Host, tmp_path: Path) -> None:
    """The same command there, its packets here; a file would be there, too."""
    for name, text in (
        ("ssh", 'shift $(($# - 1)); exec sh -c "$1"'),
        ("netmonctl", f'exec {sys.executable} -m netmonctl "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    known = environment(host)
    how: dict[str, Any] = {"env": known | {"PATH": f"{tmp_path}:{known['PATH']}"}}

    assert netmonctl(host, "-H", "there", "capture", "-c1", "-w-", "port", "7", **how)[:2] == (0, ONE + END)
    code, _, error = netmonctl(host, "-H", "there", "capture", "-c1", "-w", "file", **how)
    assert (code, error) == (
        2, "netmonctl: file is on this machine; write: netmonctl -H … capture -w - … > FILE\n",
    )  # fmt: skip


def test_sessions(host: Host) -> None:
    """The list, and an end by another hand."""
    assert netmonctl(host, "sessions", "--no-legend")[:2] == (0, b"")
    with running(host, "capture", "-w-", "-i", "eth0", "port 7654") as process:
        code, out, _ = netmonctl(host, "sessions", "--no-legend")
        assert (code, out.split()[:3]) == (0, [b"1", b"capture", b"root"])
        (row,) = json.loads(netmonctl(host, "sessions", "--json")[1])
        assert json.loads(row["options"])["filter"] == "port 7654"
        assert netmonctl(host, "sessions", "stop", "1") == (0, b"Stopped 1 session.\n", "")
        assert process.communicate(timeout=DEADLINE)[1] == TOTAL.encode()
        assert process.returncode == 0
    until(is_idle(host))
    code, _, error = netmonctl(host, "sessions", "stop", "1")
    assert (code, error) == (5, "netmonctl: there is no session 1; it may have ended\n")


# -- the library ---------------------------------------------------------------------------------------


@pytest.fixture
def _library(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(host).items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_library")
def test_library(host: Host) -> None:
    """Frames with whose they are; leaving ends the session, whether or not more would have come."""
    with capture.open(interface=["eth0", "lo"], user=0, filter="many 5000") as frames:
        found = list(frames)
        assert [frame.data for frame in found] == [payload(number) for number in range(5000)]
        assert (found[0].time, found[0].interface, found[0].direction) == (TIME, "eth0", "in")
        known = f"user={found[0].user} uid={found[0].uid} process={found[0].process} pid={found[0].pid}"
        assert f"{known} unit={found[0].unit}" == COMMENT
        assert frames.dropped == 2
    with capture.open() as frames:
        assert next(frames).length == 46
        assert len(sessions(host)) == 1
    until(is_idle(host))


@pytest.mark.usefixtures("_library")
def test_library_with_a_loop(host: Host) -> None:
    """The same in an event loop, which goes on meanwhile; a task that waits can be cancelled."""

    async def first() -> capture.Frame:
        async with capture.open(count=1) as frames:
            (frame,) = [frame async for frame in frames]
            return frame

    async def endless(begun: asyncio.Event) -> None:
        async with capture.open() as frames:
            async for _ in frames:
                begun.set()

    async def both() -> None:
        frames = await asyncio.gather(first(), first())
        assert [frame.process for frame in frames] == ["curl", "curl"]
        begun = asyncio.Event()
        task = asyncio.create_task(endless(begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(both())
    until(is_idle(host))


@pytest.mark.usefixtures("_library")
def test_library_errors(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name, from the first line of the ``with``; an early end comes after the last frame."""
    with pytest.raises(capture.BadFilter) as caught, capture.open(filter="not a filter"):
        pass
    assert str(caught.value) == "option filter: syntax error"
    with capture.open(filter="die") as frames:
        assert next(frames).length == 46
        with pytest.raises(capture.CaptureError, match="its process died"):
            next(frames)
    with pytest.raises(capture.CaptureError, match="nobody-at-all"), capture.open(user="nobody-at-all"):
        pass
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    with pytest.raises(capture.NotRunning), capture.open():
        pass

    async def entered() -> None:
        async with capture.open():
            pass

    with pytest.raises(capture.NotRunning):
        asyncio.run(entered())


def test_library_not_allowed(host: Host) -> None:
    """Who may not."""
    if os.geteuid() != 0:
        unavailable("calling as other users needs root")
    code = "from netmond import capture\nwith capture.open(): pass"
    who: dict[str, Any] = {"user": ALICE, "group": ALICE, "extra_groups": []}
    done = subprocess.run([sys.executable, "-c", code], env=environment(host), capture_output=True, **who)

    assert done.stderr.splitlines()[-1].startswith(b"netmond.capture.NotAllowed: ")


def test_example(host: Host) -> None:
    """The script that is installed."""
    command = [sys.executable, str(ROOT / "packaging/examples/hexdump.py"), "eth0", "1", "many", "2"]
    done = subprocess.run(command, env=environment(host), capture_output=True, text=True, timeout=DEADLINE)

    assert done.stderr == ""
    assert done.stdout.startswith(
        "\n22:13:20.123457 in 46 bytes of alice 'curl' (4211)\n00000000  02 00 00 00"
    )
    assert subprocess.run(command[:2], env=environment(host), capture_output=True).returncode == 1
