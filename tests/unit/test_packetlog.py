"""Rows of packets: byte for byte what a simple formatter writes, and nothing missing that is not told."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netmond.kernel import wire
from netmond.model import NOBODY_UID
from netmond.outputs import csvrows, logs
from netmond.outputs.csvparts import Part
from netmond.outputs.textcolumns import address
from netmond.packetlog import rows
from netmond.packetlog.owners import Owners
from netmond.packetlog.writer import Account, Writer
from netmond.units import GONE
from netmond.views import PROTOCOLS
from tests.unit.csvflows import ALICE, BOB, packed, path_of
from tests.unit.packets import CGROUP, OFFSET, SECOND, UNIT, Flows, owners, packet, records

_sizes = st.integers(0, 3000) | st.sampled_from([9999, 10_000, 65535, 65536, 10**7 - 1, 10**7, 2**32 - 1])
_slots = st.sampled_from([0, 1, 2, 3, 64, wire.NO_SLOT])
_addresses = st.one_of(
    st.just(bytes(16)),
    st.binary(min_size=4, max_size=4).map(lambda four: bytes(10) + b"\xff\xff" + four),
    st.binary(min_size=16, max_size=16),
    st.lists(st.sampled_from([b"\0\0", b"\0\1", b"\xff\xff", b"\x12\x34"]), min_size=8, max_size=8).map(
        b"".join
    ),
    st.sampled_from(["::1", "::ffff:0:1", "::192.0.2.1", "2001:db8::7", "1::", "::1:0:0:1", "0.0.0.0"]).map(
        packed
    ),
)
_commands = st.one_of(
    st.sampled_from([b"", b"curl", b"sixteen letters!", b',"\\\n', b"\xff" * 16, b"# x"]),
    st.binary(max_size=16),
)


def one_by_one(
    found: Any,
    bounds: list[int],
    totals: list[tuple[int, int]],
    offset: int,
    flows: Flows,
    names: dict[int, str],
) -> list[Part]:
    """What `rows.parts` makes, a row at a time."""
    parts = []
    for (begin, end), total in zip(pairwise(bounds), totals, strict=True):
        sums, lines = list(total), []
        for each in found[begin:end]:
            sums[int(each["direction"])] += int(each["bytes"])
            who = ",0,"
            if (
                each["slot"] < flows.capacity
                and flows.rows[each["slot"]]["generation"] == each["generation"]
            ):
                row = flows.rows[each["slot"]]
                unit = names.get(int(row["cgroup"]), GONE)
                who = f"{csvrows.field(unit)},{row['pid']},{csvrows.field(bytes(row['comm']))}"
            when = int(each["time"]) + offset
            protocol = int(each["protocol"])
            lines.append(
                f"{('in', 'out')[each['direction']]},{each['bytes']},{address(each['source'].item())},"
                f"{address(each['destination'].item())},{when // SECOND}.{when % SECOND:09d},"
                f"{sums[0]},{sums[1]},{each['packets']},{each['source_port']},{each['destination_port']},"
                f"{PROTOCOLS.get(protocol, protocol)},{who}\n"
            )
        parts.append(Part("".join(lines).encode(), len(lines), (sums[0], sums[1])))
    return parts


def as_bytes(parts: list[Part]) -> list[Part]:
    return [part._replace(lines=bytes(part.lines)) for part in parts]


class TestRows:
    @settings(max_examples=50, deadline=None)
    @given(st.data())
    def test_the_same_bytes(self, data: st.DataObject) -> None:
        """Of several users: hostile names, all kinds of addresses, totals beyond 2^64, unknown sockets."""
        flows = Flows()
        for slot in range(4):
            flows.rows[slot]["comm"] = data.draw(_commands)
            flows.rows[slot]["cgroup"] = data.draw(st.sampled_from([1, 2, 3]))
        names = {1: data.draw(st.text(max_size=40)), 2: 'a,"b'}
        counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
        made = records(
            *(
                packet(
                    uid=uid, size=data.draw(_sizes), out=data.draw(st.booleans()),
                    at=data.draw(st.integers(0, 10**12)), slot=data.draw(_slots),
                    generation=data.draw(st.sampled_from([0, 1, 2])),
                    packets=data.draw(st.integers(0, 65535)),
                    protocol=data.draw(st.integers(0, 255)), here=data.draw(_addresses),
                    there=data.draw(_addresses),
                )
                for uid, count in enumerate(counts)
                for _ in range(count)
            )
        )  # fmt: skip
        offset = data.draw(st.sampled_from([0, OFFSET, 10**19 // 2]))
        total = st.one_of(st.integers(0, 1 << 70), st.integers(0, 10**9))
        totals = [(data.draw(total), data.draw(total)) for _ in counts]
        found, bounds = rows.by_user(made)
        known = Owners(flows, lambda ids: {id_: names[id_] for id_ in ids if id_ in names})
        expected = one_by_one(found, bounds, totals, offset, flows, names)

        assert as_bytes(rows.parts(found, bounds, totals, offset, known)) == expected
        assert as_bytes(rows.parts(found, bounds, totals, offset, known)) == expected

    def test_many(self) -> None:
        """A whole batch of random packets of many users, each user's in the order they came."""
        random = np.random.default_rng(23)
        made = records(*(packet() for _ in range(rows.CHUNK)))
        made["uid"] = random.integers(1000, 1101, rows.CHUNK)
        made["bytes"] = random.integers(20, 65535, rows.CHUNK)
        made["direction"] = random.integers(0, 2, rows.CHUNK)
        made["time"] = SECOND + np.arange(rows.CHUNK) * 312_503
        made["source"] = random.integers(0, 256, (rows.CHUNK, 16), np.uint8).view("V16")[:, 0]
        found, bounds = rows.by_user(made)
        totals = [(10**uid % 10**17, uid) for uid in range(len(bounds) - 1)]

        parts = as_bytes(rows.parts(found, bounds, totals, OFFSET, owners()))

        assert parts == one_by_one(found, bounds, totals, OFFSET, Flows(), {CGROUP: UNIT})
        assert all(
            (np.diff(found["time"][begin:end].astype(np.int64)) > 0).all() for begin, end in pairwise(bounds)
        )

    def test_a_row_is_read_back(self) -> None:
        """By the parser of interval mode's rows."""
        found, bounds = rows.by_user(records(packet(size=1500, at=123456789)))
        (part,) = rows.parts(found, bounds, [(5, 7)], OFFSET, owners())

        mark = csvrows.last_mark(bytes(part.lines))
        assert mark is not None
        assert mark[1:] == (1505, 7)


class TestOwners:
    def test_asked_once(self) -> None:
        """A socket is looked up with its first packet only, and again when its slot has another."""
        flows = Flows()
        known = owners(flows)
        known.ends(records(packet(), packet(), packet(slot=12)))
        known.ends(records(packet(), packet(slot=12)))
        assert sorted(flows.asked) == [11, 12]
        flows.rows["generation"][11] = 2
        flows.rows["comm"][11] = b"wget"
        found = rows.by_user(records(packet(), packet(generation=2)))
        lines = bytes(rows.parts(*found, [(0, 0)], OFFSET, known)[0].lines).decode().splitlines()

        assert [line.rsplit(",", 1)[1] for line in lines] == ["", "wget"]
        assert sorted(flows.asked) == [11, 11, 12]

    def test_many_processes(self) -> None:
        """More than are remembered: all are right nevertheless."""
        flows = Flows()
        known = owners(flows)
        for generation in range(1, 301):
            flows.rows["generation"] = generation
            flows.rows["pid"] = generation * 64 + np.arange(64)
            found, bounds = rows.by_user(
                records(*(packet(slot=slot, generation=generation) for slot in range(64)))
            )
            (part,) = rows.parts(found, bounds, [(0, 0)], OFFSET, known)
            pids = [int(line.split(",")[-2]) for line in bytes(part.lines).decode().splitlines()]
            assert pids == flows.rows["pid"].tolist()


class Scene:
    """A writer on the test's directory."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.logs = logs.Logs()
        self.logs.open(str(directory), {setting.key: setting.default for setting in logs.OPTIONS} | options)
        self.writer = Writer(self.logs, owners(), offset=lambda: OFFSET)

    def lines(self, uid: int = ALICE) -> list[str]:
        return path_of(self.directory, uid).read_text().splitlines()

    def rows(self, uid: int = ALICE) -> list[tuple[str, str, str]]:
        """Bytes and totals."""
        found = csv.DictReader(line for line in self.lines(uid) if not line.startswith("#"))
        return [(row["bytes"], row["total_in"], row["total_out"]) for row in found]

    def comments(self, uid: int = ALICE) -> list[str]:
        """Without times."""
        lines = [line for line in self.lines(uid) if line.startswith("#")]
        return [re.sub(r" (since|timestamp)=[\d.]+", "", line) for line in lines]

    def told(self) -> list[str]:
        """But for the first comment."""
        return self.comments()[1:]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def missing(lost: tuple[int, int, int, int], skipped: tuple[int, int, int, int] = (0, 0, 0, 0)) -> Any:
    return np.array([(lost, skipped)], wire.UNLOGGED)


USERS = np.array([ALICE], np.uint32)


class TestWriter:
    def test_the_bytes_of_a_file(self, scene: Scene) -> None:
        """Header, the mode, rows: literally, but for the time of the comment."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.write(
            records(packet(size=1500, at=5), packet(size=52, out=True, at=7, slot=wire.NO_SLOT))
        )

        header, comment, *found = scene.lines()
        assert header == csvrows.HEADER.decode().strip()
        assert re.fullmatch(
            r"# packet mode: every packet timestamp=\d+\.\d{9} total_in=0 total_out=0", comment
        )
        assert found == [
            "in,1500,192.0.2.7,198.51.100.4,1795231801.000000005,1500,0,1,443,51544,tcp,session-3.scope,4211,curl",
            "out,52,198.51.100.4,192.0.2.7,1795231801.000000007,1500,52,1,51544,443,tcp,,0,",
        ]

    def test_only_whose_were_asked_for(self, scene: Scene) -> None:
        """Packets of others are not taken, and nobody's after the end."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.write(records(packet(), packet(uid=BOB), packet()))
        scene.writer.finish([ALICE])
        scene.writer.write(records(packet()))

        assert len(scene.rows()) == 2
        assert not path_of(scene.directory, BOB).exists()

    def test_not_before_the_hand_over(self, scene: Scene) -> None:
        """Packets up to the tick are in the rows of interval mode."""
        scene.writer.begin(ALICE, Account(every=1, since=SECOND + 10))
        scene.writer.write(records(*(packet(size=at, at=at) for at in (9, 10, 11, 12))))

        assert scene.rows() == [("11", "11", "0"), ("12", "23", "0")]

    def test_who_is_expected_holds_all_up(self, scene: Scene) -> None:
        """What comes behind a packet that has to wait waits, too."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.expect([BOB])
        batch = records(packet(), packet(uid=BOB), packet())
        assert scene.writer.write(batch) == 1
        assert scene.writer.write(batch[1:]) == 0
        scene.writer.begin(BOB, Account(every=1))
        assert scene.writer.write(batch[1:]) == 2
        scene.writer.expect([NOBODY_UID])
        assert scene.writer.write(records(packet(uid=BOB), packet(uid=7))) == 1
        scene.writer.forget()
        assert scene.writer.write(records(packet(uid=7))) == 1

        assert (len(scene.rows()), len(scene.rows(BOB))) == (2, 2)

    def test_everyone(self, scene: Scene) -> None:
        """Whoever appears has a file; one who was named stays when everyone else goes."""
        scene.writer.begin(ALICE, Account(every=3))
        scene.writer.begin(NOBODY_UID, Account(every=1, since=SECOND))
        scene.writer.write(records(packet(at=1), packet(uid=BOB, at=1), packet(uid=BOB, at=2)))
        scene.writer.finish([NOBODY_UID])
        scene.writer.write(records(packet(at=3), packet(uid=BOB, at=3)))

        assert (len(scene.rows()), len(scene.rows(BOB))) == (2, 2)
        assert scene.comments()[0].startswith("# packet mode: 1 of 3 packets")
        assert scene.writer.accounts.keys() == {ALICE}

    def test_one_of_everyone_is_named(self, scene: Scene) -> None:
        """What was to be a row still is, at the new rate from then on; and what was told stays told."""
        scene.writer.begin(NOBODY_UID, Account(every=1), {ALICE: [1, 100, 0, 0, 0, 0, 0, 0]})
        scene.writer.begin(ALICE, Account(every=3, since=SECOND + 10))
        scene.writer.write(records(packet(at=5)))
        scene.writer.tell(USERS, missing((1, 100, 0, 0)))

        assert len(scene.rows()) == 1
        assert scene.told() == ["# packet mode: 1 of 3 packets total_in=0 total_out=0"]
        assert scene.writer.accounts[ALICE].named

    def test_another_rate(self, scene: Scene) -> None:
        """Is said, once."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.begin(ALICE, Account(every=7))
        scene.writer.begin(ALICE, Account(every=7))

        assert scene.told() == ["# packet mode: 1 of 7 packets total_in=0 total_out=0"]

    def test_losses_are_told_once(self, scene: Scene) -> None:
        """What the kernel counts beyond what was told, and the totals grow by it."""
        scene.writer.begin(ALICE, Account(every=1, told=[2, 200, 3, 300, 0, 0, 0, 0]))
        scene.writer.tell(USERS, missing((2, 200, 3, 300)))
        scene.writer.tell(USERS, missing((5, 510, 4, 400), (1, 60, 0, 0)))
        scene.writer.tell(USERS, missing((5, 510, 4, 400), (1, 60, 0, 0)))
        scene.writer.write(records(packet(size=1000)))

        assert scene.told() == [
            "# lost: packets=4 in_bytes=310 out_bytes=100 total_in=310 total_out=100",
            "# skipped: packets=1 in_bytes=60 out_bytes=0 total_in=370 total_out=100",
        ]
        assert scene.rows() == [("1000", "1370", "100")]
        account = scene.writer.accounts[ALICE]
        assert (account.lost_packets, account.lost_bytes, account.rows) == (4, 410, 1)

    def test_totals_of_a_comment_at_the_end(self, scene: Scene) -> None:
        """Are those with which the next one goes on."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.write(records(packet(size=1000)))
        scene.writer.tell(USERS, missing((5, 510, 4, 400)))
        scene.logs.close()

        again = Scene(scene.directory)
        assert again.logs.totals(ALICE) == (1510, 400)

    @pytest.mark.parametrize("written", [0, 1, 3])
    def test_taken_up_after_a_kill(self, scene: Scene, written: int) -> None:
        """Packets that come again and are in the file already are not written twice."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.write(records(packet(size=1000), packet(size=52, out=True)))
        account = scene.writer.accounts[ALICE]
        state = Account(every=1, totals=account.totals, told=account.told, rows=2)
        batch = [packet(size=23), packet(size=29, out=True), packet(size=31), packet(size=37)]
        if written:
            scene.writer.write(records(*batch[:written]))

        again = Scene(scene.directory)
        again.writer.begin(ALICE, state)
        again.writer.write(records(*batch))

        assert [size for size, *_ in again.rows()] == ["1000", "52", "23", "29", "31", "37"]
        assert again.rows()[-1] == ("37", "1091", "81")
        assert len(again.comments()) == 1

    def test_what_cannot_be_written_is_told(self, scene: Scene) -> None:
        """The totals go on, and once there is a file again it says what it lacks."""
        scene.writer.begin(ALICE, Account(every=1))
        scene.writer.write(records(packet(size=1000)))
        path = path_of(scene.directory)
        path.unlink()
        path.mkdir()  # stands in the way
        scene.writer.write(records(packet(size=23, packets=2), packet(size=29, out=True)))
        scene.writer.tell(USERS, missing((1, 100, 0, 0)))
        scene.writer.retry()
        path.rmdir()
        scene.writer.retry()
        scene.writer.write(records(packet(size=31)))

        assert scene.comments() == [
            "# not written: rows=2 packets=4 in_bytes=123 out_bytes=29 total_in=1123 total_out=29"
        ]
        assert scene.rows() == [("31", "1154", "29")]
        account = scene.writer.accounts[ALICE]
        assert (account.rows, account.lost_packets, account.lost_bytes) == (2, 4, 152)
