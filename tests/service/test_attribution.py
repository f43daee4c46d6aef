"""Whose a socket is: user, process and unit are found from within the sandbox."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import UNIT, next_tick, rows, run, systemctl
from tests.service.talk import FAR, NEAR, Far, Program, Talker, figures

pytestmark = pytest.mark.usefixtures("installed")

_INITIAL_PIDS = "pid:[4026531836]"  #: what the kernel calls its first pid namespace (linux/proc_ns.h)


def known_as(pid: int) -> int | None:
    """The pid that netmond has for a process: the kernel's, which cannot be told inside a container."""
    outside = run("readlink", "/proc/1/ns/pid").out.strip() == _INITIAL_PIDS
    return pid if outside else None


def flow_of(talker: Talker) -> dict[str, Any]:
    """The row of its flow with the far host, with all it has exchanged, once it is known whose it is."""
    next_tick()

    def known() -> list[dict[str, Any]]:
        mine = [row for row in rows("Flows") if row["local_port"] == talker.port]
        return [row for row in mine if row["process"] and not row["user"].isdecimal()]

    (row,) = eventually(known, "its process and the user's name are known")
    return row


def assert_known(row: dict[str, Any], program: Talker) -> None:
    assert (row["user"], row["unit"], row["process"]) == (program.user, program.unit, "python3")
    assert row["pid"] > 0
    assert known_as(program.pid) in (None, row["pid"])


def test_new_socket(talkers: dict[str, Talker]) -> None:
    """A socket that is made while the daemon runs has user, process and unit from its first packet on."""
    talkers["erin"].exchange(1, 101)

    assert_known(flow_of(talkers["erin"]), talkers["erin"])


def begin_anew() -> None:
    """A daemon that takes nothing up of the one before: over a restart its programs would go on."""
    systemctl("stop", UNIT)
    systemctl("start", UNIT)


def test_socket_older_than_the_daemon(talkers: dict[str, Talker]) -> None:
    """A socket that was there before is found, too, with the same answers."""
    talkers["erin"].exchange(23, 101)
    begin_anew()
    talkers["erin"].exchange(1, 101)

    row = flow_of(talkers["erin"])
    assert_known(row, talkers["erin"])
    assert figures(row)[0] == 1


def test_silent_socket_older_than_the_daemon(talkers: dict[str, Talker]) -> None:
    """Also one that had never sent anything before the daemon came."""
    begin_anew()
    talkers["frank"].exchange(1, 307)

    assert_known(flow_of(talkers["frank"]), talkers["frank"])


def test_accepted_connection(talkers: dict[str, Talker], far: Far) -> None:
    """A server's connections are those of the server, not of whoever connects."""
    port = talkers["erin"].do("listen", name="server", local=["0.0.0.0", 0])
    far.do("tcp", name="client", peer=[NEAR, port])
    talkers["erin"].do("accept", name="one", listener="server")
    far.do("send", name="client", size=101)
    talkers["erin"].do("answer", name="one", size=101)
    far.do("drain", name="client", count=1)
    next_tick()

    found = [row for row in rows("Flows") if row["local_port"] == port and row["remote"] == FAR]
    far.do("close", name="client")
    assert len(found) == 1
    assert_known(found[0], talkers["erin"])


def test_service_of_the_system(far: Far) -> None:
    """A unit that systemd starts by itself is named as systemctl names it."""
    unit = "talks-once.service"
    program = Program("systemd-run", "--quiet", "--wait", "--pipe", f"--unit={unit}", "--uid=nobody")
    program.do("udp", name="a", peer=[FAR, Far.PORT])
    program.do("exchange", name="a", count=23, size=401)
    next_tick()

    seen = {row["unit"]: row for row in rows("Units")}
    program.close()
    assert seen[unit]["slice"] == "system.slice"
    assert figures(seen[unit]) == (23, 23 * 429) * 2
