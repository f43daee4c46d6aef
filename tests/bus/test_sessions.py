"""Captures and paths on the bus, with workers that capture nothing: who may, limits, and how they end."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from netmond.bus import names
from netmond.bus.descriptors import Descriptor, opened
from netmond.model import NOBODY_UID, FeatureState
from netmond.sessions import stream, supervisor
from netmond.sessions.options import PATH, check
from tests.bus.conftest import Host
from tests.bus.fakepolkit import NO, YES, FakePolkit
from tests.bus.private import DEADLINE, Caller, CallError, LoopThread, code, until
from tests.bus.snapshots import ALICE
from tests.bus.worker import HEAD, PACKET, TAIL

OPTIONS, STOP = ("a{sv}",), ("t", "a{sv}")


@dataclass(slots=True)
class Running:
    """A session, with our ends of its pipes."""

    number: int
    stream: int
    progress: int

    def read(self) -> bytes:
        """The whole stream, to its end."""
        with open(self.stream, "rb") as file:
            self.stream = -1
            return file.read()

    def reports(self) -> list[dict[str, Any]]:
        """All lines of its progress, to the end."""
        with open(self.progress, "rb") as file:
            self.progress = -1
            return [json.loads(line) for line in file]

    def close_stream(self) -> None:
        os.close(self.stream)
        self.stream = -1

    def close(self) -> None:
        for descriptor in (self.stream, self.progress):
            if descriptor >= 0:
                os.close(descriptor)


Begin = Callable[..., Running]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts sessions; the pipes are ours alone."""
    running: list[Running] = []

    def start(caller: Caller, does: str = "", member: str = "StartCapture", **options: Any) -> Running:
        given = {"filter": ["s", does]} if does else {}
        number, *pipes = caller.call(member, OPTIONS, {**given, **options})
        running.append(Running(number, *map(caller.take, pipes)))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def _until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops a session waits for its end, however slow the machine is."""
    monkeypatch.setattr(supervisor, "_PROMPT", DEADLINE - 5.0)


def rows(caller: Caller, **options: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = caller.call("ListSessions", OPTIONS, options)[0]
    return found


def packets(caller: Caller) -> int:
    """Of the first session."""
    return int(rows(caller)[0]["packets"])


def failure(caller: Caller, member: str, types: tuple[str, ...], *values: object) -> tuple[str, str]:
    """Code and text of the error a call ends with."""
    with pytest.raises(CallError) as caught:
        caller.call(member, types, *values)
    return code(caught.value), caught.value.text


def workers() -> list[int]:
    """The processes of sessions."""
    found = []
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread, or a process, ends just now
            found += [int(pid) for pid in children.read_text().split() if is_worker(pid)]
    return found


def is_worker(pid: str) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return b"tests.bus.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def unread(session: Running) -> int:
    """Bytes in the pipe of its stream."""
    return int(struct.unpack("i", fcntl.ioctl(session.stream, termios.FIONREAD, bytes(4)))[0])


def gone(host: Host) -> bool:
    """No session is left, and no process of one."""
    return not workers() and not host.monitor.sessions._sessions


def losses(host: Host) -> dict[str, int]:
    return {loss.name: loss.count for loss in host.monitor.sessions.losses()}


@pytest.mark.usefixtures("_until_it_is_gone")
@pytest.mark.parametrize("member", ["StartCapture", "StartPath"])
def test_a_session(host: Host, admin: Caller, begin: Begin, member: str) -> None:
    """Frames and progress come through pipes, until it is stopped. What it had is delivered then."""
    session = begin(admin, member=member)
    assert os.read(session.stream, 100).startswith(HEAD)
    until(lambda: packets(admin) == 1)
    (row,) = rows(admin)
    assert row["session"] == session.number
    assert row["kind"] == member.removeprefix("Start").lower()
    assert (row["user"], row["bytes"], row["dropped"], row["options"]) == ("root", 7, 2, "{}")
    assert json.loads(row["description"]) == {"given": ["progress", "slots", "stream"]}
    assert row["until"] == pytest.approx(row["since"] + 3600)

    admin.call("StopSession", STOP, session.number, {})

    assert gone(host)
    assert rows(admin) == []
    assert session.read().endswith(TAIL)
    *reports, last = session.reports()
    figures: dict[str, Any] = {"packets": 1, "bytes": 7, "dropped": 2, "filtered": 3}
    assert {name: value for name, value in last.items() if name != "seconds"} == {
        "end": "stopped",
        **figures,
    }
    assert all(report.keys() == {*figures, "seconds"} for report in reports)
    assert failure(admin, "StopSession", STOP, session.number, {})[0] == "NoSuchSession"
    assert losses(host) == {"capture.dropped": 2 * (row["kind"] == "capture"), "sessions.failed": 0}


def test_ends_by_itself(host: Host, admin: Caller, begin: Begin) -> None:
    """By its count, or its time."""
    for options, reason in (({"count": ["t", 1]}, "count"), ({"duration": ["d", 0.1]}, "duration")):
        session = begin(admin, **options)
        assert session.read() == HEAD + PACKET + TAIL
        assert session.reports()[-1]["end"] == reason
    until(lambda: gone(host))


def test_the_longest_of_the_configuration(host: Host, admin: Caller, begin: Begin) -> None:
    """Holds for who asks for nothing; who asks for more is told."""
    limits = host.monitor.config.sessions
    host.monitor.config = replace(
        host.monitor.config, sessions=replace(limits, duration=0.1, buffer=1 << 20)
    )
    session = begin(admin)
    assert session.reports()[-1]["end"] == "duration"
    assert failure(admin, "StartCapture", OPTIONS, {"duration": ["d", 7.0]}) == (
        "InvalidArgs",
        "option duration: 7 is more than [sessions] duration = 0.1 allows",
    )
    assert "option buffer" in failure(admin, "StartCapture", OPTIONS, {"buffer": ["t", 2 << 20]})[1]


@pytest.mark.parametrize(
    ("member", "option", "value"),
    [
        ("StartCapture", "colour", ["s", "red"]),
        ("StartCapture", "addresses", ["as", ["192.0.2.1"]]),
        ("StartCapture", "interfaces", ["s", "lo"]),
        ("StartCapture", "interfaces", ["as", ["lo", "a/b"]]),
        ("StartCapture", "direction", ["s", "up"]),
        ("StartCapture", "filter", ["s", "x" * 16_384]),
        ("StartCapture", "users", ["au", [NOBODY_UID]]),
        ("StartCapture", "users", ["au", list(range(257))]),
        ("StartCapture", "units", ["as", [""]]),
        ("StartCapture", "processes", ["as", ["x" * 16]]),
        ("StartCapture", "pids", ["au", [0]]),
        ("StartCapture", "snaplen", ["u", 0]),
        ("StartCapture", "snaplen", ["u", 262_145]),
        ("StartCapture", "count", ["u", 7]),
        ("StartCapture", "duration", ["d", -1.0]),
        ("StartCapture", "duration", ["d", float("nan")]),
        ("StartCapture", "buffer", ["t", 1]),
        ("StartCapture", "comments", ["s", "yes"]),
        ("StartPath", "filter", ["s", "tcp"]),
        ("StartPath", "addresses", ["as", ["192.0.2.1/24"]]),
        ("StartPath", "ports", ["aq", [0]]),
        ("StartPath", "protocols", ["as", ["sctp"]]),
        ("StartPath", "stages", ["as", ["x" * 64]]),
        ("StartPath", "mode", ["s", "quick"]),
        ("StartPath", "interval", ["d", 0.0]),
    ],
)
def test_wrong_options(host: Host, admin: Caller, member: str, option: str, value: list[Any]) -> None:
    """The error names the option, and nothing is started."""
    error, text = failure(admin, member, OPTIONS, {option: value})

    assert error == "InvalidArgs"
    assert f"option {option}" in text or f"unknown option '{option}'" in text
    assert gone(host)


def test_what_the_worker_gets(host: Host, admin: Caller, begin: Begin) -> None:
    """Every option, also those that were not given; addresses as netmond writes them."""
    given = {"addresses": ["192.0.2.1/32", "2001:db8::/32", "::ffff:192.0.2.1"], "users": [7, 9, 7]}
    session = begin(
        admin, member="StartPath", addresses=["as", given["addresses"]], users=["au", given["users"]]
    )
    (row,) = rows(admin)

    assert json.loads(row["options"]) == given
    assert check(PATH, given, host.monitor.config.sessions) == {
        "addresses": ["192.0.2.1", "2001:db8::/32"], "ports": [], "protocols": [], "users": [7, 9],
        "drops": False, "stages": [], "rate": 10_000, "mode": "events", "interval": 1.0, "count": 0,
        "duration": 3600,
    }  # fmt: skip
    admin.call("StopSession", STOP, session.number, {})


@pytest.mark.usefixtures("_until_it_is_gone")
def test_the_journal(host: Host, admin: Caller, begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Says who looks at what, since when, and how it ended."""
    caplog.set_level("INFO")
    session = begin(admin, "tcp port 80")
    admin.call("StopSession", STOP, session.number, {})

    begun, started, ended, stopped = (record.getMessage() for record in caplog.records)
    assert begun.startswith("Session 1, a capture of user 0, has begun: ")
    assert started == "Manager.StartCapture({'filter': 'tcp port 80'}) on /org/netmond1 by user 0"
    assert stopped == "Manager.StopSession(1) on /org/netmond1 by user 0"
    assert ended.startswith("Session 1, a capture of user 0, has ended: stopped; ")


class TestAuthority:
    def test_own_packets_take_capture(self, host: Host, alice: Caller) -> None:
        """The error names the action; nothing is started."""
        for member in ("StartCapture", "StartPath"):
            error, text = failure(alice, member, OPTIONS, {"users": ["au", [ALICE]]})
            assert error == "AccessDenied"
            assert "org.netmond1.capture" in text
        assert gone(host)

    def test_polkit_allows(self, host: Host, loop: LoopThread, alice: Caller, begin: Begin) -> None:
        """Who may capture sees and ends the own sessions."""
        polkit = FakePolkit(loop, host.bus.address)
        try:
            polkit.start()
            polkit.silent = YES
            session = begin(alice)
            polkit.silent = NO
            assert [row["session"] for row in rows(alice)] == [session.number]
            alice.call("StopSession", STOP, session.number, {})
            assert session.read().endswith(TAIL)
        finally:
            polkit.stop()

    def test_sessions_of_others(self, host: Host, admin: Caller, bob: Caller, begin: Begin) -> None:
        """Are not shown, nor ended; there may be such a session or none."""
        session = begin(admin)

        assert rows(bob) == []
        for number in (session.number, 77):
            error, text = failure(bob, "StopSession", STOP, number, {})
            assert error == "AccessDenied"
            assert "org.netmond1.manage" in text
        assert failure(bob, "ListSessions", OPTIONS, {"scope": ["s", "all"]})[0] == "AccessDenied"
        assert len(rows(admin)) == 1

    def test_the_group_ends_those_of_others(
        self, host: Host, admin: Caller, member: Caller, begin: Begin
    ) -> None:
        session = begin(admin)
        assert [row["session"] for row in rows(member)] == [session.number]
        assert rows(member, scope=["s", "own"]) == []
        member.call("StopSession", STOP, session.number, {})
        until(lambda: gone(host))


class TestLimits:
    def test_of_a_user(self, host: Host, admin: Caller, member: Caller, begin: Begin) -> None:
        """Others have room; when one has ended there is room again."""
        sessions = [begin(admin) for _ in range(4)]
        error, text = failure(admin, "StartPath", OPTIONS, {})
        assert (error, "user_limit" in text) == ("LimitExceeded", True)
        begin(member)

        sessions[0].close_stream()
        until(lambda: len(rows(admin)) == 4)
        begin(admin)

    def test_of_all(self, host: Host, admin: Caller, member: Caller, begin: Begin) -> None:
        limits = host.monitor.config.sessions
        host.monitor.config = replace(host.monitor.config, sessions=replace(limits, limit=2))
        begin(admin)
        begin(member)
        assert failure(admin, "StartPath", OPTIONS, {})[0] == "LimitExceeded"

    def test_none_at_all(self, host: Host, admin: Caller) -> None:
        """The feature is off, and says who switched it off."""
        limits = host.monitor.config.sessions
        host.monitor.config = replace(host.monitor.config, sessions=replace(limits, limit=0))

        assert failure(admin, "StartCapture", OPTIONS, {}) == (
            "Unavailable",
            "switched off by [sessions] limit = 0",
        )
        assert {feature.state for feature in host.monitor.sessions.features()} == {FeatureState.OFF}


class TestEnds:
    def test_the_client_closes_its_stream(self, host: Host, admin: Caller, begin: Begin) -> None:
        session = begin(admin)
        session.close_stream()
        until(lambda: gone(host))
        assert session.reports()[-1]["end"] == "closed"
        assert losses(host)["sessions.failed"] == 0

    def test_the_client_is_killed(self, host: Host, admin: Caller) -> None:
        client = Caller(host.bus.address, os.geteuid())
        client.call("StartCapture", OPTIONS, {"filter": ["s", "flood"]})
        assert len(rows(admin)) == 1
        client.kill()
        until(lambda: gone(host))

    def test_the_client_leaves_before_the_answer(self, host: Host, admin: Caller, tmp_path: Path) -> None:
        """Its session begins and ends: nobody has the other ends of the pipes."""
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        client = Caller(host.bus.address, os.geteuid())
        client.burst(1, 0, "StartCapture", OPTIONS, {"filter": ["s", f"wait {fifo}"]})
        with fifo.open("w") as file:  # the worker reads
            client.kill()
            until(lambda: not admin.call_bus("NameHasOwner", ("s",), client.name))
            file.write("go on")
        until(lambda: gone(host) and host.service.calls == 0)

    def test_no_answer_is_wanted(self, host: Host, admin: Caller) -> None:
        admin.call("StartCapture", OPTIONS, {}, flags=1)
        until(lambda: gone(host))

    def test_the_worker_is_killed(self, host: Host, admin: Caller, begin: Begin) -> None:
        """The streams end, the daemon knows, and the next session works."""
        session = begin(admin)
        until(lambda: packets(admin) == 1)
        os.kill(workers()[0], signal.SIGKILL)

        assert session.read() == HEAD + PACKET
        assert all("end" not in report for report in session.reports())
        until(lambda: gone(host))
        assert losses(host) == {"capture.dropped": 2, "sessions.failed": 1}
        begin(admin)

    def test_the_worker_fails(self, host: Host, admin: Caller, begin: Begin) -> None:
        """It says why, and delivers what it has."""
        session = begin(admin, "fail")
        assert session.read() == HEAD + TAIL
        assert session.reports()[-1]["end"] == "error: the ring is gone"
        until(lambda: gone(host))
        assert losses(host)["sessions.failed"] == 1

    def test_the_worker_does_not_answer(
        self, host: Host, admin: Caller, begin: Begin, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither at its start, nor later, nor when it is to end: it is killed, and others are not."""
        other = begin(admin)
        with monkeypatch.context() as patch:
            patch.setattr(supervisor, "_START", 0.5)
            error = failure(admin, "StartCapture", OPTIONS, {"filter": ["s", "hang"]})
        assert error == ("Unavailable", "the process of this capture did not answer and was ended")
        until(lambda: len(host.monitor.sessions._sessions) == 1)

        os.kill(workers()[0], signal.SIGSTOP)
        monkeypatch.setattr(supervisor, "_OBEY", 0.1)
        admin.call("StopSession", STOP, other.number, {})
        until(lambda: gone(host))

        begin(admin)
        os.kill(workers()[0], signal.SIGSTOP)
        host.loop.pass_time(supervisor._SILENCE)
        until(lambda: gone(host))

    @pytest.mark.parametrize(
        ("does", "error", "off"),
        [
            ("refuse", ("KernelError", "the kernel refuses it"), True),
            ("invalid", ("InvalidArgs", "option filter: invalid"), False),
            ("exit", ("Unavailable", "the process of this capture has ended"), True),
        ],
    )
    def test_the_start_fails(
        self, host: Host, admin: Caller, begin: Begin, does: str, error: tuple[str, str], off: bool
    ) -> None:
        """The feature tells what does not work here, and not what was the caller's mistake."""
        assert failure(admin, "StartCapture", OPTIONS, {"filter": ["s", does]}) == error
        until(lambda: gone(host))
        capture, path = host.monitor.sessions.features()
        assert (capture.state is FeatureState.OFF, capture.reason) == (off, error[1] if off else "")
        assert path.state is FeatureState.ON
        begin(admin)
        assert host.monitor.sessions.features()[0].state is FeatureState.ON

    def test_the_daemon_ends(self, host: Host, admin: Caller, begin: Begin, tmp_path: Path) -> None:
        """So do the sessions, and they say so, whether or not anybody reads; one that is still starting just
        ends."""
        session = begin(admin)
        until(lambda: packets(admin) == 1)
        unread = begin(admin, "flood")
        client = Caller(host.bus.address, os.geteuid())
        client.burst(1, 0, "StartCapture", OPTIONS, {"filter": ["s", "hang"]})
        until(lambda: len(host.monitor.sessions._sessions) == 3)

        host.loop.run(host.service.close())
        host.loop.run(host.monitor.sessions.close())

        assert session.read() == HEAD + PACKET + TAIL
        assert session.reports()[-1]["end"] == unread.reports()[-1]["end"] == "daemon"
        assert gone(host)
        assert losses(host)["sessions.failed"] == 0
        client.kill()


def test_stopped_and_unread(
    host: Host, admin: Caller, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits long for a client that does not read, and who stops it again waits no more."""
    session = begin(admin, "flood")
    # A packet that the worker has counted, and that is not in the pipe even now: there is no room for it.
    until(lambda: len(HEAD) + len(PACKET) * packets(admin) > unread(session))

    admin.call("StopSession", STOP, session.number, {})
    assert [row["session"] for row in rows(admin)] == [session.number]
    monkeypatch.setattr(supervisor, "_PROMPT", DEADLINE - 5.0)
    admin.call("StopSession", STOP, session.number, {})

    assert gone(host)
    assert rows(admin) == []


def test_a_slow_reader(host: Host, admin: Caller, begin: Begin) -> None:
    """It is waited for, and orders are obeyed meanwhile; the rest is his to read."""
    session = begin(admin, "flood")
    until(lambda: packets(admin) > stream.SIZE // 2 // len(PACKET))
    admin.call("StopSession", STOP, session.number, {})

    data = session.read()

    assert data.startswith(HEAD + PACKET)
    assert data.endswith(PACKET + TAIL)
    assert len(data) == len(HEAD + TAIL) + session.reports()[-1]["bytes"]


def test_progress_that_nobody_reads(host: Host, admin: Caller, begin: Begin) -> None:
    """Or whose pipe is closed: the session does not care."""
    session = begin(admin)
    os.close(session.progress)
    session.progress = -1
    until(lambda: packets(admin) == 1)
    admin.call("StopSession", STOP, session.number, {})
    assert session.read() == HEAD + PACKET + TAIL


def test_the_list(host: Host, admin: Caller, member: Caller, begin: Begin) -> None:
    """In the order of their numbers, sorted and cut as is asked; another D-Bus sees the types."""
    first, second = begin(admin), begin(member, member="StartPath")

    def numbers(**options: Any) -> list[int]:
        return [row["session"] for row in rows(admin, **options)]

    assert numbers() == [first.number, second.number]
    assert numbers(reverse=["b", True]) == [second.number, first.number]
    assert numbers(sort=["s", "kind"], limit=["u", 1]) == [first.number]
    assert numbers(sort=["s", "since"]) == [second.number, first.number]
    assert failure(admin, "ListSessions", OPTIONS, {"sort": ["s", "colour"]})[0] == "InvalidArgs"
    command = ["busctl", f"--address={host.bus.address}", "--json=short", "call", names.BUS_NAME]
    command += [names.ROOT_PATH, names.MANAGER, "ListSessions", "a{sv}", "0"]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert {key: value["type"] for key, value in answer["data"][0][0].items()} == {
        "session": "t", "kind": "s", "uid": "u", "user": "s", "since": "d", "until": "d", "options": "s",
        "description": "s", "packets": "t", "bytes": "t", "dropped": "t",
    }  # fmt: skip


def test_an_open_file_is_passed_on() -> None:
    """As it is; dropped, it is closed."""
    reading, writing = os.pipe()
    values, files = opened([7, Descriptor(reading), Descriptor(writing)])
    assert (values, [file.fileno() for file in files]) == ([7, 0, 1], [reading, writing])
    del values, files
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reading)
