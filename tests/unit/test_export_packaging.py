"""The dashboard and the alerts ask for nothing that netmond does not have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from netmond.export.metrics import FAMILIES

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
DASHBOARD = json.loads((PACKAGING / "grafana" / "netmond.json").read_text())
RULES = (PACKAGING / "prometheus" / "netmond.rules.yml").read_text()

LABELS = {family.name: {*family.labels, "instance"} for family in FAMILIES}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def alerts() -> list[str]:
    """The expressions of the rules: what follows ``expr:`` or is indented below it."""
    return re.findall(r"^ +expr: (?:\|\n)?((?:.+\n)(?: {10,}.+\n)*)", RULES, re.MULTILINE)


@pytest.mark.parametrize("source", [expressions, alerts])
def test_metrics_exist(source: Any) -> None:
    """Every metric has its name, and selectors only labels that it has."""
    asked = source()

    assert len(asked) >= 9
    for expression in asked:
        found = re.findall(r"(netmond_\w+)(?:\{(.*?)\})?", expression)
        assert found, expression
        for name, selector in found:
            labels = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selector)
            assert set(labels) <= LABELS[name], expression


def test_groups_are_labels() -> None:
    """What is grouped by, and what legends show, is in the metric."""
    for panel in panels():
        for target in panel.get("targets", ()):
            names = re.findall(r"netmond_\w+", target["expr"])
            labels = set.intersection(*(LABELS[name] for name in names))
            for group in re.findall(r"\bby \((.*?)\)", target["expr"]):
                assert set(re.split(r", *", group)) <= labels, target["expr"]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels, target["expr"]


def test_all_subjects_are_shown() -> None:
    """Nothing that netmond counts is missing from the dashboard, but a sum of its parts."""
    shown = set(re.findall(r"netmond_\w+", " ".join(expressions())))

    assert {
        name for name in LABELS
        if name not in shown and not name.startswith("netmond_all_flows") and "_packets_" not in name
    } == {"netmond_start_timestamp_seconds"}  # fmt: skip


def test_layout() -> None:
    """Panels have numbers of their own and do not lie on each other."""
    numbers = [panel["id"] for panel in panels()]
    places = [panel["gridPos"] for panel in panels()]

    assert len(set(numbers)) == len(numbers)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), (one, other)


def test_it_fits_any_grafana() -> None:
    """The data source is chosen by whoever imports it, and no panel names another one."""
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    sources = {
        source["datasource"]["uid"]
        for panel in panels()
        for source in (*panel.get("targets", ()), panel)
        if "datasource" in source
    }
    used = set(re.findall(r"\$\{?([a-z]+)", " ".join(expressions()) + " ".join(sources)))

    assert sources == {"${datasource}"}
    assert used == variables
    assert DASHBOARD["uid"] == DASHBOARD["title"] == "netmond"
    assert "id" not in DASHBOARD
