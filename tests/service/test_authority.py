"""Two ordinary users, a member of group netmond and root try everything: each gets what is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.kernel.deadline import DEADLINE, eventually
from tests.service.client import Caller, CallError
from tests.service.matrix import (
    CAPTURE,
    FOREIGN,
    FRESH,
    LOG_PATH,
    LOGGED,
    MANAGE,
    MATRIX,
    OWN,
    PRESENT,
    PROPERTIES,
    READ_ALL,
    ROOT_PATH,
    SESSION,
    SIGNALS,
    UNUSED,
    VICTIM,
    WIDER,
    Try,
    live,
)
from tests.service.people import TARGET, TARGET_PATH, People, Person, conversations, everybody, forget, watch
from tests.service.terminal import Terminal

EVERYBODY = ("alice", "bob", "carol", "root")
POWERFUL = ("carol", "root")

#: Every netmonctl command line that asks for something of its own, and the action it takes.
VERBS: Mapping[str, Mapping[str, str | None]] = {
    "status": {"": None},
    "users": {"": None, "--own": None, "--all": READ_ALL},
    "units": {"": None, "--own": None, "--all": READ_ALL, "--user {other}": READ_ALL},
    "processes": {"": None, "--own": None, "--all": READ_ALL, "--user {other}": READ_ALL},
    "flows": {"": None, "--own": None, "--all": READ_ALL, "--user {other}": READ_ALL},
    "interfaces": {"": None},
    "rdma": {
        "": None,
        "--nccl": None,
        "--qp": None,
        "--qp --own": None,
        "--qp --all": READ_ALL,
        "--qp --user {other}": READ_ALL,
    },
    "user": {"{self}": None, "{other}": READ_ALL},
    "top": {"": None},
    "target add": {FRESH: MANAGE},
    "target remove": {VICTIM: MANAGE},
    "target reset": {TARGET: MANAGE},
    "target show": {TARGET: READ_ALL},
    "target list": {"": READ_ALL},
    "interface add": {"lo": MANAGE},
    "interface remove": {"lo": MANAGE},
    "reload": {"": MANAGE},
    "log-level": {"": None, "info": MANAGE},
    "log on": {"": MANAGE, str(UNUSED): MANAGE},
    "log off": {str(LOGGED): MANAGE},
    "log list": {"": None, "--own": None, "--all": READ_ALL},
    "log tail": {"--no-follow": None, "--no-follow -u {other}": READ_ALL},
    "capture": {"-i lo --duration 0.1": CAPTURE},
    "path": {"--drops --duration 0.1": CAPTURE},
    "sessions list": {"": None, "--own": None, "--all": READ_ALL},
    "sessions stop": {"{session}": MANAGE},
}

ALLOWED = "allowed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    people: People
    callers: Mapping[str, Caller]

    def prepare(self) -> None:
        """Make everything that the next call may ask for possible."""
        root = self.callers["root"]
        watch(root, TARGET)
        watch(root, VICTIM)
        forget(root, FRESH)
        root.call("MonitorInterface", ("s", "a{sv}"), "lo", {})
        root.call("EnablePacketLog", ("au", "a{sv}"), [LOGGED], {})

    def attempt(self, who: str, path: str, member: str, tried: Try) -> str:
        """ALLOWED, the action that a denial names, or whatever else came."""
        _, interface, name = re.fullmatch(r"(get |set )?(.*)\.(\w+)", member).groups()  # type: ignore[union-attr]
        if member.startswith(("get ", "set ")):
            interface, name = PROPERTIES, member[:3].capitalize()
        types, values = tried.types, [self._value(who, value, tried) for value in tried.values]
        try:
            self.callers[who].call(name, types, *values, path=path, interface=interface)
        except CallError as error:
            return denied(error.name, error.text)
        return ALLOWED

    def _value(self, who: str, value: Any, tried: Try) -> Any:
        person, other = self._both(who)
        if value is PRESENT:
            interface, name, _ = tried.values
            ask = partial(self.callers["root"].call, "Get", path=LOG_PATH, interface=PROPERTIES)
            return ["s", ask(("s", "s"), interface, name)]
        if value is SESSION:
            return self.session()
        if value is OWN:
            return person.uid
        if value is FOREIGN:
            return other.uid
        if isinstance(value, dict):
            return {key: ["s", other.name] if item is FOREIGN else item for key, item in value.items()}
        return value

    def session(self) -> int:
        """Number of a session of root's, which goes on until it is stopped, or root leaves the bus.

        Always a new one: one that is listed may be about to end, because somebody has stopped it.
        """
        root = self.callers["root"]
        for number in self._lasting():
            with suppress(CallError):
                root.call("StopSession", ("t", "a{sv}"), number, {})
        eventually(lambda: not self._lasting(), "earlier sessions are gone")
        options = {"interfaces": ["as", ["lo"]], "filter": ["s", "port 9"]}
        return int(root.call("StartCapture", ("a{sv}",), options)[0])

    def _lasting(self) -> list[int]:
        """Those that do not end by themselves."""
        rows, _ = self.callers["root"].call("ListSessions", ("a{sv}",), {})
        return [row["session"] for row in rows if "duration" not in json.loads(row["options"])]

    def _both(self, who: str) -> tuple[Person, Person]:
        """The caller and somebody else."""
        other = self.people.alice if who == "bob" else self.people.bob
        return self.people.all()[who], other

    def words(self, who: str, verb: str, rest: str) -> list[str]:
        """A command line of VERBS."""
        person, other = self._both(who)
        session = self.session() if "{session}" in rest else None
        return [*verb.split(), *rest.format(self=person.name, other=other.name, session=session).split()]


def denied(name: str, text: str) -> str:
    """The action that a denial names, if it is one line that also tells the remedy; else the whole error."""
    action = re.search(r"org\.netmond1\.[a-z-]+", text)
    proper = "\n" not in text and "root" in text and "group netmond" in text and action is not None
    if name == "org.netmond1.Error.AccessDenied" and proper and action is not None:
        return action.group()
    return f"{name}: {text}"


def due(who: str, needs: str | None) -> str:
    """What should come."""
    return ALLOWED if needs is None or who in POWERFUL else needs


@pytest.fixture(scope="module")
def scene(installed: object) -> Iterator[Scene]:
    """Everybody is connected and has traffic."""
    with everybody() as people, conversations(people), ExitStack() as stack:
        callers = {name: stack.enter_context(person.caller()) for name, person in people.all().items()}
        eventually(
            lambda: all(map(_has_log, callers.values(), people.all().values())),
            "everybody has a log",
            within=2 * DEADLINE,  # rows come every ten seconds
        )
        yield Scene(people=people, callers=callers)
        for address in (VICTIM, FRESH):
            forget(callers["root"], address)
        callers["root"].call("UnmonitorInterface", ("s", "a{sv}"), "lo", {})
        callers["root"].call("DisablePacketLog", ("au", "a{sv}"), [], {})
        callers["root"].call("Reload", ("a{sv}",), {})


def test_the_matrix_leaves_nothing_out(scene: Scene) -> None:
    """It names every member of every object that the running service shows to root, and no other."""
    scene.prepare()
    forget(scene.callers["root"], VICTIM)

    offer = live(scene.callers["root"])

    assert offer.members == {path: frozenset(members) for path, members in MATRIX.items()}
    assert offer.signals == SIGNALS.keys()


#: Everybody may have the doctor; selftest is root's by itself. Each has a test file of its own.
_ASK_FOR_NOTHING = {"doctor", "selftest"}


def test_verbs_leave_nothing_out(scene: Scene) -> None:
    """VERBS names every verb of the installed netmonctl."""
    program = "import json; from netmonctl.__main__ import parsers; print(json.dumps(parsers()[1].verbs))"
    verbs = json.loads(scene.people.root.run("/usr/bin/python3", "-c", program).stdout)

    known = {f"{verb} {sub}" for verb, subs in verbs.items() for sub in subs}
    known |= {verb for verb, subs in verbs.items() if not subs}

    assert known == VERBS.keys() | _ASK_FOR_NOTHING


@pytest.mark.parametrize("who", EVERYBODY)
def test_members(scene: Scene, who: str) -> None:
    """Everybody calls, reads and sets everything: allowed, or a denial that names action and remedy."""
    found, expected = {}, {}
    for path, members in MATRIX.items():
        for member, tried in members.items():
            scene.prepare()
            found[path, member] = scene.attempt(who, path, member, tried)
            # Whether there is such a target is nobody's business who may not see all.
            hidden = path == TARGET_PATH and tried.needs == MANAGE
            expected[path, member] = due(who, READ_ALL if hidden else tried.needs)

    assert found == expected


@pytest.mark.parametrize("who", EVERYBODY)
def test_options_that_ask_for_more(scene: Scene, who: str) -> None:
    """Members that are for everybody are not once they are asked about others."""
    found = {
        member: scene.attempt(who, ROOT_PATH, f"org.netmond1.Manager.{member.split()[1]}", tried)
        for member, tried in WIDER.items()
    }

    assert found == {member: due(who, tried.needs) for member, tried in WIDER.items()}


@pytest.mark.parametrize("who", EVERYBODY)
def test_denied_calls_change_nothing(scene: Scene, who: str) -> None:
    """What an ordinary user was refused has not happened; what the others did, has."""
    scene.prepare()
    root = scene.callers["root"]
    before = _state(root)

    for member in ("AddTargets", "RemoveTargets", "UnmonitorInterface"):
        name = f"org.netmond1.Manager.{member}"
        scene.attempt(who, ROOT_PATH, name, MATRIX[ROOT_PATH][name])

    assert (_state(root) == before) == (who not in POWERFUL)


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("verb", VERBS)
def test_netmonctl(scene: Scene, verb: str, who: str) -> None:
    """Every verb works, or ends with exit code 4 and one line that names action and remedy."""
    person = scene.people.all()[who]
    for rest, needs in VERBS[verb].items():
        scene.prepare()
        words = scene.words(who, verb, rest)
        if verb == "top":
            code, text = _top(person)
        else:
            done = person.netmonctl(*words)
            code, text = done.returncode, done.stderr

        if due(who, needs) == ALLOWED:
            assert code == 0, (words, text)
        else:
            assert code == 4, (words, text)
            assert text.startswith("netmonctl: "), words
            assert denied("org.netmond1.Error.AccessDenied", text.rstrip("\n")) == needs, words


@pytest.mark.parametrize("who", EVERYBODY)
def test_lists_without_scope(scene: Scene, who: str) -> None:
    """Without a scope, lists give everybody's rows to those who may see them, and to others their own."""
    for list_ in ("ListUsers", "ListProcesses", "ListFlows"):
        rows, meta = scene.callers[who].call(list_, ("a{sv}",), {"limit": ["u", 0]})
        uids = {row.get("uid") for row in rows}
        own = scene.people.all()[who].uid
        assert meta["scope"] == ("all" if who in POWERFUL else "own"), list_
        assert own in uids, list_
        assert (uids == {own}) == (who not in POWERFUL), list_


def _state(root: Caller) -> tuple[set[str], set[str]]:
    """The targets and the monitored interfaces."""
    targets = root.call("GetManagedObjects", interface="org.freedesktop.DBus.ObjectManager")
    interfaces, _ = root.call("ListInterfaces", ("a{sv}",), {"monitored": ["b", True]})
    return set(targets or ()), {row["name"] for row in interfaces}


def _has_log(caller: Caller, person: Person) -> bool:
    try:
        caller.call("OpenLog", ("u", "a{sv}"), person.uid, {})
    except CallError:
        return False
    return True


def _top(person: Person) -> tuple[int, str]:
    """The live view, left at once."""
    with Terminal(person, "/usr/bin/netmonctl", "top") as terminal:
        terminal.expect("q quit")
        terminal.type("q")
        return terminal.end(), terminal.shown
