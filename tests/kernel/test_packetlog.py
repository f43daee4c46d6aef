"""Packet mode: every packet is a row, and what is no row is counted and told."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.kernel.agent import Agent
from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.running import Netmond

DATAGRAM = 101 + 28
CONFIG = {"output.csv.interval": 1, "output.csv.packet_users": [str(USER)]}

Row = dict[str, str]


def lines_of(netmond: Netmond, uid: int = USER) -> list[str]:
    """Those of a user's file, without one that is being written; none if there is no file yet."""
    file = netmond.logs / "users" / str(uid) / f"traffic_user_all_{uid}.log"
    whole, _, _ = file.read_text().rpartition("\n") if file.exists() else ("", "", "")
    return whole.splitlines()


def rows_of(lines: list[str]) -> list[Row]:
    """The rows, without comments."""
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def comments_of(lines: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """What the comments say: text, and figures by name."""
    found = []
    for line in lines:
        if line.startswith("#"):
            figures = dict(re.findall(r" ([a-z_]+)=([\d.]+)", line))
            found.append((re.sub(r" [a-z_]+=.*", "", line[2:]), figures))
    return found


def check_sums(lines: list[str]) -> tuple[int, int]:
    """The totals in each line are the sums of all lines up to it; returns the last."""
    total_in = total_out = 0
    names: list[str] = []
    for line in lines:
        if line.startswith("#"):
            figures = dict(re.findall(r" ([a-z_]+)=([\d.]+)", line))
            total_in += int(figures.get("in_bytes", 0))
            total_out += int(figures.get("out_bytes", 0))
            assert (figures["total_in"], figures["total_out"]) == (str(total_in), str(total_out)), line
            continue
        values = next(csv.reader([line]))
        if not names:
            names = values
            continue
        row = dict(zip(names, values, strict=True))
        total_in += int(row["bytes"]) * (row["direction"] == "in")
        total_out += int(row["bytes"]) * (row["direction"] == "out")
        assert (row["total_in"], row["total_out"]) == (str(total_in), str(total_out)), line
    return total_in, total_out


def in_packet_mode(netmond: Netmond, uid: int = USER) -> None:
    """Waits until a user's packets are logged."""
    eventually(lambda: "# packet mode" in "\n".join(lines_of(netmond, uid)), "packet mode has begun")


def bytes_of(figures: Figures) -> tuple[int, int]:
    return figures.in_bytes, figures.out_bytes


def test_each_datagram_is_a_row(scene: Scene) -> None:
    """23 datagrams each way are 46 rows, while the daemon runs, with everything that is known of them."""
    netmond = scene.netmond(config=CONFIG)
    in_packet_mode(netmond)
    server, user = scene.server(), scene.user()
    port = server.do("echo_server", local=["10.23.1.2", 0])
    user.do("udp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=23, size=101)

    rows = eventually(lambda: (found := rows_of(lines_of(netmond)))[45:] and found, "46 rows")

    assert len(rows) == 46
    assert {(row["bytes"], row["packets"], row["protocol"]) for row in rows} == {(str(DATAGRAM), "1", "udp")}
    assert {(row["unit"], row["pid"], row["process"]) for row in rows} == {
        (scene.unit.name, str(user.pid), rows[0]["process"])
    }
    assert rows[0]["process"].startswith("python3")
    ends = {(row["direction"], row["src_ip"], row["dst_ip"]) for row in rows}
    assert ends == {("out", "10.23.1.1", "10.23.1.2"), ("in", "10.23.1.2", "10.23.1.1")}
    assert {row["dst_port"] if row["direction"] == "out" else row["src_port"] for row in rows} == {str(port)}
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    assert len(set(times)) == 46
    found = netmond.user(USER)
    netmond.stop()
    assert check_sums(lines_of(netmond)) == bytes_of(found) == (23 * DATAGRAM, 23 * DATAGRAM)


def reload(netmond: Netmond, **config: Any) -> None:
    netmond.configure({f"output.csv.{key}": value for key, value in config.items()})
    netmond.call("Reload", ("a{sv}",), {})


def talk(scene: Scene, uid: int = USER) -> Agent:
    """A user with a connected socket `a`, to a server that echoes."""
    port = scene.server().do("echo_server", local=["10.23.1.2", 0])
    user = scene.user(uid)
    user.do("udp", name="a", peer=["10.23.1.2", port])
    return user


def exchange_until(user: Agent, condition: Callable[[], bool]) -> int:
    """Exchanges datagrams on socket `a` until the condition is true; returns how many."""
    count, end = 0, time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        user.do("exchange", name="a", count=199, size=101)
        count += 199
    return count


def wait_for_rows(netmond: Netmond, count: int, uid: int = USER) -> None:
    eventually(lambda: len(rows_of(lines_of(netmond, uid))) >= count, f"{count} rows")


def wait_for_lines(netmond: Netmond, user: Agent, count: int) -> int:
    """While datagrams are exchanged; returns how many."""
    return exchange_until(user, lambda: len(lines_of(netmond)) > count)


def wait_for_comments(netmond: Netmond, user: Agent, count: int) -> int:
    """Likewise."""
    return exchange_until(user, lambda: len(comments_of(lines_of(netmond))) >= count)


def wait_for_comment(netmond: Netmond, text: str, uid: int = USER) -> None:
    eventually(lambda: lines_of(netmond, uid)[-1].startswith(f"# {text}"), text)


def wait_for_another_worker(netmond: Netmond, pid: int) -> None:
    eventually(lambda: worker_of(netmond) != pid, "another one runs")


def worker_of(netmond: Netmond) -> int:
    """The process that writes the rows."""

    def find() -> int:
        for child in Path(f"/proc/{netmond.pid}/task/{netmond.pid}/children").read_text().split():
            with suppress(OSError):  # it has just ended
                if b"netmond.packetlog" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return 0

    return eventually(find, "the packet log's process runs")


def sums_of(lines: list[str], what: str, *names: str) -> tuple[int, ...]:
    """Sums of figures in all comments of a kind."""
    found = [figures for text, figures in comments_of(lines) if text == what]
    return tuple(sum(int(figures[name]) for figures in found) for name in names)


def test_tcp_is_complete(scene: Scene) -> None:
    """Super-packets and all: what the rows add up to is the meter's total, and nothing is left to add."""
    netmond = scene.netmond(config=CONFIG)
    in_packet_mode(netmond)
    port = scene.server().do("echo_server", local=["10.23.1.2", 0])
    user = scene.user()
    user.do("tcp", name="a", peer=["10.23.1.2", port])
    user.do("exchange", name="a", count=29, size=50_021)
    user.do("close", name="a")
    found = netmond.user(USER)
    netmond.stop()

    lines = lines_of(netmond)
    assert check_sums(lines) == bytes_of(found)
    assert sum(int(row["packets"]) for row in rows_of(lines)) == found.in_packets + found.out_packets
    assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (0, 0)


def test_modes_change_under_traffic(scene: Scene) -> None:
    """Rows of both modes in turn while packets pass: the totals have no gap and no double count."""
    netmond = scene.netmond(config={"output.csv.interval": 1})
    user = talk(scene)
    count = exchange_until(user, lambda: len(rows_of(lines_of(netmond))) > 2)
    for comments in (1, 3):
        reload(netmond, packet_users=[str(USER)])
        count += wait_for_comments(netmond, user, comments)
        count += wait_for_lines(netmond, user, len(lines_of(netmond)) + 2003)
        assert len(comments_of(lines_of(netmond))) == comments
        reload(netmond, packet_users=[])
        count += wait_for_comments(netmond, user, comments + 1)
    found = netmond.user(USER)
    netmond.stop()

    assert bytes_of(found) == (count * DATAGRAM,) * 2
    assert check_sums(lines_of(netmond)) == bytes_of(found)


def test_flood(scene: Scene) -> None:
    """A ring that is much too small: rows and what is told as lost are all there was."""
    netmond = scene.netmond(config={**CONFIG, "output.csv.ring": "64K"})
    in_packet_mode(netmond)
    user = talk(scene)
    user.do("send", name="a", count=30_011, size=101)
    found = netmond.user(USER)
    listed = netmond.loss("packetlog.lost")
    netmond.stop()

    lines = lines_of(netmond)
    rows = rows_of(lines)
    lost = sums_of(lines, "lost:", "packets", "in_bytes", "out_bytes")
    assert lost[0] > 0
    assert len(rows) + lost[0] == found.in_packets + found.out_packets
    assert lost[1] + lost[2] == lost[0] * DATAGRAM
    assert check_sums(lines) == bytes_of(found)
    assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (0, 0)
    assert listed <= lost[0]


def test_sample(scene: Scene) -> None:
    """One packet of seven: the rows, what the rest came to, and the rate are in the file."""
    netmond = scene.netmond(config={**CONFIG, "output.csv.sample": 7})
    in_packet_mode(netmond)
    user = talk(scene)
    user.do("exchange", name="a", count=2003, size=101)
    found = netmond.user(USER)
    netmond.stop()

    lines = lines_of(netmond)
    rows = rows_of(lines)
    skipped = sums_of(lines, "skipped:", "packets", "in_bytes", "out_bytes")
    assert comments_of(lines)[0][0] == "packet mode: 1 of 7 packets"
    assert 300 < len(rows) < 900
    assert len(rows) + skipped[0] == 4006
    assert check_sums(lines) == bytes_of(found)
    assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (0, 0)


def test_everyone(scene: Scene) -> None:
    """All users, also those who come later, and back to intervals with all of them."""
    netmond = scene.netmond(config={"output.csv.interval": 1, "output.csv.mode": "packet"})
    users = {uid: talk(scene, uid) for uid in (USER, USER + 1)}
    eventually(lambda: worker_of(netmond), "packet mode has begun")
    eventually(lambda: (netmond.state / "packet-mode").exists(), "files were handed over")
    for uid, user in users.items():
        user.do("exchange", name="a", count=uid - USER + 23, size=101)
    for uid in users:
        wait_for_rows(netmond, 2 * (uid - USER + 23), uid)
    reload(netmond, mode="interval")
    for uid in users:
        wait_for_comment(netmond, "interval mode", uid)
    for user in users.values():
        user.do("exchange", name="a", count=29, size=101)
    netmond.settle()
    netmond.stop()

    for uid in users:
        assert check_sums(lines_of(netmond, uid)) == ((uid - USER + 52) * DATAGRAM,) * 2


def test_worker_killed(scene: Scene) -> None:
    """Another one goes on where it was: no packet is missing and none is there twice."""
    netmond = scene.netmond(config=CONFIG)
    in_packet_mode(netmond)
    user = talk(scene)
    count = 0
    for number in range(1, 4):
        count += wait_for_lines(netmond, user, 2003 * number)
        pid = worker_of(netmond)
        user.begin("exchange", name="a", count=1009, size=101)
        os.kill(pid, signal.SIGKILL)
        user.end()
        count += 1009
        wait_for_another_worker(netmond, pid)
    found = netmond.user(USER)
    assert netmond.loss("packetlog.restarts") == 3
    netmond.stop()

    lines = lines_of(netmond)
    assert len(rows_of(lines)) == 2 * count
    assert check_sums(lines) == bytes_of(found) == (count * DATAGRAM,) * 2
    assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (0, 0)


def test_daemon_killed(scene: Scene) -> None:
    """The worker writes what it has and ends. The next daemon says what passed until packet mode is back."""
    scene.machine.bpffs(scene.machine.directory / "netmond" / "run" / "bpf")
    netmond = scene.netmond(config=CONFIG)
    in_packet_mode(netmond)
    user = talk(scene)
    user.do("exchange", name="a", count=503, size=101)
    pid = worker_of(netmond)
    netmond.stop(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "the worker ends, too")
    assert len(rows_of(lines_of(netmond))) == 2 * 503
    user.do("exchange", name="a", count=23, size=101)
    netmond.start()
    eventually(lambda: len(comments_of(lines_of(netmond))) == 3, "packet mode has begun again")
    user.do("exchange", name="a", count=29, size=101)
    found = netmond.user(USER)
    netmond.stop()

    lines = lines_of(netmond)
    assert [text for text, _ in comments_of(lines)] == ["packet mode: every packet", "interval mode:"] * 2
    assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (23 * DATAGRAM,) * 2
    assert len(rows_of(lines)) == 2 * (503 + 29)
    assert check_sums(lines) == bytes_of(found) == (555 * DATAGRAM,) * 2


def test_full_disk(scene: Scene) -> None:
    """Rows that do not fit are counted, and told when there is room again."""
    logs = scene.machine.directory / "netmond" / "log"
    logs.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", logs], check=True)
    try:
        netmond = scene.netmond(config=CONFIG)
        in_packet_mode(netmond)
        user = talk(scene)
        user.do("exchange", name="a", count=23, size=101)
        eventually(lambda: len(rows_of(lines_of(netmond))) == 46, "rows are written")
        filler = logs / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        user.do("exchange", name="a", count=503, size=101)
        eventually(lambda: netmond.loss("packetlog.rows"), "rows are lost")
        filler.unlink()
        eventually(lambda: sums_of(lines_of(netmond), "not written:", "rows")[0], "losses are told")
        user.do("exchange", name="a", count=29, size=101)
        found = netmond.user(USER)
        netmond.stop()

        lines = lines_of(netmond)
        rows, packets = sums_of(lines, "not written:", "rows", "packets")
        assert rows == packets > 0
        assert len(rows_of(lines)) + rows == 2 * (23 + 503 + 29)
        assert check_sums(lines) == bytes_of(found)
        assert sums_of(lines, "interval mode:", "in_bytes", "out_bytes") == (0, 0)
    finally:
        subprocess.run(["umount", "-l", logs], check=True)
