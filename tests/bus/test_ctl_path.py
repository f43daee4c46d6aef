"""netmonctl path over the real bus, service and pipes, with a worker that tells what is recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from netmond.sessions.kinds import Kind
from netmond.sessions.supervisor import Sessions, Shared
from tests.bus.conftest import Host
from tests.bus.private import DEADLINE, until
from tests.bus.snapshots import ALICE
from tests.bus.terminal import Terminal
from tests.bus.test_ctl_log import how
from tests.unit.pathlines import STAGES

PATH = [sys.executable, "-m", "netmonctl", "path"]


@pytest.fixture
def paths(host: Host) -> Host:
    """A service whose paths are recorded ones."""
    host.monitor.sessions = Sessions(
        lambda: host.monitor.config, Shared(), {"path": Kind(module="tests.bus.recorded")}
    )
    return host


def path(host: Host, *words: str, uid: int = 0) -> subprocess.CompletedProcess[str]:
    """A path that ends by itself."""
    command = [*PATH, *words]
    return subprocess.run(command, capture_output=True, timeout=DEADLINE, **how(host.bus.address, uid))


def ended(host: Host) -> bool:
    """Whether there is no session, asked where they live."""

    async def none() -> bool:
        return not host.monitor.sessions.infos()

    return host.loop.run(none())


class Following:
    """One that goes on until somebody ends it."""

    def __init__(self, host: Host, *words: str) -> None:
        self.process = subprocess.Popen(
            [*PATH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how(host.bus.address, 0)
        )

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout is not None
        return [self.process.stdout.readline() for _ in range(count)]

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it still said."""
        out, error = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out, error


@pytest.fixture
def following(paths: Host) -> Iterator[Following]:
    """One that has shown all there is."""
    made = Following(paths)
    assert [line.split()[0] for line in made.lines(5)] == [
        "KERNEL", "netif_receive_skb", "ip_rcv_finish", "sock_def_readable", "kfree_skb",
    ]  # fmt: skip
    yield made
    made.process.kill()
    made.process.communicate()


def test_to_its_end(paths: Host) -> None:
    """What is asked reaches the worker, and all that it says comes back."""
    done = path(paths, "-c", "1", "-i", "192.0.2.0/24", "-p", "443", "-u", "root", "--protocol", "tcp")
    assert (done.returncode, done.stdout.count("\n")) == (0, 5)
    assert "4 events (1 drop) in" in done.stderr
    assert "suppressed by the rate limit (see --rate): 42" in done.stderr

    lines = path(paths, "-c", "1", "--json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == [
        "stages", "event", "event", "event", "event", "suppressed", "end",
    ]  # fmt: skip
    until(lambda: ended(paths))


def test_figures(paths: Host) -> None:
    """One report, when the time is over."""
    done = path(paths, "-s", "--interval", "0.1")
    assert done.returncode == 0
    assert done.stdout.endswith("2 stages, 15 drops in 2s.\n")


def test_stages(paths: Host) -> None:
    """They are told, and nothing goes on afterwards."""
    done = path(paths, "-d")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1 + len(STAGES))
    until(lambda: ended(paths))


def test_refused(paths: Host) -> None:
    """In one line, that says what is wrong or what it takes."""
    wrong = path(paths, "--protocol", "sctp")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (2, "", 1)
    assert "protocols" in wrong.stderr

    refused = path(paths, uid=ALICE)
    assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (4, "", 1)
    assert "org.netmond1.capture" in refused.stderr


def test_interrupted(paths: Host, following: Following) -> None:
    """Ctrl-C: a summary, and no failure; the session is over."""
    following.process.send_signal(signal.SIGINT)
    code, out, error = following.end()
    assert (code, out) == (0, "")
    assert "4 events (1 drop) in" in error
    until(lambda: ended(paths))


def test_nobody_reads(paths: Host, following: Following) -> None:
    """As in `netmonctl path | head`: it ends without a word, also if nothing comes any more."""
    assert following.process.stdout is not None
    following.process.stdout.close()
    assert following.process.wait(DEADLINE) == 0
    assert following.process.stderr is not None
    assert "Traceback" not in following.process.stderr.read()
    until(lambda: ended(paths))


def test_client_is_killed(paths: Host, following: Following) -> None:
    """Then there is no session any more, either."""
    following.process.kill()
    until(lambda: ended(paths))


def test_daemon_ends(paths: Host, following: Following) -> None:
    """It says so, behind all that it had to show."""
    paths.loop.run(paths.monitor.sessions.close())
    code, _, error = following.end()
    assert code == 1
    assert "4 events (1 drop) in" in error
    assert error.splitlines()[-1] == "netmonctl: the path ended early: netmond stopped"


def test_slow_reader(paths: Host) -> None:
    """A reader who takes his time loses nothing; Ctrl-C is heard meanwhile."""
    made = Following(paths, "--json", "--stages", "flood")
    assert json.loads(made.lines(1)[0])["type"] == "stages"
    made.process.send_signal(signal.SIGINT)
    code, out, _ = made.end()
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == {"type": "end", "reason": "stopped"}
    assert all(json.loads(line)["type"] in ("event", "suppressed") for line in out.splitlines()[:-1])


def test_on_a_terminal(paths: Host) -> None:
    """In 80 columns, with colours; a journey is shown when its packet rests, though nothing more comes."""
    environment = how(paths.bus.address, 0)["env"] | {"TERM": "xterm", "COLUMNS": "80"}
    environment["PATH"] = os.environ["PATH"]
    with Terminal(*PATH, "--follow", environment=environment) as terminal:
        shown = terminal.read_until("drop: NO_SOCKET")
        assert "#1 tcp 192.0.2.1:40000 -> 192.0.2.2:443 [P.] length 1500" in shown
        terminal.type("\x03")
        shown = terminal.read_until("see --rate")
        assert "4 events (1 drop) in" in shown
    until(lambda: ended(paths))
