"""Totals and targets over several runs of the daemon: what each takes up of what the one before saved."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond import state, totals
from netmond.collector import Clock, Collector, Sockets, Traffic
from netmond.config import InterfacesConfig, TargetsConfig
from netmond.interfaces import Interfaces
from netmond.kernel import wire
from netmond.ledger import Ledger
from netmond.model import NOBODY_UID, Network, Snapshot
from netmond.ports import Ports
from netmond.rdma.attribution import Attribution
from netmond.rdma.census import CensusTaker
from netmond.rdma.monitor import RdmaMonitor
from netmond.rdma.register import Register
from netmond.rdma.sampler import Sampler
from netmond.roce import Roce
from netmond.targets import Targets
from netmond.totals import Totals, boot_id
from netmond.units import GONE
from tests.unit.fakes import SECOND, WALL_AHEAD, Hooks, rows
from tests.unit.metering import ALICE, BOB, PATHS, Bench
from tests.unit.rdma_packets import paths, tasks

BOOT = "0" * 31 + "7"
HOST, NET, V6 = (ip_network(text) for text in ("192.0.2.1", "198.51.100.0/24", "2001:db8::/32"))


class Run:
    """One run of the daemon over a kernel made of arrays, which begins anew with every run."""

    def __init__(
        self,
        directory: Path,
        *,
        boot: str = BOOT,
        began: float = 0.0,
        targets: Sequence[Network] = (),
        limit: int = 8,
        meter: bool = True,
        hooks: bool = True,
    ) -> None:
        """began: seconds after the first run. targets: those of the configuration. meter, hooks: whether
        sockets are counted here, and interfaces and targets."""
        self.bench, self.hooks = Bench(), Hooks()
        self.bench.kernel.now += began
        self.targets = Targets(self.hooks, limit)
        self.configured = tuple(targets)
        interfaces = Interfaces(
            InterfacesConfig(monitor=(), attach="auto", forwarded=8),
            ports=Ports(self.hooks),
            attach=lambda *_: pytest.fail("no interface is monitored"),
            devices=dict,
        )
        sockets = (
            Sockets(
                meter=self.bench.meter,
                ledger=Ledger(wire.SOCKET_LOSSES, np.zeros(len(wire.SOCKET_LOSSES), np.uint64)),
            )
            if meter
            else None
        )
        traffic = (
            Traffic(
                interfaces=interfaces,
                ports=Ports(self.hooks),
                roce=Roce(self.hooks.roce),
                targets=self.targets,
                ledger=Ledger(wire.INTERFACE_LOSSES, np.zeros(len(wire.INTERFACE_LOSSES), np.uint64)),
            )
            if hooks
            else None
        )
        self.totals = Totals(directory, boot=boot, now=self.now)
        if sockets:
            self.totals.restore_owners(sockets.meter.owners)
        if traffic:
            self.totals.restore_targets(self.targets, TargetsConfig(addresses=self.configured, limit=limit))
        attribution = Attribution()
        self.totals.restore_rdma(attribution.usage)
        self.totals.begin(
            owners=meter,
            targets=hooks,
            rdma=True,
            current=lambda: (self.collector.snapshot, self.configured),
        )
        self.collector = Collector(
            sockets=sockets,
            traffic=traffic,
            rdma=RdmaMonitor(
                attribution,
                sampler=Sampler(directory / "no devices"),
                census=CensusTaker(Register(tasks, paths)),
                roce=traffic.roce if traffic else None,
            ),
            since=self.totals.since,
            clock=Clock(monotonic_ns=lambda: round(self.bench.kernel.now * SECOND), wall=lambda: self.now),
        )

    @property
    def now(self) -> float:
        return WALL_AHEAD + self.bench.kernel.now

    def send(self, size: int, uid: int = ALICE, **more: Any) -> None:
        self.bench.kernel.send(self.bench.kernel.open(uid, **more), size)

    def to_target(self, network: Network, size: int) -> None:
        self.hooks.target_counters.array["in_bytes"][self.hooks.targets[network]] += np.uint64(size)

    def by_rdma(self, size: int) -> None:
        """A packet of RoCE from an unknown queue pair."""
        row = self.hooks.roce.at(queue_pair=17, uid=wire.NO_USER, way=wire.ROCE_OUT)
        assert row is not None
        row["tally"]["out_bytes"] += np.uint64(size)
        row["tally"]["last_seen"] = round(self.bench.kernel.now * SECOND)

    def tick(self) -> Snapshot:
        self.bench.kernel.now += 1
        snapshot = self.collector.tick()
        self.bench.meter.release()
        return snapshot

    def stop(self) -> None:
        """The end of a run in good order."""
        self.tick()
        asyncio.run(self.totals.save())


def users(snapshot: Snapshot) -> Mapping[int, int]:
    found: Any = rows(snapshot.users, "uid", "out_bytes")
    return dict(found)


def rdma_users(snapshot: Snapshot) -> Mapping[int, int]:
    found: Any = rows(snapshot.rdma.users, "uid", "out_bytes")
    return dict(found)


def units(snapshot: Snapshot) -> Mapping[str, int]:
    found: Any = rows(snapshot.units, "unit", "out_bytes")
    return dict(found)


def processes(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    return sorted(rows(snapshot.processes, "uid", "pid", "comm", "unit", "out_bytes"))


def targets(snapshot: Snapshot) -> Mapping[str, tuple[float, int]]:
    return {
        address: (since, size)
        for address, since, size in rows(snapshot.targets, "address", "since", "in_bytes")
    }


def test_rdma(tmp_path: Path) -> None:
    """What users have transferred by RDMA goes on, and is there before the first tick."""
    run = Run(tmp_path)
    run.by_rdma(1009)
    run.stop()
    run = Run(tmp_path, began=60)
    first = run.collector.snapshot
    run.by_rdma(23)

    assert rdma_users(first) == {NOBODY_UID: 1009}
    assert rdma_users(run.tick()) == {NOBODY_UID: 1009 + 23}


class TestSockets:
    """Users, units and processes."""

    def test_go_on(self, tmp_path: Path) -> None:
        """Every total is what it was and what came after, whether anything came or not."""
        run = Run(tmp_path)
        run.send(1009)
        run.send(2003, BOB, cgroup=2, pid=79, comm=b"\xff\n")
        run.stop()
        run = Run(tmp_path, began=60)
        run.send(23)
        run.send(29, cgroup=3, pid=83)

        after = run.tick()

        assert users(after) == {ALICE: 1009 + 23 + 29, BOB: 2003}
        assert units(after) == {"web.service": 1009 + 23, "session-3.scope": 2003, "/": 29}
        assert processes(after) == [
            (ALICE, 77, b"curl", "web.service", 1009 + 23),
            (ALICE, 83, b"curl", "/", 29),
            (BOB, 79, b"\xff\n", "session-3.scope", 2003),
        ]

    def test_all_counters_do(self, tmp_path: Path) -> None:
        """In and out, packets and bytes, on the wire and in the stack."""
        run = Run(tmp_path)
        socket = run.bench.kernel.open()
        run.bench.kernel.send(socket, 3000, segments=3)
        run.bench.kernel.receive(socket, 5000, segments=5)
        run.stop()
        before = run.collector.snapshot

        run = Run(tmp_path)

        for name in ("users", "units", "processes"):
            then, now = getattr(before, name), getattr(run.tick(), name)
            assert now.counters.tolist() == then.counters.tolist() != [[0] * 8]

    def test_they_are_there_before_the_first_tick(self, tmp_path: Path) -> None:
        """Outputs are told what was taken up before anything is counted; no flow is open, nothing flows."""
        run = Run(tmp_path)
        run.send(1009)
        run.stop()

        first = Run(tmp_path).collector.snapshot

        assert users(first) == {ALICE: 1009}
        assert rows(first.users, "flows", "out_byte_rate") == [(0, 0.0)]

    def test_over_many_runs(self, tmp_path: Path) -> None:
        """Nothing is lost or doubled from one to the next."""
        for number in range(1, 8):
            run = Run(tmp_path, began=60 * number)
            run.send(101)
            run.stop()
            assert users(run.collector.snapshot) == {ALICE: 101 * number}
            assert units(run.collector.snapshot) == {"web.service": 101 * number}

    def test_a_kill_goes_back_to_what_was_saved(self, tmp_path: Path) -> None:
        """What came after the last saving is lost, and nothing is counted twice."""
        run = Run(tmp_path)
        run.send(1009)
        run.stop()
        run.send(10_000)
        run.tick()

        run = Run(tmp_path, began=60)
        run.send(23)

        assert users(run.tick()) == {ALICE: 1032}

    def test_units_are_known_by_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A unit that was started again, or is in a container that was, has another cgroup of the same path;
        what could not be found has none, and stays together."""
        run = Run(tmp_path)
        run.send(1009, cgroup=1)
        run.send(101, cgroup=99)
        run.stop()
        monkeypatch.setitem(PATHS, 1, "/other.service")
        monkeypatch.setitem(PATHS, 5, "/system.slice/web.service")
        run = Run(tmp_path)
        run.send(23, cgroup=5)
        run.send(29, cgroup=1)
        run.send(31, cgroup=98)

        after = run.tick()

        assert units(after) == {"web.service": 1032, GONE: 132, "other.service": 29}
        assert [row[3:] for row in processes(after)] == [
            (GONE, 132),
            ("other.service", 29),
            ("web.service", 1032),
        ]

    def test_another_boot(self, tmp_path: Path) -> None:
        """All begin anew: figures are since the last boot."""
        run = Run(tmp_path)
        run.send(1009)
        run.stop()
        run = Run(tmp_path, boot="another", began=60)
        run.send(23, BOB)

        after = run.tick()

        assert users(after) == {BOB: 23}
        assert units(after) == {"web.service": 23}
        assert after.since == after.started

    def test_a_meter_that_did_not_work_for_a_while(self, tmp_path: Path) -> None:
        """The totals wait for a start with one."""
        run = Run(tmp_path)
        run.send(1009)
        run.send(2003, BOB, cgroup=2)
        run.stop()
        off = Run(tmp_path, began=60, meter=False)
        off.stop()
        assert len(off.collector.snapshot.users) == 0

        after = Run(tmp_path, began=120).collector.snapshot

        assert users(after) == {ALICE: 1009, BOB: 2003}
        assert units(after) == {"web.service": 1009, "session-3.scope": 2003}


class TestTargets:
    """Targets of the configuration, and those added by hand."""

    def test_go_on(self, tmp_path: Path) -> None:
        """With their figures, and since when they count; both kinds."""
        run = Run(tmp_path, targets=[HOST])
        began = run.now
        run.targets.add([NET, V6], began + 0.5)
        run.to_target(HOST, 1009)
        run.to_target(V6, 2003)
        run.stop()
        run = Run(tmp_path, began=60, targets=[HOST])
        run.to_target(HOST, 23)
        run.to_target(NET, 29)

        after = run.tick()

        assert targets(after) == {
            "192.0.2.1": (began, 1032),
            "198.51.100.0/24": (began + 0.5, 29),
            "2001:db8::/32": (began + 0.5, 2003),
        }
        assert rows(after.targets, "in_byte_rate") == [(23.0,), (29.0,), (0.0,)]

    def test_reset_after_a_restart(self, tmp_path: Path) -> None:
        """Begins at zero, and stays so after the next one."""
        run = Run(tmp_path, targets=[HOST])
        run.to_target(HOST, 1009)
        run.stop()
        run = Run(tmp_path, began=60, targets=[HOST])
        reset = run.now
        run.targets.reset([HOST], reset)
        run.to_target(HOST, 23)
        run.stop()

        assert targets(Run(tmp_path, began=120, targets=[HOST]).collector.snapshot) == {
            "192.0.2.1": (reset, 23)
        }

    def test_leaving_the_configuration(self, tmp_path: Path) -> None:
        """A target is forgotten when the configuration no longer has it, unless it was added by hand; one
        that comes back starts at zero."""
        run = Run(tmp_path, targets=[HOST])
        run.targets.add([NET], run.now)
        run.to_target(HOST, 1009)
        run.to_target(NET, 101)
        run.stop()
        run = Run(tmp_path, began=60)
        run.stop()
        assert [address for address, _ in rows(run.collector.snapshot.targets, "address", "since")] == [
            "198.51.100.0/24"
        ]

        run = Run(tmp_path, began=120, targets=[HOST])

        assert targets(run.collector.snapshot)["192.0.2.1"] == (run.now, 0)
        assert targets(run.collector.snapshot)["198.51.100.0/24"][1] == 101

    def test_another_boot(self, tmp_path: Path) -> None:
        """Those added by hand are there again; all count from zero, and from now."""
        run = Run(tmp_path, targets=[HOST])
        run.targets.add([NET], run.now)
        run.to_target(HOST, 1009)
        run.to_target(NET, 2003)
        run.stop()

        run = Run(tmp_path, boot="another", began=60, targets=[HOST])

        assert targets(run.collector.snapshot) == {
            "192.0.2.1": (run.now, 0),
            "198.51.100.0/24": (run.now, 0),
        }

    def test_more_than_the_limit(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A limit that was lowered costs the last of those added by hand, which is said, and no start."""
        run = Run(tmp_path)
        run.targets.add([HOST, NET], run.now)
        run.stop()

        run = Run(tmp_path, targets=[V6], limit=2)

        assert list(targets(run.collector.snapshot)) == ["2001:db8::/32", "192.0.2.1"]
        assert caplog.messages == ["3 targets exceed [targets] limit = 2: the last are left out"]

    def test_hooks_that_did_not_work_for_a_while(self, tmp_path: Path) -> None:
        """Targets and their figures wait for a start with them."""
        run = Run(tmp_path)
        began = run.now
        run.targets.add([HOST], began)
        run.to_target(HOST, 1009)
        run.stop()
        Run(tmp_path, began=60, hooks=False).stop()

        assert targets(Run(tmp_path, began=120).collector.snapshot) == {"192.0.2.1": (began, 1009)}

    def test_none_of_it_is_lost_while_everything_is_off(self, tmp_path: Path) -> None:
        """Also over a boot: what was added by hand remains."""
        run = Run(tmp_path)
        run.targets.add([HOST], run.now)
        run.stop()
        Run(tmp_path, boot="another", meter=False, hooks=False).stop()

        assert list(targets(Run(tmp_path, boot="another").collector.snapshot)) == ["192.0.2.1"]


class TestSince:
    """Two moments: when counting began, and when this run did."""

    def test_over_a_restart(self, tmp_path: Path) -> None:
        """Counting began with the first run after the boot; the daemon started now."""
        first = Run(tmp_path)
        first.stop()
        Run(tmp_path, began=60).stop()
        run = Run(tmp_path, began=120)

        assert run.tick().since == first.collector.snapshot.started
        assert run.collector.snapshot.started == first.collector.snapshot.started + 120

    def test_a_first_run(self, tmp_path: Path) -> None:
        """Both are the same."""
        snapshot = Run(tmp_path).tick()

        assert snapshot.since == snapshot.started == WALL_AHEAD + 100


class TestTrouble:
    """No file and no disk keeps the daemon from starting or running."""

    def test_a_damaged_file(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Counting begins anew, which is said in a line; the file is kept, and the next saving is good."""
        (tmp_path / state.FILE).write_text("oops")

        run = Run(tmp_path)
        run.send(23)
        run.stop()

        (said,) = caplog.messages
        assert said.startswith("cannot use the saved totals: ")
        assert said.endswith("/state.unusable; counting begins anew")
        assert (tmp_path / "state.unusable").read_text() == "oops"
        assert users(Run(tmp_path).collector.snapshot) == {ALICE: 23}

    @pytest.mark.parametrize("saved", ["", BOOT])
    def test_an_unknown_boot(self, tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: str) -> None:
        """Not knowing is not being the same, not even twice; which is said."""
        run = Run(tmp_path, boot=saved)
        run.send(1009)
        run.stop()
        caplog.clear()

        run = Run(tmp_path, boot="", began=60)

        assert users(run.collector.snapshot) == {}
        assert len(caplog.messages) == 1
        assert "which boot this is" in caplog.text

    def test_a_disk_that_fails_and_recovers(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Each failure counts in the ledger; the first of a row is logged; then saving goes on."""
        directory = tmp_path / "state"
        directory.touch()
        run = Run(directory)
        caplog.clear()
        run.send(1009)
        for _ in range(3):
            run.stop()
        (loss,) = run.totals.losses()
        assert (loss.name, loss.count) == ("totals.not-saved", 3)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.message.startswith(f"cannot save the totals in {directory}: File exists; ")

        directory.unlink()
        run.stop()

        assert users(Run(directory).collector.snapshot) == {ALICE: 1009}
        assert run.totals.losses()[0].count == 3


class Disk:
    """In place of state.save: remembers what was saved; `gate` lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.saved: list[int] = []  #: bytes of all users
        self.gate, self.busy = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        self.gate.set()
        monkeypatch.setattr(totals, "save", self)

    def __call__(self, directory: Path, saved: state.State) -> None:
        self.thread = threading.current_thread()
        self.busy.set()
        assert self.gate.wait(20)
        self.saved.append(int(saved.books["user"].counters[:, 3].sum()))


class TestSaving:
    """When, where and how often."""

    def test_every_minute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not with each tick; in a thread, since a disk may hang."""
        disk, now = Disk(monkeypatch), 0.0
        monkeypatch.setattr(totals, "monotonic", lambda: now)
        run = Run(tmp_path)

        async def ticks() -> None:
            nonlocal now
            async with asyncio.timeout(20):
                for second, count in ((1.0, 0), (59.9, 0), (60.1, 1), (119.9, 1), (120.2, 2)):
                    now = second
                    run.totals.ticked()
                    while len(disk.saved) < count:
                        await asyncio.sleep(0)
                        run.totals.ticked()

        asyncio.run(ticks())

        assert len(disk.saved) == 2
        assert disk.thread is not threading.main_thread()

    def test_who_asks_while_the_disk_is_busy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """All who ask meanwhile are served by one more saving, of what was true after they asked."""
        disk, run = Disk(monkeypatch), Run(tmp_path)

        async def ask() -> None:
            disk.gate.clear()
            first = asyncio.create_task(run.totals.save())
            await asyncio.to_thread(disk.busy.wait, 20)
            run.send(23)
            run.tick()
            others = [asyncio.create_task(run.totals.save()) for _ in range(7)]
            await asyncio.sleep(0)
            assert not first.done()
            disk.gate.set()
            await asyncio.gather(first, *others)

        asyncio.run(ask())

        assert disk.saved == [0, 23]


class TestBootId:
    """Where the daemon learns which boot this is."""

    def test_from_the_unit_file(self) -> None:
        """The service manager tells it to a daemon that cannot see /proc/sys."""
        assert boot_id({"NETMOND_BOOT_ID": BOOT}) == BOOT

    @pytest.mark.skipif(not os.path.exists("/proc/sys/kernel/random/boot_id"), reason="needs /proc/sys")
    def test_from_the_kernel(self) -> None:
        """Without service manager; in the same form, so that it does not matter who told it."""
        found = boot_id({})

        assert len(bytes.fromhex(found)) == 16
        dashed = Path("/proc/sys/kernel/random/boot_id").read_text()
        assert boot_id({"NETMOND_BOOT_ID": dashed}) == found

    def test_from_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Empty: then nothing is taken up."""

        def hidden(*_: Any, **__: Any) -> str:
            raise FileNotFoundError

        monkeypatch.setattr(Path, "read_text", hidden)

        assert boot_id({"NETMOND_BOOT_ID": ""}) == ""
