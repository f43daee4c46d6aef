"""IPFIX outputs in a test: the later ones find what the earlier ones have left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from netmond.config import OutputConfig
from netmond.export.ipfix import IpfixOutput

Start = Callable[[IpfixOutput, str], None]


@contextmanager
def starting(directory: Path) -> Iterator[Start]:
    """Starts outputs to an address, in domain 7, and closes them in the end."""
    with ExitStack() as stack:

        def start(output: IpfixOutput, address: str) -> None:
            options = {"address": address, "domain": 7, "interval": 10}
            output.init(OutputConfig(name="ipfix", log_dir=directory, state_dir=directory, options=options))
            stack.callback(output.close)

        yield start
