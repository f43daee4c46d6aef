"""As a program (``python3 -m bench.switch PID CGROUP DEVICE``): a daemon's programs, switched on and off.

Takes the links off a running daemon and from then on attaches the same programs itself, at the same places:
within a millisecond, as often as wanted, and with nothing at all attached in between. To be run in the
network namespace of the device. Every line of input is answered with one:

    off       nothing is attached, the daemon is stopped (SIGSTOP)
    empty     empty programs where the daemon counts packets, the daemon is stopped
    programs  the daemon's programs, the daemon is stopped: slots that are used up do not come back
    on        the daemon's programs, the daemon runs
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.attach import PACKETS, Place, attach, empty_places
from bench.loaded import empty_programs

#: Seconds in which a daemon that was stopped makes up for the tick that is overdue: a running one has none.
_PAUSE = 0.1

_libbpf = ctypes.CDLL("libbpf.so.1")


def _links(pid: int) -> Iterator[tuple[int, int, int]]:
    """Of each link a process holds: its id, its program's, its attach type; see bpf_link_show_fdinfo()."""
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        found = dict(re.findall(r"^(link_id|prog_id|attach_type):\s*(\d+)", file.read_text(), re.MULTILINE))
        if len(found) == 3:
            yield int(found["link_id"]), int(found["prog_id"]), int(found["attach_type"])


def _descriptor(kind: str, number: int) -> int:
    descriptor = int(getattr(_libbpf, f"bpf_{kind}_get_fd_by_id")(number))
    if descriptor < 0:
        raise OSError(-descriptor, f"cannot open {kind} {number}")
    return descriptor


def _take_over(pid: int) -> list[Place]:
    """Detaches everything, and returns what it was. RuntimeError: no packet would be counted anyway."""
    places = []
    for link, program, attach_type in _links(pid):
        places.append(Place(_descriptor("prog", program), attach_type))
        descriptor = _descriptor("link", link)
        if _libbpf.bpf_link_detach(descriptor) < 0:
            raise RuntimeError(f"link {link} cannot be detached")
        os.close(descriptor)
    if missing := PACKETS.keys() - {place.attach_type for place in places}:
        raise RuntimeError(f"the daemon has no links of the types {sorted(missing)}")
    return places


def main(pid: int, group: Path, device: str) -> None:
    """Answers until the input ends."""
    cgroup, ifindex = os.open(group, os.O_RDONLY | os.O_DIRECTORY), socket.if_nametoindex(device)
    ours = _take_over(pid)
    places = {
        "off": list[Place](),
        "empty": empty_places(empty_programs()),
        "programs": ours,
        "on": ours,
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    attached = ExitStack()
    try:
        for line in sys.stdin:
            state = line.strip()
            attached.close()
            os.kill(pid, signal.SIGCONT if state == "on" else signal.SIGSTOP)
            attached = attach(places[state], cgroup, ifindex)
            time.sleep(_PAUSE)
            print(state, flush=True)
    finally:
        os.kill(pid, signal.SIGCONT)  # or it could not be ended


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
