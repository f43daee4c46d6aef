"""Bytes and paths: bodies as dbus-next would make them, only faster; object paths as systemd makes them."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from dbus_next._private.marshaller import Marshaller
from dbus_next.signature import Variant as TheirVariant

from netmond import answers, query
from netmond.bus import marshal, names
from netmond.bus.authority import Action, Authority, Caller
from netmond.bus.marshal import Variant
from netmond.users import Names
from tests.bus.snapshots import small


def theirs(signature: str, values: list[Any]) -> bytes:
    """What dbus-next makes of the same values."""
    return bytes(Marshaller(signature, values).marshall())  # type: ignore[no-untyped-call]


def their_values(value: Any) -> Any:
    """Our notation of values in dbus-next's."""
    if isinstance(value, Variant):
        return TheirVariant(value.signature, their_values(value.value))
    if isinstance(value, dict):
        return {key: their_values(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [their_values(item) for item in value]
    return value


def their_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the types spelled out."""
    return {key: TheirVariant(marshal.type_of(key, value), value) for key, value in row.items()}


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("", []),
        ("ybnqiuxtds", [7, True, -11, 13, -17, 19, -23, 29, 0.5, "\N{SNOWMAN}"]),
        ("sy(yt)y", ["odd", 3, (5, 7), 11]),
        ("asaoagab", [["a", "bcd", ""], ["/", "/a_b"], ["a{sv}", ""], [True, False]]),
        ("yatyadyaxya(s)", [1, [], 2, [], 3, [], 4, []]),
        ("aasaau", [[["a"], [], ["b", "c"]], [[], [7]]]),
        ("a{st}a{us}a{sa{st}}", [{"a": 1, "bc": 2**64 - 1}, {3: "x", 5: ""}, {"in": {"a": 7}, "out": {}}]),
        ("v", [Variant("a(sas)", [("x", ["y"]), ("", [])])]),
        ("yv", [1, Variant("t", 2**63)]),
        (
            "a{oa{sa{sv}}}",
            [{"/a": {"i": {"x": Variant("u", 3), "y": Variant("v", Variant("q", 5))}}, "/b": {}}],
        ),
    ],
)
def test_bodies_are_dbus_nexts(signature: str, values: list[Any]) -> None:
    """Every type, alone and nested, with the padding where it belongs."""
    assert bytes(marshal.encode(signature, values)) == theirs(signature, [their_values(v) for v in values])


@pytest.mark.parametrize("list_", query.OPTIONS)
def test_rows_are_dbus_nexts(list_: str) -> None:
    """All lists, with the types that follow from key and value."""
    answer = answers.select(small(), query.parse(list_, {}), Names())
    rows = list(answer.rows)
    meta = answers.meta(small(), "all", answer.total)

    ours = marshal.encode("aa{sv}a{sv}", [iter(rows), meta])

    assert bytes(ours) == theirs("aa{sv}a{sv}", [[their_row(row) for row in rows], their_row(meta)])


@pytest.mark.parametrize(
    ("signature", "value"),
    [
        ("u", -1),
        ("u", 1 << 32),
        ("q", 65536),
        ("s", 7),
        ("a{sv}", {"x": None}),
        ("a{sv}", {"pid": 1 << 32}),
        ("as", 3),
    ],
)
def test_values_that_do_not_fit_are_errors(signature: str, value: Any) -> None:
    """Never a truncated number or an unreadable message."""
    with pytest.raises((TypeError, ValueError, AttributeError, struct.error)):
        marshal.encode(signature, [value])


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", "_"),
        ("192.0.2.1", "_3192_2e0_2e2_2e1"),
        ("2001:db8::/32", "_32001_3adb8_3a_3a_2f32"),
        ("::1", "_3a_3a1"),
        ("fe80::1", "fe80_3a_3a1"),
        ("\N{SNOWMAN}", "_e2_98_83"),
    ],
)
def test_labels(text: str, label: str) -> None:
    """As sd_bus_path_encode(3) does it, and back."""
    assert names.encode_label(text) == label
    assert names.decode_label(label) == text


@pytest.mark.parametrize(
    "label", ["", "1", "_2E", "_4", "_", "__", "_zz", "a_", "_ff", "a.b", "a_61", "\N{SNOWMAN}"]
)
def test_labels_that_nothing_encodes_to(label: str) -> None:
    """One text, one path: any other spelling is none. The lone exception is "_", the empty text."""
    assert names.decode_label(label) == ("" if label == "_" else None)


def test_only_direct_children_are_targets() -> None:
    """Neither the parent, nor a grandchild, nor a namesake elsewhere."""
    path = names.target_path("192.0.2.1")

    assert names.target_address(path) == "192.0.2.1"
    for other in (names.TARGETS_PATH, path + "/x", path.replace("target", "interface"), "/", ""):
        assert names.target_address(other) is None


def test_authority_follows_the_configured_group() -> None:
    """The group can change while the daemon runs; one that does not exist has no members."""
    someone = Caller(name=":1.7", uid=7919, groups=frozenset({0}))
    root = Caller(name=":1.0", uid=0)

    async def scenario() -> list[bool]:
        authority = Authority(group="root")
        found = [await authority.may(someone, action) for action in Action]
        authority.group = "no-such-group"
        found += [await authority.may(someone, Action.READ_ALL), await authority.may(root, Action.CAPTURE)]
        return found

    assert asyncio.run(scenario()) == [True, True, True, False, True]
