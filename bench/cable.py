"""A veth pair between two network namespaces, with addresses of both versions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.host import namespace

#: Interfaces, and addresses of the near and the far end.
DEVICES = "near0", "far0"
ADDRESSES = {4: ("10.23.0.1", "10.23.0.2"), 6: ("fd00:23::1", "fd00:23::2")}
_PREFIX = {4: 24, 6: 64}


@dataclass(frozen=True, slots=True)
class Cable:
    """The namespaces at its ends."""

    near: str
    far: str


@contextmanager
def cable() -> Iterator[Cable]:
    """It lasts as long as the block."""
    with namespace("near") as near, namespace("far") as far:
        pair = ["link", "add", DEVICES[0], "type", "veth", "peer", DEVICES[1], "netns", far]
        _ip(near, *pair)
        for end, (space, device) in enumerate(zip((near, far), DEVICES, strict=True)):
            for family, addresses in ADDRESSES.items():
                options = ["nodad"] if family == 6 else []
                _ip(space, "addr", "add", f"{addresses[end]}/{_PREFIX[family]}", "dev", device, *options)
            _ip(space, "link", "set", device, "up")
        yield Cable(near, far)


def _ip(space: str, *words: str) -> None:
    subprocess.run(["ip", "-netns", space, *words], check=True)
