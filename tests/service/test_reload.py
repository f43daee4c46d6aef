"""Changing the configuration of a running service, for better and for worse; and its log level."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import (
    UNIT,
    answers,
    ctl,
    journal,
    main_pid,
    moment,
    restart,
    rows,
    run,
    show,
    systemctl,
)

pytestmark = pytest.mark.usefixtures("installed")

_DROP_IN = Path("/etc/netmond/netmond.d/test.toml")
_GOOD = '[targets]\naddresses = ["192.0.2.7"]\n'
_BAD = _GOOD + "[daemon]\ninterval = 4711\n"
_COMPLAINT = (str(_DROP_IN), "interval", "4711", "60")  #: file, key, value, and what is allowed


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """The configuration is as it was, and in force."""
    yield
    _DROP_IN.unlink(missing_ok=True)
    if not answers():
        restart()
    ctl("reload")


def targets() -> list[str]:
    return [str(row["address"]) for row in rows("Targets")]


def messages(start: str) -> list[str]:
    """What was said in the journal about the service from a moment on."""
    return [str(each["MESSAGE"]) for each in journal(f"--unit={UNIT}", f"--since={start}")]


def by_systemctl() -> None:
    systemctl("reload", UNIT)


def by_netmonctl() -> None:
    ctl("reload")


def by_signal() -> None:
    os.kill(main_pid(), signal.SIGHUP)


@pytest.mark.parametrize("reload", [by_systemctl, by_netmonctl, by_signal])
def test_new_configuration(reload: Callable[[], None]) -> None:
    """Is in force when the command returns (a signal is not waited for), in the same process."""
    pid = main_pid()
    _DROP_IN.write_text(_GOOD)

    reload()

    eventually(lambda: targets() == ["192.0.2.7"], "the target of the file")
    assert main_pid() == pid
    assert show("ActiveState") == "active"


def test_bad_configuration_by_systemctl() -> None:
    """`systemctl reload` fails; the journal names file, key, value and what is allowed; nothing changes."""
    pid, start = main_pid(), moment()
    _DROP_IN.write_text(_BAD)

    done = systemctl("reload", UNIT, check=False)

    assert done.code != 0
    said = "\n".join(messages(start))
    for word in _COMPLAINT:
        assert word in said
    assert (main_pid(), targets()) == (pid, [])
    assert show("ActiveState") == "active"


def test_bad_configuration_by_netmonctl() -> None:
    """`netmonctl reload` says in one line what is wrong and where."""
    _DROP_IN.write_text(_BAD)

    done = ctl("reload", check=False)

    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    for word in _COMPLAINT:
        assert word in done.err
    assert targets() == []


def test_bad_configuration_by_signal() -> None:
    """SIGHUP has no answer: the journal tells that the old configuration stays."""
    pid, start = main_pid(), moment()
    _DROP_IN.write_text(_BAD)

    by_signal()

    (text,) = eventually(
        lambda: [message for message in messages(start) if str(_DROP_IN) in message], "the journal complains"
    )
    assert "old configuration" in text
    assert (main_pid(), targets()) == (pid, [])


def test_bad_configuration_at_the_start() -> None:
    """The service refuses to start, says why, and starts again when it is mended."""
    systemctl("stop", UNIT)
    start = moment()
    _DROP_IN.write_text(_BAD)

    done = systemctl("start", UNIT, check=False)

    assert done.code != 0
    said = "\n".join(messages(start))
    assert "Traceback" not in said
    for word in _COMPLAINT:
        assert word in said
    _DROP_IN.unlink()
    restart()
    assert answers()


def test_unknown_key_is_a_warning() -> None:
    """It may be a newer netmond's: the rest is in force, and the warning names file and key."""
    _DROP_IN.write_text(_GOOD + "colour = 1\n")

    done = ctl("reload")

    assert str(_DROP_IN) in done.out + done.err
    assert "colour" in done.out + done.err
    assert targets() == ["192.0.2.7"]


def test_log_level() -> None:
    """`systemctl service-log-level` and `netmonctl log-level` are the same level."""
    assert systemctl("service-log-level", "netmond").out == "info\n"
    assert systemctl("service-log-target", "netmond").out != ""

    systemctl("service-log-level", "netmond", "debug")
    try:
        assert systemctl("service-log-level", "netmond").out == "debug\n"
        assert ctl("log-level").out.strip() == "debug"
    finally:
        systemctl("service-log-level", "netmond", "info")
    assert ctl("log-level").out.strip() == "info"


def test_log_level_is_checked() -> None:
    """A level that does not exist is refused, and nothing changes."""
    assert systemctl("service-log-level", "netmond", "loud", check=False).code != 0
    words = ["org.netmond1", "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1", "LogLevel"]
    assert run("busctl", "set-property", *words, "s", "loud", check=False).code != 0

    assert systemctl("service-log-level", "netmond").out == "info\n"
