"""The dashboard, the alerts, the runbook and the list of metrics speak of what there is."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from service.api.routes import generate, health, images, info, interpolate, studio, variations
from service.api.routes import models as models_route
from service.errors import RequestError
from service.observability import metrics
from tests.helpers.server import ROOT

DASHBOARD = json.loads((ROOT / "ops" / "grafana.json").read_text())
ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "ops" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SCRAPED = {"job", "instance"}
"""Labels that Prometheus puts on all it collects."""
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OURS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
KEYWORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "offset", "bool"}


def described(metric: MetricWrapperBase) -> Any:
    """Its name, type and help."""
    (family,) = metric.describe()
    return family


def all_series() -> dict[str, set[str]]:
    """What a query may ask for, with its labels."""
    series = {"up": SCRAPED}
    for metric in OURS:
        family = described(metric)
        for ending in ENDINGS[family.type]:
            buckets = {"le"} if ending == "_bucket" else set()
            labels = SCRAPED | set(metric._labelnames) | buckets
            series[f"{family.name}{ending}"] = labels
    for family in REGISTRY.collect():
        if family.name.startswith("process_"):
            for ending in ENDINGS[family.type]:
                series[f"{family.name}{ending}"] = SCRAPED
    return series


SERIES = all_series()


def faults(query: str) -> list[str]:
    """What a query in PromQL asks for that there is not."""
    text = re.sub(r"\[[^\]]*\]", "", query)  # windows
    found = []
    asked: set[str] = set()
    for name, selector in re.findall(r"(\b[a-z_:][\w:]*\b)(?:\{([^}]*)\})?(?!\s*\()", _names(text)):
        if name in KEYWORDS:
            continue
        if name not in SERIES:
            found.append(f"no series {name}")
            continue
        asked |= SERIES[name]
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in SERIES[name]:
                found.append(f"{name} has no label {label}")
    for labels in _grouped(text):
        found += [f"no label {label} in {query}" for label in labels if label not in asked]
    return found


def _names(text: str) -> str:
    """A query without its strings, and without what it groups by."""
    text = re.sub(r'"[^"]*"', '""', text)
    return re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", text)


def _grouped(text: str) -> list[list[str]]:
    found = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text)
    return [re.findall(r"\w+", labels) for labels in found]


def queries() -> dict[str, str]:
    """All that the dashboard and the alerts ask, by where it stands."""
    found = {alert["alert"]: alert["expr"] for alert in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"{panel['title']}, {target['refId']}"] = target["expr"]
    return found


def values(query: str, label: str) -> Iterator[str]:
    """What a query compares a label with; of patterns, each alternative."""
    for given in re.findall(rf'\b{label}\s*(?:=~|!~|!=|=)\s*"([^"]*)"', query):
        yield from given.split("|")


@pytest.mark.parametrize("query", [pytest.param(q, id=place) for place, q in queries().items()])
def test_what_is_asked_for_exists(query: str) -> None:
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
def test_what_does_not_exist_is_found(query: str, fault: str) -> None:
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
            grouped = set(itertools.chain.from_iterable(_grouped(target["expr"])))
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert label in (grouped or SCRAPED), (panel["title"], label)


def test_reasons_and_routes_exist() -> None:
    def below(kind: type[RequestError]) -> Iterator[type[RequestError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    reasons = {kind.reason() for kind in below(RequestError) if hasattr(kind, "title")}
    reasons |= {"reader", "ending", "too-many-connections"}  # which are no answers to a request
    modules = (generate, health, images, interpolate, models_route, studio, info, variations)
    routes = {getattr(each, "path", None) for module in modules for each in module.router.routes}
    for place, query in queries().items():
        assert set(values(query, "reason")) <= reasons, place
        assert set(values(query, "route")) - {"$route"} <= routes | {"none"}, place


def test_the_dashboard_can_be_imported_and_read() -> None:
    """One whose panels overlap is rearranged at the import."""
    assert DASHBOARD["id"] is None  # of one Grafana
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
        assert "normal" in panel["description"], panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        alone = any("process_" in target["expr"] for target in panel["targets"])
        assert alone == ("one worker" in panel["description"]), panel["title"]


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_leads_to_what_to_do(alert: Mapping[str, Any]) -> None:
    path, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / path)
    assert alert["alert"] in (ROOT / path).read_text()
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["summary"]
    assert alert["for"]


def test_every_alert_has_a_test_of_its_own() -> None:
    """Which promtool runs."""
    tests = yaml.safe_load((ROOT / "ops" / "alerts.test.yml").read_text())["tests"]
    fires = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fires == {alert["alert"] for alert in ALERTS}


def test_panels_that_the_runbook_names_exist() -> None:
    """They stand in italics."""
    text = " ".join((ROOT / "docs" / "runbook.md").read_text().split())
    named = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text)
    assert named
    assert set(named) <= {panel["title"] for panel in PANELS}


def test_the_table_of_metrics_is_what_is_told() -> None:
    rows = []
    for metric in OURS:
        family = described(metric)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    table = re.findall(r"^\| `figment_.*$", (ROOT / "docs" / "operating.md").read_text(), re.M)
    assert table == rows
