"""IPFIX with real collectors: what nfdump adds up is what the flows exchanged."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from netmond.export.batches import Sender
from netmond.export.ipfix import IpfixOutput
from netmond.model import FlowKind, Snapshot
from tests.bus import snapshots
from tests.export.ipfix_outputs import starting
from tests.export.nfdump import Nfcapd, need, packets_and_bytes
from tests.export.peers import free_port

FLOWS = 10_000


class Polite:
    """Waits until the collector has read a parcel, so that a busy machine makes no test fail."""

    def __init__(self, sender: Sender, drain: Callable[[], None]) -> None:
        self._sender, self._drain = sender, drain

    def send(self, payload: bytes) -> None:
        self._sender.send(payload)
        self._drain()

    def close(self) -> None:
        self._sender.close()


class Exporter(IpfixOutput):
    """The output, with a clock that stands still."""

    drain: Callable[[], None] = staticmethod(lambda: None)  #: see Polite
    now = 0.0
    directory: Path

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now)

    def new_sender(self) -> Sender:
        return Polite(super().new_sender(), lambda: self.drain())

    def deliver(self, snapshot: Snapshot) -> None:
        """Write a snapshot, and go on until everything is delivered that can be."""
        self.write(snapshot)
        while not self.limitation() and any((self.directory / "spool").iterdir()):
            self.write(snapshot)


Make = Callable[..., Exporter]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with starting(tmp_path) as start:

        def new(port: int, scheme: str = "udp") -> Exporter:
            output = Exporter()
            output.directory = tmp_path / "ipfix"
            start(output, f"{scheme}:127.0.0.1:{port}")
            return output

        yield new


def ground(flows: int = FLOWS) -> Snapshot:
    """Flows of both families and of every kind: sockets', forwarded ones, one without addresses."""
    snapshot = snapshots.large(flows)
    columns, counters = snapshot.flows.columns, snapshot.flows.counters
    columns["kind"][::10] = FlowKind.FORWARDED.value
    counters[::10, :2] = 0
    for end in ("local", "remote"):
        octets = columns[end].view(np.uint8).reshape(-1, 16)
        octets[1::2, :4] = 0x20, 0x01, 0x0D, 0xB8
        octets[-1] = 0
    columns["kind"][-1] = FlowKind.OVERFLOW.value
    columns["first_seen"][:] = columns["last_seen"][:] = snapshot.time
    return snapshot


def later(snapshot: Snapshot, seconds: float, seed: int = 1) -> Snapshot:
    """The same flows, half of which have exchanged something since; some have ended."""
    random = np.random.default_rng(seed)
    flows = snapshot.flows
    keep = ~flows.columns["ended"].astype(bool)
    columns = {name: column[keep] for name, column in flows.columns.items()}
    columns["ended"] = random.random(keep.sum()) < 0.05
    grown = random.integers(0, 1 << 20, (int(keep.sum()), 8)).astype(np.uint64)
    grown[random.random(len(grown)) < 0.5] = 0
    grown[columns["kind"] == FlowKind.FORWARDED.value, :2] = 0
    flows = replace(flows, columns=columns, counters=flows.counters[keep] + grown, rates=flows.rates[keep])
    return replace(snapshot, tick=snapshot.tick + 1, time=snapshot.time + seconds, flows=flows)


def exchanged(*history: Snapshot) -> Counter[tuple[Any, ...]]:
    """What the flows of a history exchanged in all, by source, target, protocol and direction."""
    last: dict[int, tuple[Snapshot, int]] = {}
    for snapshot in history:
        last |= {number: (snapshot, row) for row, number in enumerate(snapshot.flows.columns["id"].tolist())}
    sums: Counter[tuple[Any, ...]] = Counter()
    for snapshot, row in last.values():
        columns = snapshot.flows.columns
        ends = [text(columns[name][row].tobytes()) for name in ("local", "remote")]
        figures = snapshot.flows.counters[row, :4].tolist()
        protocol = int(columns["protocol"][row])
        for direction, (source, target) in enumerate((ends[::-1], ends)):
            packets, size = figures[2 * direction : 2 * direction + 2]
            sums[source, target, protocol, direction, "packets"] += packets
            sums[source, target, protocol, direction, "bytes"] += size
    return +sums


def text(address: bytes) -> str:
    mapped = address.startswith(bytes(10) + b"\xff\xff") or not any(address)
    return str(ip_address(address[12:] if mapped else address))


def collected(*collectors: Nfcapd) -> Counter[tuple[Any, ...]]:
    records = (record for collector in collectors for record in collector.records())
    return packets_and_bytes(records, "src_addr", "dst_addr", "proto", "direction")


def test_sums(make: Make, tmp_path: Path) -> None:
    """Of 10,000 flows of both families, by address, protocol and direction, to the byte."""
    first = ground()
    second = later(first, 10)
    third = later(second, 10, seed=2)
    with Nfcapd(tmp_path / "flows", free_port(socket.SOCK_DGRAM)) as collector:
        output = make(collector.port)
        output.drain = collector.drain

        for snapshot in (first, second, third):
            output.deliver(snapshot)

    assert collected(collector) == exchanged(first, second, third)
    assert collector.sequence_failures() == 0
    protocols = packets_and_bytes(collector.records(), "proto")
    figures = exchanged(first, second, third)
    for protocol in (6, 17):
        total = sum(count for key, count in figures.items() if key[2] == protocol and key[4] == "bytes")
        assert protocols[protocol, "bytes"] == total


@pytest.mark.parametrize("killed", [False, True])
def test_the_exporter_starts_again(make: Make, tmp_path: Path, killed: bool) -> None:
    """Nothing is told twice and nothing is left out, whether it had time to say goodbye or not."""
    first = ground(1000)
    second = later(first, 10)
    third = later(second, 3, seed=2)
    fourth = later(third, 3, seed=3)
    with Nfcapd(tmp_path / "flows", free_port(socket.SOCK_DGRAM)) as collector:
        output = make(collector.port)
        output.drain = collector.drain
        for snapshot in (first, second, third):
            output.deliver(snapshot)
        if not killed:
            output.close()

        output = make(collector.port)
        output.drain = collector.drain
        output.deliver(fourth)

    assert collected(collector) == exchanged(first, second, third, fourth)


def test_the_collector_starts_again(make: Make, tmp_path: Path) -> None:
    """What comes while it is away is refused, told, and waits; the new one understands it at once."""
    first = ground(1000)
    second = later(first, 10)
    third = later(second, 10, seed=2)
    fourth = later(third, 10, seed=3)
    with Nfcapd(tmp_path / "before", free_port(socket.SOCK_DGRAM)) as before:
        output = make(before.port)
        output.drain = before.drain
        output.deliver(first)
    output.drain = lambda: None

    output.deliver(second)
    assert "Connection refused: nothing listens there" in output.limitation()
    output.deliver(third)
    with Nfcapd(tmp_path / "after", before.port) as after:
        output.drain = after.drain
        output.now = 100
        output.deliver(fourth)

    assert output.limitation() == ""
    assert collected(before, after) == exchanged(first, second, third, fourth)
    assert after.sequence_failures() == 0


def test_the_reference_implementation(make: Make, tmp_path: Path) -> None:
    """libfixbuf's ipfixDump, which knows the registry, reads what comes over TCP, to the last record."""
    need("ipfixDump", "libfixbuf-tools")
    history = [ground(1000)]
    history.append(later(history[0], 10))
    file = tmp_path / "stream"
    with socket.create_server(("127.0.0.1", 0)) as server:
        collector = Thread(target=receive, args=(server, file))
        collector.start()
        output = make(server.getsockname()[1], "tcp")
        for snapshot in history:
            output.deliver(snapshot)
        output.close()
        collector.join()

    dump = subprocess.run(["ipfixDump", "--in", file], check=True, capture_output=True, text=True).stdout

    sums: Counter[str] = Counter()
    for line in dump.splitlines():
        element, colon, value = line.strip().partition(" : ")
        if colon and element.endswith(("packetDeltaCount", "octetDeltaCount")):
            sums[element.split()[-1]] += int(value)
    figures = exchanged(*history)
    for element, unit in (("packetDeltaCount", "packets"), ("octetDeltaCount", "bytes")):
        assert sums[element] == sum(count for key, count in figures.items() if key[-1] == unit)
    assert "userName : (len: 32) 20007" in dump
    assert "applicationName : (len: 16) iperf3" in dump


def receive(server: socket.socket, file: Path) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        file.write_bytes(stream.read())
