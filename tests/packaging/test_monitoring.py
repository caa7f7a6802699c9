"""Alerts, dashboard and monitors ask for metrics, labels and ports that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from rendering import CHART, VALUES, Chart, named, of_kind

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_edge.agent.records.metrics import AgentMetrics
from edgefolio_operator import labels
from edgefolio_operator.metrics import Metrics
from edgefolio_operator.resources.daemonset import build_daemon_set
from edgefolio_operator.resources.pruning_job import Images

#: What Prometheus adds to every series by itself.
OF_THE_TARGET = {"namespace", "pod", "job", "instance", "container", "service"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def series() -> dict[str, set[str]]:
    """Name of every series that operator or agents tell, with its labels."""
    found: dict[str, set[str]] = {}
    for owner in (Metrics(CollectorRegistry()), AgentMetrics(model="fashion")):
        for metric in vars(owner).values():
            if isinstance(metric, MetricWrapperBase):
                (family,) = metric.describe()
                for suffix in SUFFIXES[family.type]:
                    labels = {*metric._labelnames, *(("le",) if suffix == "_bucket" else ())}
                    found.setdefault(family.name + suffix, set()).update(labels)
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((CHART / "files" / "dashboard.json").read_text())
    return document


def expressions() -> Iterator[Any]:
    for rule in rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            yield pytest.param(variable["query"], id=variable["name"])


@pytest.mark.parametrize("expression", list(expressions()))
def test_metrics_and_labels_exist(expression: str) -> None:
    known = series()
    asked = re.findall(r"\b(edgefolio_\w+)(?:\{([^}]*)\})?", expression)
    assert asked
    labels = set()
    for name, selector in asked:
        assert name in known
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= known[name] | OF_THE_TARGET | {"model"}
        labels |= known[name]
    grouped = {
        label.strip() for group in re.findall(r"\b(?:by|without) \(([^)]*)\)", expression) for label in group.split(",")
    }
    assert grouped <= labels | OF_THE_TARGET
    pairs = {"(": ")", "{": "}", "[": "]"}
    assert all(expression.count(left) == expression.count(right) for left, right in pairs.items())


def test_every_metric_is_looked_at() -> None:
    text = " ".join(parameter.values[0] for parameter in expressions())
    unseen = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series()}
    assert {name for name in unseen if name not in text} == set()


def test_every_alert_says_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules()) >= 8
    for rule in rules():
        assert rule["alert"].startswith("Edgefolio")
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        told = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        kept = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        assert told <= {label.strip() for label in ",".join(kept).split(",")}, rule["alert"]


def test_legends_name_labels_that_exist() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            grouped = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            (name,) = set(re.findall(r"edgefolio_\w+", target["expr"])) if not grouped else ("",)
            labels = {label.strip() for label in ",".join(grouped).split(",")} if grouped else series()[name]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels | OF_THE_TARGET, panel["title"]


def test_the_dashboard_is_one_that_grafana_reads() -> None:
    board = dashboard()
    identities = [panel["id"] for panel in board["panels"]]
    assert len(set(identities)) == len(identities)
    occupied: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & occupied, panel["title"]
        occupied |= cells
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


def test_alerts_and_dashboard_reach_the_cluster_unchanged(chart: Chart) -> None:
    documents = chart.documents(VALUES["everything"])
    rule = named(documents, "PrometheusRule", "edgefolio")
    assert [entry for group in rule["spec"]["groups"] for entry in group["rules"]] == rules()
    config = named(documents, "ConfigMap", "edgefolio-dashboard")
    assert config["metadata"]["namespace"] == "monitoring"
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["edgefolio.json"]) == dashboard()


def test_monitors_find_what_they_ask(chart: Chart) -> None:
    documents = chart.documents(VALUES["everything"])
    monitor = named(documents, "ServiceMonitor", "edgefolio-operator")["spec"]
    service = named(documents, "Service", "edgefolio-operator-metrics")
    deployment = named(documents, "Deployment", "edgefolio-operator")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {entry["port"] for entry in monitor["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    # `endpoint` and `namespace` are the metric's own labels: without this they would be renamed.
    assert all(entry["honorLabels"] for entry in monitor["endpoints"])

    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "a"}}
    spec = {"repository": {"uri": "s3://bucket/path"}, "serving": {"modelName": "m"}}
    images = Images(pruner="", agent="", triton="")
    built = build_daemon_set(ModelPortfolio.model_validate({**head, "spec": spec}), owner={}, images=images)
    template = built["spec"]["template"]
    agents = named(documents, "PodMonitor", "edgefolio-agents")["spec"]
    (expression,) = agents["selector"]["matchExpressions"]
    assert expression == {"key": labels.ENDPOINT_LABEL, "operator": "Exists"}
    assert labels.ENDPOINT_LABEL in template["metadata"]["labels"]
    assert agents["podTargetLabels"] == [labels.PORTFOLIO_LABEL]
    ports = {
        port["name"]
        for key in ("initContainers", "containers")
        for container in template["spec"][key]
        for port in container.get("ports", ())
    }
    assert {entry["port"] for entry in agents["podMetricsEndpoints"]} <= ports
    assert not of_kind(chart.documents(), "ServiceMonitor", "PodMonitor", "PrometheusRule")
