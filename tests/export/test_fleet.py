"""Many machines: five exporters at one VictoriaMetrics and one nfcapd; netmonctl on one over ssh."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from netmond.bus.authority import Authority
from netmond.bus.service import Service
from netmond.config import OutputConfig
from netmond.model import Snapshot, Table
from netmond.outputs.exported import Exporter
from netmond.users import Names
from tests.bus import snapshots
from tests.bus.private import ROOT, FakeMonitor, LoopThread, PrivateBus
from tests.export.nfdump import Nfcapd, packets_and_bytes
from tests.export.peers import free_port
from tests.export.sshd import Sshd
from tests.export.timeseries import VictoriaMetrics
from tests.kernel.deadline import DEADLINE

MACHINES = range(1, 6)


def of_machine(number: int, times: int, when: float) -> Snapshot:
    """What a machine has counted after so many ticks: the small snapshot's figures, that many times."""

    def grown(table: Table) -> Table:
        return replace(table, counters=table.counters * number * times)

    small = snapshots.small()
    last = small.flows.columns
    columns = {**last, "ended": last["ended"] & (times == 3)}
    flows = replace(grown(small.flows), columns=columns)
    return replace(
        small, tick=times, time=when, users=grown(small.users), host=grown(small.host), flows=flows
    )


def exporter(state: Path, **outputs: dict[str, Any]) -> Exporter:
    """A machine's, in a process of its own; with the options of its outputs."""
    made = Exporter({})
    configs = {
        name: OutputConfig(name=name, log_dir=state, state_dir=state, options={"interval": 1, **options})
        for name, options in outputs.items()
    }
    made.apply(configs, "info")
    return made


def test_many_machines(tmp_path: Path) -> None:
    """Each has the figures under its own name, and all together are what all have counted."""
    now = time.time() - 5
    with (
        VictoriaMetrics(tmp_path) as metrics,
        Nfcapd(tmp_path / "flows", free_port(socket.SOCK_DGRAM)) as collector,
    ):
        exporters = {}
        for number in MACHINES:
            push = {"url": f"{metrics.url}/api/v1/import/prometheus", "instance": f"machine{number}"}
            ipfix = {"address": f"udp:127.0.0.1:{collector.port}", "domain": number}
            exporters[number] = exporter(tmp_path / f"machine{number}", push=push, ipfix=ipfix)
        for times in (1, 2, 3):
            for number, each in exporters.items():
                each.publish(of_machine(number, times, now + times))
        for each in exporters.values():
            asyncio.run(each.close(DEADLINE))
        metrics.get("/internal/force_flush")  # else what has just come is not in answers
        in_all = metrics.value("sum(netmond_user_receive_bytes_total)")
        by_machine = metrics.query("sum by (instance) (netmond_user_receive_bytes_total)")

    received = int(snapshots.small().users.counters[:, 1].sum())
    expected = {f"machine{number}": 3 * number * received for number in MACHINES}
    assert {dict(labels)["instance"]: value for labels, value in by_machine.items()} == expected
    assert in_all == sum(expected.values())
    flows = packets_and_bytes(collector.records(), "observationDoaminID")  # nfdump's spelling
    packets, size = (int(snapshots.flows().counters[:, columns].sum()) for columns in ([0, 2], [1, 3]))
    for number in MACHINES:
        assert flows[number, "packets"] == packets * number * 3
        assert flows[number, "bytes"] == size * number * 3


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Sshd]:
    """A host where netmond answers about the small snapshot."""
    bus, loop = PrivateBus(), LoopThread()
    bus.start()
    monitor = FakeMonitor(snapshots.small())

    async def begin() -> Service:
        service = Service(monitor, Names(), Authority(group=""), address=bus.address)
        await service.start()
        return service

    service = loop.run(begin())
    try:
        with Sshd(tmp_path / "far", {"DBUS_SYSTEM_BUS_ADDRESS": bus.address}) as sshd:
            yield sshd
    finally:
        loop.run(service.close())
        loop.close()
        bus.remove()


def netmonctl(sshd: Sshd, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on this machine, where no netmond runs."""
    return subprocess.run(
        [sys.executable, "-m", "netmonctl", *words],
        env={**os.environ, "PATH": sshd.path, "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nowhere"},
        cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=DEADLINE,
    )  # fmt: skip


def test_one_host_over_ssh(far: Sshd) -> None:
    """A real sshd: the far figures, the far exit status, and one for a host that cannot be reached."""
    found = netmonctl(far, "-H", "far", "users", "--all", "--json")
    unknown = netmonctl(far, "-H", "far", "user", "nobody-of-this-name")
    unreachable = netmonctl(far, "-H", "gone", "users")

    users = {user["uid"]: user["in_packets"] for user in json.loads(found.stdout)}
    assert (found.returncode, found.stderr) == (0, "")
    assert users == {snapshots.ALICE: 33, snapshots.BOB: 36}
    assert unknown.returncode == 5
    assert "no user 'nobody-of-this-name' on this machine" in unknown.stderr
    assert unreachable.returncode == 1
    assert "port 1: Connection refused" in unreachable.stderr
