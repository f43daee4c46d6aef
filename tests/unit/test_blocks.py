"""Captured frames as pcapng: against a reader that knows nothing but the draft, and against Wireshark."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from netmond.frames.blocks import Blocks, Interface, Statistics
from netmond.frames.comments import Comments, value
from netmond.frames.expressions import ETHERNET, RAW
from netmond.kernel import wire
from netmond.model import NOBODY_UID
from tests.unit.packets import CGROUP, OFFSET, SECOND, UNIT, Flows, units
from tests.unit.pcapng_blocks import Block, read

SNAPLEN = 262_144
MAC = b"\x02\0\0\0\0\7"
ETH0 = Interface(index=3, name="eth0", mac=MAC)
TUN0 = Interface(index=2, name="tun0", linktype=RAW)
NAMES = {0: "root", 1000: "alice", 1001: "böb"}

_Frame = tuple[dict[str, int], bytes]


def blocks(*interfaces: Interface, filter_text: str = "", comments: Comments | None = None) -> Blocks:
    return Blocks(
        interfaces or (ETH0,), snaplen=SNAPLEN, filter_text=filter_text, comments=comments, started=OFFSET
    )


def comments(
    flows: Flows | None = None, named: Callable[[Iterable[int]], Mapping[int, str]] = units
) -> Comments:
    return Comments(flows or Flows(), named, lambda uid: NAMES.get(uid, str(uid)))


def frame(content: bytes = b"", **fields: int) -> _Frame:
    """One that came in on eth0, of nobody, unless said otherwise."""
    known = {"ifindex": 3, "uid": NOBODY_UID, "slot": wire.NO_SLOT, "length": len(content), "time": SECOND}
    return {**known, **fields, "captured": len(content)}, content


def in_ring(frames: Sequence[_Frame], room: int = 8) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As the ring has them: among other bytes, each at a multiple of 8; room: bytes behind the last."""
    pieces, places, at = [], [], 0
    for fields, content in frames:
        record = np.zeros(1, wire.FRAME)
        for name, number in fields.items():
            record[name] = number
        piece = b"\xa5" * 8 + record.tobytes() + content
        places.append(at + 8)
        pieces.append(piece + b"\xa5" * (-len(piece) % 8))
        at += len(pieces[-1])
    data = b"".join(pieces)
    data = data[: places[-1] + wire.FRAME.itemsize + len(frames[-1][1])] + b"\xa5" * room
    return np.frombuffer(data, np.uint8), np.array(places, np.int64)


def told(made: Blocks, frames: Sequence[_Frame], room: int = 8) -> list[Block]:
    return read(made.frames(*in_ring(frames, room), OFFSET).tobytes())


def said(*frames: _Frame, by: Comments | None = None) -> list[str | None]:
    """The comments of frames."""
    found = [block.option(1) for block in told(blocks(comments=by or comments()), frames)]
    return [text.decode() if text is not None else None for text in found]


class TestHead:
    def test_section_and_interfaces(self) -> None:
        section, eth0, tun0 = read(blocks(ETH0, TUN0, filter_text="tcp port 80").head())

        assert (section.kind, section.fields) == (0x0A0D0D0A, (0x1A2B3C4D, 1, 0, -1))
        assert (section.option(4) or b"").startswith(b"netmond ")
        assert (eth0.kind, eth0.fields) == (1, (ETHERNET, 0, SNAPLEN))
        assert (tun0.kind, tun0.fields) == (1, (RAW, 0, SNAPLEN))
        assert eth0.options == [(2, b"eth0"), (6, MAC), (9, b"\x09"), (11, b"\0tcp port 80")]
        assert tun0.options == [(2, b"tun0"), (9, b"\x09"), (11, b"\0tcp port 80")]

    def test_without_filter(self) -> None:
        assert read(blocks().head())[1].option(11) is None


class TestFrames:
    def test_none(self) -> None:
        assert len(blocks().frames(np.empty(0, np.uint8), np.empty(0, np.int64), OFFSET)) == 0

    def test_one(self) -> None:
        (block,) = told(blocks(), [frame(b"abcde", length=1500, time=SECOND + 7)])

        now = OFFSET + SECOND + 7
        assert block.fields == (0, now >> 32, now & 0xFFFFFFFF, 5, 1500)
        assert block.content == b"abcde"
        assert block.options == [(2, struct.pack("=I", 1))]

    def test_direction(self) -> None:
        """Inbound and outbound, as the draft's flags have it."""
        found = told(blocks(), [frame(direction=wire.PACKET_IN), frame(direction=wire.PACKET_OUT)])

        assert [block.option(2) for block in found] == [struct.pack("=I", 1), struct.pack("=I", 2)]

    def test_interfaces(self) -> None:
        """They are numbered as they were described, whatever the kernel's numbers."""
        many = [Interface(index=index, name=f"if{index}") for index in (9, 4, 70_000, 5)]

        found = told(blocks(*many), [frame(ifindex=index) for index in (70_000, 4, 5, 9, 4)])

        assert [block.fields[0] for block in found] == [2, 1, 3, 0, 1]

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.one_of(st.integers(0, 140), st.sampled_from([1500, 1514, 9000, 65_549])),
                st.sampled_from([NOBODY_UID, 0, 1000, 4711]),
                st.integers(0, 63) | st.just(wire.NO_SLOT),
                st.integers(0, 2),
                st.sampled_from([0, CGROUP, 99]),
            ),
            min_size=1,
            max_size=40,
        ),
        st.integers(0, 40),
        st.booleans(),
    )
    def test_any(self, shapes: list[tuple[int, ...]], room: int, with_comments: bool) -> None:
        """Frames of any lengths, with comments of any lengths: all is there, nothing else is."""
        made = [
            frame(
                bytes(np.arange(size, dtype=np.uint32).astype(np.uint8)),
                uid=uid, slot=slot, generation=generation, cgroup=cgroup, time=SECOND + place,
            )
            for place, (size, uid, slot, generation, cgroup) in enumerate(shapes)
        ]  # fmt: skip
        of = blocks(comments=comments() if with_comments else None)

        found = told(of, made, room)

        assert [block.content for block in found] == [content for _, content in made]
        for (fields, content), block in zip(made, found, strict=True):
            now = OFFSET + fields["time"]
            assert block.fields == (0, now >> 32, now & 0xFFFFFFFF, len(content), len(content))
            assert block.option(2) == struct.pack("=I", 1)
            assert block.option(1) == (_expected(fields) if with_comments else None)

    @pytest.mark.parametrize("size", [0, 1, 54, 55, 56, 57, 64, 96, 1500])
    @pytest.mark.parametrize(
        "owner", [{}, {"uid": 1000, "slot": 9, "generation": 1}], ids=["nobody", "alice"]
    )
    def test_alike(self, size: int, owner: dict[str, int]) -> None:
        """Many of one size and owner, which is made another way: as each of them alone."""
        made = [
            frame(
                bytes([place]) * size,
                time=SECOND * 4 + place, direction=place % 2, ifindex=2 + place % 2, length=size + place,
                **owner,
            )
            for place in range(100)
        ]  # fmt: skip
        of = blocks(ETH0, TUN0, comments=comments())

        assert told(of, made) == [block for each in made for block in told(of, [each])]
        made[50] = frame(b"odd one out")
        assert told(of, made) == [block for each in made for block in told(of, [each])]

    def test_what_is_around(self) -> None:
        """Nothing of what lies beside a frame in the ring gets out."""
        data, places = in_ring([frame(b"x" * size) for size in range(70)])

        assert b"\xa5" not in blocks().frames(data, places, OFFSET).tobytes()


def _expected(fields: dict[str, int]) -> bytes | None:
    """The comment that a frame should have, of the sockets of `Flows`."""
    parts = []
    if fields["uid"] != NOBODY_UID:
        name = NAMES.get(fields["uid"])
        parts += [f"user={name}"] if name else []
        parts += [f"uid={fields['uid']}"]
    if fields["slot"] < 64 and fields["generation"] == 1:
        parts += [f"process=curl pid={fields['slot'] + 4200} unit={UNIT}"]
    elif fields["cgroup"] == CGROUP:
        parts += [f"unit={UNIT}"]
    return " ".join(parts).encode() or None


class TestComments:
    def test_of_a_socket(self) -> None:
        made = frame(b"x", uid=1000, slot=11, generation=1)

        assert said(made) == [f"user=alice uid=1000 process=curl pid=4211 unit={UNIT}"]

    def test_of_nobody(self) -> None:
        assert said(frame(b"x"), frame(b"x", slot=11, generation=2)) == [None, None]

    def test_of_a_user_without_name(self) -> None:
        assert said(frame(uid=4711), frame(uid=1001)) == ["uid=4711", "user=böb uid=1001"]

    def test_of_a_cgroup(self) -> None:
        """Without a socket that is known, the unit of its cgroup; nothing about one that is gone."""
        assert said(frame(uid=0, cgroup=CGROUP), frame(uid=0, cgroup=99), frame(cgroup=CGROUP)) == [
            f"user=root uid=0 unit={UNIT}", "user=root uid=0", f"unit={UNIT}",
        ]  # fmt: skip

    def test_unknown_parts(self) -> None:
        """A socket without a process, and one of a unit that is gone."""
        flows = Flows()
        flows.rows["pid"][1] = 0
        flows.rows["cgroup"][2] = 99
        flows.rows["pid"][3], flows.rows["cgroup"][3] = 0, 99

        found = said(*(frame(uid=0, slot=slot, generation=1) for slot in (1, 2, 3)), by=comments(flows))

        assert found == [
            f"user=root uid=0 unit={UNIT}", "user=root uid=0 process=curl pid=4202", "user=root uid=0",
        ]  # fmt: skip

    def test_one_socket_of_two_users(self) -> None:
        """Both are named, also in one batch."""
        made = comments()
        pair = [frame(uid=uid, slot=5, generation=1) for uid in (0, 1000)]

        for _ in range(2):
            assert said(*pair, *pair, by=made) == 2 * [
                f"user=root uid=0 process=curl pid=4205 unit={UNIT}",
                f"user=alice uid=1000 process=curl pid=4205 unit={UNIT}",
            ]

    def test_slot_used_again(self) -> None:
        flows = Flows()
        made = comments(flows)
        assert said(frame(slot=5, generation=1), by=made) == [f"process=curl pid=4205 unit={UNIT}"]

        flows.rows["generation"][5], flows.rows["pid"][5] = 2, 77

        assert said(frame(slot=5, generation=2), by=made) == [f"process=curl pid=77 unit={UNIT}"]
        assert said(frame(slot=5, generation=1), by=made) == [None]

    def test_asked_once(self) -> None:
        flows = Flows()
        made = comments(flows)

        for _ in range(3):
            said(*(frame(uid=0, slot=slot, generation=1) for slot in (5, 6, 5)), by=made)

        assert flows.asked == [5, 6]

    def test_more_than_are_remembered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """All are forgotten then, and found again."""
        monkeypatch.setattr("netmond.frames.comments.REMEMBERED", 20)
        monkeypatch.setattr("netmond.owner_texts.REMEMBERED", 30)
        made = comments()
        frames = [frame(uid=0, slot=slot, generation=1) for slot in range(64)]

        for _ in range(3):
            for start in range(0, 64, 16):
                found = said(*frames[start : start + 16], by=made)
                assert found == [
                    f"user=root uid=0 process=curl pid={4200 + slot} unit={UNIT}"
                    for slot in range(start, start + 16)
                ]

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (b"Web Content", 'process="Web Content"'),
            (b'a"b', 'process="a\\"b"'),
            (b"a=b", 'process="a=b"'),
            (b"a\nb", 'process="a\\nb"'),
            (b"\xff", "process=\\xff"),
            (b"", 'process=""'),
            ("ü".encode(), "process=ü"),
        ],
    )
    def test_names(self, name: bytes, text: str) -> None:
        flows = Flows()
        flows.rows["comm"] = name

        assert said(frame(slot=1, generation=1), by=comments(flows)) == [f"{text} pid=4201 unit={UNIT}"]

    @given(st.text())
    def test_any_value(self, name: str) -> None:
        """One word, or JSON; never more than a line."""
        text = value(name)

        assert text == name or json.loads(text) == name
        assert len(text.splitlines()) == 1
        assert text.startswith('"') or " " not in text

    def test_long_unit(self) -> None:
        """It is cut, between two characters."""
        long = comments(named=lambda cgroups: dict.fromkeys(cgroups, "ü" * 2000))

        (found,) = said(frame(slot=1, generation=1), by=long)

        assert found is not None
        assert found.startswith("process=curl pid=4201 unit=üü")
        assert 990 < len(found.encode()) <= 1000


class TestStatistics:
    def test_of_each_interface(self) -> None:
        """What it counted and when; of one that did not count, nothing is said."""
        of = blocks(ETH0, TUN0)
        ended = OFFSET + 5 * SECOND

        (block,) = read(of.statistics({2: Statistics(received=90, accepted=20, dropped=3)}, ended))

        assert (block.kind, block.fields) == (5, (1, ended >> 32, ended & 0xFFFFFFFF))
        assert block.options == [
            (2, struct.pack("=II", OFFSET >> 32, OFFSET & 0xFFFFFFFF)),
            (3, struct.pack("=II", ended >> 32, ended & 0xFFFFFFFF)),
            *((code, struct.pack("=Q", figure)) for code, figure in ((4, 90), (5, 3), (6, 20), (8, 17))),
        ]


# -- Wireshark -------------------------------------------------------------------------------------------


def wireshark(*command: str, data: bytes) -> str:
    """What one of its tools says, which must have no warning; not as root, about which it has one."""
    done = subprocess.run(
        command,
        input=data,
        capture_output=True,
        check=True,
        user="nobody",
        group="nogroup",
        extra_groups=[],
        env={"PATH": "/usr/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr.decode() == ""
    return done.stdout.decode()


@pytest.fixture(scope="module")
def captured() -> tuple[bytes, list[_Frame]]:
    """Of two interfaces, in both directions, cut at 96 bytes, with and without owners."""
    ip = bytes.fromhex("4500002800010000401100000a0000010a000002") + bytes(20)
    made = []
    for place in range(300):
        size = 60 + place * 5
        owner: dict[str, Any] = {"uid": 1000, "slot": place % 64, "generation": 1} if place % 3 else {}
        if place % 4:
            content, ifindex = (b"\2" * 12 + b"\x08\0" + ip + bytes(size))[: min(size, 96)], 3
        else:
            content, ifindex = ip[: min(size, 96)], 2
        fields = {"length": size, "ifindex": ifindex, "direction": place % 2, "time": SECOND + place}
        made.append(frame(content, **fields, **owner))
    of = blocks(ETH0, TUN0, filter_text="ip", comments=comments())
    frames = of.frames(*in_ring(made), OFFSET).tobytes()
    figures = {
        3: Statistics(received=500, accepted=230, dropped=5),
        2: Statistics(received=75, accepted=75, dropped=0),
    }
    return of.head() + frames + of.statistics(figures, OFFSET + 2 * SECOND), made


def test_tshark(captured: tuple[bytes, list[_Frame]]) -> None:
    """It reads every frame as it was recorded, to the nanosecond, without a word of warning."""
    data, made = captured
    names = (
        "number", "time_epoch", "len", "cap_len", "interface_name", "packet_flags_direction", "comment",
    )  # fmt: skip
    options = [word for name in names for word in ("-e", f"frame.{name}")]

    lines = wireshark("tshark", "-r", "-", "-T", "fields", *options, "-e", "ip.src", data=data).splitlines()

    assert len(lines) == len(made)
    for number, ((fields, content), line) in enumerate(zip(made, lines, strict=True), 1):
        seconds, nanos = divmod(OFFSET + fields["time"], SECOND)
        assert line.split("\t") == [
            str(number), f"{seconds}.{nanos:09}", str(fields["length"]), str(len(content)),
            "eth0" if fields["ifindex"] == 3 else "tun0", ("0x00000001", "0x00000002")[fields["direction"]],
            (_expected({"cgroup": 0, "generation": 0, **fields}) or b"").decode(), "10.0.0.1",
        ]  # fmt: skip


def test_capinfos(captured: tuple[bytes, list[_Frame]]) -> None:
    """Counts, and what is told of each interface."""
    data, made = captured

    said = wireshark("capinfos", "-M", "-", data=data)

    for line in (
        "File type:           pcapng",
        "File timestamp precision:  nanoseconds (9)",
        f"Number of packets:   {len(made)}",
        f"Data size:           {sum(fields['length'] for fields, _ in made)} bytes",
        "Strict time order:   True",
        "Number of interfaces in file: 2",
        "Name = tun0",
        "Encapsulation = Raw IP (7 - rawip)",
        "Filter string = ip",
        f"Capture length = {SNAPLEN}",
    ):
        assert line in said
    assert said.count("Number of stat entries = 1") == 2


def test_tcpdump_reads_it(captured: tuple[bytes, list[_Frame]]) -> None:
    """libpcap's reader, of frames of one link type, which is all it can."""
    of = blocks(filter_text="ip", comments=comments())
    made = [each for each in captured[1] if each[0]["ifindex"] == 3]
    data = of.head() + of.frames(*in_ring(made), OFFSET).tobytes()

    said = subprocess.run(["tcpdump", "-r", "-", "-n", "-tt"], input=data, capture_output=True, check=True)

    assert said.stdout.count(b"\n") == len(made)
