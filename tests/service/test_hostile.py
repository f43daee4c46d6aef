"""200 stuck and malicious clients on the real bus: netmond counts on, answers others, and bears no trace."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import DEADLINE, SLOWNESS, eventually
from tests.service.client import Caller
from tests.service.inside import journal, main_pid, show
from tests.service.people import People, Person, everybody

#: How long an attack lasts, in seconds: that of all kinds, and that of one.
ALL_AT_ONCE, ONE_KIND = 15.0 * SLOWNESS, 5.0 * SLOWNESS
#: How many clients an attack of one kind has, see attacker.py.
FEW = {"flood": 1, "signals": 1, "huge": 2}
#: Threads that there may be: the loop's, that for names, those of two outputs, and as many as asyncio takes
#: for what may block (concurrent.futures); it starts them when needed, and keeps them.
THREADS = 4 + min(32, (os.cpu_count() or 1) + 4)
#: Seconds after which netmond ticks by itself, whoever asks or not.
IDLE = 5.0
#: The longest that others may wait meanwhile: with a few clients of one kind; and with 200, which make the
#: bus itself slow, as long as D-Bus clients wait for an answer.
SHORT, LONG = 10.0 * SLOWNESS, 25.0 * SLOWNESS
#: Bytes that an attack may cost beyond what netmond had before.
MEMORY = 48 << 20

_SOURCE = (Path(__file__).parent / "attacker.py").read_text()

FAILED = "org.netmond1.Error."
STANDARD = "org.freedesktop.DBus.Error."
#: What the bus says to a caller who has too many calls open, and what netmond says.
BUSY = {f"{FAILED}LimitExceeded", f"{STANDARD}LimitsExceeded"}
ANSWERS = {
    "huge": {f"{FAILED}LimitExceeded"},
    "nonsense": {
        f"{STANDARD}{name}" for name in ("UnknownObject", "UnknownInterface", "UnknownMethod", "InvalidArgs")
    },
    "forbidden": {f"{FAILED}AccessDenied"},
    "own_figures": {""},
}
#: Attacks that wait for no answer.
UNANSWERED = ("never_reads", "half_message", "flood", "signals", "garbage", "comes_and_goes")


def files(pid: int) -> int:
    """How many files the daemon has open, without users' logs: those stay open from their first row on."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found += not os.readlink(entry).startswith("/var/log/netmond/users/")
    return found


def memory(pid: int, what: str) -> int:
    """VmRSS, or VmHWM for the most there was since forget_peak(), in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{what}:"))
    return int(value) * 1024


def forget_peak(pid: int) -> None:
    """What an earlier attack has cost is none of the next one's (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def people(installed: object) -> Iterator[People]:
    with everybody() as people:
        yield people


@contextmanager
def attackers(person: Person, number: int, only: str = "") -> Iterator[dict[str, list[str]]]:
    """The attack runs inside; what its clients were told is there afterwards."""
    said: dict[str, list[str]] = {}
    command = ["/usr/bin/python3", "-c", _SOURCE, "attack", str(number), only]
    how: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **(how | person.identity)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "attacking\n"
            yield said
            out, _ = process.communicate(timeout=DEADLINE)
            said.update(json.loads(out))
        finally:
            process.kill()


def status(caller: Caller) -> dict[str, Any]:
    return dict(json.loads(caller.call("Describe")))


@dataclass(slots=True, kw_only=True)
class Witness:
    """Root and bob, who call while alice attacks, and what they see."""

    root: Caller
    bob: Caller
    slowest: float = 0.0
    rounds: int = 0

    def watch(self, seconds: float) -> None:
        """Call for so long, without an error; ticks must go on, however slow the bus is."""
        started, first = time.monotonic(), status(self.root)["tick"]
        while time.monotonic() < started + seconds:
            self._timed(self.root, "ListFlows", ("a{sv}",), {"limit": ["u", 10]})
            self._timed(self.bob, "ListFlows", ("a{sv}",), {"scope": ["s", "own"]})
            self._timed(self.root, "Describe")
            self.rounds += 1
        ticks, lasted = status(self.root)["tick"] - first, time.monotonic() - started
        print(f"{self.rounds} rounds, the slowest {self.slowest:.2f} s; {ticks} ticks in {lasted:.0f} s")
        assert ticks > lasted / (2 * IDLE * SLOWNESS)

    def _timed(self, caller: Caller, *call: Any) -> None:
        asked = time.monotonic()
        caller.call(*call)
        self.slowest = max(self.slowest, time.monotonic() - asked)


@pytest.fixture
def witness(people: People) -> Iterator[Witness]:
    """Afterwards netmond is the same process, holds what it held before, and is as quick as before."""
    with people.root.caller() as root, people.bob.caller() as bob:
        bob.call("Describe")
        pid, began = main_pid(), time.time()
        status(root)
        forget_peak(pid)
        before, resident = files(pid), memory(pid, "VmRSS")
        yield Witness(root=root, bob=bob)
        assert main_pid() == pid
        eventually(lambda: _quick(root), "answers are as quick as ever", within=2 * DEADLINE)
        eventually(lambda: files(pid) <= before, f"back to {before} files")
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) <= THREADS
        print(f"memory {resident >> 20} MiB before, at most {memory(pid, 'VmHWM') >> 20} MiB")
        assert memory(pid, "VmHWM") < resident + MEMORY
    assert _complaints(began) == []


@pytest.mark.parametrize("kind", [*ANSWERS, *UNANSWERED])
def test_hostile_clients_of_one_kind(people: People, witness: Witness, kind: str) -> None:
    """A few clients of each kind: others are answered soon and without error, they themselves rightly."""
    with attackers(people.alice, FEW.get(kind, 20), kind) as said:
        witness.watch(ONE_KIND)

    assert witness.slowest < SHORT
    assert set(said[kind]) - BUSY == ANSWERS.get(kind, set()) - BUSY
    if kind == "huge":
        assert set(said[kind]) == ANSWERS[kind]


def test_two_hundred_hostile_clients(people: People, witness: Witness) -> None:
    """Never reading, half messages, 10 MB arguments, nonsense, floods of calls and signals, garbage at once.

    While it lasts, root's and bob's calls are answered without error, ticks go on and feed the watchdog.
    """
    fed = show("WatchdogTimestampMonotonic")

    with attackers(people.alice, 200) as said:
        witness.watch(ALL_AT_ONCE)
        assert show("WatchdogTimestampMonotonic") != fed

    assert witness.slowest < LONG
    for kind, answers in said.items():
        assert set(answers) <= BUSY | ANSWERS.get(kind, set()), kind


def _quick(root: Caller) -> bool:
    asked = time.monotonic()
    status(root)
    return time.monotonic() - asked < 1.0 * SLOWNESS


def _complaints(since: float) -> list[str]:
    """Tracebacks, and what is beyond a few lines: an attacker must not fill the journal."""
    lines = [str(entry["MESSAGE"]) for entry in journal("--unit=netmond.service", f"--since=@{since:.0f}")]
    return [line for line in lines if "Traceback" in line] + lines[100:]


def test_descriptors_are_not_taken(people: People) -> None:
    """Open files sent along with calls are not kept: who reads with recv(2) gets none."""
    pid = main_pid()
    with people.root.caller() as root:
        status(root)
        before = files(pid)
        done = people.alice.run("/usr/bin/python3", "-c", _SOURCE, "descriptors", "50")
        status(root)

    answers = set(json.loads(done.stdout).split())
    assert answers <= {f"{STANDARD}InvalidArgs", "org.netmond1.Error.LimitExceeded"}, done.stderr
    eventually(lambda: files(pid) <= before, f"back to {before} files")
