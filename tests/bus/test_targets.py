"""Target objects: what they show, that they cost nothing, and how the object manager tells of them."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from netmond.bus import names
from netmond.bus.target import Targets
from netmond.errors import NoSuchTarget
from netmond.model import Feature
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, FakeMonitor
from tests.bus.snapshots import ALICE, small

TARGETS = ("as", "a{sv}")
PATH = names.target_path("192.0.2.7")
SIGNALS = f"type='signal',sender='{names.BUS_NAME}'"


def get_all(caller: Caller, path: str) -> Any:
    """All properties of a target."""
    return caller.call("GetAll", ("s",), names.TARGET, path=path, interface=names.PROPERTIES)


def managed(caller: Caller) -> Any:
    """What the object manager manages."""
    return caller.call("GetManagedObjects", interface=names.OBJECT_MANAGER)


def test_figures_of_a_target(host: Host, admin: Caller) -> None:
    """Counters come from the last tick; one that no tick has seen yet counts nothing."""
    admin.call("AddTargets", TARGETS, ["192.0.2.7", "2001:db8::/32"], {})
    zero = {"InPackets": 0, "InBytes": 0, "OutPackets": 0, "OutBytes": 0}

    old, new = get_all(admin, PATH), get_all(admin, names.target_path("2001:db8::/32"))

    figures = {"InPackets": 19, "InBytes": 1919, "OutPackets": 20, "OutBytes": 209}
    assert old == {"Address": "192.0.2.7", "Since": 1700500000, **figures}
    assert new == {"Address": "2001:db8::/32", "Since": 1700500000, **zero}
    assert managed(admin) == {
        PATH: {names.TARGET: old},
        names.target_path("2001:db8::/32"): {names.TARGET: new},
    }
    assert admin.get("InBytes", PATH, names.TARGET) == 1919


def test_describe_a_target(host: Host, admin: Caller) -> None:
    """Describe is the row of ListTargets as JSON."""
    admin.call("AddTargets", TARGETS, ["192.0.2.7"], {})

    row = json.loads(admin.call("Describe", path=PATH, interface=names.TARGET))

    assert (row["address"], row["in_packets"], row["out_bytes"], row["bytes"]) == (
        "192.0.2.7",
        19,
        209,
        2128,
    )


def test_reset_and_remove_on_the_object(host: Host, admin: Caller) -> None:
    """Both do what the Manager's members do; afterwards the object is gone."""
    admin.call("AddTargets", TARGETS, ["192.0.2.7"], {})

    admin.call("Reset", ("a{sv}",), {}, path=PATH, interface=names.TARGET)
    admin.call("Remove", ("a{sv}",), {}, path=PATH, interface=names.TARGET)

    assert host.monitor.done[1:] == [("reset", "192.0.2.7/32"), ("remove", "192.0.2.7/32")]
    with pytest.raises(CallError) as caught:
        get_all(admin, PATH)
    assert caught.value.name == names.UNKNOWN_OBJECT


@pytest.mark.parametrize(
    "label",
    ["", "_", "_31", "_3192_2e0_2e2_2E7", "192_2e0_2e2_2e7", "_3192_2e0_2e2_2e9", "_zz", "_3", "a_ff"],
)
def test_only_the_canonical_path_is_a_target(host: Host, label: str) -> None:
    """Other spellings, and addresses that are no target, are no objects."""
    host.monitor.have("192.0.2.7")
    subtree = Targets(monitor=host.monitor)

    assert subtree.find(f"{names.TARGETS_PATH}/{label}") is None
    assert subtree.find(PATH) is not None


def test_signals_come_from_the_object_manager(host: Host, admin: Caller, fresh_caller: Caller) -> None:
    """InterfacesAdded and InterfacesRemoved leave from /org/netmond1, as the specification wants."""
    fresh_caller.listen(SIGNALS)

    admin.call("AddTargets", TARGETS, ["192.0.2.11"], {})
    added = fresh_caller.signal()
    admin.call("RemoveTargets", TARGETS, ["192.0.2.11"], {})
    removed = fresh_caller.signal()

    path = names.target_path("192.0.2.11")
    zero = {"InPackets": 0, "InBytes": 0, "OutPackets": 0, "OutBytes": 0}
    assert added == {
        "path": names.ROOT_PATH,
        "name": f"{names.OBJECT_MANAGER}.InterfacesAdded",
        "body": [path, {names.TARGET: {"Address": "192.0.2.11", "Since": 1700500000, **zero}}],
    }
    assert removed == {
        "path": names.ROOT_PATH,
        "name": f"{names.OBJECT_MANAGER}.InterfacesRemoved",
        "body": [path, [names.TARGET]],
    }


def test_signals_keep_the_order_of_changes(host: Host, fresh_caller: Caller) -> None:
    """Removed and added again in one turn of the loop: whoever listens ends with what there is."""
    host.monitor.have("192.0.2.7")
    fresh_caller.listen(SIGNALS)

    async def change() -> None:
        many = [ip_network(f"10.0.{n // 251}.{n % 251}") for n in range(1009)]
        await host.monitor.add_targets(many)
        await host.monitor.remove_targets([ip_network("192.0.2.7")])
        await host.monitor.add_targets([ip_network("192.0.2.7"), ip_network("192.0.2.11")])
        await host.monitor.remove_targets([ip_network("192.0.2.11")])

    host.loop.run(change())
    last = [(signal["name"].rpartition(".")[2], signal["body"][0]) for signal in fresh_caller.signals(1012)][
        -3:
    ]

    assert last == [
        ("InterfacesRemoved", PATH),
        ("InterfacesAdded", PATH),
        ("InterfacesRemoved", names.target_path("192.0.2.11")),
    ]


def test_features_and_reload_are_signalled(host: Host, admin: Caller, fresh_caller: Caller) -> None:
    """A tick that changes no feature says nothing; one that does sends PropertiesChanged; reload says so."""
    fresh_caller.listen(SIGNALS)

    async def tick(features: tuple[Feature, ...]) -> None:
        host.monitor.snapshot = replace(small(), features=features)
        host.service.ticked()

    for features in (small().features, small().features[:1], small().features[:1]):
        host.loop.run(tick(features))
    admin.call("Reload", ("a{sv}",), {})

    changed, reloaded = fresh_caller.signal(), fresh_caller.signal()
    assert changed["name"] == f"{names.PROPERTIES}.PropertiesChanged"
    assert changed["path"] == names.ROOT_PATH
    assert changed["body"] == [names.MANAGER, {"Features": [["meter", "on", ""]]}, []]
    assert (reloaded["path"], reloaded["name"]) == (names.ROOT_PATH, f"{names.MANAGER}.Reloaded")
    assert reloaded["body"] == [["netmond.toml: unknown key colour"]]


def test_ordinary_users_hear_of_no_target(
    host: Host, admin: Caller, caller_as: Callable[..., Caller]
) -> None:
    """The bus policy keeps the object manager's and the manager's signals from them, and no others."""
    listener = caller_as(ALICE)
    listener.listen(SIGNALS)

    admin.call("AddTargets", TARGETS, ["192.0.2.11"], {})
    admin.call("Reload", ("a{sv}",), {})
    host.monitor.snapshot = replace(host.monitor.snapshot, features=())
    host.loop.loop.call_soon_threadsafe(host.service.ticked)

    assert listener.signal()["name"] == f"{names.PROPERTIES}.PropertiesChanged"


def test_ten_thousand_targets(host: Host, admin: Caller, fresh_caller: Caller) -> None:
    """They are added in one call, all listed, managed and signalled, each reachable, all removed."""
    addresses = [f"10.{n // 251 % 251}.{n % 251}.7" for n in range(10_000)]
    fresh_caller.listen(SIGNALS + f",interface='{names.OBJECT_MANAGER}'")

    paths = admin.call("AddTargets", TARGETS, addresses, {})

    assert paths == [names.target_path(address) for address in addresses]
    assert [signal["body"][0] for signal in fresh_caller.signals(len(paths))] == paths
    assert list(managed(admin)) == paths
    assert admin.get("TargetCount") == 10_000
    assert all(admin.get("InBytes", path, names.TARGET) == 0 for path in paths[::997])
    admin.call("RemoveTargets", TARGETS, addresses, {})
    assert managed(admin) == {}
    assert [signal["body"][0] for signal in fresh_caller.signals(len(paths))] == paths


def test_looking_at_targets_leaves_nothing_behind(host: Host, admin: Caller) -> None:
    """10,000 targets are looked at through every interface; memory is what it was."""
    for n in range(10_000):
        host.monitor.have(f"10.{n // 251 % 251}.{n % 251}.7")

    def look() -> None:
        paths = list(managed(admin))
        admin.call("Introspect", path=names.TARGETS_PATH, interface=names.INTROSPECTABLE)
        for path in paths[::997]:
            get_all(admin, path)

    look()
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    look()
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 200_000


def test_a_target_removed_while_it_is_looked_at() -> None:
    """The object found before the removal says NoSuchTarget instead of failing."""
    monitor = FakeMonitor(small())
    monitor.have("192.0.2.7")
    target = Targets(monitor=monitor).find(PATH)
    monitor.forget_all()

    assert target is not None
    with pytest.raises(NoSuchTarget):
        target.since()
