"""The exporter as a real process: fed, killed, stopped, configured anew; the daemon's side never waits."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from netmond.config import OutputConfig, defaults
from netmond.model import FeatureState
from netmond.outputs import exported
from netmond.outputs.exported import SOCKET_VARIABLE, Exporter
from netmond.outputs.worker import Worker
from tests.bus import snapshots
from tests.export.peers import patience
from tests.kernel.deadline import DEADLINE, eventually

ROOT = Path(__file__).resolve().parents[2]

#: An output that writes down what it is told, found by its entry point; the process loads it like any other.
SINK = textwrap.dedent(
    """
    from netmond.model import Loss

    class Sink:
        name = "sink"

        def _note(self, *words):
            with open(self.path, "a") as file:
                print(*words, file=file)

        def init(self, config):
            self.path = config.options["path"]
            self.delivered = 0
            self._note("init", config.options.get("colour", "-"), config.state_dir)

        def write(self, snapshot):
            self._note("write", snapshot.tick, *snapshot.flows.columns["id"].tolist())
            self.delivered += 1

        def close(self):
            self._note("close")

        def losses(self):
            return [Loss(name="output.sink.delivered", count=self.delivered, meaning="of this process")]

        def limitation(self):
            return "no colours"
    """
)

LIMITED = (FeatureState.DEGRADED, "no colours")


@dataclass
class Fed:
    """An Exporter with the outputs `sink` and `other`, and snapshots for it."""

    directory: Path
    exporter: Exporter
    ticks: Iterator[int] = field(default_factory=lambda: count(1))

    def config(self, name: str = "sink", **options: str) -> OutputConfig:
        options = {"path": str(self.directory / name), **options}
        return replace(defaults().output(name), options=options, state_dir=self.directory)

    def apply(self, *outputs: OutputConfig) -> None:
        self.exporter.apply({output.name: output for output in outputs}, "info")

    def publish(self) -> int:
        """Publishes the next snapshot; its number."""
        tick = next(self.ticks)
        self.exporter.publish(replace(snapshots.small(), tick=tick))
        return tick

    def deliver(self, name: str = "sink") -> int:
        """Publishes a snapshot until one has arrived; its number. Another one only when one was dropped:
        a slow machine would fall behind, which is an output's state, and adds rows to the next."""
        dropped, first = self.loss("export.dropped"), self.publish()

        def arrived() -> int:
            nonlocal dropped
            found = [tick for tick in self.written(name) if tick >= first]
            if self.loss("export.dropped") > dropped:
                dropped = self.loss("export.dropped")
                self.publish()
            return found[-1] if found else 0

        return eventually(arrived, f"{name} has a snapshot")

    def said(self, name: str = "sink") -> list[str]:
        """What an output wrote down: whole lines, for it may be writing."""
        file = self.directory / name
        return file.read_text().rpartition("\n")[0].splitlines() if file.exists() else []

    def written(self, name: str = "sink") -> list[int]:
        return [int(line.split()[1]) for line in self.said(name) if line.startswith("write")]

    def feature(self, name: str = "sink") -> tuple[FeatureState, str]:
        (found,) = [each for each in self.exporter.features() if each.name == f"output.{name}"]
        return found.state, found.reason

    def loss(self, name: str) -> int:
        return sum(each.count for each in self.exporter.losses() if each.name == name)

    @property
    def pid(self) -> int:
        """Of the exporter's process."""
        child = self.exporter._link._child
        assert child is not None
        return child.pid

    def close(self) -> None:
        asyncio.run(self.exporter.close(3 * DEADLINE))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    patience(monkeypatch)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A place where the exporter's process finds the sink."""
    place = tmp_path / "site"
    metadata = place / "sink-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: sink\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[netmond.outputs]\nsink = sink:Sink\nother = sink:Sink\n")
    (place / "sink.py").write_text(SINK)
    monkeypatch.setenv("PYTHONPATH", f"{place}:{ROOT}")
    return {**os.environ}


@pytest.fixture
def fed(tmp_path: Path, environment: dict[str, str]) -> Iterator[Fed]:
    """With a child process."""
    made = Fed(tmp_path, Exporter({}, new_worker=partial(Worker, back_off=(0.0, 0.0))))
    yield made
    made.close()


def ended(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def test_delivered_and_answered(fed: Fed) -> None:
    """Snapshots arrive; features and losses of the output come back; at the end it is closed."""
    fed.apply(fed.config())
    assert fed.feature() == (FeatureState.ON, "")  # nothing wrong is known yet
    fed.deliver()
    eventually(lambda: fed.publish() and fed.loss("output.sink.delivered") > 0, "its losses are known")
    eventually(lambda: fed.deliver() and fed.feature() == LIMITED, "its limitation is known")
    pid = fed.pid
    fed.close()

    said = fed.said()
    assert said[0] == f"init - {fed.directory}/export"
    assert said[1] == f"write {fed.written()[0]} 1 2 3 4 5 6"
    assert said[-1] == "close"
    assert ended(pid)()
    assert fed.loss("export.errors") == 0


def test_what_waits_at_the_end_arrives(fed: Fed) -> None:
    """The last snapshot before the daemon ends is delivered."""
    fed.apply(fed.config())
    fed.deliver()
    last = fed.publish()
    fed.close()

    assert fed.written()[-1] == last
    assert fed.said()[-1] == "close"


def test_killed(fed: Fed, caplog: pytest.LogCaptureFixture) -> None:
    """After SIGKILL there is another process, and the ledger goes on where it was."""
    fed.apply(fed.config())
    fed.deliver()
    eventually(lambda: fed.publish() and fed.loss("output.sink.delivered") > 1, "it tells what it did")
    os.kill(fed.pid, signal.SIGKILL)
    told = fed.loss("output.sink.delivered")
    eventually(lambda: fed.publish() and fed.loss("output.sink.delivered") > told, "the ledger goes on")
    fed.close()

    assert [line.split()[0] for line in fed.said()].count("init") == 2
    assert fed.loss("export.errors") >= 1
    assert caplog.text.count("Output export failed and will be started again") == 1


def test_stopped(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs is given up: what is published meanwhile is dropped and counted, and publishing
    does not wait. Another one takes its place."""
    monkeypatch.setattr(exported, "_FAREWELL", 0.2)
    fed.apply(fed.config())
    fed.deliver()
    connection = fed.exporter._link._connection
    assert connection is not None
    connection.settimeout(0.2)
    pid = fed.pid
    os.kill(pid, signal.SIGSTOP)
    for _ in range(7):  # one is on its way, two may wait
        fed.publish()
    assert fed.loss("export.dropped") > 3
    assert fed.feature()[0] is FeatureState.DEGRADED
    eventually(ended(pid), "the one that hangs is gone", within=3 * DEADLINE)
    fed.deliver()

    eventually(lambda: fed.deliver() and fed.feature() == LIMITED, "it is as before")


def test_cannot_start(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends at once costs this output's snapshots, counted, and is told in its feature."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    fed.apply(fed.config(), replace(fed.config("other"), enabled=False))

    eventually(lambda: fed.publish() and fed.loss("export.dropped") > 3, "snapshots are dropped")
    eventually(lambda: fed.feature()[1].startswith("the "), "the reason is known")
    assert fed.feature()[0] is FeatureState.DEGRADED
    assert fed.feature("other") == (FeatureState.OFF, "disabled by configuration")


def test_reload(fed: Fed) -> None:
    """What is unchanged runs on in the same process, what is changed is started again, what is gone closed;
    without any the process ends, and comes back with the next."""
    fed.apply(fed.config(), fed.config("other"))
    fed.deliver()
    fed.deliver("other")
    pid = fed.pid
    fed.apply(fed.config(), fed.config("other", colour="red"))
    eventually(lambda: fed.publish() and f"init red {fed.directory}/export" in fed.said("other"), "new keys")
    fed.apply(fed.config())
    eventually(lambda: fed.publish() and fed.said("other")[-1] == "close", "the other is closed")
    assert fed.pid == pid
    assert [line for line in fed.said() if not line.startswith("write")] == [
        f"init - {fed.directory}/export"
    ]

    fed.apply(replace(fed.config(), enabled=False))
    eventually(ended(pid), "the process has ended", within=2 * DEADLINE)
    assert fed.said()[-1] == "close"
    assert fed.feature() == (FeatureState.OFF, "disabled by configuration")
    before = len(fed.said())
    for _ in range(3):
        fed.publish()
    fed.apply(fed.config())
    fed.deliver()
    assert fed.said()[before].startswith("init")
    assert int(fed.said()[before + 1].split()[1]) > 3  # nothing of the time between


@dataclass
class Activated:
    """A socket at which the exporter is started, as by the service manager."""

    path: Path
    manager: subprocess.Popen[bytes]  #: what listens, and becomes the exporter

    def feed(self, directory: Path) -> Fed:
        return Fed(directory, Exporter({SOCKET_VARIABLE: str(self.path)}))


def listens(path: Path) -> bool:
    """Whether connections are taken at this socket, without making one; the file is there before that."""
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(words[3] == "00010000" and words[7:] == [str(path)] for words in sockets)


@pytest.fixture
def activated(tmp_path: Path, environment: dict[str, str]) -> Iterator[Activated]:
    path = tmp_path / "socket"
    command = ["systemd-socket-activate", f"--listen={path}", "--fdname=daemon"]
    variables = [f"--setenv={name}" for name in ("PYTHONPATH", "STATE_DIRECTORY")]
    process = subprocess.Popen(
        [*command, *variables, sys.executable, "-m", "netmond.export"],
        env={**environment, "STATE_DIRECTORY": str(tmp_path / "state")}, cwd="/",
    )  # fmt: skip
    eventually(lambda: listens(path), "it listens")
    yield Activated(path, process)
    process.terminate()
    assert process.wait(DEADLINE) in (0, -signal.SIGTERM)


def test_started_by_a_socket(tmp_path: Path, activated: Activated) -> None:
    """The daemon connects, which starts the exporter with a state directory of its own."""
    fed = activated.feed(tmp_path)
    fed.apply(fed.config())
    fed.deliver()
    fed.close()

    eventually(lambda: fed.said()[-1] == "close", "it has ended")
    assert fed.said()[0] == f"init - {tmp_path}/state"


def test_the_newest_connection_counts(tmp_path: Path, activated: Activated) -> None:
    """A daemon that gave up earlier connections is heard at the last one."""
    activated.manager.send_signal(signal.SIGSTOP)  # the exporter starts when all have connected
    given_up = [socket.socket(socket.AF_UNIX) for _ in range(7)]
    for each in given_up:
        each.connect(str(activated.path))
        each.close()
    fed = activated.feed(tmp_path)
    fed.apply(fed.config())
    eventually(lambda: fed.exporter._link._connection is not None, "the daemon has connected")
    activated.manager.send_signal(signal.SIGCONT)
    fed.deliver()
    fed.close()


def test_no_socket(tmp_path: Path) -> None:
    """Where the service manager does not listen, the feature says what to do."""
    fed = Fed(tmp_path, Exporter({SOCKET_VARIABLE: str(tmp_path / "none")}))
    fed.apply(fed.config())
    remedy = "systemctl restart netmond-export.socket"
    eventually(lambda: remedy in fed.feature()[1], "the remedy is told")
    fed.close()


def test_by_hand() -> None:
    """Who starts it by hand is told whose it is."""
    done = subprocess.run(
        [sys.executable, "-m", "netmond.export"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "it is for netmond to start" in done.stderr
    assert "Traceback" not in done.stderr


def test_nonsense() -> None:
    """A frame that is none ends it, with one line."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(100 * b"x")
        ours.shutdown(socket.SHUT_WR)
        done = subprocess.run(
            [sys.executable, "-m", "netmond.export"],
            stdin=theirs.fileno(),
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    assert done.returncode == 1
    assert "cannot be understood" in done.stderr
    assert "Traceback" not in done.stderr
