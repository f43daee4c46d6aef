"""iperf3 between the two ends of a link, with a capture at the far one."""

from __future__ import annotations

import itertools
import json
import socket
from dataclasses import dataclass
from typing import Any

from tests.kernel.capture import Capture, Packet
from tests.kernel.machine import Cgroup, Link, Namespace

_ports = itertools.count(5201)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a client did: its process, its own report, and the packets on the wire."""

    pid: int
    report: dict[str, Any]
    packets: list[Packet]


def run(link: Link, near: Namespace, address: str, *flags: str, uid: int, cgroup: Cgroup | None) -> Run:
    """A client in `near` against a server at the far end of the link, one second or as the flags say."""
    port = next(_ports)
    server = link.far.machine.start(
        link.far.command(["iperf3", "--server", "--one-off", f"--port={port}", "--forceflush"])
    )
    assert server.popen.stdout is not None
    while "Server listening" not in (line := server.popen.stdout.readline()):
        assert line, "the iperf3 server ended"
    capture = Capture(link)
    client = link.far.machine.start(
        near.command(
            ["iperf3", f"--client={address}", f"--port={port}", "--time=1", "--json", *flags],
            uid=uid,
            cgroup=cgroup,
        )
    )
    report = json.loads(client.wait())
    assert "error" not in report, report["error"]
    server.wait()
    wanted = (socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    packets = [packet for packet in capture.stop() if packet.protocol in wanted]
    return Run(pid=client.pid, report=report, packets=packets)
