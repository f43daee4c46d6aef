"""Syslog messages: the grammar of RFC 5424, escaping, bounds and framing, whatever names hold."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netmond.export.rows import RDMA_DELTAS
from netmond.export.syslog import MESSAGE, message, messages
from tests.bus.snapshots import ALICE

NOW = 1_795_231_812.418

#: RFC 5424, 6: HEADER SP STRUCTURED-DATA SP MSG, with one element whose parameter values are UTF-8.
GRAMMAR = re.compile(
    rb"<(?P<pri>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) netmond (?P<pid>[0-9]+)"
    rb" (?P<id>[A-Z]{1,32})"
    rb' \[netmond@32473(?P<sd>( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\["\\\]])*")+)\] (?P<msg>.*)',
    re.DOTALL,
)
PARAMETER = re.compile(r'([^ =]+)="((?:[^"\\\]]|\\.)*)"', re.DOTALL)


def user(name: str = "alice", **more: Any) -> dict[str, Any]:
    """A row of a user."""
    figures = {
        f"{prefix}{way}_{what}": number
        for prefix, number in (("delta_", 5120), ("", 81920))
        for way in ("in", "out")
        for what in ("packets", "bytes")
    }
    figures |= dict.fromkeys(RDMA_DELTAS, 0)
    return {"type": "user", "period": 59.96, "uid": ALICE, "user": name, **figures, **more}


def parse(told: bytes) -> tuple[dict[str, str], str]:
    """The parameters and the text of a message that follows the grammar."""
    match = GRAMMAR.fullmatch(told)
    assert match, told
    pairs = PARAMETER.findall(match["sd"].decode())
    text = match["msg"].removeprefix(b"\xef\xbb\xbf")
    assert text.isascii() != (text != match["msg"])  # the mark is there if it must be
    return {name: re.sub(r"\\(.)", r"\1", value) for name, value in pairs}, text.decode()


def test_user() -> None:
    """A message, literally."""
    assert message(user(), NOW, "gate", "local3") == (
        b"<158>1 2026-11-21T03:30:12.418000Z gate netmond %d USER"
        b' [netmond@32473 period="60" user="alice" uid="%d"'
        b' delta_in_packets="5120" delta_in_bytes="5120" delta_out_packets="5120" delta_out_bytes="5120"'
        b' in_packets="81920" in_bytes="81920" out_packets="81920" out_bytes="81920"]'
        b" User alice 5.0 KiB in, 5.0 KiB out in 60 s" % (os.getpid(), ALICE)
    )


def test_user_of_rdma() -> None:
    """Its bytes stand behind the others', and the text counts both."""
    told = message(user(delta_rdma_in_bytes=1024, delta_rdma_out_bytes=0), NOW, "gate", "user")

    values, text = parse(told)
    assert [(name, values[name]) for name in [*values][-1:]] == [("delta_rdma_in_bytes", "1024")]
    assert text == "User alice 6.0 KiB in, 5.0 KiB out in 60 s"


@pytest.mark.parametrize(
    ("row", "priority", "kind", "text"),
    [
        (user() | {"type": "target", "address": "2001:db8::/32"}, 30, b"TARGET",
         "Target 2001:db8::/32 5.0 KiB in, 5.0 KiB out in 60 s"),
        (user() | {"type": "interface", "name": "eth0", "index": 2}, 30, b"INTERFACE",
         "Interface eth0 5.0 KiB in, 5.0 KiB out in 60 s"),
        ({"type": "loss", "period": 60.0, "name": "a.b", "delta_count": 3, "count": 5, "meaning": "why"},
         28, b"LOSS", "a.b: 3 more, 5 in all: why"),
        ({"type": "feature", "name": "meter", "state": "on", "reason": ""}, 29, b"FEATURE", "meter is on"),
        ({"type": "feature", "name": "rdma", "state": "off", "reason": "no RDMA device"}, 29, b"FEATURE",
         "rdma is off: no RDMA device"),
        ({"type": "feature", "name": "meter", "state": "degraded", "reason": "old"}, 28, b"FEATURE",
         "meter is degraded: old"),
    ],
)  # fmt: skip
def test_kinds(row: dict[str, Any], priority: int, kind: bytes, text: str) -> None:
    """Figures are info, what is wrong a warning, what works again a notice; of facility daemon."""
    told = message(row, NOW, "gate", "daemon")
    match = GRAMMAR.fullmatch(told)

    assert match
    assert (int(match["pri"]), match["id"], parse(told)[1]) == (priority, kind, text)


@pytest.mark.parametrize(
    ("facility", "priority"), [("user", 14), ("daemon", 30), ("local0", 134), ("local7", 190)]
)
def test_facilities(facility: str, priority: int) -> None:
    """By their numbers in RFC 5424, 6.2.1."""
    assert message(user(), NOW, "gate", facility).startswith(b"<%d>1 " % priority)


@pytest.mark.parametrize(
    ("host", "written"),
    [("höst name", b"h?st?name"), ("", b"-"), ("a" * 300, b"a" * 64), ("\x1b[31m", b"?[31m")],
)
def test_host(host: str, written: bytes) -> None:
    """It is one word of printable ASCII."""
    assert message(user(), NOW, host, "user").split(b" ")[2] == written


def test_escapes() -> None:
    """Three characters have a backslash in the structured data; control characters are shown, not sent."""
    told = message(user('a"b]c\\d\n\x1b[31mü'), NOW, "gate", "user")

    assert b'user="a\\"b\\]c\\\\d\\\\n\\\\x1b[31m\xc3\xbc"' in told
    assert parse(told) == (
        {**parse(message(user(), NOW, "gate", "user"))[0], "user": 'a"b]c\\d\\n\\x1b[31mü'},
        'User a"b]c\\d\\n\\x1b[31mü 5.0 KiB in, 5.0 KiB out in 60 s',
    )


@given(name=st.text(max_size=300), number=st.integers(0, 2**64 - 1), reason=st.text(max_size=2000))
def test_whatever_names_hold(name: str, number: int, reason: str) -> None:
    """Any name, also one that is no Unicode, any count: a short line that follows the grammar."""
    counts = {key: number for key in user() if key.startswith(("in_", "out_", "delta_", "uid"))}
    for row in (
        user(name + "\udcff", **counts),
        {"type": "feature", "name": "output.json", "state": "off", "reason": reason},
    ):
        told = message(row, NOW, name, "local7")

        assert len(told) <= MESSAGE
        assert all(character.isprintable() for character in told.decode().replace("\ufeff", ""))
        values, _ = parse(told)
        assert row["type"] == "feature" or values["in_bytes"] == str(number)


def test_longest() -> None:
    """All counters at their end and a long name of wide characters: the structured data are whole."""
    counts = {key: 2**64 - 1 for key in user() if key.startswith(("in_", "out_", "delta_"))}
    told = message(
        user("\U0001f600" * 200, uid=2**32 - 2, period=86400.0, **counts), NOW, "h" * 64, "local7"
    )

    assert MESSAGE - 4 < len(told) <= MESSAGE
    values, text = parse(told)
    assert values["user"] == "\U0001f600" * 96
    assert text.startswith("User \U0001f600")


@given(st.lists(st.binary(max_size=100)))
def test_framing(told: list[bytes]) -> None:
    """Octet counting (RFC 6587, 3.4.1) gives back what was framed, whatever is in it."""
    assert list(messages(b"".join(b"%d %b" % (len(each), each) for each in told))) == told
