"""Packet logs over D-Bus: switched on and off, listed, and their files handed out as descriptors."""

from __future__ import annotations

import gc
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netmond.bus import marshal, names
from netmond.bus.descriptors import Descriptor, Passed, opened
from netmond.errors import Unavailable
from netmond.model import NOBODY_UID, PacketLog
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, Crowd, code, outcome, unavailable, until
from tests.bus.snapshots import ALICE, BOB
from tests.bus.test_crowds import HELLO
from tests.bus.test_hostile import manager_frame

USERS = ("au", "a{sv}")
LIST = ("a{sv}",)
OPEN = ("u", "a{sv}")
LOG = "in,23,192.0.2.7,192.0.2.1\n"


@pytest.fixture
def logs(host: Host, tmp_path: Path) -> Path:
    """A directory in which alice and bob have logs, and nobody else."""
    host.monitor.log_directory = tmp_path
    for uid in (ALICE, BOB):
        (tmp_path / f"{uid}.log").write_text(LOG * uid)
    return tmp_path


def failure(caller: Caller, member: str, types: tuple[str, ...], *values: object) -> tuple[str, str]:
    """Code and text of the error a call ends with."""
    with pytest.raises(CallError) as caught:
        caller.call(member, types, *values)
    return code(caught.value), caught.value.text


def test_on_and_off(host: Host, admin: Caller) -> None:
    """Users and sampling reach the daemon; no users means everyone."""
    admin.call("EnablePacketLog", USERS, [ALICE, BOB], {"every": ["u", 7]})
    admin.call("EnablePacketLog", USERS, [], {})
    admin.call("DisablePacketLog", USERS, [BOB], {})
    admin.call("DisablePacketLog", USERS, [], {})

    assert host.monitor.done == [
        ("log", [ALICE, BOB], 7),
        ("log", None, 1),
        ("log off", [BOB]),
        ("log off", None),
    ]


@pytest.mark.parametrize(
    ("member", "users", "options", "error"),
    [
        ("EnablePacketLog", [ALICE], {"every": ["u", 0]}, "InvalidArgs"),
        ("EnablePacketLog", [ALICE], {"every": ["s", "7"]}, "InvalidArgs"),
        ("EnablePacketLog", [ALICE], {"each": ["u", 7]}, "InvalidArgs"),
        ("EnablePacketLog", [NOBODY_UID], {}, "InvalidArgs"),
        ("EnablePacketLog", [ALICE, BOB, ALICE], {}, "InvalidArgs"),
        ("EnablePacketLog", list(range(10_001)), {}, "LimitExceeded"),
        ("DisablePacketLog", [ALICE], {"every": ["u", 7]}, "InvalidArgs"),
        ("DisablePacketLog", [ALICE], {}, "NotFound"),
    ],
)
def test_what_is_wrong_changes_nothing(
    host: Host, admin: Caller, member: str, users: list[int], options: dict[str, list[object]], error: str
) -> None:
    """Each has its error, in one line."""
    assert failure(admin, member, USERS, users, options)[0] == error
    assert host.monitor.logs == {}


def test_list(host: Host, admin: Caller, alice: Caller, bob: Caller) -> None:
    """A row for each user with figures and name; others than the powerful see their own."""
    host.monitor.logs = {
        ALICE: PacketLog(uid=ALICE, every=1, since=7.5, rows=23, lost_packets=3, lost_bytes=313),
        13: PacketLog(uid=13, every=17, since=17.5),
    }
    row = {
        "uid": ALICE, "user": "games", "mode": "packets", "every": 1, "since": 7.5,
        "rows": 23, "lost_packets": 3, "lost_bytes": 313,
    }  # fmt: skip

    rows, meta = admin.call("ListPacketLogs", LIST, {})
    assert rows[0] == row
    assert [(each["uid"], each["mode"], each["every"]) for each in rows[1:]] == [(13, "sample", 17)]
    assert (meta["scope"], meta["total"]) == ("all", 2)
    assert alice.call("ListPacketLogs", LIST, {})[0] == [row]
    assert bob.call("ListPacketLogs", LIST, {})[0] == []


def test_list_of_everyone(host: Host, admin: Caller, alice: Caller) -> None:
    """The row that stands for everyone names nobody; its figures are everyone's, so alice sees none."""
    host.monitor.logs = {NOBODY_UID: PacketLog(uid=NOBODY_UID, every=1, since=7.5, rows=23)}
    mode: dict[str, object] = {"mode": "packets", "every": 1, "since": 7.5}

    assert admin.call("ListPacketLogs", LIST, {})[0] == [
        mode | {"rows": 23, "lost_packets": 0, "lost_bytes": 0}
    ]
    assert alice.call("ListPacketLogs", LIST, {})[0] == [mode | {"uid": ALICE, "user": "games"}]


def test_list_options(host: Host, admin: Caller) -> None:
    """Sorted and cut as all lists; unknown keys are refused."""
    host.monitor.logs = {
        uid: PacketLog(uid=uid, every=1, since=1.5, rows=rows) for uid, rows in ((5, 7), (9, 11), (13, 3))
    }

    def uids(**options: list[object]) -> list[int]:
        return [row["uid"] for row in admin.call("ListPacketLogs", LIST, options)[0]]

    assert uids() == [5, 9, 13]  # games, news, proxy
    assert uids(sort=["s", "rows"]) == [9, 5, 13]
    assert uids(sort=["s", "rows"], reverse=["b", True], limit=["u", 2]) == [13, 5]
    assert failure(admin, "ListPacketLogs", LIST, {"sort": ["s", "colour"]})[0] == "InvalidArgs"
    assert failure(admin, "ListPacketLogs", LIST, {"scope": ["s", "mine"]})[0] == "InvalidArgs"


def test_types(host: Host) -> None:
    """busctl, another implementation of D-Bus, reads the types that the interface description promises."""
    host.monitor.logs = {ALICE: PacketLog(uid=ALICE, every=7, since=7.5)}
    command = ["busctl", f"--address={host.bus.address}", "--json=short", "call", names.BUS_NAME]
    command += [names.ROOT_PATH, names.MANAGER, "ListPacketLogs", "a{sv}", "0"]

    answer = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    (row,), _ = answer["data"]
    assert {key: value["type"] for key, value in row.items()} == {
        "uid": "u", "user": "s", "mode": "s", "every": "u", "since": "d",
        "rows": "t", "lost_packets": "t", "lost_bytes": "t",
    }  # fmt: skip


def test_own_log(logs: Path, alice: Caller) -> None:
    """A descriptor for reading only, from the begin; of somebody else's it takes authority."""
    assert alice.call("OpenLog", OPEN, ALICE, {}) == {"content": LOG * ALICE, "writable": False}
    assert failure(alice, "OpenLog", OPEN, BOB, {})[0] == "AccessDenied"
    assert failure(alice, "OpenLog", OPEN, 77, {})[0] == "AccessDenied"  # whether or not there is one


def test_any_log(logs: Path, admin: Caller, member: Caller) -> None:
    """Root and the group read everybody's; what is not there has an error of its own."""
    for powerful in (admin, member):
        assert powerful.call("OpenLog", OPEN, BOB, {})["content"] == LOG * BOB
        assert failure(powerful, "OpenLog", OPEN, 77, {}) == ("NoSuchLog", "user 77 has no log yet")
    assert failure(admin, "OpenLog", OPEN, BOB, {"since": ["u", 7]})[0] == "InvalidArgs"


def test_another_implementation_takes_the_descriptor(host: Host, logs: Path) -> None:
    """busctl gets a file, too."""
    command = ["busctl", f"--address={host.bus.address}", "call", names.BUS_NAME, names.ROOT_PATH]
    command += [names.MANAGER, "OpenLog", "ua{sv}", str(ALICE), "0"]

    assert subprocess.run(command, capture_output=True, check=True, text=True).stdout.startswith("h ")


def held(logs: Path) -> int:
    """How many descriptors of logs this process has, in which the service lives."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}").startswith(str(logs))
        except FileNotFoundError:
            continue
    return found


def test_no_descriptor_stays_open(host: Host, logs: Path, admin: Caller) -> None:
    """Not after answers, not after calls that want none, and not for a caller who left."""
    for _ in range(23):
        admin.call("OpenLog", OPEN, ALICE, {})
        admin.call("OpenLog", OPEN, ALICE, {}, flags=1)  # no reply expected
    leaving = Caller(host.bus.address, os.geteuid())
    leaving.burst(7, 0, "OpenLog", OPEN, ALICE, {})
    leaving.close()

    until(lambda: host.service.calls == 0 and held(logs) == 0)


@pytest.fixture
def hoarder(host: Host) -> Iterator[Callable[[], Crowd]]:
    """Makes a connection of alice's that takes descriptors and reads nothing."""
    crowds: list[Crowd] = []
    if os.geteuid() != 0:
        unavailable("calling as other users needs root")

    def make() -> Crowd:
        crowds.append(Crowd(host.bus.address, ALICE, 1, HELLO))
        return crowds[-1]

    yield make
    for crowd in crowds:
        crowd.close()


def test_files_left_unread(
    host: Host, logs: Path, admin: Caller, alice: Caller, hoarder: Callable[[], Crowd]
) -> None:
    """A bus keeps 64 descriptors of ours, then reads nothing more: nobody gets to leave so many unread."""
    greedy = hoarder()
    body = bytes(marshal.encode("ua{sv}", [ALICE, {}]))

    def refused() -> bool:  # first the socket must be full, then the bus keeps what comes
        greedy.send(b"".join(manager_frame(10 + n, "OpenLog", "ua{sv}", body) for n in range(8)))
        answer = outcome(lambda: alice.call("OpenLog", OPEN, ALICE, {}))
        return answer == "org.netmond1.Error.LimitExceeded"

    until(refused)
    for _ in range(23):
        assert admin.call("OpenLog", OPEN, BOB, {})["content"] == LOG * BOB
    until(lambda: host.service.calls == 0 and held(logs) == 0)

    greedy.close()
    until(lambda: outcome(lambda: alice.call("OpenLog", OPEN, ALICE, {})) == "ok")


def test_descriptors_that_are_sent_to_us(host: Host, admin: Caller, logs: Path) -> None:
    """Nobody asked for them: they are not kept, and the call gets its error."""
    program = """
import asyncio, sys
from dbus_next.aio.message_bus import MessageBus
from dbus_next.message import Message
from dbus_next.signature import Variant
async def main():
    bus = await MessageBus(bus_address=sys.argv[1], negotiate_unix_fd=True).connect()
    for _ in range(23):
        file = open(sys.argv[2])
        reply = await bus.call(Message(destination="org.netmond1", path="/org/netmond1",
            interface="org.netmond1.Manager", member="ListUsers", signature="a{sv}",
            body=[{"user": Variant("h", 0)}], unix_fds=[file.fileno()]))
        print(reply.error_name)
asyncio.run(main())
"""
    file = logs / f"{ALICE}.log"
    command = ["/usr/bin/python3", "-c", program, host.bus.address, str(file)]

    answers = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()

    assert answers == ["org.netmond1.Error.InvalidArgs"] * 23
    assert held(logs) == 0


def test_a_descriptor_ends_with_its_holder(tmp_path: Path) -> None:
    """Closed when it is dropped; a file that cannot be opened leaves none of those before it open."""
    (tmp_path / "log").write_text(LOG)

    def one() -> int:
        return os.open(tmp_path / "log", os.O_RDONLY)

    def none() -> int:
        raise FileNotFoundError(2, "No such file or directory")

    values, files = opened(["x", Passed(one), Passed(one)])
    assert values == ["x", 0, 1]
    assert [type(file) for file in files] == [Descriptor, Descriptor]
    assert held(tmp_path) == 2
    del files
    with pytest.raises(Unavailable, match="No such file"):
        opened([Passed(one), Passed(none)])
    gc.collect()
    assert held(tmp_path) == 0
