"""The CSV output: which rows it writes, and that a user's running totals are exact whatever happens."""

from __future__ import annotations

import csv
import errno
import gzip
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from netmond.model import NOBODY_UID, FlowKind, TrafficType
from netmond.outputs import csvrows, files, rotated
from netmond.outputs.csv import CsvOutput
from netmond.outputs.logs import CLEAN_UP, OPEN_LOGS
from tests.unit.csvflows import (
    ALICE,
    BOB,
    Start,
    config,
    flow,
    lost,
    outputs,
    packed,
    path_of,
    rows_of,
    snapshot,
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts outputs on the test's directory."""
    with outputs(tmp_path) as begin:
        yield begin


class TestRows:
    def test_the_bytes_of_a_file(self, start: Start, tmp_path: Path) -> None:
        """Header, tool B's seven columns, ours: literally."""
        start().write(snapshot(1, flow(1, received=2300, sent=290)))

        assert path_of(tmp_path).read_text() == (
            "direction,bytes,src_ip,dst_ip,timestamp,total_in,total_out,"
            "packets,src_port,dst_port,protocol,unit,pid,process\n"
            "in,2300,192.0.2.7,198.51.100.4,1795231800.250000000,2300,0,"
            "23,443,51544,tcp,session-3.scope,4211,curl\n"
            "out,290,198.51.100.4,192.0.2.7,1795231800.250000000,2300,290,"
            "3,51544,443,tcp,session-3.scope,4211,curl\n"
        )

    def test_only_what_was_active(self, start: Start, tmp_path: Path) -> None:
        """A row for each flow and direction that moved since the last write, none for the others."""
        output = start(interval=10)
        output.write(snapshot(10, flow(1, received=100), flow(2, sent=200)))
        output.write(snapshot(15, flow(1, received=150), flow(2, sent=200)))
        output.write(snapshot(20, flow(1, received=170), flow(2, sent=200)))

        columns = ("direction", "bytes", "total_in", "total_out")
        assert [tuple(row[column] for column in columns) for row in rows_of(tmp_path)] == [
            ("in", "100", "100", "0"), ("out", "200", "100", "200"), ("in", "70", "170", "200"),
        ]  # fmt: skip

    def test_what_an_earlier_daemon_has_written(self, tmp_path: Path) -> None:
        """The snapshot before the first tick says how things were left: there new rows begin."""
        output = CsvOutput()
        output.init(config(tmp_path))
        output.write(snapshot(0, flow(1, received=100)))
        output.write(snapshot(1, flow(1, received=123)))
        output.close()

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["23"]

    def test_rows_in_any_order(self, start: Start, tmp_path: Path) -> None:
        """Differences are by flow id, wherever the row is in the snapshot."""
        output = start()
        output.write(snapshot(1, flow(7, received=700), flow(3, received=300)))
        output.write(snapshot(2, flow(3, received=311), flow(5, received=500), flow(7, received=713)))

        assert sorted(int(row["bytes"]) for row in rows_of(tmp_path)[2:]) == [11, 13, 500]

    def test_ended_between_two_writes(self, start: Start, tmp_path: Path) -> None:
        """A flow that began and ended within the interval is there, once, also when the output closes."""
        output = start(interval=60)
        output.write(snapshot(3, flow(1, received=23, ended=True), flow(2, received=29)))
        output.write(snapshot(5, flow(2, received=31, ended=True)))
        output.close()

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["23", "31"]

    def test_close_writes_the_rest(self, start: Start, tmp_path: Path) -> None:
        """What happened since the last rows is not lost at a stop, and ended flows do not count again."""
        output = start(interval=60)
        output.write(snapshot(3, flow(1, received=23), flow(2, received=29, ended=True)))
        output.close()

        assert sorted(row["bytes"] for row in rows_of(tmp_path)) == ["23", "29"]
        assert rows_of(tmp_path)[-1]["total_in"] == "52"

    def test_started_again_it_counts_on(self, start: Start, tmp_path: Path) -> None:
        """The same object closed and started again (another configuration) counts nothing twice."""
        output = start()
        output.write(snapshot(1, flow(1, received=100)))
        output.close()
        output.init(config(tmp_path))
        output.write(snapshot(2, flow(1, received=123)))
        output.write(snapshot(3, flow(1, received=123)))
        output.close()

        assert [(row["bytes"], row["total_in"]) for row in rows_of(tmp_path)] == [
            ("100", "100"),
            ("23", "123"),
        ]

    def test_users_have_their_own_files(self, start: Start, tmp_path: Path) -> None:
        """Rows and totals of two users do not mix."""
        start().write(
            snapshot(1, flow(1, ALICE, received=23), flow(2, BOB, sent=29), flow(3, ALICE, sent=31))
        )

        assert [row["bytes"] for row in rows_of(tmp_path, ALICE)] == ["23", "31"]
        assert [row["bytes"] for row in rows_of(tmp_path, BOB)] == ["29"]

    def test_forwarded_is_nobodys(self, start: Start, tmp_path: Path) -> None:
        """Forwarded flows make no row and no user."""
        start().write(snapshot(1, flow(1, NOBODY_UID, kind=FlowKind.FORWARDED, received=23)))

        assert list((tmp_path / "users").iterdir()) == []

    def test_roce_is_its_users(self, start: Start, tmp_path: Path) -> None:
        """RDMA over Ethernet has rows like any flow: version 2 as UDP to port 4791, version 1 as neither."""
        second = {"kind": FlowKind.ROCE, "traffic": TrafficType.ROCE_V2, "opcode": 10, "protocol": 17}
        first = {"kind": FlowKind.ROCE, "traffic": TrafficType.ROCE_V1, "opcode": 36, "protocol": 0}
        ports = {"local_port": 0, "remote_port": 0}
        start().write(
            snapshot(
                1,
                flow(1, sent=23, **second | ports | {"remote_port": 4791}),
                flow(2, received=29, **first | ports, local=packed("fe80::1"), remote=packed("fe80::2")),
            )
        )

        keys = ("src_ip", "dst_ip", "src_port", "dst_port", "protocol", "total_in", "total_out")
        assert [tuple(row[key] for key in keys) for row in rows_of(tmp_path)] == [
            ("198.51.100.4", "192.0.2.7", "0", "4791", "udp", "0", "23"),
            ("fe80::2", "fe80::1", "0", "0", "0", "29", "23"),
        ]

    def test_roce_of_nobody(self, start: Start, tmp_path: Path) -> None:
        """What has no known owner is in no file; once there is one, what follows is in his."""
        output = start()
        output.write(snapshot(1, flow(1, NOBODY_UID, kind=FlowKind.ROCE, received=23)))
        assert list((tmp_path / "users").iterdir()) == []

        output.write(snapshot(2, flow(1, kind=FlowKind.ROCE, received=23 + 29)))

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["29"]

    def test_overflow_keeps_the_totals_exact(self, start: Start, tmp_path: Path) -> None:
        """What found no slot is a row without addresses, at the time of the snapshot."""
        overflow = flow(1, received=2300) | {
            "kind": FlowKind.OVERFLOW, "protocol": 0, "last_seen": 0, "pid": 0, "comm": b"",
            "unit_index": -1, "local": bytes(16), "remote": bytes(16), "local_port": 0, "remote_port": 0,
        }  # fmt: skip
        start().write(snapshot(1, overflow))

        assert path_of(tmp_path).read_text().splitlines()[1] == (
            "in,2300,,,1795231801.000000000,2300,0,23,0,0,0,,0,"
        )

    def test_peers_and_ipv6(self, start: Start, tmp_path: Path) -> None:
        """Peers of an unconnected socket are rows as any; IPv6 is written short; protocols have names."""
        peer = flow(
            1,
            received=23,
            kind=FlowKind.PEER,
            protocol=17,
            local=packed("::1"),
            remote=packed("2001:db8::7"),
        )
        start().write(snapshot(1, peer, flow(2, sent=1, protocol=250)))

        first, second = rows_of(tmp_path)
        assert (first["src_ip"], first["dst_ip"], first["protocol"]) == ("2001:db8::7", "::1", "udp")
        assert second["protocol"] == "250"

    @pytest.mark.parametrize(
        ("comm", "written"),
        [
            (b"x\n1,2", "x\\n1,2"),
            (b'say "hi"', 'say "hi"'),
            (b"a\\nb", "a\\\\nb"),
            (b"\x1b[2J\r\x00\x7f", "\\x1b[2J\\r\\x00\\x7f"),
            (b"caf\xc3\xa9 \xff", "café \\xff"),
            ("\u2028\x85".encode(), "\\u2028\\x85"),
            (b"in,1,,,1.0,9,9", "in,1,,,1.0,9,9"),
        ],
    )
    def test_hostile_names(self, start: Start, tmp_path: Path, comm: bytes, written: str) -> None:
        """Whatever a process or unit calls itself, one row is one line and stays itself in a CSV reader."""
        unit = comm.decode(errors="surrogateescape")
        start().write(snapshot(1, flow(1, received=23, comm=comm), units=(unit,)))

        assert len(path_of(tmp_path).read_bytes().splitlines()) == 2
        assert len(path_of(tmp_path).read_text().splitlines()) == 2
        assert [(row["process"], row["unit"]) for row in rows_of(tmp_path)] == [(written, written)]

    def test_a_counter_that_falls(self, start: Start, tmp_path: Path) -> None:
        """An id whose figures began anew adds what it has now, not 2^64 minus something."""
        output = start()
        output.write(snapshot(1, flow(1, received=100)))
        output.write(snapshot(2, flow(1, received=23)))

        assert rows_of(tmp_path)[-1]["total_in"] == "123"

    def test_clock_set_back(self, start: Start, tmp_path: Path) -> None:
        """After the clock was set back rows do not wait until it is where it was."""
        output = start()
        output.write(snapshot(5000, flow(1, received=23)))
        output.write(snapshot(100, flow(1, received=29)))

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["23", "6"]

    def test_options(self, start: Start, tmp_path: Path) -> None:
        """`nic` is in the name, `header = false` leaves the names of the columns out."""
        start(nic="eth0", header=False).write(snapshot(1, flow(1, received=23)))

        assert path_of(tmp_path, nic="eth0").read_text().startswith("in,23,")


class TestTotals:
    def test_exact_over_many_ticks(self, start: Start, tmp_path: Path) -> None:
        """Row by row the totals are the sum of the bytes so far, and at the end everything ever counted."""
        output = start(rotate_size=4096)
        random = np.random.default_rng(23)
        sums = np.zeros((20, 2), np.int64)
        for tick in range(1, 60):
            sums += random.integers(0, 997, (20, 2)) * random.integers(0, 2, (20, 1))
            output.write(
                snapshot(
                    tick,
                    *(
                        flow(i, received=int(r), sent=int(s), ended=tick == 59)
                        for i, (r, s) in enumerate(sums)
                    ),
                )
            )
        output.close()

        totals = {"in": 0, "out": 0}
        for file in all_files(tmp_path):
            for row in csv.DictReader(text_of(file).splitlines()):
                totals[row["direction"]] += int(row["bytes"])
                assert totals == {"in": int(row["total_in"]), "out": int(row["total_out"])}
        assert len(all_files(tmp_path)) > 3
        assert list(totals.values()) == sums.sum(axis=0).tolist()

    def test_survive_a_restart(self, start: Start, tmp_path: Path) -> None:
        """A new daemon goes on where the last row was."""
        first = start()
        first.write(snapshot(1, flow(1, received=100, sent=10)))
        first.close()
        start().write(snapshot(2, flow(1, received=23)))

        assert (rows_of(tmp_path)[-1]["total_in"], rows_of(tmp_path)[-1]["total_out"]) == ("123", "10")

    def test_survive_a_kill(self, start: Start, tmp_path: Path) -> None:
        """The same without any chance to say goodbye: the file alone is enough."""
        start().write(snapshot(1, flow(1, received=100, sent=10)))
        assert not (path_of(tmp_path).parent / "totals").exists()
        start().write(snapshot(2, flow(1, received=23)))

        assert rows_of(tmp_path)[-1]["total_in"] == "123"

    def test_survive_a_cut_anywhere(self, tmp_path: Path) -> None:
        """Wherever a crash cut the file: whole rows stay, the torn one goes, totals go on from the last."""
        output = CsvOutput()
        output.init(config(tmp_path))
        output.write(snapshot(0))
        hostile = flow(2, sent=31, comm=b'a,"\n', unit_index=1)
        output.write(snapshot(1, flow(1, received=23, sent=29), hostile, units=("u", "in,1,,,1.0,7,7\n")))
        whole = path_of(tmp_path).read_bytes()
        newlines = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
        totals = {newlines[0]: (0, 0), newlines[1]: (23, 0), newlines[2]: (23, 29), newlines[3]: (23, 60)}

        for cut in range(len(whole) + 1):
            directory = tmp_path / str(cut)
            path_of(directory).parent.mkdir(parents=True)
            path_of(directory).write_bytes(whole[:cut])
            kept = max((place for place in newlines if place <= cut), default=0)
            again = CsvOutput()
            again.init(config(directory))
            again.write(snapshot(2))
            assert path_of(directory).read_bytes() == whole[:kept], cut

            again.write(snapshot(3, flow(9, received=1000)))
            last = rows_of(directory)[-1]
            before = totals.get(kept, (0, 0))
            assert (int(last["total_in"]), int(last["total_out"])) == (before[0] + 1000, before[1]), cut
            assert len(rows_of(directory)) == whole[:kept].count(b"\n") + (not kept)
            assert path_of(directory).read_bytes().count(csvrows.HEADER) == 1
            again.close()

    def test_survive_deletion(self, start: Start, tmp_path: Path) -> None:
        """Deleting every log, old and new, resets nothing while the small totals file is there."""
        output = start(rotate_size=4096)
        for tick in range(1, 50):
            output.write(snapshot(tick, flow(1, received=100 * tick)))
        output.close()
        for file in all_files(tmp_path):
            file.unlink()
        start().write(snapshot(60, flow(1, received=23)))

        assert rows_of(tmp_path)[-1]["total_in"] == str(4900 + 23)

    def test_come_from_the_newest_rotated_file(self, start: Start, tmp_path: Path) -> None:
        """Killed right after a rotation, when the new file is empty: the compressed one tells."""
        output = start(rotate_age=60)
        output.write(snapshot(1, flow(1, received=100)))
        output.write(snapshot(70, flow(1, received=107)))
        output.close()
        path_of(tmp_path).unlink()
        (path_of(tmp_path).parent / "totals").unlink()
        assert [file.suffix for file in all_files(tmp_path)] == [".gz"]
        start().write(snapshot(80, flow(1, received=23)))

        assert rows_of(tmp_path)[-1]["total_in"] == "123"

    def test_more_users_than_open_files(self, start: Start, tmp_path: Path) -> None:
        """Thousands of users need no more descriptors than the bound, and all totals are right."""
        output = start()
        before = len(os.listdir("/proc/self/fd"))
        for tick in (1, 2):
            output.write(snapshot(tick, *(flow(uid, uid, received=23 * tick) for uid in range(2000, 2211))))

        assert len(os.listdir("/proc/self/fd")) <= before + 2 * OPEN_LOGS
        assert all(rows_of(tmp_path, uid)[-1]["total_in"] == "46" for uid in range(2000, 2211))
        output.close()
        assert len(os.listdir("/proc/self/fd")) == before - 1


def all_files(log_dir: Path, uid: int = ALICE) -> list[Path]:
    """Every log of a user, oldest first."""
    current = path_of(log_dir, uid)
    old = sorted(current.parent.glob(f"{current.name}-*"))
    return old + ([current] if current.exists() else [])


def text_of(file: Path) -> str:
    return gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()


class TestRotation:
    def test_by_age(self, start: Start, tmp_path: Path) -> None:
        """When the first row is too old a new file begins, with a header; the old one is compressed."""
        output = start(rotate_age=60)
        output.write(snapshot(1, flow(1, received=23)))
        output.write(snapshot(59, flow(1, received=29)))
        output.write(snapshot(62, flow(1, received=31)))

        old, new = all_files(tmp_path)
        assert old.name == "traffic_user_all_1009.log-20261121T033102Z.gz"
        assert text_of(old).count("\n") == 3
        assert new.read_text().startswith("direction,")
        assert {stat.st_mode & 0o777 for stat in (old.stat(), new.stat())} == {0o640}

    def test_of_an_idle_user(self, start: Start, tmp_path: Path) -> None:
        """A file nobody writes to any more is put aside by the regular clean-up."""
        output = start(rotate_age=60)
        output.write(snapshot(1, flow(1, received=23)))
        output.write(snapshot(CLEAN_UP + 1))

        assert [file.suffix for file in all_files(tmp_path)] == [".gz", ".log"]
        assert path_of(tmp_path).read_bytes() == b""

    def test_twice_within_a_second(self, start: Start, tmp_path: Path) -> None:
        """Rotated files never replace each other, and their names tell their order."""
        output = start(rotate_size=4096, interval=1)
        for number in range(1, 4):
            many = [flow(number * 100 + i, received=23, ended=True) for i in range(50)]
            output.write(snapshot(0.1, *many))

        texts = [text_of(file) for file in all_files(tmp_path)]
        assert len(texts) == 3
        assert "".join(texts).count("\nin,") == 150
        assert [text.splitlines()[1].split(",")[5] for text in texts] == ["23", str(51 * 23), str(101 * 23)]

    def test_cap_of_a_user(self, start: Start, tmp_path: Path) -> None:
        """Beyond keep_per_user the oldest rotated files of that user go; nobody else's."""
        output = start(rotate_size=4096, keep_per_user=6000)
        output.write(snapshot(1, flow(1, BOB, received=23)))
        for number in range(1, 30):
            many = [flow(number * 100 + i, received=23 + i, ended=True) for i in range(50)]
            output.write(snapshot(number, *many))

        used = sum(file.stat().st_size for file in path_of(tmp_path).parent.iterdir())
        assert used <= 6000 + 6000  # the cap, and the current file that grew since the last rotation
        assert 0 < len(all_files(tmp_path)) < 29
        assert int(rows_of(tmp_path)[-1]["total_in"]) == 29 * sum(range(23, 73))
        assert len(rows_of(tmp_path, BOB)) == 1

    def test_cap_of_all(self, start: Start, tmp_path: Path) -> None:
        """Beyond keep_total the oldest files of all users go first."""
        output = start(rotate_size=4096, keep_total=17000)
        for number in range(1, 20):
            uid = ALICE if number < 10 else BOB
            many = [flow(number * 100 + i, uid, received=23 + i, ended=True) for i in range(50)]
            output.write(snapshot(number, *many))

        assert len(all_files(tmp_path, BOB)) == 10
        assert all_files(tmp_path, ALICE)[0].name > "traffic_user_all_1009.log-20261121T033005Z"

    def test_interrupted_compression(self, start: Start, tmp_path: Path) -> None:
        """A kill while compressing leaves whole rows once: half-made files go, the rest is finished."""
        output = start(rotate_age=60)
        output.write(snapshot(1, flow(1, received=23)))
        output.write(snapshot(70, flow(1, received=29)))
        output.close()
        done = all_files(tmp_path)[0]
        done.with_suffix("").write_text(text_of(done))  # killed before the plain file was removed
        second = done.parent / "traffic_user_all_1009.log-20261121T040000Z"
        second.write_text(path_of(tmp_path).read_text())  # killed before the compressed one was complete
        second.with_name(second.name + ".gz.tmp").write_bytes(b"half")
        start()

        assert sorted(file.name for file in done.parent.iterdir()) == sorted(
            ["totals", path_of(tmp_path).name, done.name, f"{second.name}.gz"]
        )


class TestTrouble:
    def test_full_disk(self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows that find no room are counted, the file ends with a whole row, and writing resumes."""
        output = start()
        output.write(snapshot(1, flow(1, received=23)))
        room = 150
        really_write = os.write

        def write(fd: int, data: Any) -> int:
            nonlocal room
            if not room:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = really_write(fd, data[:room])
            room -= written
            return written

        monkeypatch.setattr(os, "write", write)
        output.write(snapshot(2, *(flow(number, received=29) for number in range(2, 7))))
        assert len(rows_of(tmp_path)) == 2
        assert path_of(tmp_path).read_bytes().endswith(b"\n")
        assert lost(output) == 4

        output.write(snapshot(3, flow(9, sent=31, received=31)))
        assert lost(output) == 6

        monkeypatch.undo()
        output.write(snapshot(4, flow(10, received=37)))
        assert rows_of(tmp_path)[-1]["total_in"] == str(23 + 5 * 29 + 31 + 37)
        assert rows_of(tmp_path)[-1]["total_out"] == "31"
        assert lost(output) == 6

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
    def test_a_really_full_disk(self, tmp_path: Path) -> None:
        """The same on a file system of 64 KiB: every row is either in the file or counted."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=755", "netmond-test", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("cannot mount a tmpfs here")
        try:
            output = CsvOutput()
            output.init(config(disk))
            output.write(snapshot(0))
            (disk / "filler").write_bytes(bytes(50000))
            rows = 0
            for tick in range(1, 8):
                output.write(snapshot(tick, *(flow(i, received=23 * tick) for i in range(53))))
                rows += 53
            assert len(rows_of(disk)) + lost(output) == rows
            assert lost(output) > 53
            assert path_of(disk).read_bytes().endswith(b"\n")

            (disk / "filler").unlink()
            before = lost(output)
            output.write(snapshot(9, *(flow(i, received=23 * 9) for i in range(53))))
            output.close()
            assert lost(output) == before
            assert rows_of(disk)[-1]["total_in"] == str(53 * 23 * 9)
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_a_disk_that_cannot_even_shrink(
        self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the torn row cannot be cut at once (EIO), it is when the file is opened again."""
        output = start()
        really_write = os.write
        calls = iter(["torn"])

        def write(fd: int, data: Any) -> int:
            if next(calls, None) is None:
                raise OSError(errno.EIO, "Input/output error")
            return really_write(fd, data[:-23])

        def truncate(*_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            patch.setattr(os, "ftruncate", truncate)
            output.write(snapshot(1, flow(1, received=23, sent=29)))
        output.write(snapshot(2, flow(2, received=31)))

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["23", "31"]
        assert lost(output) == 1

    @pytest.mark.parametrize("what", ["file", "user", "users", "everything"])
    def test_removed_under_our_feet(self, start: Start, tmp_path: Path, what: str) -> None:
        """Whoever removes a file or directory: the next rows are in a new one, with the right totals."""
        log_dir = tmp_path / "log"
        log_dir.mkdir()
        output = CsvOutput()
        output.init(config(log_dir))
        output.write(snapshot(0))
        output.write(snapshot(1, flow(1, received=23)))
        log = path_of(log_dir)
        if what == "file":
            log.unlink()
        else:
            shutil.rmtree({"user": log.parent, "users": log.parent.parent, "everything": log_dir}[what])
        output.write(snapshot(2, flow(1, received=29)))
        output.close()

        assert [(row["bytes"], row["total_in"]) for row in rows_of(log_dir)] == [("6", "29")]
        assert lost(output) == 0

    def test_moved_away(self, start: Start, tmp_path: Path) -> None:
        """A log moved away by hand is not written to any more."""
        output = start()
        output.write(snapshot(1, flow(1, received=23)))
        path_of(tmp_path).rename(tmp_path / "mine")
        output.write(snapshot(2, flow(1, received=29)))

        assert [row["bytes"] for row in rows_of(tmp_path)] == ["6"]

    @pytest.mark.parametrize("plant", ["symlink", "hard link", "directory", "fifo", "linked directory"])
    def test_planted_paths(self, start: Start, tmp_path: Path, plant: str) -> None:
        """What is not a plain file of ours is never written to; rows are counted as lost, others go on."""
        victim = tmp_path / "victim"
        victim.mkdir()
        (victim / "file").write_text("precious\n")
        output = start()
        log = path_of(tmp_path)
        if plant == "linked directory":
            log.parent.symlink_to(victim)
        else:
            log.parent.mkdir(parents=True)
        if plant == "symlink":
            log.symlink_to(victim / "file")
        elif plant == "hard link":
            log.hardlink_to(victim / "file")
        elif plant == "directory":
            log.mkdir()
        elif plant == "fifo":
            os.mkfifo(log)

        output.write(snapshot(1, flow(1, ALICE, received=23, sent=29), flow(2, BOB, received=31)))

        assert lost(output) == 2
        assert (victim / "file").read_text() == "precious\n"
        assert [file.name for file in victim.iterdir()] == ["file"]
        assert rows_of(tmp_path, BOB)[-1]["bytes"] == "31"

        if plant == "linked directory":
            log.parent.unlink()
        else:
            shutil.rmtree(log.parent)
        output.write(snapshot(2, flow(3, received=37)))
        assert rows_of(tmp_path)[-1]["total_in"] == str(23 + 37)

    def test_foreign_owner(self, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A directory or file of somebody else is refused."""
        output = start()
        monkeypatch.setattr(files, "_ours", lambda info: False)
        output.write(snapshot(1, flow(1, received=23)))

        assert lost(output) == 1

    def test_log_of_a_lasting_failure(
        self, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One user's broken directory is logged once, although the others' rows are written all the time."""
        caplog.set_level("INFO")
        output = start()
        (tmp_path / "users" / str(ALICE)).write_text("in the way")
        for tick in range(1, 8):
            output.write(snapshot(tick, flow(1, received=23 * tick), flow(2, BOB, received=29 * tick)))
        (tmp_path / "users" / str(ALICE)).unlink()
        output.write(snapshot(9, flow(1, received=23 * 9)))

        assert [record.message for record in caplog.records if record.name == "netmond.outputs.logs"] == [
            "CSV files of user 1009 cannot be used: 1009: Not a directory",
            "CSV files can be used again; 7 rows were lost so far",
        ]
        assert rows_of(tmp_path)[-1]["total_in"] == str(23 * 9)

    def test_modes(self, start: Start, tmp_path: Path) -> None:
        """Files are 0640, a user's directory 0750, that of all 0751, whatever the umask."""
        old = os.umask(0o077)
        try:
            start().write(snapshot(1, flow(1, received=23)))
        finally:
            os.umask(old)

        modes = [
            path.stat().st_mode & 0o777 for path in (path_of(tmp_path), *list(path_of(tmp_path).parents)[:2])
        ]
        assert modes == [0o640, 0o750, 0o751]

    def test_strange_directories_are_left_alone(self, start: Start, tmp_path: Path) -> None:
        """Only directories whose names are numbers are users."""
        for name in ("backup", "007", "1009.old", "../users", "99999999999", "4294967295"):
            (tmp_path / "users" / name).mkdir(parents=True, exist_ok=True)

        users = os.open(tmp_path / "users", os.O_RDONLY)
        try:
            assert rotated.uids(users) == []
        finally:
            os.close(users)

    def test_no_directory_at_all(self, tmp_path: Path) -> None:
        """Started where no directory can be, it says so, to be started again later."""
        (tmp_path / "file").write_text("")
        output = CsvOutput()

        with pytest.raises(NotADirectoryError):
            output.init(config(tmp_path / "file" / "log"))
        output.close()
