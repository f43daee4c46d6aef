"""capture --read: packets of a file, as they would be shown when they pass."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice

from netmonctl.capture_files import failed
from netmonctl.capture_lines import Lines, Objects
from netmonctl.errors import CtlError, usage
from netmonctl.output import Output
from netmonctl.pcapng import Frame, PcapngError, Reader

_STDIN = "-"
_PIECE = 1 << 16

#: What is the kernel's to do, or netmond's.
_LIVE = (
    "write", "file_size", "file_duration", "file_count", "duration", "snaplen", "buffer", "way", "interface",
    "user", "unit", "process", "pid", "filter",
)  # fmt: skip
#: What is not written like its name.
_SPELT = {"way": "--direction", "filter": "a filter"}


def run(args: Namespace, printer: Lines | Objects, out: Output) -> None:
    """Print the packets of a file; netmond need not run, and is not asked."""
    if given := [name for name in _LIVE if getattr(args, name)]:
        spelt = _SPELT.get(given[0], f"--{given[0].replace('_', '-')}")
        raise usage(f"--read shows a file as it is; {spelt} is for packets that pass")
    for frame in islice(_frames(args.read), args.count):
        print("\n".join(printer.of(frame)), file=out.stdout)


def _frames(path: str) -> Iterator[Frame]:
    reader = Reader()
    try:
        for piece in _pieces(path):
            yield from (item for item in reader.feed(piece) if isinstance(item, Frame))
        reader.close()
    except PcapngError as error:
        raise CtlError(f"{path}: {error}; editcap makes pcapng of other formats") from None


def _pieces(path: str) -> Iterator[bytes]:
    try:
        descriptor = (
            os.dup(sys.stdin.fileno()) if path == _STDIN else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        )
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece
    except OSError as error:
        raise failed(path, error) from None
