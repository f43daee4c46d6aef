"""Real traffic in real time series databases: their sums are the daemon's, also after an outage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.export.timeseries import Prometheus, VictoriaMetrics, fetched
from tests.kernel.capture import Figures
from tests.kernel.conftest import USER, Scene
from tests.kernel.deadline import eventually
from tests.kernel.running import Netmond

PORT = 9434

#: What the figures of a user are called.
METRICS = {
    "in_packets": "netmond_user_receive_packets_total",
    "in_bytes": "netmond_user_receive_bytes_total",
    "out_packets": "netmond_user_transmit_packets_total",
    "out_bytes": "netmond_user_transmit_bytes_total",
}


#: Packets of all flows, in and out, under the names of another tool.
OF_FLOWS = "sum(xtrace_network_packets_total)"


def in_database(database: Prometheus | VictoriaMetrics) -> Figures | None:
    """The user's totals as it has them now."""
    found = database.query(f'{{__name__=~"netmond_user_.*_total",uid="{USER}"}}')
    values = {dict(labels)["__name__"]: int(value) for labels, value in found.items()}
    return Figures(**{name: values[metric] for name, metric in METRICS.items()}) if values else None


def settled(netmond: Netmond, database: Prometheus | VictoriaMetrics) -> Figures:
    """The daemon's figures of the user, once the database has them."""
    figures = netmond.user(USER)
    eventually(lambda: in_database(database) == figures, f"{database.program} has {figures}")
    return figures


def test_outages(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """VictoriaMetrics, named by the environment of another tool, stops and starts again while traffic goes
    on; then another daemon comes. Each time the sums are the daemon's."""
    space = scene.near.command([])
    scene.near.ip("link set lo up")
    scraped, pushed = tmp_path / "scraped", tmp_path / "pushed"
    for directory in (scraped, pushed):
        directory.mkdir()
    with (
        Prometheus(scraped, {"here": PORT}, space=space) as prometheus,
        VictoriaMetrics(pushed, space=space) as victoria,
    ):
        monkeypatch.setenv("VICTORIAMETRICS_ENABLED", "true")
        monkeypatch.setenv("VICTORIAMETRICS_REMOTE_WRITE", f"{victoria.url}/api/v1/import/prometheus")
        netmond = scene.netmond(
            config={
                "output.push.instance": "here",
                "output.push.interval": 1,
                "output.prometheus.listen": f"127.0.0.1:{PORT}",
            }
        )
        server, user = scene.server(), scene.user()
        port = server.do("echo_server", local=["10.23.1.2", 0])
        user.do("udp", name="a", peer=["10.23.1.2", port])
        user.do("exchange", name="a", count=23, size=101)
        before = settled(netmond, victoria)
        assert settled(netmond, prometheus) == before
        flows = victoria.value(OF_FLOWS)
        assert flows is not None

        victoria.stop()
        stopped = time.time()
        user.do("exchange", name="a", count=29, size=103)
        eventually(
            lambda: "Connection refused" in netmond.feature("output.push")[1], "the outage is noticed"
        )
        assert netmond.feature("output.push")[0] == "degraded"
        assert settled(netmond, prometheus).out_packets == before.out_packets + 29
        spool = netmond.state / "export" / "push" / "spool"
        eventually(lambda: len(list(spool.iterdir())) > 3, "samples wait")
        started = time.time()
        victoria.start()
        assert settled(netmond, victoria).out_packets == before.out_packets + 29
        eventually(lambda: netmond.feature("output.push") == ("on", ""), "it delivers again")
        assert netmond.loss("output.push.undelivered") == netmond.loss("output.push.rejected") == 0
        (samples,) = victoria.samples("netmond_snapshot_timestamp_seconds").values()
        assert len([when for when, _ in samples if stopped < when / 1000 < started]) > 1

        assert victoria.value(OF_FLOWS) == flows + 2 * 29

        netmond.stop()
        netmond.start()
        user.do("exchange", name="a", count=31, size=107)
        assert settled(netmond, victoria) == settled(netmond, prometheus)
        assert b"# EOF" not in fetched(f"http://127.0.0.1:{PORT}/metrics", space)
