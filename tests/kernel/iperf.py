"""iperf3 between the two ends of a link, with a capture at the far one."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import dataclass
from typing import Any

from tests.kernel.capture import Capture, Packet
from tests.kernel.deadline import DEADLINE
from tests.kernel.machine import Cgroup, Link, Namespace, Process

_ports = itertools.count(5201)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a client did: its process, its own report, and the packets on the wire."""

    pid: int
    report: dict[str, Any]
    packets: list[Packet]


@dataclass(frozen=True, slots=True, kw_only=True)
class Talk:
    """A client at work, against a server at the far end of a link."""

    port: int
    client: Process
    server: Process
    capture: Capture

    def wait(self) -> Run:
        """Lets both come to their end."""
        report = json.loads(self.client.wait())
        assert "error" not in report, report["error"]
        self.server.wait()
        return self._run(report)

    def interrupt(self) -> Run:
        """Has the client end now."""
        self.client.popen.send_signal(signal.SIGINT)
        said, _ = self.client.popen.communicate(timeout=DEADLINE)
        self.server.popen.communicate(timeout=DEADLINE)
        return self._run(json.loads(said))

    def _run(self, report: dict[str, Any]) -> Run:
        seen = self.capture.stop()
        packets = [packet for packet in seen if self.port in (packet.source_port, packet.destination_port)]
        return Run(pid=self.client.pid, report=report, packets=packets)


def start(link: Link, near: Namespace, address: str, *flags: str, uid: int, cgroup: Cgroup | None) -> Talk:
    """A client in `near`, for one second or as the flags say."""
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
    return Talk(port=port, client=client, server=server, capture=capture)


def run(link: Link, near: Namespace, address: str, *flags: str, uid: int, cgroup: Cgroup | None) -> Run:
    """start(), to the end."""
    return start(link, near, address, *flags, uid=uid, cgroup=cgroup).wait()
