"""Messages about who changed something over D-Bus, and who was refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest

from netmond.outputs import audit, limit
from netmond.outputs.limit import BURST, KINDS, WINDOW, Limit
from netmond.outputs.log import LEVELS
from netmond.outputs.messages import MessageId

ROOT, MANAGER = "/org/netmond1", "org.netmond1.Manager"
REASON = "only root may (org.netmond1.manage)"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Clock:
    """The time as audit sees it, and limits that nothing was taken from."""
    caplog.set_level("INFO")
    clock = Clock()
    monkeypatch.setattr(audit, "monotonic", clock)
    for each in ("_changes", "_refusals"):
        monkeypatch.setattr(audit, each, Limit())
    return clock


def fields(record: logging.LogRecord) -> dict[str, str]:
    return {key: value for key, value in vars(record).items() if key.isupper()}


def test_a_change(caplog: pytest.LogCaptureFixture) -> None:
    """What was called with what by whom."""
    audit.changed(1009, ROOT, MANAGER, "AddTargets", [["192.0.2.1", "2001:db8::/32"], {}])

    assert [record.getMessage() for record in caplog.records] == [
        "Manager.AddTargets(['192.0.2.1', '2001:db8::/32']) on /org/netmond1 by user 1009"
    ]
    assert caplog.records[0].levelno == LEVELS["notice"]
    assert fields(caplog.records[0]) == {
        "MESSAGE_ID": MessageId.CHANGED.value, "NETMOND_CALLER_UID": "1009",
        "NETMOND_METHOD": "Manager.AddTargets", "NETMOND_OBJECT": ROOT,
        "NETMOND_ARGUMENTS": "['192.0.2.1', '2001:db8::/32']",
    }  # fmt: skip


@dataclass
class Variant:
    """As dbus-next has them."""

    signature: str
    value: object


def test_options(caplog: pytest.LogCaptureFixture) -> None:
    """As people write them; many long ones are cut."""
    options = {"filter": Variant("s", "tcp port 80"), "interfaces": Variant("as", ["eth0"])}
    audit.changed(1009, ROOT, MANAGER, "StartCapture", [options])
    audit.changed(
        1009, ROOT, MANAGER, "StartCapture", [{f"x{n}": Variant("s", "y" * 99) for n in range(99)}]
    )

    short, cut = (record.getMessage() for record in caplog.records)
    assert short.startswith("Manager.StartCapture({'filter': 'tcp port 80', 'interfaces': ['eth0']}) on ")
    assert len(cut) < 1000


def test_a_refusal(caplog: pytest.LogCaptureFixture) -> None:
    """Who lacks which authority."""
    audit.denied(1009, ROOT, MANAGER, "Reload", REASON)

    assert [record.getMessage() for record in caplog.records] == [
        f"Manager.Reload on /org/netmond1 refused to user 1009: {REASON}"
    ]
    assert fields(caplog.records[0]) == {
        "MESSAGE_ID": MessageId.DENIED.value, "NETMOND_CALLER_UID": "1009",
        "NETMOND_METHOD": "Manager.Reload", "NETMOND_OBJECT": ROOT, "NETMOND_REASON": REASON,
    }  # fmt: skip


def test_hostile_arguments(caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand addresses, ten megabytes, line breaks: one short line; made-up names are cut."""
    audit.changed(0, ROOT, MANAGER, "AddTargets", [["192.0.2.1"] * 10000, {}])
    audit.changed(0, ROOT, MANAGER, "MonitorInterface", ["eth0\nFAKE=1\x1b[2J" + "x" * 10_000_000, {}])

    for record in caplog.records:
        assert record.getMessage().isprintable()
    audit.denied(1009, "x\n" * 5_000_000, "x\n" * 5_000_000, "x\n" * 5_000_000, REASON)
    assert all(len(record.getMessage()) < 1000 for record in caplog.records)
    assert len(caplog.records) == 3


def test_nobody_hides_what_others_do(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """A caller who is refused over and over is told of now and then; others and changes are always told."""
    for _ in range(1000):
        audit.denied(1009, ROOT, MANAGER, "Reload", REASON)
    audit.denied(1013, ROOT, MANAGER, "Reload", REASON)
    audit.changed(1009, ROOT, MANAGER, "Reload", [])

    by_caller = [fields(record)["NETMOND_CALLER_UID"] for record in caplog.records]
    assert by_caller == ["1009"] * BURST + ["1013", "1009"]

    clock.now += WINDOW
    audit.denied(1009, ROOT, MANAGER, "Reload", REASON)
    assert caplog.records[-1].getMessage().endswith(" (980 similar messages left out before)")
    assert fields(caplog.records[-1])["NETMOND_SUPPRESSED"] == str(1000 - BURST)


def test_many_callers(caplog: pytest.LogCaptureFixture, clock: Clock) -> None:
    """Whoever has 65,536 user ids, as root of a container, fills neither journal nor memory."""
    for uid in range(100_000, 165_536):
        audit.denied(uid, ROOT, MANAGER, "Reload", REASON)
    assert len(caplog.records) == KINDS

    clock.now += WINDOW
    audit.denied(1013, ROOT, MANAGER, "Reload", REASON)
    assert len(caplog.records) == KINDS + 1


def test_clock_set_back() -> None:
    """A limit whose clock goes back begins anew instead of being silent until it has caught up."""
    there = limit.Limit()
    assert [there.take("x", 5000.0) for _ in range(BURST + 1)] == [0] * BURST + [None]

    assert there.take("x", 10.0) == 1
