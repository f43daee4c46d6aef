"""The lines of packets: records of the kernel, column by column, as in csvrows.COLUMNS."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from netmond.kernel import wire
from netmond.outputs import textcolumns
from netmond.outputs.csvparts import Part, running
from netmond.views import PROTOCOLS

#: Records formatted at a time: their columns stay in the processor's cache.
CHUNK = 8192

_DIRECTIONS = textcolumns.texts([b"in,", b"out,"])
_PROTOCOLS = textcolumns.texts([f"{PROTOCOLS.get(number, number)},".encode() for number in range(256)])


class Owners(Protocol):
    """Who sent or received packets: `owners.Owners`, or texts in a test."""

    def ends(self, records: NDArray[Any]) -> textcolumns.Column:
        """Unit, process id and process of each, as the end of a line."""


def by_user(records: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    """Records (n,) user by user, each user's in their order; and where a user's begin, and the last end."""
    uids = records["uid"]
    if (uids != uids[0]).any():
        records = records[np.argsort(uids, kind="stable")]
        changes = np.flatnonzero(np.diff(records["uid"])) + 1
        return records, [0, *changes.tolist(), len(records)]
    return records, [0, len(records)]


def parts(
    records: NDArray[Any],
    bounds: Sequence[int],
    totals: Sequence[tuple[int, int]],
    offset: int,
    owners: Owners,
) -> list[Part]:
    """The lines of packets, wire.PACKET (n,), of one user after another.

    User i has the records from bounds[i] to bounds[i + 1], and had exchanged totals[i] before.
    offset: wall clock minus monotonic clock, in ns.
    """
    outgoing = records["direction"] != wire.PACKET_IN
    size = records["bytes"].astype(np.uint64)
    amounts = np.stack((size * ~outgoing, size * outgoing))
    sums = running(amounts, bounds, totals)
    text, ends = textcolumns.lines(
        [
            _DIRECTIONS.take(outgoing.astype(np.intp)),
            textcolumns.small_numbers(size) if size.max() < 1 << 16 else textcolumns.numbers(size),
            textcolumns.addresses(np.ascontiguousarray(records["source"])),
            textcolumns.addresses(np.ascontiguousarray(records["destination"])),
            textcolumns.exact_times(records["time"].astype(np.int64) + offset),
        ],
        [
            *map(textcolumns.numbers, sums),
            *(
                textcolumns.small_numbers(records[name])
                for name in ("packets", "source_port", "destination_port")
            ),
            _PROTOCOLS.take(records["protocol"].astype(np.intp)),
            owners.ends(records),
        ],
    )
    cuts = np.append(0, ends)[np.array(bounds)].tolist()
    last = sums[:, np.array(bounds[1:]) - 1].T.tolist()
    return [
        Part(text[begin:end].data, after - before, (total_in, total_out))
        for (begin, end), (before, after), (total_in, total_out) in zip(
            pairwise(cuts), pairwise(bounds), last, strict=True
        )
    ]
