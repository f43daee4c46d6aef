"""The syslog output and a real rsyslogd: what it understands, what arrives over its death and return."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from netmond.config import defaults
from netmond.export.address import Address
from netmond.export.delivery import LONGEST_PAUSE
from netmond.export.syslog import SyslogOutput
from netmond.model import Feature, FeatureState, Loss
from netmond.users import Names
from tests.bus.snapshots import ALICE, BOB
from tests.export.peers import Rsyslogd, free_port
from tests.kernel.deadline import DEADLINE
from tests.unit.history import NAMES, Clock, History

TRANSPORTS = ("unix", "udp", "tcp")


@pytest.fixture
def rsyslogd(tmp_path: Path) -> Iterator[Rsyslogd]:
    with Rsyslogd(tmp_path / "rsyslog") as server:
        yield server


def start(
    directory: Path, address: Address, *, names: Names = NAMES, clock: Clock | None = None, **options: Any
) -> SyslogOutput:
    output = SyslogOutput(clock=clock or Clock(), names=names)
    options = {"address": str(address), "timeout": 5, "facility": "local3", **options}
    output.init(replace(defaults().output("syslog"), state_dir=directory, options=options))
    return output


def losses(output: SyslogOutput) -> dict[str, int]:
    return {loss.name.removeprefix("output.syslog."): loss.count for loss in output.losses()}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_understood(rsyslogd: Rsyslogd, tmp_path: Path, transport: str) -> None:
    """Header, structured data and text arrive in rsyslogd's own fields, whatever the way."""
    output, history = start(tmp_path, rsyslogd.addresses[transport]), History()
    history.losses = (Loss(name="meter.no-slot", count=5, meaning="flows without a slot"),)
    history.features = (Feature(name="polkit", state=FeatureState.OFF, reason='not there: "install" [it]'),)
    output.write(history.snapshot(grow=22))
    told = rsyslogd.take(6)
    output.close()

    assert [(each["id"], each["priority"]) for each in told] == [
        ("USER", "local3.info"), ("USER", "local3.info"), ("TARGET", "local3.info"),
        ("INTERFACE", "local3.info"), ("LOSS", "local3.warning"), ("FEATURE", "local3.warning"),
    ]  # fmt: skip
    assert {(each["version"], each["pid"], each["time"]) for each in told} == {
        ("1", str(os.getpid()), "2026-11-18T11:06:50.000000Z")
    }
    assert {each["host"] for each in told} == {socket.gethostname()}
    assert told[0]["data"] == {
        "netmond@32473": {
            "period": "3610", "user": "alice", "uid": str(ALICE),
            **dict.fromkeys(("delta_in_packets", "delta_in_bytes", "delta_out_packets"), "23"),
            **dict.fromkeys(("delta_out_bytes", "in_packets", "in_bytes", "out_packets", "out_bytes"), "23"),
        }
    }  # fmt: skip
    assert told[0]["text"] == "User alice 23 B in, 23 B out in 3610 s"
    assert told[4]["data"]["netmond@32473"] == {
        "period": "3610", "name": "meter.no-slot", "delta_count": "5", "count": "5",
    }  # fmt: skip
    assert told[5]["data"]["netmond@32473"]["reason"] == 'not there: "install" [it]'
    assert output.limitation() == ""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_hostile_names(rsyslogd: Rsyslogd, tmp_path: Path, transport: str) -> None:
    """Names cannot end a value, a message or a frame, and move no cursor."""
    forged = 'x"] <0>1 - - - - - -\n<0>1 - evil - - - - gone\x00\x1b[2J\\'
    names = Names(name_of=lambda uid: forged if uid == ALICE else "\U0001f600" * 300)
    output = start(tmp_path, rsyslogd.addresses[transport], names=names)
    output.write(History().snapshot())
    told = rsyslogd.take(4)
    output.close()

    users = {each["data"]["netmond@32473"]["uid"]: each for each in told if each["id"] == "USER"}
    shown = forged.replace("\n", "\\n").replace("\0", "\\x00").replace("\x1b", "\\x1b")
    assert users[str(ALICE)]["data"]["netmond@32473"]["user"] == shown
    assert users[str(ALICE)]["text"].startswith(f"User {shown} 1 B in")
    assert users[str(BOB)]["data"]["netmond@32473"]["user"] == "\U0001f600" * 96
    assert [each["id"] for each in told] == ["USER", "USER", "TARGET", "INTERFACE"]


@pytest.mark.parametrize("transport", ["tcp", "unix"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_outage(
    rsyslogd: Rsyslogd, tmp_path: Path, transport: str, end: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What rsyslogd misses arrives in order when it is back, once; one line says so, with the remedy."""
    clock = Clock()
    output = start(tmp_path, rsyslogd.addresses[transport], clock=clock)
    history = History()
    output.write(history.snapshot(seconds=60))
    told = rsyslogd.take(4)
    rsyslogd.stop(end)
    for _ in range(5):
        clock.now += 60
        output.write(history.snapshot(grow=1, seconds=60))
    assert (
        "nothing listens there: start it" in output.limitation() or "no such socket" in output.limitation()
    )
    assert losses(output)["retries"] > 0
    rsyslogd.start()
    clock.now += 60
    output.write(history.snapshot(grow=1, seconds=60))
    told += rsyslogd.take(6 * 4)
    output.close()

    assert [each["time"] for each in told] == sorted(each["time"] for each in told)
    for kind in ("USER", "TARGET", "INTERFACE"):
        rows = [each["data"]["netmond@32473"] for each in told if each["id"] == kind]
        assert [row["in_bytes"] for row in rows] == sorted(row["in_bytes"] for row in rows)
        assert (
            sum(int(row["delta_in_bytes"]) for row in rows) == (2 if kind == "USER" else 1) * history.grown
        )
    assert losses(output)["undelivered"] == 0
    assert output.limitation() == ""
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_restart_between_two_batches(rsyslogd: Rsyslogd, tmp_path: Path) -> None:
    """A connection that ended meanwhile is noticed before anything is lost in it."""
    output, history = start(tmp_path, rsyslogd.addresses["tcp"]), History()
    for grown in range(1, 4):
        output.write(history.snapshot(grow=1, seconds=60))
        assert [each["id"] for each in rsyslogd.take(4)] == ["USER", "USER", "TARGET", "INTERFACE"], grown
        rsyslogd.stop(signal.SIGTERM)
        rsyslogd.start()
    output.close()

    assert losses(output) == {"undelivered": 0, "rejected": 0, "retries": 0}


def test_nobody_listens_at_udp(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the other machine says so, what it refused comes again later."""
    address, clock = Address("udp", "127.0.0.1", free_port(socket.SOCK_DGRAM)), Clock()
    output, history = start(tmp_path, address, clock=clock), History()
    output.write(history.snapshot())

    assert output.limitation() == (
        f"{address}: Connection refused: nothing listens there: start it, or correct the address"
    )
    assert [record.message for record in caplog.records] == [
        f"Output syslog: {output.limitation()}; it is tried again"
    ]
    assert losses(output)["retries"] == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind((address.host, address.port))
        clock.now += LONGEST_PAUSE
        output.write(history.snapshot(grow=1, seconds=60))
        received = [late.recv(2048) for _ in range(8)]
    output.close()
    assert [b' in_bytes="1"' in each for each in received] == [True] * 4 + [False] * 4
    assert losses(output) == {"undelivered": 0, "rejected": 0, "retries": 1}


def test_slow_socket(tmp_path: Path) -> None:
    """Who does not read from the socket costs a timeout, not more, and gets everything later, in order."""
    path, clock = tmp_path / "log", Clock()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, suppress(BlockingIOError):
            other.setblocking(False)
            for _ in count():
                other.sendto(b"other", str(path))
        output, history = (
            start(tmp_path, Address("unix", path=str(path)), clock=clock, timeout=1),
            History(),
        )
        output.write(history.snapshot())
        output.write(history.snapshot(grow=1, seconds=60))
        assert "what is sent is not taken in time: look at what listens there" in output.limitation()
        assert losses(output)["retries"] == 1
        log.setblocking(False)
        with suppress(BlockingIOError):
            while log.recv(2048) == b"other":
                pass
        log.settimeout(DEADLINE)
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.extend(log.recv(2048) for _ in range(12)))
        reader.start()
        clock.now += LONGEST_PAUSE
        output.write(history.snapshot(grow=1, seconds=60))
        reader.join()
        output.close()

    assert output.limitation() == ""
    numbers = [re.findall(rb' in_bytes="([0-9]+)"', each) for each in received]
    assert numbers == [[b"%d" % batch] for batch in (1, 2, 3) for _ in range(4)]
