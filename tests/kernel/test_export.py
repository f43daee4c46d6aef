"""A real daemon with an output in the exporter: whatever becomes of that process, the daemon goes on."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.running import ROOT, Netmond
from tests.kernel.test_degraded import in_mounts

ON = ("on", "")


class Listener:
    """A Unix socket that takes lines of JSON, from one connection after another, as they come."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix:{path}"
        self._lines: Queue[bytes] = Queue()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._connection = self._socket  #: the one that is read
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def line(self) -> str:
        """The next line."""
        return self._lines.get(timeout=DEADLINE).decode()

    def forget(self) -> None:
        """Drops the lines that have come so far."""
        with suppress(Empty):
            while True:
                self._lines.get_nowait()

    def close(self) -> None:
        for each in (self._socket, self._connection):
            with suppress(OSError):  # the other side has closed it
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self._socket.close()

    def _take(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                self._connection, _ = self._socket.accept()
                with self._connection as connection, connection.makefile("rb") as lines:
                    for line in lines:
                        self._lines.put(line)


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listener]:
    made = Listener(tmp_path_factory.mktemp("listener") / "lines")
    yield made
    made.close()


@pytest.fixture(scope="module")
def exporting(listener: Listener) -> dict[str, Any]:
    """Configuration that delivers every second."""
    return {"output.json.address": listener.address, "output.json.interval": 1}


@pytest.fixture(scope="module")
def running(shared: Scene, exporting: dict[str, Any]) -> Netmond:
    """A daemon that all tests share which leave it as it was."""
    return shared.netmond(config=exporting)


@pytest.fixture
def netmond(running: Netmond) -> Netmond:
    """The same, with an output that works."""
    works(running)
    return running


def exporters(netmond: Netmond) -> list[int]:
    """Processes of exporters that the daemon started, and which run."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            if b"netmond.export" in (entry / "cmdline").read_bytes().split(b"\0"):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == netmond.pid and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def exporter(netmond: Netmond) -> int:
    (pid,) = eventually(lambda: exporters(netmond), "an exporter runs")
    return pid


def gone(pid: int) -> Callable[[], bool]:
    return lambda: not Path(f"/proc/{pid}").exists()


def goes_on(netmond: Netmond) -> None:
    """Ticks follow each other."""
    for _ in range(3):
        netmond.settle()


def works(netmond: Netmond) -> None:
    eventually(lambda: netmond.feature("output.json") == ON, "the output works")


def test_delivers(shared: Scene, netmond: Netmond, listener: Listener) -> None:
    """What a user exchanges reaches the other side of an output in the exporter."""
    server, user = shared.server(), shared.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    found = netmond.user(USER)

    eventually(lambda: str(found.out_bytes) in listener.line(), "the figures arrive")
    assert "Output export" not in netmond.log  # nothing to complain of


def test_killed(netmond: Netmond, listener: Listener) -> None:
    """Another exporter follows one that was killed, and the ledger says what could not be handed over."""
    first, before = exporter(netmond), netmond.loss("export.errors")

    os.kill(first, signal.SIGKILL)

    eventually(lambda: netmond.loss("export.errors") > before, "it is noticed")
    listener.forget()
    goes_on(netmond)
    eventually(lambda: exporters(netmond) not in ([], [first]), "another one runs")
    works(netmond)
    assert listener.line()  # of what could not be handed over, if of nothing else


def test_stopped(netmond: Netmond, listener: Listener) -> None:
    """While the exporter hangs the daemon ticks and answers, drops and says so; afterwards all is well."""
    pid, before = exporter(netmond), netmond.loss("export.dropped")
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: netmond.loss("export.dropped") > before, "snapshots are dropped")
        assert netmond.feature("output.json") == (
            "degraded",
            "does not keep up; snapshots are dropped until it does",
        )
        goes_on(netmond)
        listener.forget()
    finally:
        os.kill(pid, signal.SIGCONT)
    works(netmond)
    assert listener.line()  # of the snapshots that were dropped, if of nothing else


def test_cannot_start(scene: Scene, exporting: dict[str, Any]) -> None:
    """A daemon whose exporter ends at once runs, tells why in the feature, and stops in order."""
    nothing = f"mount --bind /dev/null {ROOT}/netmond/export/__main__.py"
    netmond = scene.netmond(config=exporting, around=in_mounts(nothing))

    eventually(lambda: netmond.loss("export.errors") > 0, "it is noticed")
    state, reason = netmond.feature("output.json")
    assert state == "degraded"
    assert "exporter" in reason
    goes_on(netmond)
    eventually(lambda: netmond.feature("output.csv") == ON, "another output works")
    assert netmond.stop() == 0


def test_reload(netmond: Netmond, listener: Listener) -> None:
    """An output can be switched off and on; without any there is no exporter."""
    pid = exporter(netmond)
    netmond.configure({"output.json.enabled": False})
    netmond.call("Reload", ("a{sv}",), {})
    assert netmond.feature("output.json") == ("off", "disabled by configuration")
    eventually(gone(pid), "the exporter has ended")
    goes_on(netmond)
    assert exporters(netmond) == []

    netmond.configure({"output.json.enabled": True})
    netmond.call("Reload", ("a{sv}",), {})
    works(netmond)
    listener.forget()
    assert listener.line()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ends_with_the_daemon(scene: Scene, exporting: dict[str, Any], number: signal.Signals) -> None:
    """However the daemon ends, no exporter is left."""
    netmond = scene.netmond(config=exporting)
    works(netmond)
    pid = exporter(netmond)

    netmond.stop(number)

    eventually(gone(pid), "the exporter has ended")
    assert "Traceback" not in netmond.log


def test_bad_values_are_refused(netmond: Netmond) -> None:
    """Keys of outputs in the exporter are checked by the daemon, before it takes anything of the file."""
    netmond.configure({"output.json.interval": "often"})
    said = netmond.ctl("reload")
    netmond.configure({"output.json.interval": 1})

    assert said.code != 0
    assert "output.json.interval" in said.err
    assert netmond.feature("output.json")[0] != "off"
