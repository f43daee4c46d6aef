"""RDMA of the whole daemon, as whoever scrapes it sees it; and what the journal is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

from tests.export.timeseries import fetched
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.test_rdma import Host
from tests.unit.metric_text import of, parsed

PORT = 9434

DEVICE = "device=rxe0"


def test_scraped(scene: Scene, tmp_path: Path) -> None:
    """What the device counts and what its users exchanged come through the exporter, to the packet."""
    scene.near.ip("link set lo up")
    host = Host(scene, tmp_path, **{"output.prometheus.listen": f"127.0.0.1:{PORT}"})
    host.netmond.start()
    alice = host.user(USER, 0x11, 0x12)
    host.know(alice)
    moved = host.receive(alice.own, 3) + host.send(alice.remote, 5)
    host.tree.set("rxe0", rcvd_pkts=3, sent_pkts=5, duplicate_request=2)
    host.has_counted({alice.uid: moved})
    counter = f"counter=duplicate_request,{DEVICE},group=hw_counters,kind=retransmits,port=1,unit=packets"
    user = f"uid={alice.uid},user={alice.uid}"
    expected: dict[str, Mapping[str, float]] = {
        "netmond_rdma_packets_total": {
            f"{DEVICE},direction=receive,port=1": 3,
            f"{DEVICE},direction=transmit,port=1": 5,
        },
        "netmond_rdma_counter_total": {counter: 2},
        "netmond_rdma_port_state": {f"{DEVICE},port=1,state=active": 1},
        "netmond_rdma_user_packets_total": {f"direction=receive,{user}": 3, f"direction=transmit,{user}": 5},
        "netmond_rdma_user_bytes_total": {
            f"direction=receive,{user}": moved.in_bytes,
            f"direction=transmit,{user}": moved.out_bytes,
        },
    }

    def as_expected() -> bool:
        try:
            page = fetched(f"http://127.0.0.1:{PORT}/metrics", scene.near.command([]))
        except URLError:  # the exporter is another process, and starts
            return False
        found = parsed((page, "text/plain"))
        return all(series.items() <= of(found, name).items() for name, series in expected.items())

    eventually(as_expected, "all of it is scraped")
    assert "RDMA port rxe0/1 found: active; Ethernet" in host.netmond.log
