"""The per-user files: what they say in all is what the user's totals say."""

from __future__ import annotations

import csv
import gzip
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond

DATAGRAM = 101 + 28
EVERY_SECOND = {"output.csv.interval": 1}


def all_rows_of(netmond: Netmond, uid: int = USER) -> list[dict[str, str]]:
    """The rows of all files of a user, rotated and compressed ones, too, oldest first."""
    log = netmond.logs / "users" / str(uid) / f"traffic_user_all_{uid}.log"
    texts = {
        file.name.removesuffix(".gz"): gzip.decompress(file.read_bytes())
        if file.suffix == ".gz"
        else file.read_bytes()
        for file in [*log.parent.glob("*Z"), *log.parent.glob("*Z.gz")]
    }
    old = [row for name in sorted(texts) for row in csv.DictReader(texts[name].decode().splitlines())]
    return old + rows_of(netmond, uid)


def rows_of(netmond: Netmond, uid: int = USER) -> list[dict[str, str]]:
    """The whole rows of a user's file, oldest first; none if there is no file, yet or after a rotation."""
    file = netmond.logs / "users" / str(uid) / f"traffic_user_all_{uid}.log"
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    whole, newline, _ = text.rpartition("\n")
    return list(csv.DictReader((whole + newline).splitlines()))


def last_totals(rows: list[dict[str, str]]) -> tuple[int, int]:
    """Bytes in and out that the last row gives as the user's."""
    return int(rows[-1]["total_in"]), int(rows[-1]["total_out"])


def check_sums(rows: list[dict[str, str]]) -> Figures:
    """The totals in each row are the sums of the rows up to it; returns what all rows add up to."""
    sums = {"in": [0, 0], "out": [0, 0]}
    for row in rows:
        sums[row["direction"]][0] += int(row["packets"])
        sums[row["direction"]][1] += int(row["bytes"])
        assert (sums["in"][1], sums["out"][1]) == (int(row["total_in"]), int(row["total_out"]))
    return Figures(*sums["in"], *sums["out"])


def is_written(netmond: Netmond, count: int) -> bool:
    """Whether the file tells of so many datagrams each way. They may be in the rows of two intervals."""
    return check_sums(rows_of(netmond)) == (count, count * DATAGRAM) * 2


def test_last_row_is_the_total(scene: Scene) -> None:
    """The file has tool B's seven columns first; after SIGTERM its last row holds the user's totals, and it
    goes on from there after a restart."""
    netmond = scene.netmond(config=EVERY_SECOND)
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    found = netmond.user(USER)
    netmond.stop()

    rows = rows_of(netmond)
    assert ",".join(list(rows[0])[:7]) == "direction,bytes,src_ip,dst_ip,timestamp,total_in,total_out"
    assert last_totals(rows) == (found.in_bytes, found.out_bytes) == (23 * DATAGRAM, 23 * DATAGRAM)
    ends = {row["direction"]: (row["src_ip"], row["dst_ip"], row["dst_port"]) for row in rows}
    assert ends["out"] == ("10.23.1.1", "10.23.1.2", str(port))
    assert ends["in"][:2] == ("10.23.1.2", "10.23.1.1")
    assert {row["unit"] for row in rows} == {scene.unit.name}

    netmond.start()
    user.do("exchange", name="a", count=29, size=101)
    assert netmond.user(USER) == (52, 52 * DATAGRAM) * 2
    netmond.stop()

    assert check_sums(rows_of(netmond)) == (52, 52 * DATAGRAM) * 2


def test_traffic_up_to_the_end(scene: Scene) -> None:
    """What was exchanged in the moment before SIGTERM is in the file."""
    netmond = scene.netmond(config={**EVERY_SECOND, "daemon.interval": 60})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    netmond.stop()

    assert check_sums(rows_of(netmond)) == (23, 23 * DATAGRAM) * 2


def test_short_connections(scene: Scene) -> None:
    """Flows that end between two rows are in the file with all they did, and so are those that are open."""
    netmond = scene.netmond(config=EVERY_SECOND)
    server, user = scene.server(), scene.user()
    port = server.do("short_server", local=["10.23.1.2", 0])
    for _ in range(3):
        user.do("storm", peer=["10.23.1.2", port], count=503, size=23)
        netmond.settle()
    found = netmond.user(USER)
    netmond.stop()

    rows = rows_of(netmond)
    assert check_sums(rows) == found
    assert len({row["src_port"] for row in rows if row["direction"] == "out"}) > 1000


def test_peers_and_overflow(scene: Scene) -> None:
    """Neither peers of a server nor sockets without a slot are missing or double in the file."""
    netmond = scene.netmond(config={**EVERY_SECOND, "meter.slots": 7, "meter.peers": 11})
    server, user, client = scene.server(), scene.user(), scene.server()
    port = user.do("echo_server", local=["10.23.1.1", 0])
    far_port = server.do("echo_server", local=["10.23.1.2", 0])
    for number in range(23):
        client.do("udp", name=f"c{number}", peer=["10.23.1.1", port])
        client.do("exchange", name=f"c{number}", count=3, size=101)
    user.do("many", prefix="m", count=29, peer=["10.23.1.2", far_port], exchanges=3, size=101)
    eventually(lambda: len(rows_of(netmond)) >= 30, "rows are in the file")
    user.do("close_all")
    user.do("many", prefix="n", count=31, peer=["10.23.1.2", far_port], exchanges=3, size=101)
    found = netmond.user(USER)
    netmond.stop()

    count = 3 * (23 + 29 + 31)
    assert found == (count, count * DATAGRAM) * 2
    assert check_sums(rows_of(netmond)) == found


def test_one_file_per_user(scene: Scene) -> None:
    """Each user has a directory and file; nobody else may read them."""
    netmond = scene.netmond(config=EVERY_SECOND)
    port = scene.server().do("echo_server", local=["10.23.1.2", 0])
    for uid in (USER, USER + 1):
        user = scene.user(uid)
        user.do("udp", name="a", peer=["10.23.1.2", port])
        user.do("exchange", name="a", count=uid - USER + 23, size=101)
    netmond.settle()
    netmond.stop()

    for uid in (USER, USER + 1):
        count = uid - USER + 23
        assert check_sums(rows_of(netmond, uid)) == (count, count * DATAGRAM) * 2
        directory: Path = netmond.logs / "users" / str(uid)
        for path in (directory, *directory.iterdir()):
            assert path.stat().st_mode & 0o007 == 0, path


def test_killed(scene: Scene) -> None:
    """After SIGKILL the file ends with a whole row and the totals go on from what it says."""
    netmond = scene.netmond(config=EVERY_SECOND)
    port = scene.server().do("echo_server", local=["10.23.1.2", 0])
    user = scene.user()
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    eventually(lambda: is_written(netmond, 23), "the rows are in the file")
    netmond.stop(signal.SIGKILL)
    netmond.start()
    user.do("exchange", name="a", count=29, size=101)
    netmond.settle()
    netmond.stop()

    assert check_sums(rows_of(netmond)) == (52, 52 * DATAGRAM) * 2


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_flow_that_outlasts_its_daemon(scene: Scene, end: signal.Signals) -> None:
    """The next daemon takes up what the kernel has; its rows begin where those of the one before ended."""
    netmond = scene.daemon(config={**EVERY_SECOND, "daemon.keep_counting": "always"})
    scene.machine.bpffs(netmond.run / "bpf")
    netmond.start()
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)
    eventually(lambda: is_written(netmond, 23), "the rows of 23 datagrams")

    netmond.stop(end)
    user.do("exchange", name="a", count=7, size=101)
    netmond.start()
    eventually(lambda: is_written(netmond, 30), "the rows of what came after")

    assert netmond.user(USER) == (30, 30 * DATAGRAM) * 2


def test_killed_with_rotated_files(scene: Scene) -> None:
    """Small files, and a SIGKILL after each few: all together tell each row once, compressed or not."""
    netmond = scene.netmond(config={**EVERY_SECOND, "output.csv.rotate_size": "4K"})
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])

    def is_the_last(octets: int) -> bool:
        rows = rows_of(netmond)
        return bool(rows) and last_totals(rows) == (octets, octets)

    for turn in (1, 2):
        count = turn * 31 * 3
        expected = (count, count * DATAGRAM) * 2
        user.do("many", prefix=f"m{turn}", count=31, peer=["10.23.1.2", port], exchanges=3, size=101)
        user.do("close_all")
        eventually(partial(is_the_last, count * DATAGRAM), "the last row is there")
        netmond.stop(signal.SIGKILL)
        assert check_sums(all_rows_of(netmond)) == expected
        netmond.start()
    packed = netmond.logs / "users" / str(USER)
    eventually(lambda: list(packed.glob("*Z.gz")) and not list(packed.glob("*Z")), "all are compressed")
