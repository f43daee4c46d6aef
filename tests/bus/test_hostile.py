"""Calls that are wrong, too large or too many: each gets its error, and the service lives."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from dbus_next.signature import SignatureTree

from netmond.bus import marshal, names
from netmond.bus.frames import MAX_MESSAGE, Frames, Head, head_of
from netmond.bus.limits import MAX_CALLS_EACH
from netmond.bus.marshal import Variant
from tests.bus.conftest import Host
from tests.bus.private import Caller, CallError, RawCaller, code, outcome, until

OPTIONS = ("a{sv}",)
TARGET = names.target_path("192.0.2.7")


def frame(serial: int, signature: str, body: bytes, kind: int = 1, **fields: str) -> bytes:
    """A message, byte by byte as the D-Bus specification has it."""
    codes = {
        "path": (1, "o"),
        "interface": (2, "s"),
        "member": (3, "s"),
        "destination": (6, "s"),
        "sender": (7, "s"),
    }
    header = [(*codes[name], value) for name, value in fields.items()]
    if signature:
        header.append((8, "g", signature))
    entries = [(number, Variant(type_, value)) for number, type_, value in header]
    data = marshal.encode("yyyyuua(yv)", [ord("l"), kind, 0, 1, len(body), serial, entries])
    return bytes(data) + bytes(-len(data) % 8) + body


def manager_frame(serial: int, member: str, signature: str = "", body: bytes = b"", kind: int = 1) -> bytes:
    """A message to the Manager."""
    where: dict[str, Any] = {
        "path": names.ROOT_PATH,
        "interface": names.MANAGER,
        "destination": names.BUS_NAME,
    }
    return frame(serial, signature, body, kind, member=member, **where)


@pytest.fixture
def raw(host: Host) -> Iterator[RawCaller]:
    """A connection for messages that no library would send."""
    caller = RawCaller(host.bus.address)
    where: dict[str, Any] = {"path": names.DBUS_PATH, "interface": names.DBUS, "destination": names.DBUS}
    caller.send(frame(1, "", b"", member="Hello", **where))
    caller.receive_until(b"NameAcquired")
    yield caller
    caller.close()


@pytest.mark.parametrize(
    ("path", "interface", "member", "error"),
    [
        ("/org/netmond1/nothing", names.MANAGER, "Describe", names.UNKNOWN_OBJECT),
        ("/org/netmond1/target/_3192_2e0_2e2_2e7", names.TARGET, "Describe", names.UNKNOWN_OBJECT),
        ("/org/netmond10", names.MANAGER, "Describe", names.UNKNOWN_OBJECT),
        ("/", names.MANAGER, "Describe", names.UNKNOWN_INTERFACE),
        ("/org/netmond1", "org.netmond1.Oracle", "Describe", names.UNKNOWN_INTERFACE),
        ("/org/netmond1", names.MANAGER, "Divine", names.UNKNOWN_METHOD),
        ("/org/netmond1", None, "Divine", names.UNKNOWN_METHOD),
        ("/org/freedesktop/LogControl1", names.OBJECT_MANAGER, "GetManagedObjects", names.UNKNOWN_INTERFACE),
    ],
)
def test_unknown_things(
    host: Host, admin: Caller, path: str, interface: str | None, member: str, error: str
) -> None:
    """Objects, interfaces and members that do not exist have the specification's errors."""
    with pytest.raises(CallError) as caught:
        admin.call(member, path=path, interface=interface)

    assert caught.value.name == error


@pytest.mark.parametrize(
    ("member", "types", "values"),
    [
        ("ListFlows", (), ()),
        ("ListFlows", ("a{ss}",), ({"limit": "3"},)),
        ("GetUser", ("s", "a{sv}"), ("root", {})),
        ("AddTargets", ("s", "a{sv}"), ("192.0.2.1", {})),
        ("Describe", ("s",), ("please",)),
    ],
)
def test_wrong_signature(
    host: Host, admin: Caller, member: str, types: tuple[str, ...], values: tuple[object, ...]
) -> None:
    """Arguments of other types are refused before anything looks at them; the text says what is taken."""
    with pytest.raises(CallError, match="takes ") as caught:
        admin.call(member, types, *values)

    assert caught.value.name == names.INVALID_ARGS


def test_call_without_interface(host: Host, admin: Caller) -> None:
    """The interface may be left out, says the specification."""
    assert admin.call("ListInterfaces", OPTIONS, {}, interface=None)[1]["total"] == 3


def test_peer_answers_everywhere(host: Host, admin: Caller) -> None:
    """Ping works on any path, and the machine id is 32 digits."""
    admin.call("Ping", path="/no/such/object", interface=names.PEER)

    assert len(admin.call("GetMachineId", interface=names.PEER)) == 32


def test_unknown_properties(host: Host, admin: Caller) -> None:
    """Wrong interface or name, and setting what cannot be set."""
    get = {"interface": names.PROPERTIES}
    for member, types, values, error in (
        ("Get", ("s", "s"), (names.MANAGER, "Colour"), names.UNKNOWN_PROPERTY),
        ("Get", ("s", "s"), (names.PEER, "Colour"), names.UNKNOWN_PROPERTY),
        ("Get", ("s", "s"), ("org.netmond1.Oracle", "Version"), names.UNKNOWN_INTERFACE),
        ("GetAll", ("s",), ("org.netmond1.Oracle",), names.UNKNOWN_INTERFACE),
        ("Set", ("s", "s", "v"), (names.MANAGER, "Version", ["s", "8"]), names.PROPERTY_READ_ONLY),
    ):
        with pytest.raises(CallError) as caught:
            admin.call(member, types, *values, interface=get["interface"])
        assert caught.value.name == error


def test_failure_gives_nothing_away(host: Host, admin: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """An error of our own is one general line to the caller, and a traceback in our log."""
    host.monitor.failure = RuntimeError("secret /etc/shadow")

    with caplog.at_level(logging.ERROR), pytest.raises(CallError) as caught:
        admin.call("Reload", OPTIONS, {})

    assert code(caught.value) == "Failed"
    assert caught.value.text == "netmond failed to answer; its log says why"
    assert "secret /etc/shadow" in caplog.text
    assert "Traceback" in caplog.text


def test_failure_while_encoding_is_a_failure(host: Host, admin: Caller) -> None:
    """A value that does not fit its type reaches the caller as the same general line."""
    host.monitor.log_level = 7  # type: ignore[assignment]

    with pytest.raises(CallError) as caught:
        admin.get("LogLevel", names.LOG_CONTROL_PATH, names.LOG_CONTROL)

    assert code(caught.value) == "Failed"
    assert "Traceback" not in caught.value.text


def test_no_reply_expected(host: Host, admin: Caller) -> None:
    """A call that wants no answer is carried out and gets none, success or not."""
    admin.call("AddTargets", ("as", "a{sv}"), ["192.0.2.7"], {}, flags=1)
    admin.call("AddTargets", ("as", "a{sv}"), ["nonsense"], {}, flags=1)

    until(lambda: bool(admin.get("TargetCount") == 1))  # calls are answered side by side


def test_oversized_message_is_refused_unread(host: Host, raw: RawCaller, admin: Caller) -> None:
    """8 MiB of a valid call: the answer is LimitExceeded, and the next call is answered as ever."""
    count = 2_000_000
    numbers = struct.pack("<I", 4 * count) + bytes(4 * count)

    raw.send(manager_frame(7, "Describe", "au", numbers))

    assert b"org.netmond1.Error.LimitExceeded" in raw.receive_until(b"at most")
    assert admin.get("FlowCount") == 6


def test_message_of_too_many_values(host: Host, raw: RawCaller) -> None:
    """Small in bytes but slow to read: nested variants and empty arrays are counted too."""
    variants = b"\x01u\x00\x00\x00\x00\x00\x00" * 60_000

    raw.send(manager_frame(7, "Describe", "av", struct.pack("<I", len(variants)) + variants))

    assert b"org.netmond1.Error.LimitExceeded" in raw.receive_until(b"at most")


def test_message_of_unknown_type_is_ignored(host: Host, raw: RawCaller) -> None:
    """The specification says so; the connection and its next call are not harmed."""
    raw.send(manager_frame(7, "Describe", kind=77))
    raw.send(manager_frame(11, "Describe"))

    assert b"7.11.13" in raw.receive_until(b'"cost"')


def test_signals_and_replies_to_nothing_are_ignored(host: Host, raw: RawCaller) -> None:
    """Signals sent to us and replies to calls we never made change nothing."""
    raw.send(manager_frame(7, "Reloaded", kind=4))
    raw.send(manager_frame(9, "NameOwnerChanged", kind=4))
    raw.send(manager_frame(11, "Describe"))

    assert b"7.11.13" in raw.receive_until(b'"cost"')


def test_many_signatures_do_not_pile_up(host: Host, admin: Caller) -> None:
    """dbus-next remembers every signature it meets; callers cannot make it remember without end."""
    for bytes_ in range(1, 31):
        for numbers in range(1, 31):
            kind = f"({'y' * bytes_}{'u' * numbers})"
            with pytest.raises(CallError, match="unknown option"):
                admin.call("ListUsers", OPTIONS, {"x": [kind, [1] * (bytes_ + numbers)]})

    assert len(SignatureTree._cache) < 600


def test_too_many_calls_at_once(host: Host, admin: Caller) -> None:
    """Only so many calls of one connection wait; the rest is refused, and afterwards all is well."""

    async def shut() -> asyncio.Event:
        host.monitor.gate = asyncio.Event()
        return host.monitor.gate

    async def open_(gate: asyncio.Event) -> None:
        gate.set()

    admin.get("Version")  # netmond knows now whose connection it is
    gate = host.loop.run(shut())
    refused = admin.burst(MAX_CALLS_EACH + 11, 11, "Reload", OPTIONS, {})
    host.loop.run(open_(gate))

    assert refused == ["org.netmond1.Error.LimitExceeded"] * 11
    until(lambda: outcome(lambda: admin.call("Reload", OPTIONS, {})) == "ok")  # when the first are answered
    assert host.monitor.done == [("reload",)] * (MAX_CALLS_EACH + 1)


@pytest.mark.parametrize("step", [1, 7, 16, 4096, 1 << 20])
def test_frames_come_out_however_the_stream_is_cut(step: int) -> None:
    """Messages, one too large among them, one with a header too large, from any pieces."""
    where: dict[str, Any] = {"path": "/a", "member": "M"}
    small = frame(3, "s", struct.pack("<I", 2) + b"hi\0", **where)
    large = frame(5, "ay", struct.pack("<I", 3000) + bytes(3000), **where)
    monstrous = frame(7, "", b"", path="/" + "a" * 2500, member="M")
    stream = small + large + monstrous + small
    frames = Frames(limit=2000)

    found = [got for at in range(0, len(stream), step) for got in frames.feed(stream[at : at + step])]

    assert [too_large for _, too_large in found] == [False, True, False]
    assert found[0][0] == found[2][0] == small
    assert found[1][0][4:8] == bytes(4)
    assert len(found[1][0]) < 100


def test_frames_refuse_what_is_no_dbus() -> None:
    """A first byte that is no byte order ends the connection: the bus would never send it."""
    with pytest.raises(ValueError, match="no message"):
        list(Frames().feed(b"GET / HTTP/1.1\r\n\r\n"))


def test_limit_takes_ten_thousand_targets() -> None:
    """The longest spelling of 10,000 addresses fits into one message."""
    longest = len("2001:0db8:1111:2222:3333:4444:5555:6666/128")

    assert 10_000 * (4 + longest + 1 + 3) < MAX_MESSAGE


@pytest.mark.parametrize("flags", [0, 1])
def test_head_of_a_message(flags: int) -> None:
    """Type, sender, serial and flags are found without reading the message, however the serial looks."""
    data = bytearray(frame(0x00730107, "", b"", path="/a", member="B", sender=":1.7919", destination=":1.7"))
    data[2] = flags

    assert head_of(bytes(data)) == Head(1, ":1.7919", 0x00730107, flags)


def test_head_without_sender() -> None:
    """No bus delivers that, and nobody can make another header field look like the sender's."""
    data = frame(3, "s", b"\x04\0\0\0\x07\x01s\0\0", path="/a", member="B", destination=":1.7")

    assert head_of(data) == Head(1, "", 3, 0)
