"""JSON lines to real listeners: dead, refusing, slow, flapping, returning; every line arrives, in order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netmond.config import defaults
from netmond.errors import Unavailable
from netmond.export.address import Address
from netmond.export.connection import connect
from netmond.export.delivery import LONGEST_PAUSE
from netmond.export.json_lines import JsonOutput
from tests.export.peers import Listener, free_port
from tests.unit.history import NAMES, Clock, History, crowded

#: Lines of a batch of `History` in which everything grew.
BATCH = 13


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    if request.param == "unix":
        return Address("unix", path=str(tmp_path / "socket"))
    return Address("tcp", "127.0.0.1", free_port())


@pytest.fixture
def listener(address: Address) -> Iterator[Listener]:
    with Listener(address) as listener:
        yield listener


@pytest.fixture
def clock() -> Clock:
    return Clock()


def start(directory: Path, address: Address, clock: Clock, **options: Any) -> JsonOutput:
    output = JsonOutput(clock=clock, names=NAMES)
    options = {"address": str(address), "timeout": 5, **options}
    output.init(replace(defaults().output("json"), state_dir=directory, options=options))
    return output


def losses(output: JsonOutput) -> dict[str, int]:
    return {loss.name.removeprefix("output.json."): loss.count for loss in output.losses()}


def sums(lines: list[dict[str, Any]], kind: str, key: str) -> dict[Any, int]:
    """All that was told to have come in, by key."""
    total: dict[Any, int] = {}
    for line in lines:
        if line["type"] == kind:
            total[line[key]] = total.get(line[key], 0) + line["delta_in_bytes"]
    return total


def assert_complete(lines: list[dict[str, Any]], history: History) -> None:
    """In order, each once, and deltas that add up to the totals."""
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    told = [(line["time"], line["type"], line.get("id", line.get("name", str(line)))) for line in lines]
    assert len(set(told)) == len(told)
    for kind, key, count in (("user", "uid", 2), ("unit", "unit", 3), ("target", "address", 1)):
        assert list(sums(lines, kind, key).values()) == [history.grown] * count
    open_flows = [line for line in lines if not line.get("ended")]
    assert list(sums(open_flows, "flow", "id").values()) == [history.grown] * 5


def test_delivered(listener: Listener, tmp_path: Path, clock: Clock) -> None:
    """Batch after batch over one connection."""
    listener.start()
    output, history = start(tmp_path, listener.address, clock), History()
    for _ in range(3):
        output.write(history.snapshot(grow=3))
    output.close()

    assert_complete(listener.take(3 * BATCH), history)
    assert (listener.connections, output.limitation()) == (1, "")
    assert losses(output) == {"undelivered": 0, "rejected": 0, "retries": 0}


def test_every_address_of_a_name(tmp_path: Path, clock: Clock) -> None:
    """Where the first address of a name does not answer, the next is tried."""
    port = free_port()
    with Listener(Address("tcp", "127.0.0.1", port)) as listener:
        listener.start()
        output = start(
            tmp_path, Address("tcp", "localhost", port), clock
        )  # ::1 is the first, if there is IPv6
        output.write(History().snapshot())
        output.close()

        assert len(listener.take(BATCH)) == BATCH


def test_outage(listener: Listener, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be delivered waits, also over a restart of the exporter, killed or not."""
    caplog.set_level("INFO")
    listener.start()
    output, history = start(tmp_path, listener.address, clock), History()
    output.write(history.snapshot(grow=3))
    lines = listener.take(BATCH)
    listener.stop()
    for _ in range(3):
        clock.now += LONGEST_PAUSE
        output.write(history.snapshot(grow=5))
    output.close()
    output = start(tmp_path, listener.address, clock)
    output.write(history.snapshot(grow=7))
    killed, output = output, start(tmp_path, listener.address, clock)
    output.write(history.snapshot(grow=7))
    listener.start()
    clock.now += LONGEST_PAUSE
    output.write(history.snapshot(grow=1))
    lines += listener.take(6 * BATCH)
    output.close()
    assert_complete(lines, history)
    assert listener.is_empty()
    assert losses(output)["undelivered"] == 0
    assert os.listdir(tmp_path / "json" / "spool") == []
    assert caplog.records[-1].message == "Output json: delivers again"
    assert sum("it is tried again" in record.message for record in caplog.records) == 3  # of each process
    assert killed.limitation() != ""


def test_restart_between_two_batches(listener: Listener, tmp_path: Path, clock: Clock) -> None:
    """A connection that ended meanwhile is noticed before anything is lost in it."""
    output, history = start(tmp_path, listener.address, clock), History()
    lines = []
    for _ in range(5):
        listener.start()
        output.write(history.snapshot(grow=1))
        lines += listener.take(BATCH)
        listener.stop()
    output.close()

    assert_complete(lines, history)
    assert losses(output)["retries"] == 0


def test_flapping(
    listener: Listener, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """There and gone every few seconds: all arrives, in order, and the journal gets few lines of it."""
    listener.start()  # so that all failures are of one kind
    listener.stop()
    output, history = start(tmp_path, listener.address, clock), History()
    lines = []
    for _ in range(12):
        output.write(history.snapshot(grow=1))
        listener.start()
        clock.now += 3
        output.write(history.snapshot(grow=1))
        lines += listener.take(2 * BATCH)
        listener.stop()
    output.close()

    assert_complete(lines, history)
    assert losses(output)["retries"] == 12
    assert len(caplog.records) == 2


def test_slow(listener: Listener, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Who takes a connection and never reads costs a timeout, not more; who reads later gets everything."""
    listener.start(reads=False)
    output, history = start(tmp_path, listener.address, clock, timeout=0.1), History()
    first = crowded(history.snapshot(grow=1), 2000)
    output.write(first)
    assert output.limitation() == (
        f"{listener.address}: Connection timed out: what is sent is not taken in time: look at what listens"
        " there, or raise the timeout"
    )
    output.write(replace(first, time=first.time + 1))
    assert losses(output)["retries"] == 1
    listener.stop()
    listener.start()
    output.close()
    output = start(tmp_path, listener.address, clock)
    output.write(replace(first, time=first.time + 2))
    lines = listener.take(2000 + 7)
    output.close()

    assert len({line["id"] for line in lines if line["type"] == "flow"}) == 2000
    assert output.limitation() == ""
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        f"Output json: {listener.address}: Connection timed out: what is sent is not taken in time: look at"
        " what listens there, or raise the timeout; it is tried again"
    ]


def test_cut_within_a_batch(listener: Listener, tmp_path: Path, clock: Clock) -> None:
    """Who dies while it reads gets the payload again, from its beginning; the lines are the same."""
    listener.start(reads=False)
    output, history = start(tmp_path, listener.address, clock, timeout=0.1), History()
    output.write(crowded(history.snapshot(grow=1), 2000))
    taken = listener.take_unread()
    listener.stop()
    listener.start()
    output.close()
    output = start(tmp_path, listener.address, clock)
    output.write(history.latest)
    lines = listener.take(2000 + 7)
    output.close()

    assert taken
    assert taken == lines[: len(taken)]


def test_bounded_spool(listener: Listener, tmp_path: Path, clock: Clock) -> None:
    """In a long outage the oldest batches go, counted; totals in what is left are right."""
    output, history = start(tmp_path, listener.address, clock, spool="64K"), History()
    for _ in range(20):
        output.write(history.snapshot(grow=1))
    listener.start()
    clock.now += LONGEST_PAUSE
    output.write(history.snapshot(grow=1))
    lost = losses(output)["undelivered"]
    assert 0 < lost < 40
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "json" / "spool").iterdir())
    assert used == 0
    output.close()


PROBLEMS = {
    "tcp:127.0.0.1:{port}": "Connection refused: nothing listens there: start it, or correct the address",
    "tcp:nowhere.invalid:601": "the name cannot be looked up: ",
    f"tcp:{'a' * 64}.org:601": "the name cannot be looked up: ",
    "unix:{directory}/none": "No such file or directory: there is no such socket: start what listens there",
    "unix:{directory}/datagrams": "Protocol wrong type for socket: the socket is of another type: a stream",
    "unix:{directory}/dead": "Connection refused: nothing listens there: start it",
    "unix:{directory}/full": "Resource temporarily unavailable: connections are not accepted: look at",
}


@pytest.mark.parametrize("text", PROBLEMS)
def test_bad_address(text: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """One line that names the address, what is wrong and what to do; tried again, nothing lost."""
    dead = socket.socket(socket.AF_UNIX)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_UNIX) as full,
        socket.socket(socket.AF_UNIX) as first,
    ):
        dead.bind(str(tmp_path / "dead"))
        dead.close()
        datagrams.bind(str(tmp_path / "datagrams"))
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        first.connect(str(tmp_path / "full"))
        written = text.format(port=free_port(), directory=tmp_path)
        output = start(tmp_path, written, clock)  # type: ignore[arg-type] # as it is written
        history = History()
        attempts = 1 if "looked up" in PROBLEMS[text] else 3  # the resolver has its own timeout
        for _ in range(attempts):
            clock.now += LONGEST_PAUSE
            output.write(history.snapshot(grow=1))

    assert output.limitation().startswith(f"{written}: {PROBLEMS[text]}")
    assert [record.message for record in caplog.records] == [
        f"Output json: {output.limitation()}; it is tried again"
    ]
    assert losses(output) == {"undelivered": 0, "rejected": 0, "retries": attempts}


def test_forbidden_socket(tmp_path: Path) -> None:
    """A socket that others may not connect to is said to be one, with what must allow it."""
    path = tmp_path / "socket"
    was = os.geteuid()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        try:
            if was == 0:
                os.seteuid(65534)
            with pytest.raises(
                Unavailable, match="Permission denied: netmond-export may not connect: its mode"
            ):
                connect(Address("unix", path=str(path)), 5)
        finally:
            os.seteuid(was)
