"""A kernel for the meter: the slot protocol of bpf/sockets.c in Python, over arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from tests.unit.fakes import SECOND, Hash, Records, address

HOME = 4_026_531_833  #: cookie of "our" network namespace
_NO_SLOT = 0xFFFFFFFF


@dataclass(slots=True, kw_only=True, eq=False)
class Socket:
    """What the kernel knows of a socket, struct owner included."""

    cookie: int
    uid: int
    cgroup: int
    pid: int
    comm: bytes
    unconnected: bool
    netns: int
    flags: int
    ticket: tuple[int, int] = (_NO_SLOT, 0)  #: slot, generation
    epoch: int = 0  #: of the last vain search for a slot


class Kernel:
    """meter.Tables, and the sockets behind it. `now` is its clock in seconds."""

    def __init__(self, *, slots: int = 16, peers: int = 64, overflow: int = 16) -> None:
        self.slots = Records(wire.SLOT, slots)
        self.flows = Records(wire.FLOW, slots)
        self.peers = Hash(wire.PEER_KEY, wire.TALLY, peers)
        self.overflow = Hash(wire.OVERFLOW_KEY, wire.TALLY, overflow)
        self.detours = Hash(wire.DETOUR_KEY, wire.TALLY, 16)
        self.losses = dict.fromkeys((name for name, _ in wire.SOCKET_LOSSES), 0)
        self.given_back: list[int] = []  #: slots, in the order they were pushed, since the start
        self.now = 100.0
        self._free: list[int] = []
        self._epoch = 0
        self._cookie = 1000
        self.give_back(np.arange(slots - 1, -1, -1, dtype=np.uint32))
        self.given_back.clear()

    def give_back(self, slots: NDArray[np.uint32]) -> None:
        self.given_back += slots.tolist()
        self._free += slots.tolist()
        self._epoch += 1
        assert len(self._free) == len(set(self._free)) <= self.slots.capacity, "a slot is free twice"

    @property
    def free(self) -> int:
        return len(self._free)

    # -- what processes do ---------------------------------------------------------------------------

    def open(
        self,
        uid: int = 1234,
        *,
        cgroup: int = 1,
        pid: int = 77,
        comm: bytes = b"curl",
        unconnected: bool = False,
        netns: int = HOME,
        flags: int = 0,
    ) -> Socket:
        """socket(2); flags FLOW_OLDER: before the meter was there."""
        self._cookie += 1
        return Socket(
            cookie=self._cookie,
            uid=uid,
            cgroup=cgroup,
            pid=pid,
            comm=comm,
            unconnected=unconnected,
            netns=netns,
            flags=flags,
        )

    def accept(self, listener: Socket) -> Socket:
        """The kernel's half of accept(2): the socket has a copy of what its listener has."""
        child = self.open(listener.uid, cgroup=listener.cgroup, pid=listener.pid, comm=listener.comm)
        child.flags = wire.FLOW_ACCEPTED
        return child

    def hand_over(self, socket: Socket, uid: int) -> None:
        """The process's half of accept(2): the socket becomes another user's; its next packet shows it."""
        socket.uid = uid

    def close(self, socket: Socket) -> None:
        """cgroup/sock_release."""
        slot = self._slot(socket)
        if slot is not None:
            slot["in"]["note"] = wire.SLOT_RELEASED

    def reconnect(self, socket: Socket, *, unconnected: bool) -> None:
        """connect(2) on a datagram socket."""
        self.close(socket)
        if self._slot(socket) is not None:
            socket.ticket, socket.epoch = (_NO_SLOT, 0), 0
        socket.unconnected = unconnected

    def send(self, socket: Socket, size: int = 100, **more: Any) -> None:
        """A packet out: see transfer()."""
        self.transfer(socket, size, outward=True, **more)

    def receive(self, socket: Socket, size: int = 100, **more: Any) -> None:
        """A packet in: see transfer()."""
        self.transfer(socket, size, outward=False, **more)

    def transfer(
        self,
        socket: Socket,
        size: int,
        *,
        outward: bool,
        segments: int = 1,
        headers: int = 40,
        peer: int = 0,
    ) -> None:
        """count(): one packet of the stack, on the wire so many segments that repeat the headers."""
        words = size, (segments - 1) * headers, 1 | segments << 32
        slot = self._slot(socket)
        if slot is None:
            slot = self._claim(socket)
        if slot is None:
            self.losses["meter.no-slot-packets"] += 1
            tally = self.overflow.at(uid=socket.uid, cgroup=socket.cgroup)
            if tally is None:
                self.losses["meter.overflow-full"] += 1
            else:
                self._tally(tally, words, outward)
            return
        index = socket.ticket[0]
        side = self.slots.array[index : index + 1]["out" if outward else "in"]
        for name, word in zip(("bytes", "surplus", "packets"), words, strict=True):
            side[name] += np.uint64(word)
        side["last_seen"] = self._ns
        if outward and socket.flags & wire.FLOW_ACCEPTED:
            flow = self.flows.array[index]
            if flow["uid"] != socket.uid:
                flow["uid"] = socket.uid
                flow["revision"] += 1
                slot["out"]["note"] = flow["revision"]
        if socket.flags & wire.FLOW_UNCONNECTED:
            tally = self.peers.at(cookie=socket.cookie, remote=address(f"198.51.100.{peer}"), remote_port=53)
            if tally is None:
                self.losses["meter.peers-full"] += 1
            else:
                self._tally(tally, words, outward)

    # -- what the programs do ------------------------------------------------------------------------

    @property
    def _ns(self) -> int:
        return round(self.now * SECOND)

    def _tally(self, tally: NDArray[Any], words: tuple[int, int, int], outward: bool) -> None:
        direction = "out" if outward else "in"
        for name, word in zip(("bytes", "surplus", "packets"), words, strict=True):
            tally[f"{direction}_{name}"] += np.uint64(word)
        tally["last_seen"] = self._ns
        if not tally["first_seen"]:
            tally["first_seen"] = self._ns

    def _slot(self, socket: Socket) -> Any:
        """The socket's slot if it is still its own."""
        index, generation = socket.ticket
        if index == _NO_SLOT or self.slots.array[index]["in"]["generation"] != generation:
            return None
        return self.slots.array[index]

    def _claim(self, socket: Socket) -> Any:
        if socket.ticket[0] == _NO_SLOT and socket.epoch == self._epoch:
            return None
        if not self._free:
            if not socket.epoch:
                self.losses["meter.no-slot-sockets"] += 1
            socket.ticket, socket.epoch = (_NO_SLOT, 0), self._epoch
            return None
        index = self._free.pop()
        flow, slot = self.flows.array[index], self.slots.array[index]
        socket.flags &= wire.FLOW_OLDER | wire.FLOW_ACCEPTED
        if socket.unconnected:
            socket.flags |= wire.FLOW_UNCONNECTED
        older = bool(socket.flags & wire.FLOW_OLDER)
        values = {
            "cookie": socket.cookie,
            "cgroup": socket.cgroup,
            "netns": 0 if older else socket.netns,
            "first_seen": self._ns,
            "local": address("192.0.2.1"),
            "remote": np.zeros(1, "V16") if socket.unconnected else address("203.0.113.7"),
            "local_port": 40_000 + socket.cookie % 20_000,
            "remote_port": 0 if socket.unconnected else 443,
            "protocol": 17 if socket.unconnected else 6,
            "flags": socket.flags,
            "uid": socket.uid,
            "pid": 0 if older else socket.pid,
            "ifindex": 3,
            "comm": b"" if older else socket.comm,
        }
        for name, value in values.items():
            flow[name] = value
        generation = (int(flow["generation"]) + 1) % 2**32 or 1
        flow["generation"] = generation
        flow["revision"] += 1
        self.slots.array[index : index + 1] = np.zeros(1, wire.SLOT)
        slot["out"]["note"] = flow["revision"]
        slot["in"]["generation"] = slot["out"]["generation"] = generation
        socket.ticket = index, generation
        return slot
