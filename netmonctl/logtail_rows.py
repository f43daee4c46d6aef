"""Rows of a user's log as values, and which of them somebody wants to see. The columns: see netmond(8)."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from netmonctl.errors import usage

#: The names that logs have for protocols (IANA); others are numbers.
PROTOCOLS = {
    1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp", 41: "ipv6", 47: "gre", 50: "esp",
    51: "ah", 58: "icmpv6", 89: "ospf", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}  # fmt: skip

_COLUMNS = 14
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", re.DOTALL)
_FIGURE = re.compile(r"(\w+)=([0-9]{1,20}(?:\.[0-9]{1,9})?)(?!\S)", re.ASCII)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


class Row(NamedTuple):
    """A packet, or what a flow exchanged in one direction in an interval. Addresses may be empty."""

    direction: str  #: in or out
    bytes: int
    packets: int
    time: str  #: Unix time, with nine decimals
    local: str
    local_port: int
    remote: str
    remote_port: int
    protocol: str
    unit: str
    pid: int
    process: str
    total_in: int
    total_out: int

    @property
    def own(self) -> tuple[int, int]:
        """Bytes in and out."""
        return (self.bytes, 0) if self.direction == "in" else (0, self.bytes)


class Comment(NamedTuple):
    """A line that says what the rows lack, or how they are to be read; its totals include what they lack."""

    text: str
    time: str = ""  #: as in rows, or empty
    own: tuple[int, int] = (0, 0)  #: bytes in and out
    total_in: int = 0
    total_out: int = 0


def parse(line: str) -> Row | None:
    """The row in a line without its end; None if it is none. Comments and headers are none, either."""
    # Most lines have no quoted field, and splitting those takes a fifth of the time.
    fields = line.split(",") if '"' not in line else next(csv.reader([line]))
    if len(fields) != _COLUMNS:
        return None
    direction, size, source, destination, time, total_in, total_out = fields[:7]
    packets, source_port, destination_port, protocol, unit, pid, process = fields[7:]
    if direction == "in":
        here, there = (destination, destination_port), (source, source_port)
    elif direction == "out":
        here, there = (source, source_port), (destination, destination_port)
    else:
        return None
    seconds, _, fraction = time.partition(".")
    if not (seconds.isdecimal() and fraction.isdecimal()):
        return None
    try:
        return Row(
            direction, int(size), int(packets), time, here[0], int(here[1]), there[0], int(there[1]),
            protocol, name(unit), int(pid), name(process), int(total_in), int(total_out),
        )  # fmt: skip
    except ValueError:
        return None


def comment(line: str) -> Comment:
    """A line that begins with #. What it ends with, its time and totals, is not in the text."""
    text = line[1:].strip()
    figures = dict(_FIGURE.findall(text))
    if not {"timestamp", "total_in", "total_out"} <= figures.keys():
        return Comment(text)
    numbers = {key: int(value) for key, value in figures.items() if value.isdecimal()}
    return Comment(
        text.partition(" timestamp=")[0],
        figures["timestamp"],
        (numbers.get("in_bytes", 0), numbers.get("out_bytes", 0)),
        numbers.get("total_in", 0),
        numbers.get("total_out", 0),
    )


@lru_cache(maxsize=4096)
def name(field: str) -> str:
    """A name as it was before it was escaped as in C; what cannot be told any more is U+FFFD."""
    return _ESCAPE.sub(_unescaped, field) if "\\" in field else field


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 1:
        return _LETTERS.get(code, code)
    number = int(code[1:], 16)
    if 0x80 <= number < 0x100 or 0xD800 <= number < 0xE000 or number > 0x10FFFF:
        return "\ufffd"  # a byte that is no UTF-8, most likely
    return chr(number)


class Continuity:
    """Whether something is missing between two files: totals are running ones, up to and with each line."""

    def __init__(self) -> None:
        self._last: Row | Comment | None = None

    def missing(self, lines: Sequence[Row | Comment], *, fresh: bool) -> tuple[int, int]:
        """Bytes in and out missing before the next lines, which are the first of another file if `fresh`."""
        marks = [line for line in lines if line.total_in or line.total_out]
        if not marks:
            return 0, 0
        before, first, self._last = self._last, marks[0], marks[-1]
        if not fresh or before is None:
            return 0, 0
        own_in, own_out = first.own
        return first.total_in - own_in - before.total_in, first.total_out - own_out - before.total_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a row must be; None: anything."""

    direction: str | None = None
    port: int | None = None
    peer: Callable[[str], bool] | None = None
    protocol: str | None = None
    unit: str | None = None
    process: str | None = None

    def __call__(self, row: Row) -> bool:
        """Whether the row is one of these."""
        return (
            (self.direction is None or row.direction == self.direction)
            and (self.port is None or self.port in (row.local_port, row.remote_port))
            and (self.protocol is None or row.protocol == self.protocol)
            and (self.unit is None or row.unit == self.unit)
            and (self.process is None or row.process == self.process)
            and (self.peer is None or self.peer(row.remote))
        )


def protocol(text: str) -> str:
    """A protocol as logs name it, of a name or number that a person gives."""
    known = text.lower()
    if known.isascii() and known.isdecimal() and len(known) <= 3 and int(known) <= 255:
        return PROTOCOLS.get(int(known), str(int(known)))
    if known in PROTOCOLS.values():
        return known
    raise usage(
        f"unknown protocol {text!r}; give a number up to 255 or one of: {', '.join(PROTOCOLS.values())}"
    )


def peer(text: str) -> Callable[[str], bool]:
    """Whether an address lies in the address or prefix that a person gives."""
    try:
        network: IPv4Network | IPv6Network = ip_network(text)
    except ValueError:
        raise usage(f"{text!r} is not an IP address or prefix") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        network = IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))

    @lru_cache(maxsize=65536)
    def within(address: str) -> bool:
        try:
            return ip_address(address) in network
        except ValueError:
            return False

    return within
