"""A real Prometheus that scrapes, evaluates our alerts, and answers what the dashboard asks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from netmond.config import OutputConfig
from netmond.export import metrics
from netmond.export.cardinality import ROUND, TopFlows
from netmond.export.exposition import encode
from netmond.export.prometheus import PrometheusOutput
from netmond.export.push import PushOutput
from netmond.model import Feature, FeatureState, Snapshot
from tests.bus import snapshots
from tests.export import growth
from tests.export.peers import free_port
from tests.export.timeseries import Prometheus, VmAgent
from tests.kernel.deadline import eventually

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
RULES = PACKAGING / "prometheus" / "netmond.rules.yml"

COLUMNS = ("receive_packets", "receive_bytes", "transmit_packets", "transmit_bytes")


#: Tests that scrape, each with its port and its label instance: Prometheus takes seconds to find targets.
SCRAPING = ("test_an_outage", "test_every_sample_is_taken", "test_hostile_names", "test_sums_of_flows",
            "test_dashboard")  # fmt: skip


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in SCRAPING}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), ports, [RULES]) as it:
        yield it


class Scraped:
    """An output that a Prometheus scrapes as one of its instances."""

    def __init__(self, prometheus: Prometheus, name: str, port: int, directory: Path) -> None:
        self.prometheus = prometheus
        self.name = name
        self.config = OutputConfig(
            name="prometheus", log_dir=directory, state_dir=directory,
            options={"listen": f"127.0.0.1:{port}", "flows": 2},
        )  # fmt: skip
        self.output = PrometheusOutput()
        self.output.init(self.config)

    def show(self, snapshot: Snapshot) -> None:
        """Serve a snapshot and wait until it is in the database."""
        self.output.write(snapshot)
        eventually(
            lambda: self.value("netmond_snapshot_timestamp_seconds") == snapshot.time,
            "the sample of a scrape",
        )

    def value(self, metric: str) -> float | None:
        """The sum over all series of this instance."""
        return self.prometheus.value(f'sum({metric}{{instance="{self.name}"}})')


@pytest.fixture
def scraped(
    prometheus: Prometheus, ports: dict[str, int], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Scraped]:
    it = Scraped(prometheus, request.node.name, ports[request.node.name], tmp_path)
    yield it
    it.output.close()


def test_an_outage(scraped: Scraped) -> None:
    """The endpoint was away, then the database: afterwards all sums are netmond's own, to the byte."""
    now = time.time()
    scraped.show(growth.at(now, 0))
    scraped.output.close()
    eventually(lambda: scraped.value("up") == 0, "the outage")
    scraped.output.init(scraped.config)
    scraped.show(growth.at(now + 15, 7))
    scraped.prometheus.stop()
    scraped.output.write(growth.at(now + 30, 11))
    scraped.prometheus.start()
    last = growth.at(now + 45, 13)
    scraped.show(last)

    for subject, table in (("host", last.host), ("user", last.users), ("unit", last.units),
                           ("interface", last.interfaces), ("target", last.targets)):  # fmt: skip
        sums = [scraped.value(f"netmond_{subject}_{what}_total") for what in COLUMNS]
        assert sums == table.counters[:, :4].sum(axis=0).tolist()
    counted = [f"netmond_rdma_{each}_total" for each in ("data_bytes", "packets", "counter")]
    counters = sum(int(port.totals.sum()) for port in last.rdma.ports)
    assert sum(scraped.value(name) or 0 for name in counted) == counters
    of_users = [scraped.value(f"netmond_rdma_user_{unit}_total") for unit in ("packets", "bytes")]
    assert of_users == last.rdma.users.counters[:, :4].reshape(-1, 2, 2).sum(axis=(0, 1)).tolist()


def test_every_sample_is_taken(scraped: Scraped) -> None:
    """It takes as many series as the text has, in the format that it likes best."""
    snapshot = replace(snapshots.small(), time=time.time())
    scraped.show(snapshot)
    flows = TopFlows(2, str)
    flows.take(snapshot)
    written = sum(len(reading.samples) for reading in metrics.read(snapshot, str, flows.view()))

    assert scraped.value("scrape_samples_post_metric_relabeling") == written
    assert scraped.value("scrape_samples_scraped") == written


def test_hostile_names(scraped: Scraped) -> None:
    """They arrive as text, and break nothing."""
    names = ('"} 5', "a\\nb\\", "c\nd\0\udcff\u2028", "üñ😀", "#", " ")
    features = tuple(Feature(name=name, state=FeatureState.ON) for name in names)
    scraped.show(replace(snapshots.small(), time=time.time(), features=features))
    found = scraped.prometheus.query(f'netmond_feature_state{{state="on",instance="{scraped.name}"}}')

    assert {dict(labels).get("feature") for labels in found} == {
        '"} 5', "a\\nb\\", "c\\nd\\x00\\udcff\\u2028", "üñ😀", "#", " "
    }  # fmt: skip


def test_sums_of_flows(scraped: Scraped) -> None:
    """Over rounds in which series come and go: the last values of all there were are the total."""
    start = time.time()
    for step in range(8):
        scraped.show(growth.at(start + step * ROUND / 2, step))

    for what in COLUMNS:
        series = scraped.prometheus.query(
            f'last_over_time(netmond_flow_{what}_total{{instance="{scraped.name}"}}[1h])'
        )
        assert sum(series.values()) == scraped.value(f"netmond_all_flows_{what}_total")
        assert len(series) >= 3


def test_pushed_by_way_of_vmagent(prometheus: Prometheus, tmp_path: Path) -> None:
    """Who wants figures pushed to Prometheus itself has vmagent write them on."""
    snapshot = growth.at(time.time(), 3)
    with VmAgent(tmp_path, f"{prometheus.url}/api/v1/write") as agent:
        output = PushOutput()
        keys = {"url": f"{agent.url}/api/v1/import/prometheus", "instance": "pushed"}
        output.init(OutputConfig(name="push", log_dir=tmp_path, state_dir=tmp_path, options=keys))
        output.write(snapshot)
        output.close()

    for what, figure in zip(COLUMNS, snapshot.users.counters[:, :4].sum(axis=0).tolist(), strict=True):
        assert prometheus.value(f'sum(netmond_user_{what}_total{{instance="pushed"}})') == figure


def in_panels(instance: str) -> list[str]:
    dashboard = json.loads((PACKAGING / "grafana" / "netmond.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    values = {"$instance": instance, "$top": "10", "$__rate_interval": "1m", "$__range": "1h"}
    return [re.sub(r"\$[a-z_]+", lambda name: values[str(name[0])], expression) for expression in found]


def test_dashboard(scraped: Scraped) -> None:
    """Every panel has an answer, also those of what is not well."""
    now = time.time()
    features = (Feature(name="meter", state=FeatureState.DEGRADED, reason="x"),)
    for step in (1, 2):
        losses = tuple(replace(loss, count=step) for loss in snapshots.small().losses)
        scraped.show(replace(growth.at(now + step, step), features=features, losses=losses))
    expressions = in_panels(scraped.name)

    def unanswered() -> list[str]:
        return [expression for expression in expressions if not scraped.prometheus.query(expression)]

    assert len(expressions) > 30
    # rate() needs two samples, which are scraped a moment apart
    eventually(lambda: not unanswered(), "answers")


def test_vmalert_takes_the_rules() -> None:
    """They are for it as well."""
    if shutil.which("vmalert") is None:
        pytest.skip("needs vmalert (Debian package victoria-metrics)")
    done = subprocess.run(["vmalert", "-dryRun", f"-rule={RULES}"], capture_output=True, check=False)

    assert done.returncode == 0, done.stderr.decode()


def promtool(*arguments: str | Path, text: bytes | None = None) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("needs promtool (Debian package prometheus)")
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return (done.stdout + done.stderr).decode()


def test_promtool_likes_the_names() -> None:
    """The linter of the format, and the checkers of rules and configuration, have nothing to say."""
    text, _ = encode(metrics.read(snapshots.small(), str))

    assert promtool("check", "metrics", text=text) == ""
    assert "SUCCESS: 12 rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", PACKAGING / "prometheus" / "prometheus.yml")


#: By alert: series as promtool writes them, one value a minute, and when it has to fire.
ALERTS = {
    "NetmondSilent": ("netmond_snapshot_timestamp_seconds{}", "0+60x10 _x20", "20m"),
    "NetmondDegraded": ('netmond_feature_state{feature="meter",state="degraded"}', "1x30", "15m"),
    "NetmondLosses": ('netmond_losses_total{name="meter.no-slot"}', "0x5 7x30", "10m"),
    "NetmondExpensive": ("netmond_resident_bytes{}", "200000000x60", "40m"),
    "NetmondSlow": ("netmond_tick_seconds{}", "0.7x30", "20m"),
    "RdmaPortDown": ('netmond_rdma_port_state{device="mlx5_0",port="1",state="active"}', "1x5 0x30", "15m"),
    "RdmaCongestion": ('netmond_rdma_counter_total{kind="congestion",unit="packets"}',
                       "0+60000x30", "20m"),
    "RdmaRetransmits": ('netmond_rdma_counter_total{kind="timeouts",unit="events"}',
                        "0+6000x30", "20m"),
    "UserSendsFast": ('netmond_user_transmit_bytes_total{user="alice",uid="5"}', "0+900000000x60", "30m"),
    "UserSendsMuch": ('netmond_user_transmit_bytes_total{user="alice",uid="5"}', "0+1000000000x1500", "24h"),
    "UnitSendsUnusually": ('netmond_unit_transmit_bytes_total{unit="a.service",slice="b"}',
                           "0x1440 0+100000000x60", "24h30m"),
    "TargetIsSentMuch": ('netmond_target_receive_bytes_total{target="192.0.2.7"}', "0+300000000x90", "70m"),
}  # fmt: skip


def test_alerts_fire(tmp_path: Path) -> None:
    """Each when it should, and none of them a quiet machine's."""
    assert set(ALERTS) == set(re.findall(r"alert: (\w+)", RULES.read_text()))
    tests = [
        {
            "interval": "1m",
            "input_series": [
                {"series": series, "values": values},
                {"series": "netmond_build_info{}", "values": "1x1600"},
            ],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                    "eval_time": when,
                    "exp_samples": [{"labels": "{}", "value": 1}],
                },
                {"expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}', "eval_time": "1m"},
            ],
        }
        for name, (series, values, when) in ALERTS.items()
    ]
    file = tmp_path / "alerts.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": tests}))

    assert "SUCCESS" in promtool("test", "rules", file)
