"""The reader of pcapng: what it understands, what it passes over, and what it says of the rest."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from netmonctl.pcapng import Frame, PcapngError, Reader, Statistics
from tests.unit.pcapng_maker import Maker

IN, OUT = 1, 2
NOW = 1_700_000_000_123_456_789
ORDERS = pytest.mark.parametrize("make", [Maker("<"), Maker(">")], ids=["little", "big"])


def read(*pieces: bytes) -> list[Frame | Statistics]:
    """All of a whole stream."""
    reader = Reader()
    found = [item for piece in pieces for item in reader.feed(piece)]
    reader.close()
    return found


def frames(*pieces: bytes) -> list[Frame]:
    return [item for item in read(*pieces) if isinstance(item, Frame)]


def stream(make: Maker) -> bytes:
    return (
        make.section()
        + make.interface("eth0")
        + make.block(0xBAD, b"not known yet...")
        + make.packet(b"first", time=NOW, direction=IN, comment="user=alice")
        + make.interface("wg0", linktype=101)
        + make.packet(b"second!!", time=NOW + 1, direction=OUT, interface=1, length=1500)
        + make.statistics(received=23, dropped=2, accepted=7)
    )


@ORDERS
def test_all_there_is(make: Maker) -> None:
    """Frames and statistics with their interface, in both byte orders; unknown blocks are passed over."""
    first, second, statistics = read(stream(make))

    assert isinstance(first, Frame)
    assert (first.time, first.data, first.length, first.direction) == (NOW, b"first", 5, "in")
    assert (first.interface.name, first.interface.linktype, first.interface.snaplen) == ("eth0", 1, 262144)
    assert first.comments == ("user=alice",)
    assert isinstance(second, Frame)
    assert (second.time, second.length, second.direction, second.comments) == (NOW + 1, 1500, "out", ())
    assert (second.interface.name, second.interface.linktype) == ("wg0", 101)
    assert isinstance(statistics, Statistics)
    assert (statistics.received, statistics.dropped, statistics.accepted) == (23, 2, 7)
    assert statistics.interface == first.interface


@ORDERS
def test_in_pieces(make: Maker) -> None:
    """However the stream is cut."""
    whole = stream(make)
    expected = read(whole)

    assert read(*(whole[place : place + 1] for place in range(len(whole)))) == expected
    for place in range(len(whole)):
        assert read(whole[:place], whole[place:]) == expected


@pytest.mark.parametrize(
    ("options", "units", "nanoseconds"),
    [
        ([], 1_700_000_000_123_456, 1_700_000_000_123_456_000),  # microseconds if nothing is said
        ([(9, b"\x03")], 1_700_000_000_123, 1_700_000_000_123_000_000),
        ([(9, b"\x8a")], 1024 * 17 + 512, 17_500_000_000),  # 2 ** 10 in a second
        ([(9, b"\x09"), (14, struct.pack("<q", 100))], 7, 100_000_000_007),
    ],
)
def test_times(options: list[tuple[int, bytes]], units: int, nanoseconds: int) -> None:
    """In the units that the interface says, from the moment that it says."""
    make = Maker()
    (frame,) = frames(make.section(), make.interface("eth0", options), make.packet(b"", time=units))

    assert frame.time == nanoseconds


def test_sections() -> None:
    """Each has interfaces of its own, and an order of its own."""
    little, big = Maker("<"), Maker(">")
    found = frames(
        little.section(), little.interface("a"), little.packet(b"1"),
        big.section(), big.interface("b"), big.packet(b"2"),
    )  # fmt: skip

    assert [(frame.interface.name, frame.data) for frame in found] == [("a", b"1"), ("b", b"2")]


def test_a_filter_and_a_strange_name() -> None:
    """Text that is no UTF-8 is shown as what it is."""
    make = Maker()
    interface = make.block(1, struct.pack("<HHI", 1, 0, 0), [(2, b"eth\xff\0"), (11, b"\0port 53")])
    (frame,) = frames(make.section() + interface + make.packet(b""))

    assert (frame.interface.name, frame.interface.filter) == ("eth\\xff", "port 53")


def head() -> bytes:
    return Maker().section() + Maker().interface("eth0")


def raw(kind: int, length: int, body: bytes = b"", again: int | None = None) -> bytes:
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length if again is None else again)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"\xd4\xc3\xb2\xa1" + bytes(20),
            "byte 0: this is no pcapng, it does not begin with a section header",
        ),
        (b"\n\r\r\n" + bytes(20), "byte 0: a section with an unknown byte order"),
        (head() + raw(6, 8), "byte 68: a block of 8 bytes cannot be"),
        (head() + raw(6, 14, bytes(2)), "byte 68: a block of 14 bytes cannot be"),
        (head() + raw(6, 0xFFFFFFFC), "byte 68: a block of 4294967292 bytes cannot be"),
        (head() + raw(6, 12, again=16), "byte 68: a block whose two lengths differ"),
        (head() + raw(6, 12), "byte 68: a block of type 0x6 is too short"),
        (head() + raw(1, 16, bytes(4)), "byte 68: a block of type 0x1 is too short"),
        (head() + raw(5, 12), "byte 68: a block of type 0x5 is too short"),
        (head() + Maker().packet(b"", interface=1), "byte 68: interface 1 has not been described"),
        (head() + Maker().block(1, bytes(8), [(9, b"")]), "byte 68: a block of type 0x1 is too short"),
        (
            head() + raw(6, 32, struct.pack("<5I", 0, 0, 0, 1000, 1000)),
            "byte 68: a packet of 1000 bytes, a block of 32",
        ),
        (
            head() + raw(6, 36, struct.pack("<5IHH", 0, 0, 0, 0, 0, 1, 9)),
            "byte 68: option 1 is longer than its block",
        ),
    ],
)
def test_nonsense(data: bytes, message: str) -> None:
    """One line that says where; a length that cannot be is not waited for."""
    with pytest.raises(PcapngError) as caught:
        read(data)

    assert str(caught.value) == message


def test_cut_off() -> None:
    """The frames before are there; the end tells that something is missing."""
    reader = Reader()
    whole = head() + Maker().packet(b"whole")

    assert len(list(reader.feed(whole + Maker().packet(b"half")[:-1]))) == 1
    with pytest.raises(PcapngError, match=f"^cut off within the block at byte {len(whole)}$"):
        reader.close()


@given(some.binary(max_size=200))
def test_anything(data: bytes) -> None:
    """No bytes do more than make an error."""
    for start in (b"", head()):
        with suppress(PcapngError):
            read(start + data)


@given(some.integers(0, len(stream(Maker())) - 1), some.integers(0, 255), some.sampled_from("<>"))
def test_one_wrong_byte(place: int, byte: int, order: str) -> None:
    """Neither does one in the middle of what is right."""
    data = bytearray(stream(Maker(order)))
    data[place] = byte
    with suppress(PcapngError):
        read(bytes(data))


@pytest.mark.parametrize(
    ("comment", "owner"),
    [
        ("", {}),
        ("anything, said by others", {}),
        ("uid=4711", {"uid": 4711}),
        (
            "user=alice uid=1000 process=curl pid=4211 unit=session-3.scope",
            {"user": "alice", "uid": 1000, "process": "curl", "pid": 4211, "unit": "session-3.scope"},
        ),
        (
            r'uid=0 process="a \" uid=1 \u001b[" pid=7 unit="x y"',
            {"uid": 0, "process": 'a " uid=1 \x1b[', "pid": 7, "unit": "x y"},
        ),
        ('uid=what pid=-1 process="cut', {"process": '"cut'}),
        ('process="\\x"', {"process": '"\\x"'}),
    ],
)
def test_owners(comment: str, owner: dict[str, object]) -> None:
    """As netmond writes them; no process becomes another user's by what it calls itself."""
    (frame,) = frames(head() + Maker().packet(b"", comment=comment))

    assert frame.owner == owner
