"""Nothing that an ordinary user can get from netmond tells about another user, or what root watches.

Bob talks and root watches an address, see SECRETS in people.py; alice asks everything she may and may not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.service.client import Caller, CallError
from tests.service.inside import run
from tests.service.matrix import (
    MANAGER,
    MATRIX,
    OBJECT_MANAGER,
    PROPERTIES,
    TARGET_INTERFACE,
    live,
)
from tests.service.people import (
    ALICE_PEER,
    BOB_PEER,
    BOB_PORT,
    SECRETS,
    TARGET,
    TARGET_PATH,
    Scene,
    forget,
    watch,
)

#: An address that is no target, and the path it would have.
UNKNOWN, UNKNOWN_PATH = "203.0.113.99", TARGET_PATH.replace("_2e77", "_2e99")
#: The number of a user without traffic, and one that no user has.
QUIET, NOBODY = 65534, 61234

INTROSPECTABLE = "org.freedesktop.DBus.Introspectable"
LISTS = (
    *("ListUsers", "ListUnits", "ListProcesses", "ListFlows", "ListInterfaces", "ListTargets"),
    *("ListQueuePairs", "ListRdmaPorts", "ListRdmaCounters", "ListSessions"),
)


def answer(call: Callable[..., Any], *arguments: Any, **where: Any) -> str:
    """What came of a call, figures of time aside, as text."""
    try:
        result = call(*arguments, **where)
    except CallError as error:
        return f"{error.name}: {error.text}"
    if isinstance(result, list) and isinstance(result[-1], dict):  # rows and meta
        for passing in ("time", "tick", "interval"):
            result[-1].pop(passing, None)
    return json.dumps(result)


def told(text: str) -> list[str]:
    """The secrets in a text."""
    return [secret for secret in SECRETS if secret in text]


def test_root_sees_it_all(scene: Scene) -> None:
    """The secrets are there to be found: root's answers have every one of them."""
    texts = [answer(scene.root.call, member, ("a{sv}",), {"limit": ["u", 0]}) for member in LISTS]

    assert told(" ".join(texts)) == list(SECRETS)


def test_no_member_tells(scene: Scene) -> None:
    """Whatever alice calls and reads, in every scope, neither answers nor errors have a secret."""
    call = partial(answer, scene.alice.call)
    answers = [call("GetManagedObjects", interface=OBJECT_MANAGER), call("Describe")]
    answers += [call("GetUser", ("u", "a{sv}"), person.uid, {}) for person in scene.people.all().values()]
    for path, members in MATRIX.items():
        answers.append(call("Introspect", path=path, interface=INTROSPECTABLE))
        for interface in {name.split(" ")[-1].rpartition(".")[0] for name in members}:
            answers.append(call("GetAll", ("s",), interface, path=path, interface=PROPERTIES))
    for member in LISTS:
        for scope in ("own", "all"):
            answers.append(call(member, ("a{sv}",), {"scope": ["s", scope], "limit": ["u", 0]}))
        answers.append(call(member, ("a{sv}",), {"limit": ["u", 0]}))

    assert [(text, told(text)) for text in answers if told(text)] == []
    assert ALICE_PEER in " ".join(answers)


@pytest.mark.parametrize(
    ("member", "filters"),
    [
        ("ListFlows", {"peer": ["s", BOB_PEER]}),
        ("ListFlows", {"port": ["q", BOB_PORT]}),
        ("ListFlows", {"unit": ["s", "talk-bob.service"]}),
        ("ListProcesses", {"unit": ["s", "talk-bob.service"]}),
        ("ListUnits", {"unit": ["s", "talk-bob.service"]}),
        ("ListFlows", {"pid": ["u", "bob"]}),
        ("ListProcesses", {"pid": ["u", "bob"]}),
        ("ListUnits", {"pid": ["u", "bob"]}),
    ],
)
def test_filters_find_nothing(scene: Scene, member: str, filters: dict[str, list[Any]]) -> None:
    """A filter for what bob does finds his rows for root, and neither a row nor a number for alice."""
    bobs = {"unit": ["s", "talk-bob.service"], "sort": ["s", "byte_rate"], "limit": ["u", 1]}
    ((process,), _) = scene.root.call("ListProcesses", ("a{sv}",), bobs)
    pid = process["pid"]
    filters = {key: [kind, pid if value == "bob" else value] for key, (kind, value) in filters.items()}

    _, for_root = scene.root.call(member, ("a{sv}",), filters)
    rows, for_alice = scene.alice.call(member, ("a{sv}",), filters)

    assert for_root["total"] > 0
    assert (rows, for_alice["total"]) == ([], 0)


#: What may be tried with an address: interface, member, types, values; "ADDRESS" stands for it.
WITH_ADDRESS: dict[str, tuple[Any, ...]] = {
    "GetTarget": (MANAGER, "GetTarget", ("s",), "ADDRESS"),
    "AddTargets": (MANAGER, "AddTargets", ("as", "a{sv}"), ["ADDRESS"], {}),
    "RemoveTargets": (MANAGER, "RemoveTargets", ("as", "a{sv}"), ["ADDRESS"], {}),
    "ResetTargets": (MANAGER, "ResetTargets", ("as", "a{sv}"), ["ADDRESS"], {}),
}
#: And with the path of its object.
WITH_PATH: dict[str, tuple[Any, ...]] = {
    "Introspect": (INTROSPECTABLE, "Introspect"),
    "Describe": (TARGET_INTERFACE, "Describe"),
    "Reset": (TARGET_INTERFACE, "Reset", ("a{sv}",), {}),
    "Remove": (TARGET_INTERFACE, "Remove", ("a{sv}",), {}),
    "wrong signature": (TARGET_INTERFACE, "Describe", ("s",), "x"),
    "unknown member": (TARGET_INTERFACE, "Divine"),
    "unknown interface": ("org.netmond1.Oracle", "Describe"),
    "interface of another object": (MANAGER, "Describe"),
    "Get": (PROPERTIES, "Get", ("s", "s"), TARGET_INTERFACE, "Address"),
    "Get of nothing": (PROPERTIES, "Get", ("s", "s"), TARGET_INTERFACE, "Colour"),
    "GetAll": (PROPERTIES, "GetAll", ("s",), TARGET_INTERFACE),
    "Set": (PROPERTIES, "Set", ("s", "s", "v"), TARGET_INTERFACE, "Address", ["s", "x"]),
    "Ping": ("org.freedesktop.DBus.Peer", "Ping"),
    "GetMachineId": ("org.freedesktop.DBus.Peer", "GetMachineId"),
}


def probed(caller: Caller, name: str, address: str, path: str) -> str:
    """What a probe brings to light about one address."""
    interface, member, *rest = (WITH_ADDRESS | WITH_PATH)[name]
    types, *values = rest or [()]
    values = json.loads(json.dumps(values).replace("ADDRESS", address))
    where = {"interface": interface} | ({"path": path} if name in WITH_PATH else {})
    return answer(caller.call, member, types, *values, **where)


@pytest.mark.parametrize("probe", [*WITH_ADDRESS, *WITH_PATH])
def test_unknown_and_forbidden_targets_look_the_same(scene: Scene, probe: str) -> None:
    """Whatever alice does with an address or a target's path: she cannot tell whether there is one."""
    known = probed(scene.alice, probe, TARGET, TARGET_PATH)
    unknown = probed(scene.alice, probe, UNKNOWN, UNKNOWN_PATH)

    assert known.replace(TARGET, UNKNOWN).replace(TARGET_PATH, UNKNOWN_PATH) == unknown


def test_unknown_and_forbidden_users_look_the_same(scene: Scene) -> None:
    """A user with traffic, one without and a number that nobody has."""
    texts = {
        answer(scene.alice.call, "GetUser", ("u", "a{sv}"), uid, {}).replace(str(uid), "UID")
        for uid in (scene.people.bob.uid, QUIET, NOBODY)
    }

    assert len(texts) == 1


def test_introspection_shows_no_target(scene: Scene) -> None:
    """Walking the tree of objects, alice meets everything but targets."""
    assert live(scene.alice).members.keys() == MATRIX.keys() - {TARGET_PATH}


def test_netmonctl_tells_nothing(scene: Scene) -> None:
    """Every list and page of netmonctl, as text and as JSON, on both of its outputs."""
    lists = [[list_, "-n", "0"] for list_ in ("users", "units", "processes", "flows", "interfaces")]
    lists += [["rdma", "-n", "0"], ["rdma", "--qp", "-n", "0"]]
    pages = [["status", "-v"], ["user", "alice"], ["user", "bob"], ["flows", "--all"], ["target", "list"]]
    for words in (*lists, *pages):
        for form in ("off", "short"):
            done = scene.people.alice.netmonctl(*words, f"--json={form}")
            assert told(done.stdout + done.stderr) == [], (words, form)
            assert "Traceback" not in done.stderr, (words, form)


def test_signals_tell_nothing(scene: Scene, secret_setting: None) -> None:
    """While targets come, change and go and the configuration is read, alice hears nothing of what it is."""
    with scene.people.alice.caller() as alice, scene.people.root.caller() as root:
        alice.listen("sender='org.netmond1'")
        root.listen(f"type='signal',interface='{OBJECT_MANAGER}'")
        forget(scene.root, TARGET)
        watch(scene.root, TARGET)
        scene.root.call("ResetTargets", ("as", "a{sv}"), [TARGET], {})
        scene.root.call("MonitorInterface", ("s", "a{sv}"), "lo", {})
        scene.root.call("UnmonitorInterface", ("s", "a{sv}"), "lo", {})
        scene.root.call("Reload", ("a{sv}",), {})
        heard_by_root = _until_gone(root, scene)
        heard = _until_gone(alice, scene)

    names = {signal["name"] for signal in heard_by_root}
    assert {f"{OBJECT_MANAGER}.InterfacesAdded", f"{OBJECT_MANAGER}.InterfacesRemoved"} <= names
    assert [signal for signal in heard if told(json.dumps(signal))] == []
    assert not [signal for signal in heard if signal["name"].startswith(OBJECT_MANAGER)]


@pytest.fixture
def secret_setting() -> Iterator[None]:
    """A configuration file that only root and netmond may read, with a key that is worth a warning."""
    path = Path("/etc/netmond/netmond.d/50-secret.toml")
    path.write_text('bobs-secret = "203.0.113.77"\n')
    run("chown", "root:netmond", str(path))
    path.chmod(0o640)
    yield
    path.unlink()
    run("netmonctl", "reload")


def _until_gone(listener: Caller, scene: Scene) -> list[dict[str, Any]]:
    """The signals up to now: a connection that comes and goes marks the moment for whoever listens."""
    listener.listen("type='signal',member='NameOwnerChanged'")
    with scene.people.root.caller() as marker:
        name = marker.name
    return list(listener.signals_until("org.freedesktop.DBus.NameOwnerChanged", [name, name, ""]))


def test_other_peoples_calls_are_not_overheard(scene: Scene) -> None:
    """The bus gives alice no copy of others' calls and answers, however she asks for them."""
    with scene.people.alice.caller() as alice:
        for rule in ("eavesdrop='true'", "eavesdrop='true',destination='org.netmond1'"):
            with pytest.raises(CallError, match="AccessDenied"):
                alice.listen(rule)
        alice.listen("type='method_call'", "type='method_return'", "type='error'")
        scene.root.call("GetTarget", ("s",), TARGET)
        scene.root.call("ListFlows", ("a{sv}",), {})
        heard = _until_gone(alice, scene)

    assert {message["name"] for message in heard} == {"org.freedesktop.DBus.NameOwnerChanged"}


def test_nobody_but_root_monitors_the_bus(scene: Scene) -> None:
    """`busctl monitor` would show every call and answer; the bus refuses it to ordinary users."""
    done = scene.people.alice.run("busctl", "--system", "--timeout=5", "monitor", "org.netmond1")

    assert done.returncode != 0
    assert "Access denied" in done.stderr or "AccessDenied" in done.stderr
    assert told(done.stdout) == []
