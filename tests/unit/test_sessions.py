"""The parts of sessions by themselves: pipes, options, and the worker's main loop."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from netmond.config import SessionsConfig, defaults
from netmond.errors import InvalidArgs, KernelError, NetmondError, NoSuchSession, Unavailable, by_code
from netmond.sessions.options import CAPTURE, OPTIONS, PATH, check
from netmond.sessions.progress import Progress
from netmond.sessions.runner import Runner
from netmond.sessions.stream import SIZE, Finished, Stream
from netmond.worker.control import Control

LIMITS = defaults().sessions


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """Reading and writing end; who closes one sets it to -1."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        if end >= 0:
            os.close(end)


class TestStream:
    def test_all_of_it(self, pipe: list[int]) -> None:
        """More than the pipe takes, of every kind of buffer, in order; waiting for the reader in between."""
        reading, writing = pipe
        read = bytearray()

        def wait() -> None:
            read.extend(os.read(reading, SIZE))

        stream = Stream(writing, wait)
        numbers = np.arange(SIZE, dtype=np.uint32)
        pieces: list[Any] = [b"", b"a", memoryview(b"bc"), np.empty(0, np.uint8), numbers.view(np.uint8)]
        for data in pieces:
            stream.write(data)
        stream.close()
        pipe[1] = -1
        while piece := os.read(reading, SIZE):
            read.extend(piece)

        assert bytes(read) == b"abc" + numbers.tobytes()

    def test_an_end_in_the_middle(self, pipe: list[int]) -> None:
        """Nothing is torn: what was being written comes before what comes at the end."""
        reading, writing = pipe
        read = bytearray()
        over = True

        def wait() -> None:
            if over:
                raise Finished("stopped")
            read.extend(os.read(reading, SIZE))

        stream = Stream(writing, wait)
        data = bytes(range(256)) * (SIZE // 64)
        with pytest.raises(Finished):
            stream.write(data)
        over = False
        stream.write(b"end")
        stream.flush()
        stream.close()
        pipe[1] = -1
        while piece := os.read(reading, SIZE):
            read.extend(piece)

        assert bytes(read) == data + b"end"

    def test_nobody_reads(self, pipe: list[int]) -> None:
        """The session is over, whatever else is to be written."""
        stream = Stream(pipe[1], lambda: pytest.fail("there is nothing to wait for"))
        os.close(pipe[0])
        pipe[0] = -1
        with pytest.raises(Finished) as finished:
            stream.write(b"a")
        assert finished.value.reason == "closed"


class TestProgress:
    def test_an_end_always_has_room(self, pipe: list[int]) -> None:
        """A client that reads nothing misses lines, whole ones; who reads late learns how it ended."""
        progress = Progress(pipe[1])
        for number in range(10_000):
            progress.tell({"packets": number})
        progress.end({"end": "stopped"})
        pipe[1] = -1
        with open(pipe[0], closefd=False) as file:
            lines = [json.loads(line) for line in file]

        assert 100 < len(lines) < 10_000
        assert lines == [*({"packets": number} for number in range(len(lines) - 1)), {"end": "stopped"}]

    def test_nobody_reads(self, pipe: list[int]) -> None:
        progress = Progress(pipe[1])
        os.close(pipe[0])
        pipe[0] = -1
        progress.tell({})
        progress.end({})
        pipe[1] = -1


class TestOptions:
    @pytest.mark.parametrize("kind", [CAPTURE, PATH])
    def test_defaults(self, kind: str) -> None:
        """Every option has one, within the limits, and goes through JSON as it is."""
        values = check(kind, {}, LIMITS)

        assert values.keys() == OPTIONS[kind].keys()
        assert values["duration"] == LIMITS.duration
        assert json.loads(json.dumps(values)) == values

    @pytest.mark.parametrize(
        ("limit", "asked", "given"), [(0.0, 0.0, 0), (0.0, 7.5, 7.5), (60.0, 0.0, 60.0), (60.0, 60.0, 60.0)]
    )
    def test_duration(self, limit: float, asked: float, given: float) -> None:
        """0 is no limit, in the configuration as in a call."""
        limits = replace(LIMITS, duration=limit)
        assert check(PATH, {"duration": asked}, limits)["duration"] == given

    def test_buffer(self) -> None:
        """What is usual, or what the configuration allows, if that is less."""
        assert check(CAPTURE, {}, LIMITS)["buffer"] == 32 << 20
        assert check(CAPTURE, {"buffer": 64 << 20}, LIMITS)["buffer"] == 64 << 20
        assert check(CAPTURE, {}, replace(LIMITS, buffer=1 << 20))["buffer"] == 1 << 20
        with pytest.raises(InvalidArgs, match=r"option buffer: .* \[sessions\] buffer = 67108864 allows"):
            check(CAPTURE, {"buffer": (64 << 20) + 1}, LIMITS)

    def test_configured(self) -> None:
        assert SessionsConfig(limit=8, user_limit=4, duration=3600.0, buffer=64 << 20) == LIMITS


def test_errors_by_code() -> None:
    """As they cross from the worker; what nobody knows does not work."""
    for kind in (NetmondError, InvalidArgs, KernelError, NoSuchSession):
        assert by_code(kind.code) is kind
    assert by_code("") is by_code("Nonsense") is Unavailable


class _Job:
    """Moves what comes through a pipe, and notes what it is asked."""

    def __init__(self) -> None:
        self.ring, self.fill = os.pipe()
        os.set_blocking(self.ring, False)
        self.asked: list[str] = []
        self.moved = 0

    def start(self, options: dict[str, Any], given: dict[str, int], stream: Stream) -> dict[str, Any]:
        self.stream = stream
        return {"options": options}

    def fileno(self) -> int:
        return self.ring

    def take(self) -> bool:
        self.asked.append("take")
        try:
            data = os.read(self.ring, 10)
        except BlockingIOError:
            return False
        self.moved += len(data)
        self.stream.write(data)
        return len(data) == 10

    def figures(self) -> dict[str, int]:
        return {"packets": self.moved}

    def finish(self, reason: str) -> None:
        self.asked.append(reason)
        self.stream.write(b"!")


class _Session:
    """A runner in a thread, and the daemon's and the client's ends of what it has."""

    def __init__(self, **options: Any) -> None:
        self.daemon, theirs = socket.socketpair()
        self.lines = self.daemon.makefile("rw")
        self.stream, stream = os.pipe()
        self.progress, progress = os.pipe()
        self.job = _Job()
        runner = Runner(Control(theirs), self.job)
        self._thread = threading.Thread(target=runner.run)
        self._thread.start()
        given = {"stream": stream, "progress": progress}
        self.order(do="start", options=options, given=given)
        assert self.answer() == {"done": True, "description": {"options": options}}

    def order(self, **order: Any) -> None:
        print(json.dumps(order), file=self.lines, flush=True)

    def answer(self) -> Any:
        return json.loads(self.lines.readline())

    def end(self) -> tuple[bytes, Any]:
        """What was streamed, and the last line of progress."""
        with open(self.stream, "rb") as stream, open(self.progress) as progress:
            streamed, told = stream.read(), [json.loads(line) for line in progress]
        self._thread.join()
        self.daemon.close()
        self.lines.close()
        os.close(self.job.ring)
        os.close(self.job.fill)
        return streamed, told[-1]


@pytest.fixture(autouse=True)
def _process_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own process is not to be limited."""
    monkeypatch.setattr("netmond.sessions.runner._limit_memory", lambda: None)
    monkeypatch.setattr("netmond.sessions.runner.signal.alarm", lambda seconds: None)


class TestRunner:
    def test_stopped(self) -> None:
        """All that was there is taken, whether or not it gathers; the end is told to both."""
        session = _Session()
        os.write(session.job.fill, b"0123456789" * 3 + b"x")
        while session.job.moved < 31:
            assert "figures" in session.answer()
        session.order(do="stop")
        answers = [session.answer()]
        while "end" not in answers[-1]:
            answers.append(session.answer())
        streamed, last = session.end()

        assert {"done": True} in answers
        assert streamed == b"0123456789" * 3 + b"x!"
        assert (last["end"], last["packets"]) == (answers[-1]["end"], 31) == ("stopped", 31)
        assert session.job.asked[-1] == "stopped"

    def test_time_is_up(self) -> None:
        session = _Session(duration=0.01)
        assert session.end()[1]["end"] == "duration"

    def test_nobody_reads(self) -> None:
        """An idle session notices that."""
        session = _Session()
        os.close(session.stream)
        session.stream = os.open(os.devnull, os.O_RDONLY)
        assert session.end()[1]["end"] == "closed"

    def test_the_daemon_is_gone(self) -> None:
        """Without a word: what is there is still delivered."""
        session = _Session()
        session.lines.close()
        session.daemon.close()
        session.daemon, other = socket.socketpair()
        other.close()
        session.lines = session.daemon.makefile("rw")
        streamed, last = session.end()
        assert (streamed, last["end"]) == (b"!", "daemon")

    def test_taken_without_a_wake_up(self) -> None:
        """A job is asked twice a second, also if its ring never becomes readable."""
        session = _Session()
        session.answer()
        session.answer()
        session.order(do="stop", reason="daemon")
        session.end()
        assert "take" in session.job.asked
        assert session.job.asked[-1] == "daemon"
