"""The daemon's own log: to journald with fields, or lines on stderr."""

from __future__ import annotations

import io
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netmond.config_table import LOG_LEVELS
from netmond.errors import InvalidArgs
from netmond.outputs import limit, log
from netmond.outputs.messages import MessageId

Sent = list[tuple[str, dict[str, str]]]


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """A machine with a journal."""
    sent: Sent = []
    module = types.ModuleType("systemd.journal")
    send: Callable[..., None] = lambda message, **fields: sent.append((message, fields))  # noqa: E731
    vars(module)["send"] = send
    monkeypatch.setitem(sys.modules, "systemd.journal", module)
    (tmp_path / "socket").write_text("")
    monkeypatch.setattr(log, "SOCKET", str(tmp_path / "socket"))
    return sent


@pytest.fixture
def no_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one."""
    monkeypatch.setattr(log, "SOCKET", "/nonexistent")


def test_fields(journald: Sent) -> None:
    """Upper-case attributes of a record are fields; message, severity, place and logger come with them."""
    log.setup_logging("info")
    logging.getLogger("netmond.x").warning("%s is bad", "it", extra={"NETMOND_TARGET": "192.0.2.1"})

    [(message, fields)] = journald
    assert message == "it is bad"
    assert fields.pop("CODE_FILE") == __file__
    assert fields == {
        "PRIORITY": "4", "SYSLOG_IDENTIFIER": "netmond", "NETMOND_TARGET": "192.0.2.1",
        "NETMOND_LOGGER": "netmond.x", "CODE_FUNC": "test_fields",
    }  # fmt: skip


def test_reloaded(journald: Sent) -> None:
    """A reload has its message id and the warnings."""
    log.setup_logging("info")
    log.reloaded(["f: a", "f: b"])
    log.reloaded([])

    assert [message for message, _ in journald] == [
        "Configuration reloaded, with 2 warnings", "Configuration reloaded",
    ]  # fmt: skip
    assert journald[0][1]["MESSAGE_ID"] == MessageId.RELOADED.value
    assert journald[0][1]["NETMOND_WARNINGS"] == "f: a\nf: b"


def test_exceptions(journald: Sent) -> None:
    """A traceback is a field, not part of the message."""
    log.setup_logging("info")
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger().exception("failed")

    assert journald[0][0] == "failed"
    assert journald[0][1]["EXCEPTION_TEXT"].endswith("ValueError: x\n")


def test_hostile_text(journald: Sent) -> None:
    """A message is one line without control characters."""
    log.setup_logging("info")
    logging.getLogger().warning("name \x1b[2J\n<0>forged")

    assert journald[0][0] == "name \\x1b[2J\\n<0>forged"


def test_hostile_fields(journald: Sent) -> None:
    """Nor do fields have any, which journalctl -x prints; tracebacks and warnings have lines."""
    log.setup_logging("info")
    hostile = {"NETMOND_REASON": "x\nFAKE=1\x1b[2J", "NETMOND_WARNINGS": "a\nb\x1b[2J"}
    logging.getLogger().warning("x", extra=hostile, exc_info=ValueError("\x1b[2J"))

    fields = journald[0][1]
    assert fields["NETMOND_REASON"] == "x\\nFAKE=1\\x1b[2J"
    assert fields["NETMOND_WARNINGS"] == "a\nb\\x1b[2J"
    assert fields["EXCEPTION_TEXT"] == "ValueError: \\x1b[2J\n"


def test_floods(journald: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """One place in the code does not fill the journal, whatever makes it log; others are not affected."""
    now = 1000.0
    monkeypatch.setattr(log, "monotonic", lambda: now)
    log.setup_logging("debug")
    for number in range(1000):
        logging.getLogger("netmond").error("failed %d", number)
    logging.getLogger("netmond").error("something else")
    assert [message for message, _ in journald] == [
        *(f"failed {number}" for number in range(limit.BURST)), "something else",
    ]  # fmt: skip

    for _ in range(2):
        now += limit.WINDOW
        for message in ("failed", "failed again"):
            logging.getLogger("netmond").error(message)
    assert len(journald) == limit.BURST + 1 + 4


def test_floods_are_counted(journald: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next message from the same place says how many were left out."""
    now = 1000.0
    monkeypatch.setattr(log, "monotonic", lambda: now)
    log.setup_logging("info")
    for number in range(limit.BURST + 24):
        if number == limit.BURST + 23:
            now += limit.WINDOW
        logging.getLogger("netmond").error("failed")

    assert journald[-1][0] == "failed (23 similar messages left out before)"
    assert journald[-1][1]["NETMOND_SUPPRESSED"] == "23"


@pytest.mark.parametrize("name", LOG_LEVELS)
def test_levels(journald: Sent, name: str) -> None:
    """Levels are those of syslog: a message of that severity is sent, one less severe is not."""
    control = log.setup_logging(name)
    place = LOG_LEVELS.index(name)
    for level in log.LEVELS.values():
        logging.getLogger("netmond").log(level, "x")

    assert control.level == name
    assert [fields["PRIORITY"] for _, fields in journald] == [str(number) for number in range(place + 1)]


def test_level_changes_at_once(journald: Sent) -> None:
    """LogControl1: levels and targets change while running, others change nothing; "auto" is resolved."""
    control = log.setup_logging("err")
    logging.getLogger("netmond").info("no")
    control.level = "debug"
    logging.getLogger("netmond").debug("yes")
    with pytest.raises(InvalidArgs, match="unknown log level 'loud': one of emerg, "):
        control.level = "loud"
    with pytest.raises(InvalidArgs, match="unknown log target 'kmsg': one of auto, journal, console, null"):
        control.target = "kmsg"

    assert [message for message, _ in journald] == ["yes"]
    assert (control.level, control.target) == ("debug", "journal")


def test_target_changes_at_once(journald: Sent) -> None:
    """`console` is the stream even where there is a journal, `null` is nowhere."""
    stream = io.StringIO()
    control = log.setup_logging("info", stream=stream)
    control.target = "console"
    logging.getLogger().warning("one")
    control.target = "journal"
    logging.getLogger().warning("two")
    control.target = "null"
    logging.getLogger().warning("three")

    assert stream.getvalue() == "one\n"
    assert [message for message, _ in journald] == ["two"]


@pytest.mark.usefixtures("no_journal")
def test_without_journal() -> None:
    """Plain lines, also for the traceback."""
    stream = io.StringIO()
    log.setup_logging("info", stream=stream)
    logging.getLogger().info("a\nb", extra={"NETMOND_TARGET": "x"})
    logging.getLogger().error("bad", exc_info=ValueError("x\x1b"))

    assert stream.getvalue() == "a\\nb\nbad\nValueError: x\\x1b\n"


@pytest.mark.usefixtures("journald")
def test_without_python_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """stderr that systemd connected to the journal gets severities as prefixes; another stream does not."""
    missing: Any = None
    monkeypatch.setitem(sys.modules, "systemd.journal", missing)
    with (tmp_path / "stream").open("w+") as stream, (tmp_path / "other").open("w+") as other:
        info = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
        for each in (stream, other):
            log.setup_logging("info", stream=each)
            logging.getLogger().info("hello")
            logging.getLogger().error("bad")
            each.seek(0)

        assert stream.read() == "<6>hello\n<3>bad\n"
        assert other.read() == "hello\nbad\n"


def test_journal_that_goes_away(
    journald: Sent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A message that journald does not take goes to stderr; the program does not notice."""

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError

    monkeypatch.setattr(sys.modules["systemd.journal"], "send", refuse)
    log.setup_logging("info")
    logging.getLogger().info("hello")

    assert capsys.readouterr().err == "hello\n"
    assert journald == []
