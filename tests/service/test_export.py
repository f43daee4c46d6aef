"""The exporter as a service of its own: started by its socket when an output needs it, and in a sandbox."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import apt, complaints, ctl, described, next_tick, run, show, systemctl
from tests.service.test_sandbox import status

pytestmark = pytest.mark.usefixtures("installed")

_UNIT, _SOCKET = "netmond-export.service", "netmond-export.socket"
_PATH = "/run/netmond-export.socket"
_DROP_IN = Path("/etc/netmond/netmond.d/export.toml")
#: The only places it can write to, as those of the daemon.
_WRITABLE = {
    "/dev/mqueue", "/dev/shm", "/run/lock", "/tmp", "/var/lib/netmond-export", "/var/tmp",
}  # fmt: skip


def pid() -> int:
    """Of the exporter, 0 if there is none."""
    return int(show("MainPID", _UNIT))


def state(unit: str = _UNIT) -> str:
    return show("ActiveState", unit)


def works() -> bool:
    features = {each["name"]: each["state"] for each in described()["features"]}
    return pid() > 0 and features.get("output.json") == "on"


def errors() -> int:
    """How often the daemon has lost the exporter."""
    return sum(each["count"] for each in described()["losses"] if each["name"] == "export.errors")


def configure(text: str) -> None:
    _DROP_IN.write_text(text)
    ctl("reload")


class Receiver:
    """A TCP server that counts the bytes it is sent."""

    def __init__(self) -> None:
        self.bytes = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        while True:
            connection, _ = self._server.accept()
            with connection:
                while read := connection.recv(65536):
                    self.bytes += len(read)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    yield Receiver()
    _DROP_IN.unlink(missing_ok=True)
    ctl("reload")


@pytest.fixture(scope="module")
def exporting(installed: None, receiver: Receiver) -> Receiver:
    """netmond delivers lines of JSON every second, over TCP."""
    configure(f'[output.json]\naddress = "tcp:127.0.0.1:{receiver.port}"\ninterval = 1\n')
    eventually(works, "the output works")
    return receiver


def seen_by_it(*argv: str, check: bool = True) -> str:
    """A command run as the exporter's user, with the files that the exporter sees; its output."""
    user = ("setpriv", "--reuid=netmond-export", "--regid=netmond-export", "--clear-groups")
    done = run("nsenter", f"--target={pid()}", "--mount", "--", *user, "--", *argv, check=check)
    return done.out + done.err


def test_not_needed(installed: None) -> None:
    """Without an output of its kind it does not run; its socket waits."""
    assert systemctl("is-enabled", _SOCKET).out.strip() == "enabled"
    assert state(_SOCKET) == "active"
    assert state() == "inactive"
    assert "output.json" not in complaints()


def test_starts_and_delivers(exporting: Receiver) -> None:
    """Configuration alone starts it, with nothing missing for its sandbox."""
    eventually(lambda: exporting.bytes > 0, "lines arrive")
    assert "output.json" not in complaints()
    assert "Traceback" not in run("journalctl", f"--unit={_UNIT}").out


def test_exposure(installed: None) -> None:
    """systemd's own judgement, of 10 (unsafe): 1.5 at most; it understands every line."""
    said = run("systemd-analyze", "--no-pager", "security", _UNIT).out
    found = re.search(r"Overall exposure level for netmond-export\.service: ([0-9.]+)", said)
    units = [f"/lib/systemd/system/{name}" for name in (_UNIT, _SOCKET)]
    verified = run("systemd-analyze", "verify", "--man=no", *units)

    assert found
    assert float(found[1]) <= 1.5
    assert verified.out + verified.err == ""


def test_user_without_privileges(exporting: Receiver) -> None:
    """Its own user, no capability now or ever, filtered system calls."""
    seen = status(pid())
    uid = run("id", "-u", "netmond-export").out.strip()

    assert seen["Uid"].split() == [uid] * 4
    assert {int(seen[kind], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {0}
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")


def test_files_and_processes(exporting: Receiver) -> None:
    """It writes nowhere but to its own directory, and sees no homes, nothing of netmond's, no processes."""
    words = ["find", "/", "-path", "/proc", "-prune", "-o", "-type", "d", "-writable", "-print", "-prune"]
    found = {line for line in seen_by_it(*words, check=False).splitlines() if line.startswith("/")}

    assert found <= _WRITABLE
    assert "/var/lib/netmond-export" in found
    assert "denied" in seen_by_it("ls", "/var/lib/netmond", check=False)
    assert "denied" in seen_by_it("ls", "/run/netmond", check=False)
    assert len(seen_by_it("ls", "/proc").split()) == 3


def test_socket_is_for_netmond(exporting: Receiver, people: None) -> None:
    """Members of the group netmond are people, and must not say where figures go."""
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{_PATH}')"
    run("usermod", "--append", "--groups=netmond", "erin")
    try:
        for user in ("erin", "nobody", "netmond-export"):
            done = run("python3", "-c", connect, user=user, check=False)
            assert done.err.splitlines()[-1].startswith("PermissionError"), user
    finally:
        run("gpasswd", "--delete", "erin", "netmond")


def test_killed(exporting: Receiver) -> None:
    """Another one follows; the daemon ticks meanwhile, and counts what it could not hand over."""
    before = pid()
    os.kill(before, signal.SIGKILL)

    next_tick()
    eventually(lambda: pid() not in (0, before) and works(), "another one works")
    eventually(lambda: errors() > 0, "the failure is counted")
    assert state(_SOCKET) == "active"


def test_stops_and_starts_with_netmond(exporting: Receiver) -> None:
    """systemctl stop netmond stops both, with the last figures delivered, and start starts both."""
    systemctl("stop", "netmond")
    try:
        eventually(lambda: state() == "inactive", "it has ended")
        assert show("Result", _UNIT) == "success"
        assert state(_SOCKET) == "active"
    finally:
        systemctl("start", "netmond")
    eventually(works, "the output works")


def test_installed_again(exporting: Receiver) -> None:
    """What a newer package does when it is installed: everything is started anew, and works."""
    before = pid()
    apt("install", "--reinstall", "netmond")

    eventually(lambda: pid() not in (0, before) and works(), "another one works")
    assert state(_SOCKET) == "active"
    assert systemctl("--failed", "--no-legend").out == ""


def test_listens_where_an_administrator_says(exporting: Receiver) -> None:
    """A socket unit of an administrator's gives the exporter a port that it may not open itself."""
    unit = Path("/etc/systemd/system/netmond-export-prometheus.socket")
    unit.write_text(
        "[Socket]\nListenStream=127.0.0.1:443\nFileDescriptorName=prometheus\nService=netmond-export.service\n"
    )
    both = _DROP_IN.read_text()
    _DROP_IN.write_text(f"{both}\n[output.prometheus]\n")
    systemctl("daemon-reload")
    # systemd starts no socket of a service that runs, and netmond would have this one started again.
    systemctl("stop", "netmond", _UNIT)
    systemctl("start", unit.name)
    systemctl("start", "netmond")
    try:
        eventually(works, "the output works")
        eventually(lambda: b"netmond_" in scraped(), "there are figures")
    finally:
        unit.unlink()
        _DROP_IN.write_text(both)
        systemctl("stop", _UNIT, unit.name)
        systemctl("daemon-reload")
        ctl("reload")
        eventually(works, "the output works without it")


def scraped() -> bytes:
    """What is answered at port 443, in plain HTTP."""
    try:
        with urlopen("http://127.0.0.1:443/metrics", timeout=10) as answer:
            return bytes(answer.read())
    except OSError:  # not yet
        return b""


def test_switched_off(exporting: Receiver) -> None:
    """Without an output of its kind it ends, and the daemon goes on."""
    _DROP_IN.unlink()
    ctl("reload")

    eventually(lambda: state() == "inactive", "it has ended")
    next_tick()
    assert state(_SOCKET) == "active"
