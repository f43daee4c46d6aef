"""Where the books of an interface begin, and what was counted since."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from netmond.balance import Amount, balance
from netmond.books import Books, Look
from netmond.kernel import wire
from netmond.kernel.devices import Device
from netmond.kernel.queues import Queue
from netmond.model import InterfaceInfo

ETH = 2
NOTHING = Amount(0, 0)


class Machine:
    """One interface whose counters the test turns; its frames are users', 100 bytes and a header each."""

    def __init__(self) -> None:
        self.kernel, self.tc, self.sockets = 1000, 0, 500  # packets sent
        self.drops = 0
        self.hook = "tcx"
        self.more: dict[int, Device] = {}
        self.books = Books(whole=True)
        self.present = True

    def look(self) -> Look:
        words = np.zeros(1, wire.PORT_COUNTERS)
        side = words["out"]
        side["stack_packets"], side["stack_bytes"] = self.tc, 114 * self.tc
        side["class"]["packets"][:, 0], side["class"]["bytes"][:, 0] = self.tc, 114 * self.tc
        side["part"][:, wire.PARTS.index("sockets")] = self.tc, 100 * self.tc
        info = InterfaceInfo(
            name="eth0",
            index=ETH,
            kind="physical",
            state="up",
            kernel={"tx_packets": self.kernel, "tx_bytes": 114 * self.kernel},
        )
        here = {ETH: Device(info=info, link_header=14, loopback=False)} if self.present else {}
        return Look(
            devices=here | self.more,
            queues={ETH: Queue(self.drops, 0, 0)},
            words={ETH: words.view(np.uint64)[: words.itemsize // 8]},
            hooks={ETH: self.hook},
        )

    def send(self, *, kernel: int = 0, tc: int = 0, sockets: int = 0) -> None:
        self.kernel, self.tc, self.sockets = self.kernel + kernel, self.tc + tc, self.sockets + sockets

    def tick(self, meanwhile: Any = lambda: None, wall: float = 7.0) -> dict[str, Amount]:
        """The balance of what was sent. meanwhile: what comes between the looks, behind sockets'."""
        before = self.look()
        counted = np.array([0, 0, 0, 0, 0, 0, self.sockets, 100 * self.sockets], np.uint64)
        meanwhile()
        self.books.update(before, self.look(), {ETH: counted}, wall)
        if ETH not in self.books.evidence:
            return {}
        return {line.name: line.amount for line in balance(self.books.evidence[ETH], "out")}


def test_books_begin_with_the_first_tick() -> None:
    """What was counted before is in no line, whoever counted it."""
    machine = Machine()
    assert machine.tick() == {"kernel": NOTHING, "users": NOTHING, "unattributed": NOTHING, "wire": NOTHING}

    machine.send(kernel=3, tc=3, sockets=3)

    found = machine.tick(wall=8.0)
    assert (found["kernel"], found["users"], found["link"]) == ((3, 342), (3, 300), (0, 42))
    assert found["unattributed"] == NOTHING
    assert machine.books.evidence[ETH].since == 7.0


def test_packets_while_books_begin() -> None:
    """They may be in or out of the books: so many more or less are never an error, others are."""
    machine = Machine()
    machine.tick(meanwhile=lambda: machine.send(kernel=5, tc=5, sockets=5))

    machine.send(kernel=10, tc=10, sockets=10)
    assert machine.tick()["unattributed"] == NOTHING
    machine.send(kernel=7, tc=7)
    assert machine.tick()["unattributed"] == (7 - 5, 200)


def test_packets_during_a_tick() -> None:
    """What moves between the readings is no error either."""
    machine = Machine()
    machine.tick()

    found = machine.tick(meanwhile=lambda: machine.send(kernel=9, tc=9, sockets=9))

    assert found["unattributed"] == NOTHING


@pytest.mark.parametrize("change", ["kernel", "tc", "hook"])
def test_books_begin_anew(change: str) -> None:
    """When a counter was set back, or frames are seen elsewhere than before."""
    machine = Machine()
    machine.send(tc=50)
    machine.tick()
    machine.send(kernel=3, tc=3, sockets=3)
    machine.tick()

    if change == "hook":
        machine.hook = "xdp"
    else:
        setattr(machine, change, 1)

    assert machine.tick(wall=9.0)["kernel"] == NOTHING
    assert machine.books.evidence[ETH].since == 9.0


def test_an_interface_that_is_gone() -> None:
    """It has no books; if it comes back, they begin."""
    machine = Machine()
    machine.tick()
    machine.present = False
    assert machine.tick() == {}

    machine.present = True
    machine.send(kernel=3, tc=3, sockets=3)

    assert machine.tick()["kernel"] == NOTHING


def test_drops_wrap() -> None:
    """The queue's counter of drops has 32 bits."""
    machine = Machine()
    machine.drops = (1 << 32) - 2
    machine.tick()
    machine.drops = 3
    machine.send(tc=5, sockets=5)

    found = machine.tick()

    assert found["dropped"] == (-5, -5 * 114)
    assert found["unattributed"] == NOTHING


def test_who_stands_on_it() -> None:
    """Names of the interfaces above are in the note of their line."""
    machine = Machine()
    info = InterfaceInfo(name="vlan7", index=3, kind="vlan", state="up")
    machine.more = {3: Device(info=info, link_header=14, loopback=False, link=ETH)}
    machine.tick()

    assert machine.books.evidence[ETH].upper == ("vlan7",)


def test_without_a_meter() -> None:
    """There are books, too."""
    machine = Machine()
    for _ in range(2):
        machine.books.update(machine.look(), machine.look(), None, 7.0)
        machine.send(kernel=3, tc=3)
    machine.books.update(machine.look(), machine.look(), None, 7.0)

    found = {line.name: line.amount for line in balance(machine.books.evidence[ETH], "out")}
    assert (found["kernel"], found["users"], found["unattributed"]) == ((6, 684), (6, 600), NOTHING)
