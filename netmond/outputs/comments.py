"""Comment lines in the CSV files: what is not in the rows, or how they are to be read.

A line begins with ``#`` and ends with the time and the user's running totals up to and with it::

    # packet mode: every packet timestamp=1795231812.418023109 total_in=148213 total_out=6120
    # lost: packets=7 in_bytes=9100 out_bytes=0 since=1795231812.418023109 timestamp=… total_in=…

``packet mode``: from here on a row is a packet, or one of N is (``1 of N packets``). ``interval mode``: from
here on a row is what a flow did in an interval; with what passed while one mode took over from the other.
``lost``: packets for which there was no room in the ring; ``skipped``: those not drawn into the sample;
``not written``: rows that could not be written. Bytes in them are in the totals.
"""

from __future__ import annotations

_NANO = 10**9


def comment(what: str, now: int, totals: tuple[int, int], **figures: int) -> bytes:
    """One line, with its newline. now and a figure named `since`: Unix time in ns."""
    said = "".join(
        f" {name}={_seconds(value) if name == 'since' else value}" for name, value in figures.items()
    )
    return f"# {what}{said} timestamp={_seconds(now)} total_in={totals[0]} total_out={totals[1]}\n".encode()


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds // _NANO}.{nanoseconds % _NANO:09d}"
