"""What users sent is what netmond says, to the byte, over D-Bus and with netmonctl."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import ctl, ctl_json, described, next_tick, rows
from tests.service.talk import (
    DEVICE,
    ETHERNET,
    FAR,
    IP_UDP,
    NOTHING,
    Figures,
    Talker,
    difference,
    echoed,
    figures,
    of_users,
)

#: What each user sends: number of datagrams, payload of each. Primes, so that no sum looks like another.
_SENT = {"erin": (23, 101), "frank": (29, 307)}


@pytest.fixture
def exchanged(talkers: dict[str, Talker]) -> dict[str, Figures]:
    """Both users have talked: the users' figures before."""
    before = of_users()
    for name, (count, size) in _SENT.items():
        talkers[name].exchange(count, size)
    return {name: before.get(name, NOTHING) for name in _SENT}


def test_users(exchanged: dict[str, Figures]) -> None:
    """Each user's packets and bytes are exactly what went over the wire for that user, both ways."""
    after = of_users()

    for name, (count, size) in _SENT.items():
        assert difference(after[name], exchanged[name]) == echoed(count, size)


@pytest.mark.usefixtures("exchanged")
def test_netmonctl_says_the_same() -> None:
    """`netmonctl users`, as JSON and as a table, shows what D-Bus has."""
    seen = of_users()

    shown = {row["user"]: figures(row) for row in ctl_json("users")}
    assert {name: shown[name] for name in _SENT} == {name: seen[name] for name in _SENT}
    table = ctl("users", "--no-legend").out
    for name in _SENT:
        assert re.search(rf"^{name} .* {seen[name][0]} +{seen[name][2]}$", table, re.MULTILINE), table


def test_own_figures_only(talkers: dict[str, Talker]) -> None:
    """A user sees own rows without any right, and no others in them."""
    talkers["erin"].exchange(23, 101)
    talkers["frank"].exchange(23, 101)
    next_tick()

    assert {row["user"] for row in rows("Users", user="erin")} == {"erin"}
    assert {row["user"] for row in ctl_json("users", user="frank")} == {"frank"}
    flows = rows("Flows", user="erin")
    assert {row["uid"] for row in flows} == {talkers["erin"].uid}


def test_units_and_flows(talkers: dict[str, Talker]) -> None:
    """The unit of each program and its one flow carry exactly its traffic."""
    for name, (count, size) in _SENT.items():
        talkers[name].exchange(count, size)
    next_tick()

    units = {row["unit"]: figures(row) for row in rows("Units")}
    flows = {row["unit"]: row for row in rows("Flows") if row["remote"] == FAR}
    for name, (count, size) in _SENT.items():
        unit = talkers[name].unit
        assert units[unit] == figures(flows[unit]) == echoed(count, size)
        assert flows[unit]["process"] == "python3"
        assert flows[unit]["protocol"] == "udp"


def test_uplink_is_monitored_by_itself(talkers: dict[str, Talker]) -> None:
    """The interface of the default route is found, and counts every frame with its Ethernet header."""
    eventually(lambda: bool(_interface()["monitored"]), "the uplink is monitored")
    next_tick()
    before = _interface()["classes"]

    talkers["erin"].exchange(31, 211)
    next_tick()

    after = _interface()["classes"]
    for direction in ("in", "out"):
        names = (f"{direction}_ipv4_packets", f"{direction}_ipv4_bytes")
        assert tuple(after[name] - before[name] for name in names) == (31, 31 * (211 + IP_UDP + ETHERNET))
    assert {each["name"]: each["state"] for each in described()["features"]}["interfaces"] == "on"


def test_target(talkers: dict[str, Talker]) -> None:
    """An address that is watched gets what was sent to it (in) and what came from it (out), from the IP
    header on."""
    ctl("target", "add", FAR)
    try:
        talkers["frank"].exchange(37, 509)
        next_tick()
        (row,) = ctl_json("target", "list")
    finally:
        ctl("target", "remove", FAR)

    assert figures(row) == echoed(37, 509)


def test_nothing_was_lost() -> None:
    """The ledger of losses is empty after all that."""
    assert {each["name"]: each["count"] for each in described()["losses"] if each["count"]} == {}


def _interface() -> dict[str, Any]:
    (row,) = [row for row in rows("Interfaces") if row["name"] == DEVICE]
    return row
