"""Dashboard, alerts, runbook and the table of metrics name only what exists."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.api.routes import generate, health, images, info, latent_space, studio
from service.api.routes import models as models_route
from service.errors import RequestError
from tests.helpers.promql import METRICS, SCRAPED, described, faults, grouped_labels
from tests.helpers.server import ROOT

DASHBOARD = json.loads((ROOT / "ops" / "grafana.json").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> dict[str, str]:
    """Queries of the dashboard and the alerts, by panel or alert."""
    found = {alert["alert"]: alert["expr"] for alert in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"{panel['title']}, {target['refId']}"] = target["expr"]
    return found


def values(query: str, label: str) -> Iterator[str]:
    """Values that a query compares a label with, including each alternative of a pattern."""
    for pattern in re.findall(rf'\b{label}\s*(?:=~|!~|!=|=)\s*"([^"]*)"', query):
        yield from pattern.split("|")


@pytest.mark.parametrize("query", [pytest.param(q, id=place) for place, q in queries().items()])
def test_series_and_labels_of_queries_exist(query: str) -> None:
    assert faults(query) == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("sum(rate(figment_image_total[5m]))", "no series figment_image_total"),
        ("rate(figment_images[5m])", "no series figment_images"),
        ("figment_queue_seconds_totl > 1", "no series figment_queue_seconds_totl"),
        ('figment_images_total{fmt=~"json|png"}', "figment_images_total has no label fmt"),
        ('figment_images_total{format="fmt",le="1"}', "figment_images_total has no label le"),
        ("sum by (route, le) (figment_queue_seconds_bucket)", "no label route"),
        ("up == 0 unless on (model) up", "no label model"),
        ("process_resident_memory{job='x'}", "no series process_resident_memory"),
    ],
)
def test_unknown_series_and_labels_are_found(query: str, fault: str) -> None:
    (found,) = faults(query)
    assert fault in found


def test_variables_and_legends_name_labels_that_exist() -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            query = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert query, variable
            assert faults(f"sum by ({query[2]}) ({query[1]})") == []
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = set(itertools.chain.from_iterable(grouped_labels(target["expr"])))
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert label in (grouped or SCRAPED), (panel["title"], label)


def test_reasons_and_routes_exist() -> None:
    def below(kind: type[RequestError]) -> Iterator[type[RequestError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    reasons = {kind.reason() for kind in below(RequestError) if hasattr(kind, "title")}
    reasons |= {"reader", "ending", "too-many-connections"}  # these answer no request
    modules = (generate, health, images, latent_space, models_route, studio, info)
    routes = {getattr(each, "path", None) for module in modules for each in module.router.routes}
    for place, query in queries().items():
        assert set(values(query, "reason")) <= reasons, place
        assert set(values(query, "route")) - {"$route"} <= routes | {"none"}, place


def test_dashboard_can_be_imported() -> None:
    """Grafana rearranges overlapping panels at the import."""
    assert DASHBOARD["id"] is None  # an id belongs to one Grafana
    assert DASHBOARD["uid"] == "figment"
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in PANELS:
        assert "Normal: " in panel["description"], panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        alone = any("process_" in target["expr"] for target in panel["targets"])
        assert alone == ("one worker" in panel["description"]), panel["title"]


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_a_section_in_the_runbook(alert: Mapping[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / path)
    assert alert["alert"] in (ROOT / path).read_text()
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert alert["for"]


def test_every_alert_has_a_promtool_test() -> None:
    tests = yaml.safe_load((ROOT / "ops" / "alerts.test.yml").read_text())["tests"]
    fires = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fires == {alert["alert"] for alert in ALERTS}


def test_panels_that_the_runbook_names_exist() -> None:
    """The runbook has them in italics."""
    text = " ".join((ROOT / "docs" / "runbook.md").read_text().split())
    named = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text)
    assert named
    assert set(named) <= {panel["title"] for panel in PANELS}


def test_table_of_metrics_is_complete() -> None:
    rows = []
    for metric in METRICS:
        family = described(metric)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    table = re.findall(r"^\| `figment_.*$", (ROOT / "docs" / "operating.md").read_text(), re.M)
    assert table == rows
