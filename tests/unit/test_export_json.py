"""JSON lines: their keys, and sums that are right whatever happens to exporter and daemon."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond import answers, query
from netmond.config import defaults
from netmond.errors import NetmondError
from netmond.export.batches import Sender
from netmond.export.json_lines import JsonOutput, line
from netmond.export.spool import MEMORY_BYTES
from netmond.model import Feature, FeatureState, Loss, Snapshot
from tests.bus.rdma import rdma
from tests.unit.history import NAMES, START, History, crowded

FIGURES = ("in_packets", "in_bytes", "out_packets", "out_bytes")

#: How rows of a type are told apart.
KEYS = {"user": "uid", "unit": "unit", "interface": "name", "target": "address", "flow": "id"}


class Sink:
    """The other side: keeps what it gets, or fails."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.failure: NetmondError | None = None

    def send(self, payload: bytes) -> None:
        if self.failure:
            raise self.failure
        self.payloads.append(payload)

    def close(self) -> None:
        """Nothing to close."""

    def lines(self) -> list[dict[str, Any]]:
        """All lines since the last call."""
        payloads, self.payloads = self.payloads, []
        return [json.loads(each) for payload in payloads for each in payload.splitlines()]


class Collected(JsonOutput):
    """Delivers to a sink of the test. Pauses are over at once."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(clock=lambda: self.now, names=NAMES)
        self.sink = sink
        self.now = 0.0

    def new_sender(self) -> Sender:
        return self.sink

    def write(self, snapshot: Snapshot) -> None:
        self.now += 100
        super().write(snapshot)


@pytest.fixture
def sink() -> Sink:
    return Sink()


def start(directory: Path, sink: Sink, **options: Any) -> Collected:
    output = Collected(sink)
    options = {"address": "tcp:localhost:1", **options}
    output.init(replace(defaults().output("json"), state_dir=directory, options=options))
    return output


def of(lines: Iterable[dict[str, Any]], *kinds: str) -> list[dict[str, Any]]:
    return [each for each in lines if each["type"] in kinds]


def sums(lines: Iterable[dict[str, Any]]) -> Counter[tuple[str, Any, str]]:
    """The deltas of every user, unit, ... added up."""
    total = Counter[tuple[str, Any, str]]()
    for each in of(lines, *KEYS):
        for name in FIGURES:
            total[each["type"], each[KEYS[each["type"]]], name] += each[f"delta_{name}"]
    return total


def totals(snapshot: Snapshot) -> Counter[tuple[str, Any, str]]:
    """What a snapshot says of all of them."""
    total = Counter[tuple[str, Any, str]]()
    for kind, key in KEYS.items():
        list_ = f"{kind}s"
        limits: dict[str, Any] = {"limit": 0, "sort": "bytes"}
        if kind == "interface":
            limits |= {"monitored": True}
        for row in answers.select(snapshot, query.Query(list=list_, **limits), NAMES).rows:
            for name in FIGURES:
                total[kind, row[key], name] = row[name]
    return total


def test_lines(tmp_path: Path, sink: Sink) -> None:
    """A line has host, time, type, period, deltas, and then the row as the D-Bus interface has it."""
    output, history = start(tmp_path, sink), History()
    first = history.snapshot(grow=22)
    output.write(first)
    lines = sink.lines()

    (alice,) = [each for each in of(lines, "user") if each["user"] == "alice"]
    (row,) = [
        row for row in answers.select(first, query.parse("users", {}), NAMES).rows if row["user"] == "alice"
    ]
    assert list(alice) == [
        "host", "time", "type", "period",
        "delta_in_packets", "delta_in_bytes", "delta_out_packets", "delta_out_bytes",
        "delta_rdma_in_packets", "delta_rdma_in_bytes", "delta_rdma_out_packets", "delta_rdma_out_bytes",
        *row,
    ]  # fmt: skip
    assert {**alice, **row} == alice
    assert (alice["time"], alice["period"], alice["delta_in_bytes"]) == (START + 10, 3610.0, 23)
    assert Counter(each["type"] for each in lines) == {
        "user": 2, "unit": 3, "interface": 1, "target": 1, "flow": 6,
    }  # fmt: skip
    flow_keys = next(iter(answers.select(first, query.parse("flows", {}), NAMES).rows)).keys()
    assert all(set(flow_keys) - {"uid", "user"} <= each.keys() for each in of(lines, "flow"))
    assert [each["ended"] for each in of(lines, "flow")].count(True) == 1


def test_users_by_rdma(tmp_path: Path, sink: Sink) -> None:
    """Who exchanges nothing else is told, too; what nobody can be named for is of user "unknown"."""
    output, history = start(tmp_path, sink), History(rdma=rdma())
    output.write(history.snapshot(grow=22))
    output.write(history.snapshot(grow=7))
    first, second = (of(payload, "user") for payload in halves(sink.lines()))

    assert [each["user"] for each in first] == ["alice", "bob", "carol", "unknown"]
    carol = second[2]
    assert (carol["delta_in_bytes"], carol["delta_rdma_in_bytes"], carol["rdma_in_bytes"]) == (0, 7, 30)
    bob = second[1]
    assert (bob["delta_in_bytes"], bob["delta_rdma_in_bytes"], bob["total_bytes"]) == (7, 0, 60)


def halves(lines: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What came with the first snapshot, and what with the second."""
    first = [each for each in lines if each["time"] == lines[0]["time"]]
    return first, lines[len(first) :]


def test_only_what_grew_when_it_is_time(tmp_path: Path, sink: Sink) -> None:
    """Between two batches only flows that ended are told; what stands still is not told at all."""
    output, history = start(tmp_path, sink, interval=10), History()
    output.write(history.snapshot(grow=1))
    sink.lines()
    output.write(history.snapshot(grow=1, seconds=4))
    assert [(each["type"], each["ended"], each["period"]) for each in sink.lines()] == [("flow", True, 4.0)]
    sink.lines()
    output.write(history.snapshot(grow=1, seconds=6))
    lines = sink.lines()
    assert {each["delta_in_bytes"] for each in of(lines, "user", "unit", "target")} == {2}
    assert {each["period"] for each in lines} == {10.0}
    output.write(history.snapshot(grow=0))
    assert [each["ended"] for each in sink.lines()] == [True]


def test_without_flows(tmp_path: Path, sink: Sink) -> None:
    """Flows can be left out, those that end, too."""
    output, history = start(tmp_path, sink, flows=False), History()
    for _ in range(3):
        output.write(history.snapshot(grow=1, seconds=5))

    lines = sink.lines()
    assert of(lines, "flow") == []
    assert len(of(lines, "user")) == 4


def test_losses_and_features(tmp_path: Path, sink: Sink) -> None:
    """A loss is told when it grew, by how much; a feature first and when it changed."""
    output, history = start(tmp_path, sink), History()
    history.losses = (Loss(name="a", count=3, meaning="m"), Loss(name="b", count=0, meaning="n"))
    history.features = (Feature(name="meter", state=FeatureState.ON),)
    output.write(history.snapshot())
    history.losses = (Loss(name="a", count=5, meaning="m"), Loss(name="b", count=0, meaning="n"))
    output.write(history.snapshot())
    history.losses = (Loss(name="a", count=1, meaning="m"),)  # it counts anew
    history.features = (Feature(name="meter", state=FeatureState.OFF, reason="why"),)
    output.write(history.snapshot())
    output.write(history.snapshot())

    lines = sink.lines()
    told = [(each["name"], each["delta_count"], each["count"]) for each in of(lines, "loss")]
    assert told == [("a", 3, 3), ("a", 2, 5), ("a", 1, 1)]
    states = [(each["name"], each["state"], each["reason"]) for each in of(lines, "feature")]
    assert states == [("meter", "on", ""), ("meter", "off", "why")]


def test_last_batch(tmp_path: Path, sink: Sink) -> None:
    """What grew since the last batch is told when the output ends, and not again by the next one."""
    output, history = start(tmp_path, sink), History()
    output.write(history.snapshot(grow=2))
    output.write(history.snapshot(grow=3, seconds=1))
    output.close()
    assert sums(of(sink.lines(), "user")) == Counter(
        {key: count for key, count in totals(history.latest).items() if key[0] == "user"}
    )
    again = start(tmp_path, sink)
    again.write(history.snapshot(seconds=1))

    assert of(sink.lines(), "user") == []


def test_another_life(tmp_path: Path, sink: Sink) -> None:
    """After a boot totals begin anew, also where they are larger by now than they were before."""
    output, history = start(tmp_path, sink), History(grown=5)
    output.write(history.snapshot())
    sink.lines()
    history.since, history.grown = START + 100, 7
    again = start(tmp_path, sink)
    again.write(history.snapshot())

    assert {each["delta_in_bytes"] for each in of(sink.lines(), *KEYS)} == {7}


def test_targets_and_flows_that_begin_anew(tmp_path: Path, sink: Sink) -> None:
    """Whose figures are smaller than before counts anew, and so does a target that was added again."""
    output, history = start(tmp_path, sink), History(grown=50)
    output.write(history.snapshot())
    sink.lines()
    snapshot = history.snapshot(grow=10)
    since = np.array([START], "f8")
    targets = replace(snapshot.targets, columns={**snapshot.targets.columns, "since": since})
    output.write(replace(snapshot, targets=targets))
    assert [each["delta_in_bytes"] for each in of(sink.lines(), "target")] == [60]
    sink.lines()
    history.grown, history.started = 4, START + 100
    output.write(history.snapshot(seconds=1))

    assert {each["delta_in_bytes"] for each in of(sink.lines(), "flow")} == {4}


@pytest.mark.parametrize("damage", [b"", b"{", b'{"format": 1}\n', b"\xff" * 100])
def test_damaged_file(tmp_path: Path, sink: Sink, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Without the file that says how far figures are told, they are told from the beginning again."""
    output, history = start(tmp_path, sink), History()
    output.write(history.snapshot(grow=22))
    sink.lines()
    (tmp_path / "json" / "told").write_bytes(damage)
    again = start(tmp_path, sink)
    again.write(history.snapshot())

    assert {each["delta_in_bytes"] for each in of(sink.lines(), "user")} == {23}
    assert "Differences are taken anew" in caplog.text


def test_no_room_for_the_file(tmp_path: Path, sink: Sink) -> None:
    """Where it cannot be written, lines are delivered and the limitation says what a restart would do."""
    (tmp_path / "json").write_text("in the way")
    output = start(tmp_path, sink)
    output.write(History().snapshot(grow=22))

    assert of(sink.lines(), "user")
    assert "make room" in output.limitation()


def test_hostile_names() -> None:
    """One line of ASCII that JSON parsers take, whatever the name is; bytes that are no text are marked."""
    name = 'a\n"\x1b[31m\x9b\u2028\U0001f600' + b"\xff".decode(errors="surrogateescape")
    written = line({"name": name, "count": 1})

    assert written.isascii()
    assert written.count(b"\n") == 1
    assert all(0x20 <= octet < 0x7F for octet in written[:-1])
    assert json.loads(written) == {"name": name[:-1] + "\ufffd", "count": 1}


def test_payloads_are_bounded(tmp_path: Path, sink: Sink) -> None:
    """Many flows make several payloads, each of whole lines."""
    output = start(tmp_path, sink)
    output.write(crowded(History().snapshot(grow=1), 1800))

    assert len(sink.payloads) > 3
    assert all(payload.endswith(b"}\n") and len(payload) < 300_000 for payload in sink.payloads)
    assert len(of(sink.lines(), "flow")) == 1800


@pytest.mark.parametrize("spool", [0, "1M", "64M"])
def test_large_batch(tmp_path: Path, sink: Sink, spool: object) -> None:
    """A batch that is larger than the spool and memory loses nothing while the other side takes it."""
    output = start(tmp_path, sink, spool=spool)
    output.write(crowded(History().snapshot(grow=1), 30_000))

    assert sum(map(len, sink.payloads)) > MEMORY_BYTES
    assert sum(payload.count(b"\n") for payload in sink.payloads) == 30_000 + 7
    assert [loss.count for loss in output.losses()] == [0, 0, 0]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["tick", "tick", "tick", "outage", "recovery", "stop", "kill", "daemon"]),
        st.integers(0, 5),
        st.sampled_from([0.5, 3.0, 70.0]),
    ),
    max_size=30,
)


@given(events=EVENTS)
def test_sums(events: list[tuple[str, int, float]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over any order of ticks, outages, restarts of exporter and daemon the deltas add up to the totals."""
    directory, sink, history = tmp_path_factory.mktemp("state"), Sink(), History()
    output = start(directory, sink, interval=5)
    expected = Counter[tuple[str, Any, str]]()
    for what, grow, seconds in [*events, ("recovery", 0, 0.0), ("tick", 1, 5.0)]:
        if what == "tick":
            output.write(history.snapshot(grow=grow, seconds=seconds))
            expected |= totals(history.latest)
        elif what in ("outage", "recovery"):
            sink.failure = NetmondError("down") if what == "outage" else None
        elif what == "daemon":
            history.started = history.now
        else:
            if what == "stop":
                output.close()
            output = start(directory, sink, interval=5)

    assert sums(sink.lines()) == expected
    assert [loss.count for loss in output.losses() if "retries" not in loss.name] == [0, 0]
