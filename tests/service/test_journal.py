"""What an administrator reads with journalctl: fields, explanations, who did what; and nothing forged."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import (
    UNIT,
    busctl,
    call,
    ctl,
    described,
    journal,
    moment,
    next_tick,
    restart,
    run,
    show,
    sync_journal,
    systemctl,
)
from tests.service.talk import FAR, Talker

pytestmark = pytest.mark.usefixtures("installed")

MESSAGES = {
    "STARTED": "c917c5705c914a41bc095bddc37bc826",
    "STOPPED": "ac1f320dd7d0455aaa8eeabc8425d5e0",
    "FEATURE": "52dfce02103a4e8299b2d7118ec56565",
    "LOSS": "75e82a582f5b47968c65c5df9192f0f0",
    "TARGET_ADDED": "40c95008ed6f487f9594c908b067fb00",
    "TARGET_REMOVED": "e2fe1fa8227c4dd18515b9c493131eee",
    "RELOADED": "18c288ff6f1541df8d75ab8dfff4b7ef",
    "CHANGED": "56f6ac66827146749938e0f938eea6dd",
    "DENIED": "1f7a0f0a4fb54a2a8a274a419b330a28",
    "USER_SUMMARY": "5a6a61a4427942eda71a270a9d42e7d0",
    "TARGET_SUMMARY": "62708b5276e5488685223669b7e0b09f",
}

#: What a stranger would forge, and what moves the cursor.
HOSTILE = "x\nFAKE=1\n\x1b[2J"
EVIL = "evil\x1b[2J"  #: takes root to make, or a container that is given its name

_DROP_IN = Path("/etc/netmond/netmond.d/journal.toml")
_OFTEN = "[output.csv]\ninterval = 1\n[output.journal]\nsummary = 1\n"
_MANAGER = ("org.netmond1", "/org/netmond1", "org.netmond1.Manager")
_LOG_CONTROL = ("org.netmond1", "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1")
ACTION = re.compile(r"org\.netmond1\.[a-z-]+")
_serial = itertools.count(1)


@pytest.fixture
def often(installed: None) -> Iterator[None]:
    """Summaries and rows every second."""
    _DROP_IN.write_text(_OFTEN)
    ctl("reload")
    next_tick()  # then the journal output has begun anew
    yield
    _DROP_IN.unlink()
    ctl("reload")


@pytest.fixture
def evil_interface() -> Iterator[str]:
    """An interface with a name that moves the cursor; udev, which would give it a better one, looks away."""
    udev = shutil.which("udevadm")
    if udev:
        run(udev, "control", "--stop-exec-queue")
    run("ip", "link", "add", EVIL, "type", "veth")
    yield EVIL
    run("ip", "link", "delete", EVIL)
    if udev:
        run(udev, "control", "--start-exec-queue")


class Since:
    """The journal from here on."""

    def __init__(self) -> None:
        self._began = moment()

    def words(self, kind: str = "") -> list[str]:
        match = [f"MESSAGE_ID={MESSAGES[kind]}"] if kind else []
        return [f"--unit={UNIT}", f"--since={self._began}", *match]

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        """What netmond itself wrote since: systemd's own messages about the unit are left out."""
        return [each for each in journal(*self.words(kind)) if each.get("SYSLOG_IDENTIFIER") == "netmond"]

    def wait_for(self, kind: str, **fields: str) -> dict[str, Any]:
        """The first message of a kind with these fields."""
        return eventually(
            lambda: [each for each in self.entries(kind) if fields.items() <= each.items()],
            f"{kind} with {fields} in the journal",
        )[0]

    def explained(self, kind: str) -> str:
        """The messages of a kind and their explanations, as journalctl -x prints them."""
        sync_journal()
        return run("journalctl", "--catalog", "--no-pager", *self.words(kind)).out


def uid_of(user: str) -> str:
    return run("id", "--user", user).out.strip()


def put_directory(log: Path) -> None:
    """Puts a directory in the place of a log, which the daemon may be about to write."""
    while not log.is_dir():
        log.unlink(missing_ok=True)
        with suppress(FileExistsError):
            log.mkdir()


def test_fields_of_the_start() -> None:
    """A start is one message with all its fields, from the service's own user."""
    since = Since()
    pid = restart()

    entry = since.wait_for("STARTED")
    assert entry["NETMOND_VERSION"] in entry["MESSAGE"]
    assert entry["NETMOND_TARGETS"] == "0"
    assert entry["NETMOND_INTERFACES"] in entry["MESSAGE"]
    assert float(entry["NETMOND_SINCE"]) == pytest.approx(described()["since"], abs=0.001)
    assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"]) == ("netmond", "6")
    assert (entry["_PID"], entry["_UID"], entry["_SYSTEMD_UNIT"]) == (str(pid), uid_of("netmond"), UNIT)


@pytest.mark.parametrize("kind", MESSAGES)
def test_catalogue_is_installed(kind: str) -> None:
    """The package's installation has made the explanations known."""
    assert "Subject: " in run("journalctl", "--dump-catalog", MESSAGES[kind]).out


@pytest.mark.usefixtures("often")
def test_everything_is_explained(talkers: dict[str, Talker]) -> None:
    """journalctl -x explains each kind of message with the values of its fields."""
    since = Since()
    erin = talkers["erin"]
    ctl("target", "add", FAR, "192.0.2.7")
    erin.exchange(23, 101)
    user = since.wait_for("USER_SUMMARY", NETMOND_USER="erin")
    target = since.wait_for("TARGET_SUMMARY", NETMOND_TARGET=FAR)
    assert ctl("target", "remove", FAR, user="erin", check=False).code == 4
    ctl("target", "remove", FAR, "192.0.2.7")
    log = Path(f"/var/log/netmond/users/{erin.uid}/traffic_user_all_{erin.uid}.log")
    eventually(log.exists, "erin has a file")
    put_directory(log)
    erin.exchange(1, 101)
    since.wait_for("LOSS", NETMOND_LOSS="output.csv.rows")
    log.rmdir()
    systemctl("stop", UNIT)
    run("mount", "-t", "ramfs", "netmond-test", "/var/log/netmond")
    try:
        systemctl("start", UNIT)
        erin.exchange(1, 101)
        since.wait_for("FEATURE", NETMOND_FEATURE="output.csv")
    finally:
        systemctl("stop", UNIT)
        run("umount", "/var/log/netmond")
        restart()
    ctl("reload")

    assert user["NETMOND_USER_UID"] == str(erin.uid)
    assert int(target["NETMOND_PERIOD"]) >= 1
    for kind, words in {
        "STARTED": "began to report",
        "STOPPED": "bytes since counting began",
        "FEATURE": "Reason: ",
        "LOSS": "CSV rows not written",
        "TARGET_ADDED": "Traffic with 192.0.2.7 is counted",
        "TARGET_REMOVED": "Traffic with 192.0.2.7 is no longer counted",
        "RELOADED": "was read again",
        "CHANGED": "A process of user 0 called ",
        "DENIED": f"User {erin.uid} was refused Manager.RemoveTargets",
        "USER_SUMMARY": "received",
        "TARGET_SUMMARY": "went to the target",
    }.items():
        text = since.explained(kind)
        assert words in text, kind
        assert "Defined-By: netmond" in text
        assert "@" not in text, kind


@pytest.mark.usefixtures("often")
def test_losses_add_up(talkers: dict[str, Talker]) -> None:
    """A loss is told when it grows, and what was held back after that when netmond stops: the messages add
    up to what status says."""
    erin = talkers["erin"]
    log = Path(f"/var/log/netmond/users/{erin.uid}/traffic_user_all_{erin.uid}.log")
    erin.exchange(1, 101)
    eventually(log.exists, "erin has a file")
    restart()
    since = Since()
    put_directory(log)
    try:
        erin.exchange(1, 101)
        first = since.wait_for("LOSS", NETMOND_LOSS="output.csv.rows")
        erin.exchange(1, 101)
        lost = int(first["NETMOND_TOTAL"])
        in_status = eventually(lambda: lost_rows() > lost and lost_rows(), "more is lost")
        next_tick()
        systemctl("stop", UNIT)

        told = [each for each in since.entries("LOSS") if each["NETMOND_LOSS"] == "output.csv.rows"]
        assert len(told) >= 2
        assert sum(int(each["NETMOND_COUNT"]) for each in told) == int(told[-1]["NETMOND_TOTAL"])
        assert int(told[-1]["NETMOND_TOTAL"]) >= in_status
        assert {each["PRIORITY"] for each in told} == {"4"}
    finally:
        log.rmdir()
        restart()


def lost_rows() -> int:
    """CSV rows not written, as status says."""
    return int(next(line["count"] for line in described()["losses"] if line["name"] == "output.csv.rows"))


class TestWhoDidWhat:
    def test_changes(self) -> None:
        """Whatever root changes is told with the caller, the method and its arguments."""
        since = Since()
        ctl("target", "add", "192.0.2.7")
        ctl("target", "remove", "192.0.2.7")
        systemctl("reload", UNIT)
        systemctl("service-log-level", "netmond", "debug")
        systemctl("service-log-level", "netmond", "info")

        def told() -> list[tuple[str, str, str]]:
            entries = since.entries("CHANGED")
            return [(e["NETMOND_CALLER_UID"], e["NETMOND_METHOD"], e["NETMOND_ARGUMENTS"]) for e in entries]

        eventually(lambda: len(told()) >= 5, "five changes are told")
        assert told() == [
            ("0", "Manager.AddTargets", "['192.0.2.7']"),
            ("0", "Manager.RemoveTargets", "['192.0.2.7']"),
            ("0", "Manager.Reload", ""),
            ("0", "LogControl1.LogLevel", "'debug'"),
            ("0", "LogControl1.LogLevel", "'info'"),
        ]

    @pytest.mark.usefixtures("people")
    def test_refusals(self) -> None:
        """Who was refused what is told: changes, and figures of others."""
        since = Since()
        for words in (
            ("call", *_MANAGER, "AddTargets", "asa{sv}", "1", "192.0.2.7", "0"),
            ("call", *_MANAGER, "Reload", "a{sv}", "0"),
            ("call", *_MANAGER, "ListTargets", "a{sv}", "0"),
            ("set-property", *_LOG_CONTROL, "LogLevel", "s", "debug"),
        ):
            assert busctl(*words, user="erin", check=False).code != 0

        eventually(lambda: len(since.entries("DENIED")) >= 4, "four refusals are told")
        refused = [
            (each["NETMOND_CALLER_UID"], each["NETMOND_METHOD"], ACTION.findall(each["NETMOND_REASON"]))
            for each in since.entries("DENIED")
        ]
        erin = uid_of("erin")
        assert refused == [
            (erin, "Manager.AddTargets", ["org.netmond1.manage"]),
            (erin, "Manager.Reload", ["org.netmond1.manage"]),
            (erin, "Manager.ListTargets", ["org.netmond1.read-all"]),
            (erin, "LogControl1.LogLevel", ["org.netmond1.manage"]),
        ]

    @pytest.mark.usefixtures("people")
    def test_nobody_hides_it_in_a_flood(self) -> None:
        """A user who is refused again and again fills no journal, and hides neither others nor changes."""
        since, began = Since(), time.monotonic()
        loop = f"for i in $(seq 200); do busctl call {' '.join(_MANAGER)} Reload 'a{{sv}}' 0; done"
        run("sh", "-c", loop, user="erin", check=False)
        busctl("call", *_MANAGER, "Reload", "a{sv}", "0", user="frank", check=False)
        ctl("target", "add", "192.0.2.7")
        ctl("target", "remove", "192.0.2.7")

        since.wait_for("CHANGED", NETMOND_METHOD="Manager.RemoveTargets")
        since.wait_for("DENIED", NETMOND_CALLER_UID=uid_of("frank"))
        of_erin = [each for each in since.entries("DENIED") if each["NETMOND_CALLER_UID"] == uid_of("erin")]
        windows = (time.monotonic() - began) // 30 + 2
        assert 0 < len(of_erin) <= 20 * windows
        assert len(since.entries()) < len(of_erin) + 50


class TestForgery:
    @pytest.mark.usefixtures("often")
    def test_name_of_a_process(self, people: None, talkers: dict[str, Talker]) -> None:
        """A process whose name holds a line break and a field is one escaped word in the user's file, and
        forges nothing in the journal, at whatever level netmond writes."""
        since = Since()
        systemctl("service-log-level", "netmond", "debug")
        program = f"""
import socket, time
open("/proc/self/comm", "w").write({HOSTILE!r})
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.connect(("{FAR}", 7))
    for _ in range(23):
        peer.send(bytes(101))
        peer.recv(101)
    input()
"""
        words = ["setpriv", "--reuid=erin", "--regid=erin", "--init-groups", "--", "python3", "-c", program]
        log = Path("/var/log/netmond/users") / uid_of("erin") / f"traffic_user_all_{uid_of('erin')}.log"
        with subprocess.Popen(words, stdin=subprocess.PIPE, cwd="/") as forger:
            eventually(lambda: log.exists() and "FAKE" in log.read_text(), "the rows are there")
            next_tick()
            forger.communicate(b"\n")
        systemctl("service-log-level", "netmond", "info")
        since.wait_for("USER_SUMMARY", NETMOND_USER="erin")

        lines = [line for line in log.read_text().splitlines() if "FAKE" in line]
        assert {line.rpartition(",")[2] for line in lines} == {r"x\nFAKE=1\n\x1b[2J"}
        assert all(len(line.split(",")) == 14 for line in lines)
        self.nothing_forged(since)

    def test_strings_in_calls(self, evil_interface: str) -> None:
        """Neither do strings in D-Bus calls, refused or not, by root or by others."""
        since = Since()
        systemctl("service-log-level", "netmond", "debug")
        for user in ("", "nobody"):
            for words in (
                ("call", *_MANAGER, "MonitorInterface", "sa{sv}", HOSTILE, "0"),
                ("call", *_MANAGER, "AddTargets", "asa{sv}", "1", HOSTILE, "0"),
                ("call", *_MANAGER, "GetTarget", "s", HOSTILE),
                ("call", *_MANAGER, "ListFlows", "a{sv}", "1", HOSTILE, "s", HOSTILE),
                ("set-property", *_LOG_CONTROL, "LogLevel", "s", HOSTILE),
            ):
                assert busctl(*words, user=user, check=False).code != 0
        call("MonitorInterface", "sa{sv}", evil_interface, "0")
        since.wait_for("CHANGED", NETMOND_METHOD="Manager.MonitorInterface")
        call("UnmonitorInterface", "sa{sv}", evil_interface, "0")
        systemctl("service-log-level", "netmond", "info")

        self.nothing_forged(since)

    def nothing_forged(self, since: Since) -> None:
        """Every line is netmond's own and printable, every field has a documented name."""
        assert run("journalctl", "FAKE=1", "--quiet").out == ""
        entries = since.entries()
        assert entries
        for entry in entries:
            assert isinstance(entry["MESSAGE"], str)  # journalctl makes unprintable ones lists of bytes
            assert entry["MESSAGE"].isprintable()
            assert not entry["MESSAGE"].startswith(("FAKE", "\x1b"))
            own = {name for name in entry if not name.startswith(("_", "NETMOND_", "SYSLOG_"))}
            assert own <= {"MESSAGE", "MESSAGE_ID", "PRIORITY", "CODE_FILE", "CODE_LINE", "CODE_FUNC", "TID"}
        text = run("journalctl", "--catalog", "--no-pager", *since.words()).out
        assert "\x1b" not in text
        assert not re.search(r"^(░░ )?FAKE", text, re.MULTILINE)


class TestLogControl:
    @pytest.fixture(autouse=True)
    def _tidy(self) -> Iterator[None]:
        yield
        systemctl("service-log-level", "netmond", "info")
        systemctl("service-log-target", "netmond", "journal")

    def say_something(self) -> str:
        """Makes the daemon log a line of its own, at level notice; what is in it."""
        address = f"192.0.2.{next(_serial)}"
        ctl("target", "add", address)
        ctl("target", "remove", address)
        return address

    def said(self, since: Since, word: str) -> list[str]:
        return [
            each["PRIORITY"]
            for each in since.entries()
            if "AddTargets" in each["MESSAGE"] and word in each["MESSAGE"]
        ]

    def test_levels(self) -> None:
        """A level is in force at once, and what is less severe is not written."""
        since = Since()
        systemctl("service-log-level", "netmond", "warning")
        silent = self.say_something()
        systemctl("service-log-level", "netmond", "notice")
        loud = self.say_something()

        eventually(lambda: self.said(since, loud) == ["5"], "it is in the journal")
        assert self.said(since, silent) == []
        assert systemctl("service-log-level", "netmond").out == "notice\n"

    def test_targets(self) -> None:
        """`console` is the service's standard error, which is the journal again, with the same severity and
        without fields; `null` is nowhere."""
        since = Since()
        assert systemctl("service-log-target", "netmond").out == "journal\n"
        systemctl("service-log-target", "netmond", "null")
        nowhere = self.say_something()
        systemctl("service-log-target", "netmond", "console")
        console = self.say_something()
        # It comes another way than the next one, and journald may take that first.
        eventually(lambda: self.said(since, console) == ["5"], "it is in the journal")
        systemctl("service-log-target", "netmond", "journal")
        there = self.say_something()

        eventually(lambda: self.said(since, there) == ["5"], "it is in the journal")
        assert self.said(since, nowhere) == []
        transports = [each["_TRANSPORT"] for each in since.entries() if "AddTargets" in each["MESSAGE"]]
        assert transports == ["stdout", "journal"]

    def test_identifier(self) -> None:
        """The identifier that LogControl1 names finds the messages."""
        restart()
        assert show("ActiveState") == "active"
        done = busctl("get-property", *_LOG_CONTROL, "SyslogIdentifier")

        assert done.out.strip() == '{"type":"s","data":"netmond"}'
        assert journal("--identifier=netmond", "--lines=1")
