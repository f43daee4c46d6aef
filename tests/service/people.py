"""The people of the machine: two ordinary users, a member of netmond's group, and root; and what they do."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.kernel.deadline import eventually
from tests.service.client import PATIENCE, Caller, CallError
from tests.service.inside import run, systemctl

#: What bob does, and what root watches: none of these words may ever reach alice.
BOB_PEER, BOB_PORT, BOB_PROCESS = "127.77.13.9", 31337, "bobs-secret"
TARGET = "203.0.113.77"
TARGET_PATH = "/org/netmond1/target/_3203_2e0_2e113_2e77"
SECRETS = (BOB_PEER, BOB_PROCESS, "talk-bob", TARGET, TARGET_PATH.rpartition("/")[2])

#: What alice does, and may see.
ALICE_PEER = "127.66.1.2"

_TALK = """
import socket, sys, time
open("/proc/self/comm", "w").write(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
    peer.connect((sys.argv[1], int(sys.argv[2])))
    while True:
        try:
            peer.send(bytes(100))
        except ConnectionRefusedError:
            pass
        time.sleep(0.05)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An account of the machine."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What makes subprocess start a program as this person, away from the tests' terminal and files."""
        home = pwd.getpwuid(self.uid).pw_dir
        environment = {"HOME": home, "USER": self.name, "LOGNAME": self.name, "LANG": "C.UTF-8"}
        environment |= {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "TERM": "xterm"}
        who = {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}
        return {**who, "env": environment, "cwd": "/", "start_new_session": True}

    def run(self, *command: str, stdin: str = "", cwd: str = "/") -> subprocess.CompletedProcess[str]:
        """Run a program without a terminal."""
        how: dict[str, Any] = self.identity | {"cwd": cwd}
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=PATIENCE, **how)

    def netmonctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run netmonctl without a terminal."""
        return self.run("/usr/bin/netmonctl", *words)

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        """A client of the system bus."""
        caller = Caller(self.identity)
        try:
            yield caller
        finally:
            caller.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    alice: Person
    bob: Person
    carol: Person  #: member of group netmond
    root: Person

    def all(self) -> Mapping[str, Person]:
        """Everybody by name."""
        return {person.name: person for person in (self.alice, self.bob, self.carol, self.root)}


@contextmanager
def everybody() -> Iterator[People]:
    """Everybody, with accounts made for those who have none; these are removed in the end."""
    with ExitStack() as stack:
        for name, groups in (("alice", ""), ("bob", ""), ("carol", "netmond")):
            if not _exists(name):
                run("useradd", "--create-home", "--user-group", name, f"--groups={groups}")
                stack.callback(run, "userdel", "--force", "--remove", name)
        yield People(**{name: _person(name) for name in ("alice", "bob", "carol", "root")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everybody, and a connection of each to the bus."""

    people: People
    alice: Caller
    bob: Caller
    carol: Caller
    root: Caller


@contextmanager
def connected() -> Iterator[Scene]:
    """Everybody has traffic and is on the bus."""
    with everybody() as people, conversations(people), ExitStack() as stack:
        callers = {name: stack.enter_context(person.caller()) for name, person in people.all().items()}
        yield Scene(people=people, **callers)


@contextmanager
def conversations(people: People) -> Iterator[None]:
    """Everybody has traffic that netmond has counted, each in a unit talk-NAME; root watches TARGET."""
    talks = {
        "alice": (ALICE_PEER, 4001, "alices-own"),
        "bob": (BOB_PEER, BOB_PORT, BOB_PROCESS),
        "carol": ("127.88.1.2", 4003, "carols"),
        "root": ("127.99.1.2", 4004, "roots"),
    }
    with ExitStack() as stack:
        root = stack.enter_context(people.root.caller())
        for name, (peer, port, process) in talks.items():
            unit = f"talk-{name}"
            words = ["--quiet", "--collect", f"--unit={unit}", f"--uid={name}"]
            run("systemd-run", *words, "/usr/bin/python3", "-c", _TALK, peer, str(port), process)
            stack.callback(systemctl, "stop", unit)
        watch(root, TARGET)
        stack.callback(forget, root, TARGET)
        eventually(lambda: {peer for peer, *_ in talks.values()} <= _peers(root), "everybody has traffic")
        yield


def watch(root: Caller, address: str) -> None:
    """Make an address a target unless it is one."""
    try:
        root.call("AddTargets", ("as", "a{sv}"), [address], {})
    except CallError as error:
        if error.name != "org.netmond1.Error.AlreadyExists":
            raise


def forget(root: Caller, address: str) -> None:
    """Make an address no target any more."""
    try:
        root.call("RemoveTargets", ("as", "a{sv}"), [address], {})
    except CallError as error:
        if error.name != "org.netmond1.Error.NoSuchTarget":
            raise


def _peers(root: Caller) -> set[str]:
    rows, _ = root.call("ListFlows", ("a{sv}",), {"limit": ["u", 0]})
    return {row["remote"] for row in rows}


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _person(name: str) -> Person:
    entry = pwd.getpwnam(name)
    groups = tuple(os.getgrouplist(name, entry.pw_gid))
    return Person(name=name, uid=entry.pw_uid, gid=entry.pw_gid, groups=groups)
