"""A real daemon's flows at a real collector: what nfdump adds up is what the daemon has counted."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.export.nfdump import Nfcapd, packets_and_bytes
from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Crossing, Scene
from tests.kernel.deadline import eventually
from tests.kernel.machine import Namespace
from tests.kernel.running import total
from tests.kernel.test_export import exporter, gone
from tests.kernel.test_survival import lasting

PORT = 4739
EXPORT = {"output.ipfix.address": f"udp:127.0.0.1:{PORT}", "output.ipfix.interval": 1}


def collecting(space: Namespace, directory: Path) -> Nfcapd:
    """A collector beside the daemon."""
    return Nfcapd(directory / "flows", PORT, around=space.command)


def at_collector(collector: Nfcapd, protocol: int = 17) -> Figures:
    sums = packets_and_bytes(collector.records(), "proto", "direction")
    return Figures(*(sums[protocol, way, unit] for way in (0, 1) for unit in ("packets", "bytes")))


def test_figures_of_a_user(scene: Scene, tmp_path: Path) -> None:
    """To the byte, also of what came while a killed daemon was not there."""
    netmond = lasting(scene, **EXPORT)
    netmond.start()
    server, user = scene.server(), scene.user()
    far = scene.link.address(6, far=True)
    port = server.do("echo_server", local=[far, 0])
    user.do("udp", name="a", peer=[far, port])
    with collecting(scene.near, tmp_path) as collector:
        user.do("exchange", name="a", count=23, size=101)
        eventually(lambda: netmond.user(USER).in_packets == 23)

        pid = exporter(netmond)
        netmond.stop(signal.SIGKILL)
        eventually(gone(pid), "the exporter has delivered what it had")
        user.do("exchange", name="a", count=7, size=101)
        netmond.start()
        user.do("exchange", name="a", count=11, size=101)
        found = netmond.user(USER)
        netmond.stop()

    assert found == (41, 41 * 149) * 2
    assert at_collector(collector) == found


def test_forwarded_flows(crossing: Crossing, tmp_path: Path) -> None:
    """What passes through is exported, too, and belongs to nobody."""
    netmond = crossing.netmond(config=EXPORT)
    with collecting(netmond.space, tmp_path) as collector:
        crossing.exchange(4, count=1009, size=101)
        forwarded = total(netmond.rows("Flows", kind="forwarded"))
        netmond.stop()

    assert at_collector(collector) == forwarded == (0, 0, 2018, 2018 * 129)
