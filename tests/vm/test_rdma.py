"""RDMA of two users over soft-RoCE: packets on the wire, the device's counters and what the users' own tools
say are the same figures, each in its terms."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pytest

from tests.kernel.deadline import eventually
from tests.service.inside import call, complaints, ctl, described, journal, moment, next_tick, rows, run
from tests.service.talk import Figures, difference
from tests.vm import roce
from tests.vm.roce import AETH, CLIENT, COMMON, ENDS, ETHERNET, MTU, RETH, SERVER, End

pytestmark = pytest.mark.usefixtures("cable")

#: By opcode: packets of a whole message, and bytes of each packet on the wire from IP on.
Shape = Mapping[str, tuple[int, int]]

#: Packets and bytes.
Amount = tuple[int, int]


@pytest.fixture(scope="module")
def cable(installed: None, people: None) -> Iterator[None]:
    roce.make_cable()
    eventually(lambda: {row["device"] for row in rows("RdmaPorts")} == {"rxe0", "rxe1"}, "both are known")
    yield
    roce.remove_cable()


def message(first: str, middle: str, last: str, size: int, address: int = 0) -> Shape:
    """A message in pieces of MTU; the address it is for is in the first one."""
    pieces = -(-size // MTU)
    return {
        first: (1, COMMON + address + MTU),
        middle: (pieces - 2, COMMON + MTU),
        last: (1, COMMON + size - (pieces - 1) * MTU),
    }


ANSWER: Shape = {"RC_ACKNOWLEDGE": (1, COMMON + AETH)}


class Seen:
    """What has been counted everywhere, from now on."""

    def __init__(self) -> None:
        next_tick()
        self._before = self._read()
        self._device = {end: end.counters() for end in ENDS}

    def grown(self) -> dict[Any, Figures]:
        """By kind of row, and what the row is of."""
        next_tick()
        after = self._read()
        return {
            key: grown
            for key, figures in after.items()
            if any(grown := difference(figures, self._before.get(key, (0, 0, 0, 0))))
        }

    def device(self, end: End) -> Counter[str]:
        """The device's own counters, as the kernel says."""
        return Counter(end.counters()) - Counter(self._device[end])

    def _read(self) -> dict[Any, Figures]:
        found: dict[Any, Figures] = {}
        for row in roce.flows():
            names = ("interface", "user", "remote", "opcode", "queue_pair", "partition_key")
            way = "in" if row["local_port"] else "out"
            found["flow", *(row.get(name, "unknown") for name in names), way] = _figures(row)
        for row in rows("Users"):
            found["user", row["user"]] = _figures(row, "rdma_")
            found["ip", row["user"]] = _figures(row)
        books, _ = call("ListBooks", "a{sv}", "0")
        for row in books:
            if row["interface"] in (CLIENT.netdev, SERVER.netdev):
                amount = (row["line_packets"], row["line_bytes"])
                found["book", row["interface"], row["direction"], row["line"]] = (*amount, 0, 0)
        for row in rows("RdmaCounters"):
            found["counter", row["device"], row["counter"]] = (row["total"], row["value"], 0, 0)
        return found


def _figures(row: Mapping[str, Any], prefix: str = "") -> Figures:
    names = ("in_packets", "in_bytes", "out_packets", "out_bytes")
    a, b, c, d = (int(row[prefix + name]) for name in names)
    return a, b, c, d


def expected(messages: int, shape: Shape, way: str, end: End, queue_pair: int) -> dict[Any, Figures]:
    """The flows at one end, by what the tools say: so many messages in or out, to a queue pair."""
    peer = SERVER if end is CLIENT else CLIENT
    place = (end.netdev, end.user, peer.address)
    found: dict[Any, Figures] = {}
    for opcode, (pieces, length) in shape.items():
        amount = (messages * pieces, messages * pieces * length)
        figures = (*amount, 0, 0) if way == "in" else (0, 0, *amount)
        found["flow", *place, opcode, queue_pair, 0xFFFF, way] = figures
    return found


def crossing(messages: int, shape: Shape, sender: End, queue_pair: int) -> dict[Any, Figures]:
    """The flows of messages from one end to the other: they leave one interface and come in at the other."""
    receiver = SERVER if sender is CLIENT else CLIENT
    out = expected(messages, shape, "out", sender, queue_pair)
    return out | expected(messages, shape, "in", receiver, queue_pair)


def agree(seen: Seen, found: Mapping[Any, Figures], told: Mapping[Any, Figures]) -> None:
    """The flows that the tools told of, and no others. A slow machine may send a packet again; then there is
    as much more as the device at the other end calls duplicates, and it may have answered those."""
    rows = {key: figures for key, figures in found.items() if key[0] == "flow"}
    assert rows.keys() == told.keys()
    more = {key: difference(rows[key], told[key]) for key in told}
    for key, (came, came_bytes, left, left_bytes) in told.items():
        # All packets of an opcode are of one length.
        assert came * more[key][1] == came_bytes * more[key][0] >= 0
        assert left * more[key][3] == left_bytes * more[key][2] >= 0
    for end, other in (ENDS, ENDS[::-1]):
        device = seen.device(end)
        again, answers = (
            sum(
                figures[0]
                for key, figures in more.items()
                if key[1] == place.netdev and (key[4] in ANSWER) == is_answer
            )
            for place, is_answer in ((end, False), (other, True))
        )
        assert again == device["duplicate_request"] or device["out_of_seq_request"]
        assert answers <= again


def at(end: End, found: Mapping[Any, Figures]) -> Figures:
    """All flows at one end."""
    rows = [figures for key, figures in found.items() if key[:2] == ("flow", end.netdev)]
    a, b, c, d = (sum(column) for column in zip(*rows, strict=True))
    return a, b, c, d


def same_everywhere(seen: Seen, found: Mapping[Any, Figures]) -> None:
    """What passed each end is what its device counted, what its user is told, and what explains the
    interface's books; nobody else is told anything."""
    for end in ENDS:
        came, came_bytes, left, left_bytes = at(end, found)
        device = seen.device(end)
        assert (device["rcvd_pkts"], device["sent_pkts"]) == (came, left)
        assert found["user", end.user] == (came, came_bytes, left, left_bytes)
        for way, packets, size in (("in", came, came_bytes), ("out", left, left_bytes)):
            assert books(found, end, way) == {
                "kernel": (packets, size + packets * ETHERNET),
                "rdma": (packets, size),
                "link": (0, packets * ETHERNET),
            }
        # The tools talk to each other over TCP, about numbers of queue pairs and the like.
        assert sum(found["ip", end.user][1::2]) < 10_000
    assert {key[1] for key in found if key[0] == "user"} == {end.user for end in ENDS}


def books(found: Mapping[Any, Figures], end: End, way: str) -> dict[str, Amount]:
    """The lines of an interface's books that have grown, without what is beside them."""
    lines = {key[3]: figures[:2] for key, figures in found.items() if key[:3] == ("book", end.netdev, way)}
    lines.pop("wire", None)
    return lines


def counters(end: End) -> dict[str, int]:
    """The totals of a device's counters, as netmonctl says."""
    found = json.loads(ctl("rdma", "--device", end.device, "--json=short").out)
    return {row["counter"]: row["total"] for row in found}


def have_grown(end: End, before: Mapping[str, int], by: Counter[str]) -> bool:
    return Counter(counters(end)) - Counter(before) == by


def test_write() -> None:
    """RDMA WRITE: every packet is its user's, and nothing is anybody else's."""
    messages, pieces = 200, 16
    seen, before = Seen(), {end: counters(end) for end in ENDS}

    client, server = roce.write(messages, pieces * MTU)

    found = seen.grown()
    shape = message("RC_RDMA_WRITE_FIRST", "RC_RDMA_WRITE_MIDDLE", "RC_RDMA_WRITE_LAST", pieces * MTU, RETH)
    told = crossing(messages, shape, CLIENT, server.queue_pair)
    assert client.payload == server.payload == messages * pieces * MTU
    assert at(CLIENT, told)[3] == client.payload + messages * (pieces * COMMON + RETH)
    agree(seen, found, told | crossing(messages, ANSWER, SERVER, client.queue_pair))
    same_everywhere(seen, found)
    last = {row["opcode"]: row["sequence"] for row in roce.flows() if row["interface"] == CLIENT.netdev}
    assert last["RC_RDMA_WRITE_LAST"] == (client.sequence + messages * pieces - 1) % (1 << 24)
    for end in ENDS:
        kernels = seen.device(end)
        eventually(partial(have_grown, end, before[end], kernels), f"{end.device} has counted {kernels}")


def test_send() -> None:
    """Messages there and back."""
    messages, pieces = 100, 4
    seen = Seen()

    client, server = roce.pingpong(messages, pieces * MTU)

    found = seen.grown()
    shape = message("RC_SEND_FIRST", "RC_SEND_MIDDLE", "RC_SEND_LAST", pieces * MTU)
    told: dict[Any, Figures] = {}
    for sender, to in ((CLIENT, server), (SERVER, client)):
        told |= crossing(messages, shape, sender, to.queue_pair)
        told |= crossing(messages, ANSWER, sender, to.queue_pair)
    assert client.payload == server.payload == 2 * messages * pieces * MTU
    assert at(CLIENT, told)[3] == client.payload // 2 + messages * (pieces * COMMON + COMMON + AETH)
    agree(seen, found, told)
    same_everywhere(seen, found)
    assert [seen.device(end)["rdma_sends"] for end in ENDS] == [messages, messages]


def active_pair(end: End) -> dict[str, Any]:
    """The queue pair that has sent something, of all that the user of that end may see."""
    own = rows("QueuePairs", user=end.user)
    assert {row["user"] for row in own} <= {end.user}
    return next((row for row in own if row["out_packets"]), {})


def test_queue_pairs() -> None:
    """While programs run: their queue pairs as the kernel has them, with process, user and unit; each user
    sees but his own."""
    with roce.endless():
        eventually(lambda: len(roce.pairs_in_kernel()) == 2, "both are connected")
        kernels = roce.pairs_in_kernel()
        for end in ENDS:
            own, remote, pid = kernels[end.device]
            found = eventually(partial(active_pair, end), f"{end.user} sees the queue pair and its packets")
            assert (found["queue_pair"], found["remote_queue_pair"]) == (own, remote)
            assert (found["device"], found["port"]) == (end.device, 1)
            assert (found["pid"], found["process"], found["unit"]) == (pid, "ib_write_bw", end.unit)
            assert (found["type"], found["source"]) == ("RC", "wire")
            flows = [
                row for row in roce.flows() if row["interface"] == end.netdev and row["unit"] == end.unit
            ]
            assert {row["pid"] for row in flows} == {pid}
    eventually(lambda: not rows("QueuePairs", user=SERVER.user), "they are gone")


def test_ports() -> None:
    """What the devices are, and nothing that soft-RoCE does not count."""
    found = {row["device"]: row for row in json.loads(ctl("rdma", "--json=short").out)}
    for end in ENDS:
        row = found[end.device]
        assert (row["port"], row["state"], row["link_layer"], row["netdev"]) == (
            1,
            "active",
            "Ethernet",
            end.netdev,
        )
        assert row["speed"] == 10_000_000_000
        assert f"::ffff:{end.address}" in {gid["address"] for gid in row["gids"]}
        assert {"in_bytes", "out_bytes"}.isdisjoint(row)
        assert row["in_packets"] > 0 < row["out_packets"]


def test_devices_that_vanish() -> None:
    """While netmond reads one, and a program uses it; it says what is missing, and nothing has failed. What
    comes back is counted on."""
    since = moment()
    totals = {end: counters(end) for end in ENDS}
    with roce.endless():
        eventually(lambda: len(roce.pairs_in_kernel()) == 2, "both are connected")
        # This waits for the program that has the device open, whose end is at the end of the block.
        removal = subprocess.Popen(["rdma", "link", "delete", CLIENT.device])
        eventually(lambda: CLIENT.device not in roce.pairs_in_kernel(), "it is no longer told of")
        next_tick()
    assert removal.wait() == 0
    run("rdma", "link", "delete", SERVER.device)

    eventually(lambda: not rows("RdmaPorts"), "netmond knows")
    (feature,) = [each for each in described()["features"] if each["name"] == "rdma"]
    assert (feature["state"], feature["reason"]) == ("off", "no RDMA device")
    assert "No RDMA" in ctl("rdma").out

    for end in ENDS:
        roce.add_device(end)
    eventually(lambda: len(rows("RdmaPorts")) == 2, "they are there again")
    assert "rdma" not in complaints()
    for end in ENDS:
        again = eventually(partial(counters, end), f"counters of {end.device}")
        assert again["sent_pkts"] >= totals[end]["sent_pkts"]
    assert journal("--unit=netmond", f"--since={since}", "--priority=err") == []
    losses = {each["name"]: each["count"] for each in described()["losses"]}
    assert losses["collector.failed-ticks"] == 0
