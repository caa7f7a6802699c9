"""The examples for Argo CD, Flux and K3s name what exists: chart, version, values, namespaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import CHART, MANIFESTS, ROOT, SYSTEM, Chart, named, of_kind

VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
FLUX = MANIFESTS / "gitops" / "flux"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_argo_installs_this_chart() -> None:
    found = documents(MANIFESTS / "gitops" / "argocd" / "application.yaml")
    source = named(found, "Application", "edgefolio")["spec"]["source"]
    assert (ROOT / source["path"] / "Chart.yaml").exists()
    assert source["targetRevision"] == f"v{VERSION}"
    for application in found:
        assert "ignoreDifferences" not in application["spec"], "what the operator decides is not in what Git holds"


def test_flux_installs_this_chart(chart: Chart) -> None:
    found = documents(FLUX / "edgefolio.yaml")
    release = named(found, "HelmRelease", "edgefolio")["spec"]
    source = named(found, release["chartRef"]["kind"], release["chartRef"]["name"])["spec"]
    assert source["url"].endswith("/edgefolio")
    assert source["ref"]["semver"] == ".".join(VERSION.split(".")[:2]) + ".x"
    assert release["targetNamespace"] == SYSTEM
    rendered = chart.documents(release["values"])
    assert of_kind(rendered, "CustomResourceDefinition"), "they are templates: Flux itself skips them"
    assert release["install"]["crds"] == release["upgrade"]["crds"] == "Skip"


def test_flux_waits_for_portfolios() -> None:
    found = documents(FLUX / "portfolios.yaml")
    kustomization = named(found, "Kustomization", "portfolios")["spec"]
    assert kustomization["wait"] is True
    source = kustomization["sourceRef"]
    assert named(found, source["kind"], source["name"])


def test_k3s_installs_this_chart() -> None:
    chart = named(documents(MANIFESTS / "k3s" / "edgefolio.yaml"), "HelmChart", "edgefolio")
    # K3s looks for charts in this namespace alone.
    assert chart["metadata"]["namespace"] == "kube-system"
    assert chart["spec"]["version"] == VERSION
    assert chart["spec"]["chart"].endswith("/edgefolio")


@pytest.mark.parametrize(
    "path",
    [FLUX / "edgefolio.yaml", MANIFESTS / "k3s" / "edgefolio.yaml", ROOT / "examples" / "cluster" / "1-namespace.yaml"],
    ids=lambda path: path.parent.name,
)
def test_namespaces_are_restricted(path: Path) -> None:
    (namespace,) = of_kind(documents(path), "Namespace")
    # The operator's own holds no portfolio.
    protected = {} if path.parent.name == "cluster" else {"edgefolio.dev/protected": "true"}
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted", **protected}


def test_images_of_the_manifests_are_of_this_version() -> None:
    text = "".join(
        path.read_text()
        for folder in (MANIFESTS / "base", MANIFESTS / "components", ROOT / "examples" / "cluster")
        for path in folder.rglob("*.yaml")
    )
    tags = {
        word.rpartition(":")[2].strip('"}') for word in text.split() if word.strip('"').startswith("ghcr.io/edgefolio")
    }
    assert {tag for tag in tags if tag and "/" not in tag} == {VERSION}
