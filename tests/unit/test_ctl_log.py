"""netmonctl log on, off and list."""

from __future__ import annotations

import json
import os
import pwd
from typing import Any

import pytest

from netmonctl.calls import Call
from netmonctl.errors import CtlError, ExitCode
from tests.unit.test_ctl_commands import Fake, Ran, listing

MANAGER = ("/org/netmond1", "org.netmond1.Manager")
ME = os.getuid()
MY_NAME = pwd.getpwuid(ME).pw_name

ALICE = {
    "uid": 1000, "user": "alice", "mode": "packets", "every": 1, "since": 1_700_000_000.5,
    "rows": 123457, "lost_packets": 0, "lost_bytes": 0,
}  # fmt: skip
EVERYONE = {
    "mode": "sample", "every": 10, "since": 1_700_000_060.0,
    "rows": 23, "lost_packets": 7, "lost_bytes": 10136,
}  # fmt: skip


def on(uids: list[int], every: int = 1) -> Call:
    return Call(*MANAGER, "EnablePacketLog", ("au", "a{sv}"), (uids, {"every": every}))


def off(uids: list[int]) -> Call:
    return Call(*MANAGER, "DisablePacketLog", ("au", "a{sv}"), (uids, {}))


@pytest.mark.parametrize(
    ("line", "call", "sentence"),
    [
        ("log on", on([ME]), f"Logging each packet of {MY_NAME}."),
        ("log on games 77", on([5, 77]), "Logging each packet of games, 77."),
        ("log on --all", on([]), "Logging each packet of everyone."),
        ("log on --every 10 games", on([5], 10), "Logging one of 10 packets of games."),
        ("--every=2 log on -a", on([], 2), "Logging one of 2 packets of everyone."),
        ("log off", off([ME]), f"No longer logging packets of {MY_NAME}."),
        ("log off games", off([5]), "No longer logging packets of games."),
        ("log off --all", off([]), "No longer logging packets of everyone."),
    ],
)
def test_on_and_off(line: str, call: Call, sentence: str) -> None:
    """Users by name or number, one's own by default, everyone only if it is written."""
    fake = Fake({"EnablePacketLog": [], "DisablePacketLog": []})

    ran = Ran(fake, *line.split())

    assert (ran.code, ran.stdout, ran.stderr) == (0, f"{sentence}\n", "")
    assert fake.calls == [call]


def test_json_of_a_change() -> None:
    """What was switched."""
    fake = Fake({"EnablePacketLog": []})

    assert json.loads(Ran(fake, "log", "on", "games", "--json").stdout) == {
        "users": [5], "all": False, "every": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("log on --all games", ExitCode.USAGE),
        ("log on nobody-has-this-name", ExitCode.UNKNOWN_OBJECT),
        ("log on 4294967295", ExitCode.USAGE),
        ("log on --every 0", ExitCode.USAGE),
        ("log tail --dir up", ExitCode.USAGE),
        ("log tail --proto carrier-pigeon", ExitCode.USAGE),
        ("log tail --peer example.org", ExitCode.USAGE),
        ("log tail -u nobody-has-this-name", ExitCode.UNKNOWN_OBJECT),
        ("log tail games", ExitCode.USAGE),
        ("log fell", ExitCode.USAGE),
    ],
)
def test_mistakes(line: str, code: ExitCode) -> None:
    """One line, before netmond is asked anything."""
    fake = Fake({})

    ran = Ran(fake, *line.split())

    assert (ran.code, ran.stdout, ran.stderr.count("\n")) == (code, "", 1)
    assert fake.calls == []


def test_errors_of_netmond() -> None:
    """They have the exit codes of all commands."""
    missing = CtlError("packets of user 5 are not logged", ExitCode.UNKNOWN_OBJECT)

    ran = Ran(Fake({"DisablePacketLog": missing}), "log", "off", "games")

    assert (ran.code, ran.stderr) == (5, "netmonctl: packets of user 5 are not logged\n")


@pytest.mark.parametrize("line", ["log", "log list", "--no-legend log"])
def test_list(line: str) -> None:
    """Who, how, since when, how much, and what is missing."""
    ran = Ran(Fake({"ListPacketLogs": listing(EVERYONE, ALICE)}), *line.split())

    titles = "USER       UID  MODE     EVERY  SINCE                          ROWS  LOST PKTS     LOST\n"
    legend = "\n2 packet logs listed.\n"
    assert ran.code == 0
    assert ran.stdout == (
        ("" if "--no-legend" in line else titles)
        + "everyone     -  sample      10  Tue 2023-11-14 22:14:20 UTC      23          7  9.9 KiB\n"
        + "alice     1000  packets      1  Tue 2023-11-14 22:13:20 UTC  123457          0      0 B\n"
        + ("" if "--no-legend" in line else legend)
    )


def test_list_options() -> None:
    """As with all lists; JSON rows are netmond's."""
    fake = Fake({"ListPacketLogs": listing(ALICE, EVERYONE)})

    ran = Ran(fake, "log", "--json=short", "--all", "--sort", "rows", "-rn5")

    options: dict[str, Any] = {"sort": "rows", "reverse": True, "scope": "all", "limit": 5}
    assert json.loads(ran.stdout) == [ALICE, EVERYONE]
    assert fake.calls == [Call(*MANAGER, "ListPacketLogs", ("a{sv}",), (options,))]
