"""The rows of the per-user CSV files: text of a row, and what can be read back from one.

RFC 4180 with one promise more: a row is one line. Unprintable characters and the backslash are escaped
as in C (``\\n``, ``\\x1b``, ``\\u2028``, ``\\\\``), a byte that is not UTF-8 as ``\\xff``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netmond.model import IN_BYTES, IN_PACKETS, OUT_BYTES, OUT_PACKETS, Snapshot
from netmond.outputs.textcolumns import address
from netmond.views import PROTOCOLS

COLUMNS = (
    "direction", "bytes", "src_ip", "dst_ip", "timestamp", "total_in", "total_out",
    "packets", "src_port", "dst_port", "protocol", "unit", "pid", "process",
)  # fmt: skip
HEADER = (",".join(COLUMNS) + "\n").encode()


class Mark(NamedTuple):
    """What a written row tells about the books."""

    timestamp: float
    total_in: int
    total_out: int


_ROW = re.compile(
    rb"(?:in|out),\d+,[0-9a-f:.]*,[0-9a-f:.]*,(\d+\.\d{9}),(\d+),(\d+),\d+,\d+,\d+,[a-z0-9]+,.*,\d+,[^\n]*"
)
#: How a comment ends that tells the totals, too.
_COMMENT = re.compile(rb"#.* timestamp=(\d+\.\d{9}) total_in=(\d+) total_out=(\d+)")


def mark(line: bytes) -> Mark | None:
    """Read a row or comment without its newline; None for what tells no totals, such as the header."""
    match = (_COMMENT if line.startswith(b"#") else _ROW).fullmatch(line)
    return Mark(float(match[1]), int(match[2]), int(match[3])) if match else None


def count(lines: bytes) -> int:
    """How many rows there are in some whole lines, which are rows and comments."""
    return lines.count(b"\n") - lines.count(b"\n#") - lines.startswith(b"#")


def last_mark(data: bytes) -> Mark | None:
    """The last whole row of some lines; what follows the last newline does not count."""
    for line in reversed(data.split(b"\n")[:-1]):
        if (found := mark(line)) is not None:
            return found
    return None


@lru_cache(maxsize=4096)
def field(text: bytes | str) -> str:
    """A name as one CSV field."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not text.isprintable() or "\\" in text:
        text = "".join(map(_escaped, text))
    if "," in text or '"' in text:
        text = '"' + text.replace('"', '""') + '"'
    return text


def _escaped(character: str) -> str:
    if character.isprintable() and character != "\\":
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


def rows(
    snapshot: Snapshot, index: NDArray[np.intp], delta: NDArray[np.uint64], totals: list[int]
) -> Iterator[str]:
    """The lines of some flows of one user; `totals` (in, out) advance with every line.

    A flow without a last time (overflow) gets the time of the snapshot.
    """
    columns = snapshot.flows.columns
    units = snapshot.unit_names

    for local, remote, local_port, remote_port, protocol, unit, pid, comm, seen, moved in zip(
        columns["local"][index].tolist(), columns["remote"][index].tolist(),
        columns["local_port"][index].tolist(), columns["remote_port"][index].tolist(),
        columns["protocol"][index].tolist(), columns["unit_index"][index].tolist(),
        columns["pid"][index].tolist(), columns["comm"][index].tolist(),
        columns["last_seen"][index].tolist(), delta.tolist(), strict=True,
    ):  # fmt: skip
        here, there = address(local), address(remote)
        when = f"{seen if seen > 0 else snapshot.time:.9f}"
        name = PROTOCOLS.get(protocol, protocol)
        who = f"{name},{field(units[unit]) if unit >= 0 else ''},{pid},{field(comm)}\n"
        if moved[IN_BYTES] or moved[IN_PACKETS]:
            totals[0] += moved[IN_BYTES]
            yield (
                f"in,{moved[IN_BYTES]},{there},{here},{when},{totals[0]},{totals[1]},"
                f"{moved[IN_PACKETS]},{remote_port},{local_port},{who}"
            )
        if moved[OUT_BYTES] or moved[OUT_PACKETS]:
            totals[1] += moved[OUT_BYTES]
            yield (
                f"out,{moved[OUT_BYTES]},{here},{there},{when},{totals[0]},{totals[1]},"
                f"{moved[OUT_PACKETS]},{local_port},{remote_port},{who}"
            )
