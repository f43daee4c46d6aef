"""Sockets that come and go as fast as this machine can make them: netmond stays as big as it is.

NETMOND_CHURN=600 makes it ten minutes instead of 20 seconds; `-rP` shows the table.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from tests.kernel.capture import Figures
from tests.kernel.conftest import Scene
from tests.kernel.deadline import DEADLINE, eventually
from tests.kernel.machine import Link, Namespace
from tests.kernel.running import Netmond, total

SECONDS = float(os.environ.get("NETMOND_CHURN", "20"))
PARTS = 10
TCP, UDP = 1235, 1236
SIZE = 101
#: What a machine may be too slow for, without a packet missing in any total.
MAY_BE_LOST = {"meter.no-slot-sockets", "meter.no-slot-packets", "output.csv.dropped"}
ETHERNET = 14
RESET = 40  # bytes of IPv4 and TCP without options
SLOTS = 65536  # the default of [meter] slots
MIB = 1 << 20


class Sample(NamedTuple):
    """What netmond takes at one moment, and what it has seen by then."""

    sockets: int
    resident: int
    descriptors: int  # but for the logs, which come and go with rotation
    slots: int
    losses: dict[str, int]

    def __str__(self) -> str:
        lost = ", ".join(f"{count} {name}" for name, count in self.losses.items())
        return (
            f"{self.sockets:10} sockets {self.resident / MIB:6.1f} MiB {self.descriptors:4} descriptors"
            f" {self.slots:6} slots; lost: {lost or 'nothing'}"
        )


def sample(netmond: Netmond, sockets: int) -> Sample:
    status = netmond.status()
    return Sample(
        sockets=sockets,
        resident=netmond.resident(),
        descriptors=sum("/log/" not in name for name in netmond.descriptors()),
        slots=status["flows"],
        losses={line["name"]: line["count"] for line in status["losses"] if line["count"]},
    )


def crossed(link: Link) -> Figures:
    """What the kernel says that the near device has received and sent, from the IP header on."""
    counters = link.near.statistics(link.near_device)
    return Figures(
        *(
            counters[f"{way}_{unit}"] - (ETHERNET * counters[f"{way}_packets"] if unit == "bytes" else 0)
            for way in ("rx", "tx")
            for unit in ("packets", "bytes")
        )
    )


def resets(space: Namespace) -> int:
    """Connections that the namespace has reset, mostly where there is no socket any more (TcpOutRsts)."""
    names, values = (
        line.split() for line in space.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Tcp:")
    )
    return int(dict(zip(names, values, strict=True))["OutRsts"])


def test_nothing_grows(scene: Scene) -> None:
    """Connections and datagram sockets of two users, with the interval and tables of an installation: every
    packet is counted, and memory, descriptors and slots stay what they are when the table is full. Sockets
    that find no slot then, and rows the disk is too slow for, are in the ledger; their packets are their
    user's all the same."""
    netmond = scene.netmond(config={"daemon.interval": 1, "daemon.idle_interval": 5})
    server, streams, datagrams = scene.server(), scene.user(TCP), scene.user(UDP)
    peers = {family: scene.link.address(family, far=True) for family in (4, 6)}
    listener = [peers[4], server.do("short_server", local=[peers[4], 0])]
    echo = [peers[6], server.do("echo_server", local=[peers[6], 0])]
    before, samples, sockets, flits = crossed(scene.link), [], 0, 0

    for _ in range(PARTS):
        streams.begin("storm_for", peer=listener, seconds=SECONDS / PARTS, size=SIZE)
        datagrams.begin("flit_for", peer=echo, seconds=SECONDS / PARTS, size=SIZE)
        sockets += streams.end()
        flits += datagrams.end()
        samples.append(sample(netmond, sockets + flits))
        print(samples[-1])

    assert netmond.user(UDP) == (flits, flits * (SIZE + 48)) * 2
    missing, unowned = crossed(scene.link) - before - total(netmond.peek("Users")), resets(scene.near)
    print(f"without a socket: {missing}, of {unowned} resets")
    assert 0 <= missing.in_packets <= unowned
    assert missing.out_bytes == missing.out_packets * RESET
    assert 0 <= missing.out_packets <= unowned
    assert samples[-1].losses.keys() <= MAY_BE_LOST
    assert max(each.slots for each in samples) <= SLOTS + 2  # and a row of each user's sockets without
    eventually(
        lambda: not netmond.rows("Flows", kind="socket", limit=1), "no slot is taken", within=3 * DEADLINE
    )
    # What is open or in a queue for a moment only is not there all the time.
    first, second = samples[: PARTS // 2], samples[PARTS // 2 :]
    assert min(each.descriptors for each in second) <= max(each.descriptors for each in first)
    assert min(each.resident for each in second) < max(each.resident for each in first) * 1.1
