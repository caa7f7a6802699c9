"""A real API server takes everything that we give users, without a warning, and Helm installs and removes it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from control_plane import Kubernetes
from rendering import CHART, MANIFESTS, ROOT, SYSTEM, VALUES, Chart, Kustomize, of_kind

SITE = ROOT / "examples" / "cluster"


def admitted(judge: Kubernetes, documents: list[dict[str, Any]]) -> int:
    """How many objects the API server would store; one that it refuses, or warns of, fails."""
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}
    said = judge.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"),
        *("--warnings-as-errors", "-f", "-"),
        stdin=listed,
    )
    return len(said.splitlines())


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_chart_is_admitted(judge: Kubernetes, chart: Chart, values: dict[str, Any]) -> None:
    documents = chart.documents(values)
    assert admitted(judge, documents) == len(documents)


@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(path.parent, id=str(path.parent.relative_to(ROOT)))
        for path in sorted([*MANIFESTS.rglob("kustomization.yaml"), *SITE.rglob("kustomization.yaml")])
        if yaml.safe_load(path.read_text())["kind"] == "Kustomization"
    ],
)
def test_kustomizations_are_admitted(judge: Kubernetes, kustomize: Kustomize, folder: Path) -> None:
    documents = kustomize.documents(folder)
    assert admitted(judge, documents) == len(documents)


def test_the_examples_are_admitted(judge: Kubernetes) -> None:
    said = judge.kubectl("apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", str(SITE))
    assert [line.split()[0] for line in said.splitlines()] == [
        "namespace/models",
        "secret/edgefolio-repository",
        "secret/edgefolio-repository-read",
        "modelportfolio.edgefolio.dev/digits",
    ]


def test_the_portfolio_of_helm_test_is_admitted(judge: Kubernetes, chart: Chart) -> None:
    for document in of_kind(chart.documents(VALUES["everything"]), "ConfigMap"):
        if "portfolio.json" in document["data"]:
            assert admitted(judge, [json.loads(document["data"]["portfolio.json"])]) == 1


def test_a_loose_pod_would_be_noticed(judge: Kubernetes, chart: Chart) -> None:
    (deployment,) = of_kind(chart.documents({"podSecurityContext": {"runAsNonRoot": False}}), "Deployment")
    with pytest.raises(AssertionError, match="would violate PodSecurity"):
        admitted(judge, [deployment])
    with pytest.raises(AssertionError, match="unknown field"):
        admitted(judge, [{**deployment, "spec": {**deployment["spec"], "replica": 1}}])


class Release:
    """A release on the API server, where nothing runs."""

    def __init__(self, chart: Chart, kubernetes: Kubernetes) -> None:
        self._chart = chart
        self._where = ("--kubeconfig", str(kubernetes.kubeconfig), "--namespace", SYSTEM)

    def __call__(self, command: str, *arguments: str, values: dict[str, Any] | None = None) -> str:
        given = () if values is None else ("--values", "-")
        stdin = "" if values is None else json.dumps(values)
        return self._chart.run(command, "edgefolio", *arguments, *self._where, *given, stdin=stdin)


def test_notes_say_what_is_off(judge: Kubernetes, chart: Chart) -> None:
    values = {
        "fullnameOverride": "other",
        "crds": {"keep": False},
        "watchNamespaces": ["models"],
        "agent": {"rbac": {"create": False}},
    }
    said = Release(chart, judge)(
        "upgrade", "--install", str(CHART), "--dry-run=server", "--take-ownership", values=values
    )
    notes = " ".join(said.partition("NOTES:")[2].split())
    assert "it looks after models." in notes
    assert "to uninstall this release deletes every ModelPortfolio" in notes
    assert "agent.rbac.create is false" in notes
    assert "tests.repository.uri" in notes


def test_install_upgrade_and_uninstall(judge: Kubernetes, chart: Chart) -> None:
    release = Release(chart, judge)
    # The fixture's definitions are not Helm's; a user's first installation finds none.
    release("install", str(CHART), values={"crds": {"enabled": False}})
    try:
        path = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments/edgefolio-operator"
        assert judge.request("GET", path)["spec"]["template"]["spec"]["serviceAccountName"] == "edgefolio-operator"
        everything = {**VALUES["everything"], "crds": {"enabled": False}}
        release("upgrade", str(CHART), values=everything)
        assert judge.within(SYSTEM).kubectl("get", "networkpolicies,pdb", "-o", "name").count("edgefolio-operator") == 2
        assert judge.request("GET", path)["spec"]["template"]["spec"]["serviceAccountName"] == "own"
        release("upgrade", str(CHART), values={"crds": {"enabled": False}})
        assert judge.request("GET", path)["spec"]["template"]["spec"]["serviceAccountName"] == "edgefolio-operator"
        assert not judge.within(SYSTEM).kubectl(
            "get", "networkpolicies,pdb,servicemonitors,prometheusrules", "-o", "name"
        )
    finally:
        # Nothing runs the Job of the hook here.
        release("uninstall", "--no-hooks", "--wait")
    left = judge.kubectl("get", "clusterroles,clusterrolebindings,validatingadmissionpolicies", "-o", "name")
    assert "edgefolio" not in left
    assert judge.kubectl("get", "crd", "-o", "name").count("edgefolio.dev") == 2
