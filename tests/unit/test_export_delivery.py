"""Delivery: in order, at least once, with pauses that grow, and few clear words about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.errors import Unavailable
from netmond.export.delivery import LONGEST_PAUSE, TURN, Delivery, Rejected
from netmond.export.spool import Spool

PLENTY = 1 << 20
REFUSED = "tcp:collector:5140: Connection refused: start it"


class Sink:
    """The other side: takes payloads, or fails as told; each attempt lasts `seconds` on its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = 0.0
        self.taken: list[bytes] = []
        self.attempts = 0
        self.failure: Exception | None = None
        self.rejects: set[bytes] = set()

    def send(self, payload: bytes) -> None:
        self.attempts += 1
        self.now += self.seconds
        if payload in self.rejects:
            raise Rejected("http://collector: 400 Bad Request: cannot parse")
        if self.failure is not None:
            raise self.failure
        self.taken.append(payload)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def new(sink: Sink, tmp_path: Path) -> Callable[..., Delivery]:
    """Makes a delivery to the sink, with the spool of the same directory."""

    def make(limit: int = PLENTY, before: Delivery | None = None) -> Delivery:
        spool = Spool(tmp_path / "spool", limit)
        return Delivery(sink.send, spool, name="json", clock=sink.clock, before=before)

    return make


def losses(delivery: Delivery) -> dict[str, int]:
    return {loss.name.removeprefix("output.json."): loss.count for loss in delivery.losses()}


def until(delivery: Delivery, sink: Sink, condition: Callable[[], bool]) -> float:
    """Pump each second; how long it took."""
    began = sink.now
    while not condition():
        assert sink.now < began + 1000
        sink.now += 1
        delivery.pump()
    return sink.now - began


def test_in_order(sink: Sink, new: Callable[..., Delivery]) -> None:
    """What is submitted goes out with the next pump, in order, once."""
    delivery = new()
    for payload in (b"one", b"two", b"three"):
        delivery.submit(payload)
    delivery.pump()
    delivery.pump()

    assert sink.taken == [b"one", b"two", b"three"]
    assert (len(delivery), delivery.limitation()) == (0, "")
    assert losses(delivery) == {"undelivered": 0, "rejected": 0, "retries": 0}


def test_outage(sink: Sink, new: Callable[..., Delivery], caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins, one when it ends; everything arrives later, in order."""
    caplog.set_level("INFO")
    delivery = new()
    sink.failure = Unavailable(REFUSED)
    for number in range(23):
        delivery.submit(b"%d" % number)
        sink.now += 10
        delivery.pump()
    assert delivery.limitation() == REFUSED
    assert losses(delivery)["retries"] == sink.attempts > 3
    sink.failure = None
    until(delivery, sink, lambda: not len(delivery))

    assert sink.taken == [b"%d" % number for number in range(23)]
    assert delivery.limitation() == ""
    assert [record.message for record in caplog.records] == [
        f"Output json: {REFUSED}; it is tried again", "Output json: delivers again",
    ]  # fmt: skip
    assert losses(delivery)["undelivered"] == 0


def test_pauses(sink: Sink, new: Callable[..., Delivery]) -> None:
    """They grow from a second to a minute and never beyond, with jitter; success ends them."""
    delivery = new()
    delivery.submit(b"one")
    sink.failure = ConnectionRefusedError(111, "Connection refused")
    delivery.pump()
    pauses = []
    for _ in range(12):
        before = sink.attempts
        pauses.append(until(delivery, sink, lambda: sink.attempts > before))  # noqa: B023

    assert pauses[0] == 1
    assert all(2**place / 2 <= pause <= 2**place + 1 for place, pause in enumerate(pauses[:6]))
    assert all(LONGEST_PAUSE / 2 <= pause <= LONGEST_PAUSE for pause in pauses[6:])
    assert len(set(pauses[6:])) > 1
    sink.failure = None
    until(delivery, sink, lambda: not len(delivery))
    delivery.submit(b"two")
    delivery.pump()

    assert sink.taken == [b"one", b"two"]


def test_pause_begins_when_the_attempt_ended(sink: Sink, new: Callable[..., Delivery]) -> None:
    """An attempt that takes longer than the pause is not followed by the next one at once."""
    delivery = new()
    delivery.submit(b"one")
    sink.failure, sink.seconds = TimeoutError("timed out"), 5.0
    delivery.pump()
    delivery.pump()
    assert sink.attempts == 1
    sink.now += 1.0
    delivery.pump()
    assert sink.attempts == 2


def test_rejected(sink: Sink, new: Callable[..., Delivery], caplog: pytest.LogCaptureFixture) -> None:
    """What the other side will never take is dropped at once, counted, said, and holds up nothing."""
    delivery = new()
    sink.rejects = {b"bad", b"worse"}
    for payload in (b"one", b"bad", b"worse", b"two"):
        delivery.submit(payload)
    delivery.pump()

    assert sink.taken == [b"one", b"two"]
    assert losses(delivery) == {"undelivered": 0, "rejected": 2, "retries": 0}
    assert [record.message for record in caplog.records] == [
        "Output json: http://collector: 400 Bad Request: cannot parse; what it rejects is dropped"
    ]


def test_flapping_cannot_fill_the_journal(
    sink: Sink, new: Callable[..., Delivery], caplog: pytest.LogCaptureFixture
) -> None:
    """A sink that dies and returns every few seconds costs a line of a kind each 30 seconds."""
    caplog.set_level("INFO")
    delivery = new()
    for number in range(90):
        sink.now += 1
        sink.failure = Unavailable(REFUSED) if number % 4 < 2 else None
        delivery.submit(b"%d" % number)
        delivery.pump()
    sink.failure = None
    until(delivery, sink, lambda: not len(delivery))

    assert sink.taken == [b"%d" % number for number in range(90)]
    assert len(caplog.records) <= 2 * 4
    assert any("similar messages left out" in record.message for record in caplog.records)


def test_one_turn_is_bounded(sink: Sink, new: Callable[..., Delivery]) -> None:
    """A long backlog is delivered in turns: snapshots that come meanwhile are looked at between."""
    delivery = new()
    for number in range(23):
        delivery.submit(b"%d" % number)
    sink.seconds = TURN / 4
    delivery.pump()
    assert len(sink.taken) == 4
    until(delivery, sink, lambda: not len(delivery))

    assert sink.taken == [b"%d" % number for number in range(23)]


def test_full_spool(sink: Sink, new: Callable[..., Delivery]) -> None:
    """Beyond its limit the oldest are lost, and counted; the rest arrives in order."""
    delivery = new(limit=4096 * 5)
    sink.failure = OSError("down")
    for number in range(8):
        delivery.submit(b"%d" % number)
    delivery.pump()
    sink.failure = None
    until(delivery, sink, lambda: not len(delivery))

    assert sink.taken == [b"3", b"4", b"5", b"6", b"7"]
    assert losses(delivery)["undelivered"] == 3


def test_next_configuration(sink: Sink, new: Callable[..., Delivery]) -> None:
    """A delivery made anew finds what waited, and its counts go on."""
    first = new(limit=4096 * 2)
    sink.failure = OSError("down")
    for number in range(3):
        first.submit(b"%d" % number)
    first.pump()
    first.close()
    sink.failure = None
    second = new(before=first)
    second.pump()

    assert sink.taken == [b"1", b"2"]
    assert losses(second) == {"undelivered": 1, "rejected": 0, "retries": 1}


def test_spool_problem_is_told(sink: Sink, tmp_path: Path) -> None:
    """That nothing can be kept on the disk shows while the other side works."""
    (tmp_path / "file").touch()
    delivery = Delivery(sink.send, Spool(tmp_path / "file" / "spool", PLENTY), name="json")
    delivery.submit(b"one")
    delivery.pump()

    assert sink.taken == [b"one"]
    assert "Not a directory" in delivery.limitation()


def test_programming_errors_are_not_hidden(sink: Sink, new: Callable[..., Delivery]) -> None:
    """Anything but an error of the delivery ends the output, which is started again; the payload stays."""
    delivery = new()
    delivery.submit(b"one")
    sink.failure = KeyError("bug")
    with pytest.raises(KeyError):
        delivery.pump()

    assert len(delivery) == 1


@given(events=st.lists(st.sampled_from(["submit", "fail", "work", "restart"]), max_size=60))
def test_whatever_happens(events: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Over any order of outages and restarts everything arrives, once, in order."""
    sink, spool = Sink(), Path(tmp_path_factory.mktemp("spool"))
    delivery = Delivery(sink.send, Spool(spool, PLENTY), name="json", clock=sink.clock)
    submitted = []
    for number, event in enumerate(events):
        sink.now += 1
        if event == "submit":
            submitted.append(b"%d" % number)
            delivery.submit(submitted[-1])
        elif event == "restart":
            delivery.close()
            delivery = Delivery(
                sink.send, Spool(spool, PLENTY), name="json", clock=sink.clock, before=delivery
            )
        else:
            sink.failure = Unavailable(REFUSED) if event == "fail" else None
        delivery.pump()
    sink.failure = None
    until(delivery, sink, lambda: not len(delivery))

    assert sink.taken == submitted
