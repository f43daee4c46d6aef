"""netmonctl log with the real daemon: the log of a user, read by that user through the bus."""

from __future__ import annotations

import json
from typing import Any

from tests.bus.snapshots import ALICE as USER
from tests.bus.snapshots import BOB as SOMEBODY
from tests.kernel.capture import Figures
from tests.kernel.conftest import Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond

DATAGRAM = 101 + 28


def rows(netmond: Netmond, *words: str) -> list[dict[str, Any]]:
    """What log tail shows the user of the own log; nothing while there is none."""
    said = netmond.ctl("log", "tail", "--no-follow", "-n", "0", "--json", *words, uid=USER)
    assert said.code in (0, 5), said
    return [json.loads(line) for line in said.out.splitlines()]


def told(netmond: Netmond) -> Figures:
    """What the rows add up to. Datagrams may be in the rows of two intervals."""
    sums = {(way, unit): 0 for way in ("in", "out") for unit in ("packets", "bytes")}
    for row in rows(netmond):
        for unit in ("packets", "bytes"):
            sums[row["direction"], unit] += row[unit]
    return Figures(*sums.values())


def test_tail(scene: Scene) -> None:
    """A user reads the own log, whose directory is out of reach; nobody else does, but root."""
    netmond = scene.netmond(config={"output.csv.interval": 1})
    server, user = scene.server(), scene.user(USER)
    port = server.do("echo_server", local=["10.23.1.2", 0])
    assert netmond.ctl("log", "tail", uid=USER).code == 5
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    eventually(lambda: told(netmond) == (23, 23 * DATAGRAM) * 2, "both directions have their rows")

    ends = {(row["local"], row["remote"], row["remote_port"]) for row in rows(netmond)}
    assert ends == {("10.23.1.1", "10.23.1.2", port)}
    inbound = [row for row in rows(netmond) if row["direction"] == "in"]
    assert rows(netmond, "--dir", "in", "--port", str(port), "--proto", "udp") == inbound
    assert rows(netmond, "--peer", "10.23.1.0/30", "--dir", "out")[0]["unit"] == scene.unit.name
    assert rows(netmond, "--peer", "10.23.2.0/24") == []
    assert netmond.ctl("log", "tail", "-u", str(USER), uid=SOMEBODY).code == 4
    shown = netmond.ctl("log", "tail", "-u", str(USER), "--no-follow").out
    assert shown.count("10.23.1.2") == len(rows(netmond))


def packets(netmond: Netmond) -> tuple[int, int]:
    """Packets in and out with rows of their own."""
    directions = [row["direction"] for row in rows(netmond) if row.get("packets") == 1]
    return directions.count("in"), directions.count("out")


def logged(netmond: Netmond) -> list[dict[str, Any]]:
    """What log list says."""
    return list(netmond.json("log"))


def test_on_and_off(scene: Scene) -> None:
    """Each packet gets a row, also after a restart, until it is switched off."""
    netmond = scene.netmond(config={"output.csv.interval": 1})
    server, user = scene.server(), scene.user(USER)
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])

    assert netmond.ctl("log", "on", str(USER)).code == 0
    user.do("exchange", name="a", count=23, size=101)
    eventually(lambda: packets(netmond) == (23, 23), "each packet has a row")
    (row,) = logged(netmond)
    assert (row["uid"], row["mode"], row["every"], row["lost_packets"]) == (USER, "packets", 1, 0)
    assert [row["uid"] for row in netmond.json("log", uid=USER)] == [USER]
    assert netmond.json("log", uid=SOMEBODY) == []

    netmond.stop()
    netmond.start()
    eventually(lambda: [row["uid"] for row in logged(netmond)] == [USER], "it is on again")
    user.do("exchange", name="a", count=29, size=101)
    eventually(lambda: packets(netmond) == (52, 52), "each packet has a row")

    assert netmond.ctl("log", "off", str(USER)).code == 0
    assert netmond.ctl("log", "off", str(USER)).code == 5
    assert logged(netmond) == []
    netmond.stop()
    netmond.start()
    assert logged(netmond) == []
