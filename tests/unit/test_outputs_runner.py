"""The runner: outputs never delay anybody, and what they miss is counted and, if it ended, carried on."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from typing import Any

import numpy as np
import pytest

from netmond.config import Config, OutputConfig, defaults
from netmond.errors import ConfigError
from netmond.model import COUNTERS, FeatureState, Loss, Snapshot, Table
from netmond.outputs import carry
from netmond.outputs.runner import Outputs
from netmond.outputs.worker import Worker

DEADLINE = 10.0


def snapshot(tick: int, flows: dict[int, str] | None = None, ended: tuple[int, ...] = ()) -> Snapshot:
    """Flows by id with the name of their unit; the counters of a flow all are its id."""
    flows = flows or {}
    units = tuple(dict.fromkeys(unit for unit in flows.values() if unit))
    table = Table(
        columns={
            "id": np.array(list(flows), "u8"),
            "ended": np.array([number in ended for number in flows], "?"),
            "unit_index": np.array([units.index(unit) if unit else -1 for unit in flows.values()], "i4"),
        },
        counters=np.repeat(np.array(list(flows), "u8"), len(COUNTERS)).reshape(-1, len(COUNTERS)),
        rates=np.zeros((len(flows), 4)),
    )
    none = Table.empty()
    return Snapshot(
        tick=tick, time=float(tick), interval=1.0, since=0.0, users=none, units=none, processes=none,
        flows=table, interfaces=none, targets=none, unit_names=units,
    )  # fmt: skip


def flows_of(snapshot: Snapshot) -> list[tuple[int, str]]:
    index = snapshot.flows.columns["unit_index"].tolist()
    units = [snapshot.unit_names[unit] if unit >= 0 else "" for unit in index]
    return list(zip(snapshot.flows.columns["id"].tolist(), units, strict=True))


class TestCarry:
    def test_only_ended_rows_with_their_units(self) -> None:
        """Ended rows keep their figures and unit names in a snapshot whose units are numbered otherwise."""
        rows, lost = carry.ended(snapshot(1, {23: "a", 29: "b", 31: "c", 37: ""}, ended=(29, 31, 37)), 100)
        merged = carry.add(snapshot(2, {41: "x", 43: "b"}), [rows])

        assert lost == 0
        assert flows_of(merged) == [(29, "b"), (31, "c"), (37, ""), (41, "x"), (43, "b")]
        assert merged.flows.counters[:, 0].tolist() == [29, 31, 37, 41, 43]
        assert merged.tick == 2

    def test_bounded(self) -> None:
        """Beyond the room rows are left out and counted."""
        rows, lost = carry.ended(snapshot(1, dict.fromkeys(range(23), "a"), ended=tuple(range(23))), 7)

        assert (len(rows), lost) == (7, 16)

    def test_holds_no_snapshot(self) -> None:
        """Carried rows are copies: a dropped snapshot's memory can go."""
        original = snapshot(1, {23: "a"}, ended=(23,))

        rows, _ = carry.ended(original, 100)

        assert not np.shares_memory(rows.flows.counters, original.flows.counters)


class Fake:
    """An output that does as told and tells what happened; `gate` holds up `write`."""

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.seen = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.writing = threading.Event()
        self.failures: list[BaseException] = []
        self.init_failures: list[BaseException] = []
        self.missing = ""

    def init(self, config: OutputConfig) -> None:
        self._note(("init", dict(config.options)))
        if self.init_failures:
            raise self.init_failures.pop(0)

    def write(self, snapshot: Snapshot) -> None:
        self.writing.set()
        assert self.gate.wait(DEADLINE)
        if self.failures:
            self._note(("failed", snapshot.tick))
            raise self.failures.pop(0)
        self._note((snapshot.tick, [number for number, _ in flows_of(snapshot)]))

    def close(self) -> None:
        self._note("close")

    def losses(self) -> tuple[Loss, ...]:
        return (Loss(name="output.fake.own", count=23, meaning="own"),)

    def limitation(self) -> str:
        return self.missing

    def period(self) -> float:
        return 23.0

    def _note(self, call: Any) -> None:
        self.calls.append(call)
        self.seen.release()

    def wait(self, calls: int) -> list[Any]:
        """The calls so far, once there are that many more."""
        for _ in range(calls):
            assert self.seen.acquire(timeout=DEADLINE)
        return self.calls


class Talkative:
    """An output with the three members that every one has."""

    name = "talkative"

    def __init__(self) -> None:
        self.written = threading.Event()

    def init(self, config: OutputConfig) -> None: ...

    def write(self, snapshot: Snapshot) -> None:
        self.written.set()

    def close(self) -> None: ...


CONFIG = defaults().output("fake")


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def worker(fake: Fake) -> Iterator[Worker]:
    made = Worker("fake", fake, depth=2, carried_rows=3, back_off=(0.0, 0.0))
    yield made
    fake.gate.set()
    made.stop()
    assert made.join(DEADLINE)


def losses(worker: Worker) -> dict[str, int]:
    return {loss.name: loss.count for loss in worker.losses()}


class TestWorker:
    def test_in_order(self, worker: Worker, fake: Fake) -> None:
        """init, every snapshot in order, what waits at the stop, close."""
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        worker.publish(snapshot(2))
        worker.stop()

        assert worker.join(DEADLINE)
        assert fake.calls == [("init", {}), (1, []), (2, []), "close"]
        assert losses(worker) == {
            "output.fake.dropped": 0, "output.fake.ended-flows": 0, "output.fake.errors": 0,
            "output.fake.own": 23,
        }  # fmt: skip

    def test_how_often_it_needs_a_snapshot(self, worker: Worker, fake: Fake) -> None:
        """As often as it says while it is open, else never."""
        assert worker.period == math.inf
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        fake.wait(2)
        assert worker.period == 23.0

        worker.configure(None)
        assert worker.period == math.inf

    def test_one_that_does_not_say_how_often_gets_all(self, fake: Fake) -> None:
        """Third parties' outputs may count on each reading there is."""
        talkative = Talkative()
        worker = Worker("talkative", talkative)
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        assert talkative.written.wait(DEADLINE)

        assert worker.period == 0.0
        worker.stop()
        assert worker.join(DEADLINE)

    def test_slow_output_loses_snapshots_but_no_ended_flow(self, worker: Worker, fake: Fake) -> None:
        """Of what waits the oldest go, counted; flows that ended in them come with the next one."""
        fake.gate.clear()
        worker.configure(CONFIG)
        worker.publish(snapshot(1, {1: "a"}))
        assert fake.writing.wait(DEADLINE)
        worker.publish(snapshot(2, {2: "a", 92: "b"}, ended=(92,)))
        worker.publish(snapshot(3, {3: "a", 93: "c"}, ended=(93,)))
        worker.publish(snapshot(4, {4: "a", 94: "d"}, ended=(94,)))
        worker.publish(snapshot(5, {5: "a"}))
        assert worker.feature().state is FeatureState.DEGRADED
        fake.gate.set()

        assert fake.wait(4)[1:] == [(1, [1]), (4, [92, 93, 4, 94]), (5, [5])]
        worker.publish(snapshot(6))
        assert worker.feature().state is FeatureState.ON
        assert losses(worker)["output.fake.dropped"] == 2
        assert losses(worker)["output.fake.ended-flows"] == 0

    def test_carried_rows_are_bounded(self, worker: Worker, fake: Fake) -> None:
        """A dead output costs bounded memory; ended flows beyond it are counted."""
        fake.gate.clear()
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        assert fake.writing.wait(DEADLINE)
        for tick in range(2, 9):
            worker.publish(snapshot(tick, {tick: "a"}, ended=(tick,)))

        assert losses(worker)["output.fake.dropped"] == 5
        assert losses(worker)["output.fake.ended-flows"] == 2

    @pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
    def test_restart_after_an_error(
        self, worker: Worker, fake: Fake, error: BaseException, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What raises is closed and started again; its snapshot is dropped, but not the ended flows."""
        fake.failures = [error]
        worker.configure(CONFIG)
        worker.publish(snapshot(1, {1: "a", 91: "a"}, ended=(91,)))
        fake.wait(4)
        worker.publish(snapshot(2, {2: "a"}))

        assert fake.wait(1) == [("init", {}), ("failed", 1), "close", ("init", {}), (2, [91, 2])]
        worker.stop()
        assert worker.join(DEADLINE)
        assert (losses(worker)["output.fake.errors"], losses(worker)["output.fake.dropped"]) == (1, 1)
        assert worker.feature().state is FeatureState.ON
        assert [
            record.levelname for record in caplog.records if record.name == "netmond.outputs.worker"
        ] == ["ERROR"]

    def test_what_an_output_cannot_do(self, worker: Worker, fake: Fake) -> None:
        """An output that works in part is degraded with its own reason, until it says otherwise."""
        fake.missing = "no colours: install a palette"
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        fake.wait(2)
        worker.publish(snapshot(2))
        fake.wait(1)
        assert (worker.feature().state, worker.feature().reason) == (
            FeatureState.DEGRADED,
            "no colours: install a palette",
        )

        fake.missing = ""
        worker.configure(None)
        worker.configure(CONFIG)
        fake.wait(2)
        worker.stop()
        assert worker.join(DEADLINE)
        assert worker.feature().state is FeatureState.ON

    def test_start_that_fails(self, worker: Worker, fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
        """A failing init is tried again until it works; the same reason is logged once."""
        fake.init_failures = [OSError("no"), OSError("no"), OSError("no")]
        worker.configure(CONFIG)
        fake.wait(7)
        worker.publish(snapshot(1))

        assert fake.wait(1) == [*[("init", {}), "close"] * 3, ("init", {}), (1, [])]
        assert losses(worker)["output.fake.errors"] == 3
        assert sum("OSError: no" in record.message for record in caplog.records) == 1

    def test_back_off_grows(self, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pauses double up to the longest and begin anew after a delivered snapshot, not after an init."""
        pauses: list[float] = []
        worker = Worker("fake", fake, back_off=(1.0, 5.0))
        wait_for = worker._changed.wait_for

        def at_once(ready: Callable[[], Any], pause: float | None) -> Any:
            if pause:
                pauses.append(pause)
            return wait_for(ready, None if pause is None else 0.0)

        monkeypatch.setattr(worker._changed, "wait_for", at_once)
        fake.init_failures = [OSError(str(number)) for number in range(4)]
        worker.configure(CONFIG)
        fake.wait(9)
        fake.failures = [OSError("late")]
        worker.publish(snapshot(1))
        fake.wait(3)
        worker.publish(snapshot(2))
        fake.wait(1)
        fake.failures = [OSError("again")]
        worker.publish(snapshot(3))
        fake.wait(3)
        worker.stop()

        assert worker.join(DEADLINE)
        assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0, 1.0]

    def test_new_configuration(self, worker: Worker, fake: Fake) -> None:
        """The same object is closed and started with it; between, nothing is lost."""
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        fake.wait(2)
        worker.configure(replace(CONFIG, options={"colour": 23}))
        worker.publish(snapshot(2))

        assert fake.wait(3) == [("init", {}), (1, []), "close", ("init", {"colour": 23}), (2, [])]

    def test_disabled_for_a_while(self, worker: Worker, fake: Fake) -> None:
        """Without configuration it is closed, off, and what is published is not for it nor counted."""
        worker.configure(CONFIG)
        fake.wait(1)
        worker.configure(None)
        fake.wait(1)
        worker.publish(snapshot(1))
        assert worker.feature().state is FeatureState.OFF
        worker.configure(CONFIG)
        worker.publish(snapshot(2))

        assert fake.wait(2) == [("init", {}), "close", ("init", {}), (2, [])]
        assert losses(worker)["output.fake.dropped"] == 0

    def test_books_close(self, fake: Fake) -> None:
        """Whatever happens to an output - it is slow, fails, is switched off, never comes up again - each
        snapshot was written or is in the ledger, and so was the end of each flow, once."""
        worker = Worker("fake", fake, depth=2, carried_rows=3, back_off=(0.0, 0.0))
        ticks = count(1)
        published: list[int] = []

        def publish(times: int) -> None:
            for tick in islice(ticks, times):
                worker.publish(snapshot(tick, {tick: "a"}, ended=(tick,)))
                published.append(tick)

        def hold_up() -> None:
            fake.writing.clear()
            fake.gate.clear()
            publish(1)
            assert fake.writing.wait(DEADLINE)

        worker.configure(CONFIG)
        hold_up()
        publish(11)  # too slow: eight are dropped, too many for the flows that ended in them
        fake.gate.set()
        fake.wait(1 + 3)
        fake.failures = [RuntimeError("broken"), OSError("full")]
        publish(1)
        fake.wait(2)
        publish(1)
        hold_up()
        publish(2)
        worker.configure(None)  # while two wait
        fake.gate.set()
        worker.configure(CONFIG)
        fake.init_failures = [OSError("gone")] * 1000
        worker.configure(replace(CONFIG, options={"other": 1}))
        publish(7)
        worker.stop()
        assert worker.join(DEADLINE)

        written = [call for call in fake.calls if isinstance(call, tuple) and isinstance(call[0], int)]
        flows = [number for _, numbers in written for number in numbers]
        lost = losses(worker)
        assert len(written) + lost["output.fake.dropped"] == len(published)
        assert len(set(flows)) == len(flows)
        assert len(flows) + lost["output.fake.ended-flows"] == len(published)
        assert lost["output.fake.dropped"] > 8
        assert lost["output.fake.ended-flows"] > 5

    def test_hung_output_is_left_behind(self, fake: Fake) -> None:
        """A stop does not wait for an output that never returns; what it did not take counts as dropped."""
        worker = Worker("fake", fake, depth=2)
        fake.gate.clear()
        worker.configure(CONFIG)
        worker.publish(snapshot(1))
        assert fake.writing.wait(DEADLINE)
        worker.publish(snapshot(2))
        worker.stop()

        assert not worker.join(0.0)
        assert losses(worker)["output.fake.dropped"] == 1
        fake.gate.set()
        assert worker.join(DEADLINE)


class TestOutputs:
    @staticmethod
    def config(**outputs: OutputConfig) -> Config:
        """Without the built-in outputs."""
        off = {name: replace(defaults().output(name), enabled=False) for name in ("csv", "journal")}
        return replace(defaults(), outputs={**off, **outputs})

    def test_life(self, fake: Fake) -> None:
        """start, publish, reload, close: only what changed is started again."""
        other = Fake()
        made = {"fake": fake, "other": other}
        outputs = Outputs(self.config(fake=CONFIG, other=CONFIG), find=lambda name: lambda: made[name])
        outputs.start()
        outputs.publish(snapshot(1))
        fake.wait(2)
        other.wait(2)
        outputs.apply(self.config(fake=replace(CONFIG, options={"colour": 23}), other=CONFIG))
        outputs.publish(snapshot(2))
        asyncio.run(outputs.close())

        assert fake.calls == [("init", {}), (1, []), "close", ("init", {"colour": 23}), (2, []), "close"]
        assert other.calls == [("init", {}), (1, []), (2, []), "close"]
        assert {feature.name: feature.state for feature in outputs.features()} == {
            "output.csv": FeatureState.OFF, "output.journal": FeatureState.OFF,
            "output.fake": FeatureState.ON, "output.other": FeatureState.ON,
        }  # fmt: skip

    def test_removed_and_back(self, fake: Fake) -> None:
        """An output whose section disappears is closed, and goes on with its memory when it is back."""
        outputs = Outputs(self.config(fake=CONFIG), find=lambda name: lambda: fake)
        outputs.start()
        fake.wait(1)
        outputs.apply(self.config())
        fake.wait(1)
        outputs.apply(self.config(fake=CONFIG))
        fake.wait(1)
        asyncio.run(outputs.close())

        assert fake.calls == [("init", {}), "close", ("init", {}), "close"]

    def test_one_bad_output_costs_nothing_else(self, fake: Fake) -> None:
        """What does not exist or cannot be made is off with a reason; the others run."""

        def find(name: str) -> Callable[[], Fake]:
            if name == "missing":
                raise ConfigError("there is no such output")
            return (lambda: fake) if name == "fake" else lambda: 1 / 0  # type: ignore[return-value]

        outputs = Outputs(self.config(missing=CONFIG, broken=CONFIG, fake=CONFIG), find=find)
        outputs.start()
        outputs.publish(snapshot(1))
        asyncio.run(outputs.close())

        reasons = {feature.name: feature.reason for feature in outputs.features()}
        assert reasons["output.missing"] == "there is no such output"
        assert reasons["output.broken"] == "division by zero"
        assert fake.calls == [("init", {}), (1, []), "close"]

    def test_close_has_a_deadline(self, fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
        """A hung output does not keep the daemon from stopping, which is said."""
        outputs = Outputs(self.config(fake=CONFIG), find=lambda name: lambda: fake)
        fake.gate.clear()
        outputs.start()
        outputs.publish(snapshot(1))
        assert fake.writing.wait(DEADLINE)

        asyncio.run(outputs.close(0.0))

        assert "Output fake did not stop within 0 s" in caplog.text
        fake.gate.set()

    def test_losses_of_all(self, fake: Fake) -> None:
        """Every output has its lines in the loss ledger, also the ones it counts itself."""
        outputs = Outputs(self.config(fake=CONFIG), find=lambda name: lambda: fake)
        outputs.start()
        outputs.publish(snapshot(1))
        asyncio.run(outputs.close())

        assert [loss.name for loss in outputs.losses()] == [
            "output.fake.dropped", "output.fake.ended-flows", "output.fake.errors", "output.fake.own",
        ]  # fmt: skip
