"""PromQL queries, checked against the metrics that the service exports."""

from __future__ import annotations

import re
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from service.observability import metrics

SCRAPED = {"job", "instance"}
"""Labels that Prometheus adds to every series."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
METRICS = [metric for metric in vars(metrics).values() if isinstance(metric, MetricWrapperBase)]
KEYWORDS = {"and", "or", "unless", "on", "ignoring", "by", "without", "offset", "bool"}


def described(metric: MetricWrapperBase) -> Any:
    """Name, type and help of a metric."""
    (family,) = metric.describe()
    return family


def all_series() -> dict[str, set[str]]:
    """Series that a query may use, with their labels."""
    series = {"up": SCRAPED}
    for metric in METRICS:
        family = described(metric)
        for suffix in SUFFIXES[family.type]:
            buckets = {"le"} if suffix == "_bucket" else set()
            labels = SCRAPED | set(metric._labelnames) | buckets
            series[f"{family.name}{suffix}"] = labels
    for family in REGISTRY.collect():
        if family.name.startswith("process_"):
            for suffix in SUFFIXES[family.type]:
                series[f"{family.name}{suffix}"] = SCRAPED
    return series


SERIES = all_series()


def faults(query: str) -> list[str]:
    """Unknown series and labels in a PromQL query."""
    text = re.sub(r"\[[^\]]*\]", "", query)  # windows
    found = []
    used: set[str] = set()
    for name, selector in re.findall(r"(\b[a-z_:][\w:]*\b)(?:\{([^}]*)\})?(?!\s*\()", _names(text)):
        if name in KEYWORDS:
            continue
        if name not in SERIES:
            found.append(f"no series {name}")
            continue
        used |= SERIES[name]
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector):
            if label not in SERIES[name]:
                found.append(f"{name} has no label {label}")
    for labels in grouped_labels(text):
        found += [f"no label {label} in {query}" for label in labels if label not in used]
    return found


def _names(text: str) -> str:
    """The query without strings and grouping labels."""
    text = re.sub(r'"[^"]*"', '""', text)
    return re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", "", text)


def grouped_labels(text: str) -> list[list[str]]:
    found = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text)
    return [re.findall(r"\w+", labels) for labels in found]
