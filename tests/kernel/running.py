"""The daemon under test: the real program in a namespace, with a bus of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from netmonctl.calls import OPTION_TYPES
from tests.bus.private import Caller, CallError, PrivateBus
from tests.kernel.capture import NOTHING, Figures
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Cgroup, Namespace, Process

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ("a{sv}",)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line of complaint."""
        assert self.out == ""
        (line,) = self.err.splitlines()
        return line


def counted(row: Mapping[str, Any]) -> Figures:
    return Figures(*(row[name] for name in Figures._fields))


def total(rows: Iterable[Mapping[str, Any]]) -> Figures:
    return sum(map(counted, rows), NOTHING)


class Netmond:
    """A netmond that runs, with everything a test asks it."""

    def __init__(
        self,
        space: Namespace,
        *,
        cgroup: Cgroup | None = None,
        config: Mapping[str, Any] | None = None,
        interfaces: Sequence[str] = (),
        around: Callable[[list[str]], list[str]] = lambda argv: argv,
        program: Sequence[str] = ("-m", "netmond"),
    ) -> None:
        """cgroup: what to meter, None for the whole machine. config: values by dotted key. around: changes
        the command line, to take something away from the daemon. program: what the interpreter runs."""
        self.space = space
        machine = space.machine
        self.directory = machine.directory / "netmond"
        self.state, self.logs = self.directory / "state", self.directory / "log"
        self.run = self.directory / "run"
        self.source = ROOT  #: the tree it is started from
        for directory in (self.directory, self.state, self.logs, self.run):
            directory.mkdir(exist_ok=True)
        self.config = self.directory / "netmond.toml"
        self._settings: dict[str, Any] = {
            "daemon.interval": 0.1,
            "daemon.idle_interval": 0.1,
            "access.group": "",
            "interfaces.monitor": list(interfaces),
            "meter.cgroup": cgroup.path if cgroup else "",
        }
        self.configure(config or {})
        self.arguments = [
            "-c",
            f"{self.config}",
            "--state-dir",
            f"{self.state}",
            "--log-dir",
            f"{self.logs}",
            "--run-dir",
            f"{self.run}",
        ]
        self._around, self._program = around, program
        self._output = self.directory / "output"
        self._bus = PrivateBus()
        self._bus.start()
        self._caller: Caller | None = None
        self._process: Process | None = None

    def configure(self, config: Mapping[str, Any]) -> None:
        """Changes values in the configuration file, for the next start or reload."""
        self._settings |= config
        lines = (f"{key} = {json.dumps(value)}\n" for key, value in self._settings.items())
        self.config.write_text("".join(lines))

    # -- the process ---------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        without = ("NETWORK_INTERFACE", "TARGET_IP", "STATE_DIRECTORY", "LOGS_DIRECTORY", "NOTIFY_SOCKET")
        kept = {name: value for name, value in os.environ.items() if name not in without}
        return {**kept, "DBUS_SYSTEM_BUS_ADDRESS": self._bus.address}

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def launch(self) -> Process:
        """Starts the program and does not wait."""
        argv = self._around([sys.executable, *self._program, *self.arguments])
        with self._output.open("a") as output:
            self._process = self.space.machine.start(
                self.space.command(argv),
                stdout=output,
                stderr=output,
                env=self.environment,
                cwd=self.source,
            )
        return self._process

    def start(self) -> None:
        """Starts the program and waits until it answers."""
        process = self.launch()
        if self._caller is None:
            self._caller = Caller(self._bus.address, 0)

        def answers() -> bool:
            code = process.popen.poll()
            assert code is None, f"netmond ended with {code}:\n{self.log}"
            with suppress(CallError):
                return int(self.status()["tick"]) > 0
            return False

        eventually(answers, "netmond answers", within=3 * DEADLINE)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end, returns the exit status."""
        assert self._process is not None
        self._process.popen.send_signal(number)
        return self._process.popen.wait(2 * DEADLINE)

    def close(self) -> None:
        if self._process is not None and self._process.popen.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop()
            self._process.close()
        if self._caller is not None:
            self._caller.close()
        self._bus.remove()

    def __enter__(self) -> Netmond:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def descriptors(self) -> list[str]:
        """What its open files are, for comparing: the fewest of the looks from a tick to the next. Each tick
        opens sockets for a moment to ask the kernel for its counters."""
        tick, looks = self.status()["tick"], [self._look_at_descriptors()]
        while self.status()["tick"] == tick:
            looks.append(self._look_at_descriptors())
        return min(looks, key=len)

    def _look_at_descriptors(self) -> list[str]:
        found = []
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            with suppress(OSError):
                found.append(re.sub(r"\d+", "N", os.readlink(entry.path)))
        return sorted(found)

    def resident(self) -> int:
        """Its memory in bytes."""
        fields = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", fields)[1]) * 1024  # type: ignore[index]

    # -- what it says ----------------------------------------------------------------------------------

    def call(self, member: str, types: Sequence[str] = (), *values: Any) -> Any:
        """A call of org.netmond1.Manager as root; CallError."""
        assert self._caller is not None
        return self._caller.call(member, types, *values)

    def connect(self, uid: int = 0) -> Caller:
        """Another caller, the test's to close."""
        return Caller(self._bus.address, uid)

    def status(self) -> Row:
        return dict(json.loads(self.call("Describe")))

    def settle(self) -> None:
        """Waits until everything that has happened by now has been read and accounted for."""
        enough = self.status()["tick"] + 1  # the daemon answers between ticks: the next one sees it all

        def reached() -> bool:
            return bool(self.status()["tick"] >= enough)

        eventually(reached, f"netmond reaches tick {enough}")

    def rows(self, what: str, **options: Any) -> list[Row]:
        """All rows of a list, after settling."""
        self.settle()
        return self.peek(what, **options)

    def peek(self, what: str, **options: Any) -> list[Row]:
        """All rows of a list as they are known this moment."""
        wanted = {name: [OPTION_TYPES[name], value] for name, value in {"limit": 0, **options}.items()}
        rows, _ = self.call(f"List{what}", OPTIONS, wanted)
        return list(rows)

    def user(self, uid: int) -> Figures:
        """A user's totals, after settling."""
        return total(row for row in self.rows("Users") if row["uid"] == uid)

    def flows(self, uid: int, **options: Any) -> list[Row]:
        """A user's flows, after settling."""
        return self.rows("Flows", user=str(uid), **options)

    def interface(self, name: str) -> Row:
        (row,) = [row for row in self.rows("Interfaces") if row["name"] == name]
        return row

    def target(self, address: str) -> Figures:
        """A target's counters, after settling."""
        (row,) = [row for row in self.rows("Targets") if row["address"] == address]
        return counted(row)

    def add_targets(self, *addresses: str) -> None:
        self.call("AddTargets", ("as", "a{sv}"), list(addresses), {})

    def loss(self, name: str) -> int:
        """A line of the loss ledger as it is known this moment."""
        (line,) = [line for line in self.status()["losses"] if line["name"] == name]
        return int(line["count"])

    def feature(self, name: str) -> tuple[str, str]:
        """State and reason of a feature."""
        (feature,) = [feature for feature in self.status()["features"] if feature["name"] == name]
        return feature["state"], feature["reason"]

    def ctl(self, *words: str, uid: int = 0, groups: Sequence[int] = ()) -> Said:
        """Runs netmonctl, as whoever."""
        done = subprocess.run(
            [sys.executable, "-m", "netmonctl", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            user=uid,
            group=uid,
            extra_groups=list(groups),
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def json(self, *words: str, uid: int = 0, groups: Sequence[int] = ()) -> Any:
        """What netmonctl prints as JSON."""
        said = self.ctl(*words, "--json=short", uid=uid, groups=groups)
        assert said.code == 0, said
        return json.loads(said.out)
