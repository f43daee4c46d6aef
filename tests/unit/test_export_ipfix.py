"""The IPFIX output: what flows exchanged, once, whatever happens to the exporter and to the collector."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond.errors import ConfigError, Unavailable
from netmond.export import datagrams, ipfix_messages
from netmond.export.address import Address
from netmond.export.datagrams import Datagrams
from netmond.export.ipfix import IpfixOutput
from netmond.model import NOBODY_UID, FlowKind, Snapshot
from tests.export.ipfix_outputs import starting
from tests.export.ipfix_reader import Reader, read
from tests.export.peers import free_port
from tests.unit.csvflows import BOB, START, flow, snapshot
from tests.unit.history import Clock

FORWARDED: dict[str, Any] = {"kind": FlowKind.FORWARDED, "uid": NOBODY_UID, "pid": 0, "comm": b""}
OVERFLOW: dict[str, Any] = {
    "kind": FlowKind.OVERFLOW,
    "local": bytes(16),
    "remote": bytes(16),
    "protocol": 0,
}


class Collector:
    """A UDP socket that keeps what comes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self._socket.setblocking(False)
        self.port = port
        self.reader = Reader()

    def take(self) -> Reader:
        """All that has come so far."""
        while True:
            try:
                self.reader.read(self._socket.recv(65536))
            except BlockingIOError:
                return self.reader

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with closing(Collector(free_port(socket.SOCK_DGRAM))) as found:
        yield found


Make = Callable[..., IpfixOutput]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts an output, with what an earlier one in this test has left."""
    with starting(tmp_path) as start:

        def new(address: str, clock: Clock | None = None) -> IpfixOutput:
            output = IpfixOutput(clock=clock or Clock())
            start(output, address)
            return output

        yield new


def at(after: float, *flows: dict[str, Any], since: float = START, started: float = START) -> Snapshot:
    """Flows so many seconds after START, at the tick of that second of the daemon."""
    return replace(snapshot(after, *flows), tick=int(START + after - started), since=since, started=started)


def sums(reader: Reader) -> dict[tuple[str, int], tuple[int, int]]:
    """Packets and bytes by source address and direction."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for record in reader.records[7]:
        key = record["sourceIPv4Address"], record["flowDirection"]
        packets, size = found.get(key, (0, 0))
        found[key] = packets + record["packetDeltaCount"], size + record["octetDeltaCount"]
    return found


def test_what_flows_exchanged(make: Make, collector: Collector) -> None:
    """First all of it, then every interval what came since; at once what ended."""
    output = make(f"udp:127.0.0.1:{collector.port}")

    output.write(at(1, flow(1, received=1000, sent=500), flow(2, received=300)))
    assert sums(collector.take()) == {("192.0.2.7", 0): (13, 1300), ("198.51.100.4", 1): (5, 500)}
    output.write(at(5, flow(1, received=2000, sent=500), flow(2, received=700, ended=True)))
    assert sums(collector.take()) == {("192.0.2.7", 0): (17, 1700), ("198.51.100.4", 1): (5, 500)}
    output.write(at(11, flow(1, received=2000, sent=500)))

    assert sums(collector.take()) == {("192.0.2.7", 0): (27, 2700), ("198.51.100.4", 1): (5, 500)}
    assert collector.reader.gaps == []


def test_what_belongs_to_nobody(make: Make, collector: Collector) -> None:
    """Forwarded flows, and what had no slot: else the sums would not be those of the machine."""
    output = make(f"udp:127.0.0.1:{collector.port}")

    output.write(at(1, flow(1, sent=700, **FORWARDED), flow(2, BOB, received=100, sent=200, **OVERFLOW)))

    assert sums(collector.take()) == {
        ("198.51.100.4", 1): (7, 700), ("0.0.0.0", 0): (1, 100), ("0.0.0.0", 1): (2, 200)
    }  # fmt: skip


@pytest.mark.parametrize("killed", [False, True])
def test_the_exporter_starts_again(make: Make, collector: Collector, killed: bool) -> None:
    """It goes on where the last one was: nothing twice, nothing left out, also of flows that came since."""
    first = make(f"udp:127.0.0.1:{collector.port}")
    first.write(at(1, flow(1, received=1000)))
    first.write(at(2, flow(1, received=1600)))
    if not killed:
        first.close()

    second = make(f"udp:127.0.0.1:{collector.port}")
    second.write(at(3, flow(1, received=2000), flow(2, received=500)))

    assert sums(collector.take()) == {("192.0.2.7", 0): (25, 2500)}


def test_another_daemon_goes_on(make: Make, collector: Collector) -> None:
    """A restart of the daemon changes nothing: its flows have the same ids and go on counting."""
    output = make(f"udp:127.0.0.1:{collector.port}")
    output.write(at(1, flow(1, received=1000), flow(2, received=100)))
    output.write(at(2, flow(1, received=1600), flow(2, received=100)))

    output.write(at(3, flow(1, received=1600), started=START + 3))
    output.write(at(5, flow(1, received=2000), started=START + 3))
    output.close()

    assert sums(collector.take()) == {("192.0.2.7", 0): (21, 2100)}


def test_a_newer_daemon_counts_its_flows_anew(make: Make, collector: Collector) -> None:
    """After an upgrade a flow may have the id of another: what was not exported of that one is, first."""
    output = make(f"udp:127.0.0.1:{collector.port}")
    output.write(at(1, flow(1, received=1000)))
    output.write(at(2, flow(1, received=1600)))

    output.write(at(3, started=START + 3))
    output.write(at(5, flow(1, received=5000), started=START + 3))
    output.close()

    assert sums(collector.take()) == {("192.0.2.7", 0): (66, 6600)}


def test_counting_began_anew(make: Make, collector: Collector) -> None:
    """After a boot figures are others, whatever the ids."""
    output = make(f"udp:127.0.0.1:{collector.port}")
    output.write(at(1, flow(1, received=1000)))
    output.write(at(2, flow(1, received=1600)))
    since = START + 50

    output.write(at(60, flow(1, received=5000), since=since, started=since))

    assert sums(collector.take()) == {("192.0.2.7", 0): (66, 6600)}


def test_nobody_listens(make: Make, collector: Collector) -> None:
    """The refusal is noticed, told and counted, and what it was about waits until somebody does."""
    collector.close()
    clock = Clock()
    output = make(f"udp:127.0.0.1:{collector.port}", clock=clock)

    for second in range(40):
        clock.now = second
        output.write(at(1 + second, flow(1, received=1000 * (1 + second))))

    assert f"udp:127.0.0.1:{collector.port}: Connection refused" in output.limitation()
    losses = {loss.name: loss.count for loss in output.losses()}
    assert losses["output.ipfix.retries"] > 1
    assert losses["output.ipfix.undelivered"] == 0
    with closing(Collector(collector.port)) as again:
        clock.now = 200
        output.write(at(41, flow(1, received=40000)))
        assert sums(again.take()) == {("192.0.2.7", 0): (400, 40000)}
        assert again.reader.gaps == []
    assert output.limitation() == ""


def test_a_collector_that_comes_and_goes(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    """What it had not taken when it went comes when it is back: the templates, and the rest once."""
    flows = [flow(number, received=100 * number) for number in range(1, 301)]
    table = at(1, *flows).flows
    origin = ipfix_messages.Origin(7, START, 0.0)
    (template, found), _ = ipfix_messages.records(table, np.arange(300), table.counters[:, :4], origin, str)
    (parcel,) = ipfix_messages.parcels(template, found, origin, 0)
    sender = Datagrams(Address("udp", "127.0.0.1", collector.port), 5.0)
    listen, sent = datagrams._listen, iter(range(100))

    def interrupted(connected: socket.socket, seconds: float) -> None:
        if next(sent) == 5:
            collector.take()
            collector.close()
        listen(connected, seconds)

    monkeypatch.setattr(datagrams, "BURST", 1)
    monkeypatch.setattr(datagrams, "_listen", interrupted)

    for _ in range(3):
        with pytest.raises(Unavailable, match="Connection refused"):
            sender.send(parcel)
    with closing(Collector(collector.port)) as again:
        sender.send(parcel)
        sender.close()
        rest = again.take()

    before = collector.reader
    assert 0 < len(before.records[7]) < 300
    assert [*before.records[7], *rest.records[7]] == read([parcel]).records[7]


def test_tcp(make: Make) -> None:
    """What a collector has not taken when it goes comes over the next connection, readable by itself."""
    clock = Clock()
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        output = make(f"tcp:127.0.0.1:{port}", clock=clock)
        output.write(at(1, flow(1, received=1000)))
        connection, _ = server.accept()
    with connection:
        first = read([connection.recv(65536)])
    for second in (11, 22):
        clock.now = second
        output.write(at(second, flow(1, received=100 * second + 1000)))
    assert "Connection refused" in output.limitation()

    with socket.create_server(("127.0.0.1", port)) as server:
        clock.now = 100
        output.write(at(33, flow(1, received=5000)))
        output.close()
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as file:
            second_stream = read([file.read()])

    assert sums(first) == {("192.0.2.7", 0): (10, 1000)}
    assert sums(second_stream) == {("192.0.2.7", 0): (40, 4000)}
    assert second_stream.gaps == []


def test_no_address(make: Make) -> None:
    with pytest.raises(ConfigError, match="address"):
        make("")
