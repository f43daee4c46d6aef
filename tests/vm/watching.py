"""Programs that watch the machine's uplink while something happens: netmonctl, and tcpdump, the witness."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.kernel.capture import Packet, read_packets
from tests.kernel.deadline import eventually
from tests.service.inside import PATIENCE, call, run
from tests.service.talk import DEVICE


class Watcher:
    """A program that writes to a file until it is interrupted."""

    def __init__(self, *argv: str, out: Path) -> None:
        self.out = out
        self.error = out.with_suffix(".error")
        with out.open("w") as stdout, self.error.open("w") as stderr:
            self.process = subprocess.Popen(argv, stdout=stdout, stderr=stderr)

    def end(self) -> None:
        """Ctrl-C; AssertionError if it calls that a failure."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0, self.error.read_text()


@contextmanager
def watching(
    *argv: str,
    out: Path,
    begun: Callable[[Watcher], object],
    end: Callable[[Watcher], object] = Watcher.end,
) -> Iterator[Watcher]:
    """One that watches from the beginning of the block, and has written all when it is left."""
    watcher = Watcher(*argv, out=out)
    try:
        eventually(lambda: begun(watcher) or watcher.process.poll() is not None, f"{argv} has begun")
        assert watcher.process.poll() is None, watcher.error.read_text()
        yield watcher
        end(watcher)
    finally:
        watcher.process.kill()
        watcher.process.wait()


@contextmanager
def witness(directory: Path) -> Iterator[Path]:
    """tcpdump at the uplink; its file is whole when the block is left."""
    file = directory / "witness.pcap"
    argv = ["tcpdump", "-i", DEVICE, "-w", str(file), "-s", "160", "-U", "--immediate-mode", "-Zroot"]

    def listens(watcher: Watcher) -> bool:
        return "listening on" in watcher.error.read_text()

    with watching(*argv, out=directory / "tcpdump", begun=listens):
        yield file


def packets(file: Path) -> list[Packet]:
    """The IP packets of a file of tcpdump's."""
    return list(read_packets(file.read_bytes()))


def unpacked(file: Path) -> list[Packet]:
    """Those of a file of netmonctl capture's, as libpcap reads it."""
    plain = file.with_suffix(".pcap")
    run("tcpdump", "-r", str(file), "-w", str(plain))
    return packets(plain)


def no_session() -> bool:
    rows, _ = call("ListSessions", "a{sv}", "0")
    return not rows


def told(watcher: Watcher) -> bool:
    """Whether netmonctl path --json has begun: the stages come first, when they are seen."""
    return watcher.out.stat().st_size > 0


def events(file: Path) -> list[dict[str, Any]]:
    """The packets at stages that netmonctl path --json has written."""
    lines = map(json.loads, file.read_text().splitlines())
    return [line for line in lines if line["type"] == "event"]
