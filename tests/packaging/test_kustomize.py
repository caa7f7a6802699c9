"""The kustomizations: what each brings, and that Helm and kustomize give the same rights and the same operator."""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import MANIFESTS, ROOT, VALUES, Chart, Kustomize, named, of_kind

ROLES = ("edgefolio-operator", "edgefolio-agent", "edgefolio-view", "edgefolio-edit")


@pytest.fixture(scope="module")
def base(kustomize: Kustomize) -> list[dict[str, Any]]:
    return kustomize.documents(MANIFESTS / "base")


@pytest.fixture(scope="module")
def chart_documents(chart: Chart) -> list[dict[str, Any]]:
    return chart.documents()


@pytest.mark.parametrize("name", ROLES)
def test_rights_are_the_same(base: list[Any], chart_documents: list[Any], name: str) -> None:
    mine, others = named(base, "ClusterRole", name), named(chart_documents, "ClusterRole", name)
    assert mine["rules"] == others["rules"]
    aggregated = {key for key in mine["metadata"].get("labels", {}) if "aggregate-to" in key}
    assert aggregated == {key for key in others["metadata"]["labels"] if "aggregate-to" in key}


def test_so_are_lease_bindings_and_the_agents_policy(base: list[Any], chart_documents: list[Any]) -> None:
    for kind, name, part in (
        ("Role", "edgefolio-operator", "rules"),
        ("RoleBinding", "edgefolio-operator", "subjects"),
        ("RoleBinding", "edgefolio-operator", "roleRef"),
        ("ClusterRoleBinding", "edgefolio-operator", "subjects"),
        ("ClusterRoleBinding", "edgefolio-operator", "roleRef"),
        ("ValidatingAdmissionPolicy", "edgefolio-agent-own-endpoint", "spec"),
        ("ValidatingAdmissionPolicyBinding", "edgefolio-agent-own-endpoint", "spec"),
        ("ValidatingAdmissionPolicyBinding", "edgefolio-operator-own-objects", "spec"),
        ("ServiceAccount", "edgefolio-operator", "automountServiceAccountToken"),
    ):
        assert named(base, kind, name)[part] == named(chart_documents, kind, name)[part], (kind, name, part)


def test_the_operators_policy_is_the_same_but_for_its_user(base: list[Any], chart_documents: list[Any]) -> None:
    """The chart knows the account's name and namespace; a kustomization may put it elsewhere."""
    kind, name = "ValidatingAdmissionPolicy", "edgefolio-operator-own-objects"
    mine, others = dict(named(base, kind, name)["spec"]), dict(named(chart_documents, kind, name)["spec"])
    (by_name,), (exactly,) = mine.pop("matchConditions"), others.pop("matchConditions")
    assert mine == others
    user = "system:serviceaccount:edgefolio-system:edgefolio-operator"
    assert exactly["expression"] == f"request.userInfo.username == '{user}'"
    assert user.endswith(":edgefolio-operator")
    assert "endsWith(':edgefolio-operator')" in by_name["expression"]


def test_a_few_namespaces_by_kustomize_and_by_chart_are_the_same(kustomize: Kustomize, chart: Chart) -> None:
    """Its roles, with and without reading nodes, and what the operator is told."""
    overlay = kustomize.documents(MANIFESTS / "overlays" / "few-namespaces")
    assert of_kind(overlay, "ClusterRoleBinding") == []
    inside = kustomize.documents(MANIFESTS / "namespace-rights")
    nodes = list(yaml.safe_load_all((MANIFESTS / "components" / "read-nodes" / "rights.yaml").read_text()))
    rendered = chart.documents(VALUES["a few namespaces and all nodes"])
    for kind, name in (
        ("Role", "edgefolio-operator-portfolios"),
        ("RoleBinding", "edgefolio-operator-portfolios"),
        ("ClusterRole", "edgefolio-operator-nodes"),
        ("ClusterRoleBinding", "edgefolio-operator-nodes"),
    ):
        mine, others = named([*inside, *nodes], kind, name), named(rendered, kind, name)
        for part in ("rules", "roleRef", "subjects"):
            assert mine.get(part) == others.get(part), (kind, part)
    assert named(rendered, "Role", "edgefolio-operator-portfolios")["metadata"]["namespace"] == "models"
    assert told(overlay)["EDGEFOLIO_NAMESPACES"] == told(rendered)["EDGEFOLIO_NAMESPACES"] == "models"


def test_reading_nodes_is_a_component(tmp_path: Path, kustomize: Kustomize, chart: Chart) -> None:
    def below(folder: Path) -> str:
        return str(Path(*[".."] * (len(tmp_path.parts) - 1)) / folder.relative_to("/"))

    kustomization = {
        "resources": [below(MANIFESTS / "overlays" / "few-namespaces")],
        "components": [below(MANIFESTS / "components" / "read-nodes")],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    documents = kustomize.documents(tmp_path)
    assert told(documents)["EDGEFOLIO_READ_NODES"] == "true"
    rules = named(documents, "ClusterRole", "edgefolio-operator-nodes")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert told(chart.documents(VALUES["a few namespaces and all nodes"]))["EDGEFOLIO_READ_NODES"] == "true"
    assert "EDGEFOLIO_READ_NODES" not in told(chart.documents(VALUES["a few namespaces"]))


def told(documents: list[dict[str, Any]]) -> dict[str, str]:
    """The variables of the operator's container."""
    template = named(documents, "Deployment", "edgefolio-operator")["spec"]["template"]
    return {entry["name"]: entry["value"] for entry in template["spec"]["containers"][0]["env"]}


def test_the_rights_in_a_few_namespaces_are_those_but_for_the_cluster_s(chart: Chart) -> None:
    cluster = named(chart.documents(), "ClusterRole", "edgefolio-operator")["rules"]
    roles = of_kind(chart.documents(VALUES["a few namespaces"]), "Role")
    inside = [role for role in roles if role["metadata"]["name"] == "edgefolio-operator-portfolios"]
    assert {role["metadata"]["namespace"] for role in inside} == {"models", "other"}

    def flat(rules: list[Any]) -> set[tuple[str, str, str]]:
        return {
            (group, resource, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    for role in inside:
        left = flat(cluster) - flat(role["rules"])
        assert {resource for _, resource, _ in left} == {"nodes", "namespaces"}
        assert flat(role["rules"]) < flat(cluster)


def test_the_operator_is_the_same(base: list[Any], chart_documents: list[Any]) -> None:
    mine = named(base, "Deployment", "edgefolio-operator")["spec"]
    others = named(chart_documents, "Deployment", "edgefolio-operator")["spec"]
    assert mine["template"]["spec"] == others["template"]["spec"]
    assert mine["template"]["metadata"]["annotations"] == others["template"]["metadata"]["annotations"]
    assert (mine["replicas"], mine["strategy"]) == (others["replicas"], others["strategy"])
    # Nobody can change it, so that going from one to the other would mean to delete it.
    assert mine["selector"] == others["selector"]
    assert mine["template"]["metadata"]["labels"] == others["template"]["metadata"]["labels"]
    services = [named(documents, "Service", "edgefolio-operator-metrics") for documents in (base, chart_documents)]
    assert services[0]["spec"]["selector"] == services[1]["spec"]["selector"] == mine["selector"]["matchLabels"]
    ports = named(base, "Service", "edgefolio-operator-metrics")["spec"]["ports"]
    assert ports == named(chart_documents, "Service", "edgefolio-operator-metrics")["spec"]["ports"]


def test_the_plain_overlay_is_the_base(base: list[Any], kustomize: Kustomize) -> None:
    """It only makes the images changeable."""
    assert kustomize.documents(MANIFESTS / "overlays" / "plain") == base


def test_an_overlay_can_change_every_image(tmp_path: Path, kustomize: Kustomize) -> None:
    images = (MANIFESTS / "overlays" / "plain" / "images.yaml").read_text()
    (tmp_path / "images.yaml").write_text(images)
    names = ("ghcr.io/edgefolio/operator", "ghcr.io/edgefolio/pruner", "ghcr.io/edgefolio/agent")
    changes = [{"name": name, "newName": name.replace("ghcr.io", "mirror.example.com")} for name in names]
    changes.append({"name": "nvcr.io/nvidia/tritonserver", "newName": "mirror.example.com/triton", "newTag": "7"})
    (tmp_path / "base.yaml").write_text((MANIFESTS / "base" / "operator.yaml").read_text())
    kustomization = {"resources": ["base.yaml"], "configurations": ["images.yaml"], "images": changes}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (deployment,) = kustomize.documents(tmp_path)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    told = {entry["name"]: entry["value"] for entry in container["env"] if entry["name"].endswith("_IMAGE")}
    assert container["image"] == "mirror.example.com/edgefolio/operator:0.1.0"
    assert told == {
        "EDGEFOLIO_PRUNER_IMAGE": "mirror.example.com/edgefolio/pruner:0.1.0",
        "EDGEFOLIO_AGENT_IMAGE": "mirror.example.com/edgefolio/agent:0.1.0",
        "EDGEFOLIO_TRITON_IMAGE": "mirror.example.com/triton:7",
    }


def test_k3s_by_kustomize_and_by_chart_is_the_same(kustomize: Kustomize, chart: Chart) -> None:
    mine = named(kustomize.documents(MANIFESTS / "overlays" / "k3s"), "Deployment", "edgefolio-operator")
    others = named(chart.documents(VALUES["k3s"]), "Deployment", "edgefolio-operator")
    assert mine["spec"]["template"]["spec"] == others["spec"]["template"]["spec"]


def component_below(folder: Path) -> str:
    """Path of the adopt component, as a kustomization in ``folder`` must say it."""
    return str(Path(*[".."] * (len(folder.parts) - 1)) / (MANIFESTS / "components" / "adopt").relative_to("/"))


def test_the_page_says_how_to_name_another_secret(tmp_path: Path, kustomize: Kustomize) -> None:
    page = (MANIFESTS / "README.md").read_text()
    block = page.partition("    patches:\n")[2].partition("\n\n")[0]
    patches = yaml.safe_load(textwrap.dedent("    patches:\n" + block))["patches"]
    (tmp_path / "triton.yaml").write_text((ROOT / "examples" / "cluster" / "adopt" / "triton.yaml").read_text())
    kustomization = {
        "namespace": "models",
        "resources": ["triton.yaml"],
        "components": [component_below(tmp_path)],
        "patches": patches,
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    deployment = named(kustomize.documents(tmp_path), "Deployment", "triton")
    agent = deployment["spec"]["template"]["spec"]["initContainers"][1]
    assert agent["envFrom"] == [{"secretRef": {"name": "s3"}}]


def test_the_page_says_triton_s_flags() -> None:
    """Those of the operator's own Tritons; ports and what only a GPU has are left to the user."""
    page = (MANIFESTS / "README.md").read_text()
    block = textwrap.dedent(page.partition("         - |\n")[2].partition("\n\n   What")[0])
    (deployment,) = yaml.safe_load_all((ROOT / "examples" / "cluster" / "adopt" / "triton.yaml").read_text())
    script = deployment["spec"]["template"]["spec"]["containers"][0]["command"][2]

    def words(text: str) -> set[str]:
        return set(shlex.split(text.replace("\\\n", " ")))

    left_out = {"--allow-gpu-metrics=false", "--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"}
    assert words(block) == words(script) - left_out


def test_the_component_changes_marked_workloads_alone(tmp_path: Path, kustomize: Kustomize) -> None:
    def workload(kind: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
        own = {"name": "own", "image": "own:1"}
        pod = {"containers": [{"name": "triton", "image": "triton:1"}], "initContainers": [own]}
        return {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            },
        }

    marked = {"edgefolio.dev/adopt": "true"}
    workloads = [
        workload("Deployment", "a", marked),
        workload("DaemonSet", "b", marked),
        workload("Deployment", "c", {}),
    ]
    (tmp_path / "workloads.yaml").write_text(yaml.safe_dump_all(workloads))
    components = [component_below(tmp_path)]
    kustomization = {"namespace": "models", "resources": ["workloads.yaml"], "components": components}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    documents = kustomize.documents(tmp_path)
    for kind, name in (("Deployment", "a"), ("DaemonSet", "b")):
        template = named(documents, kind, name)["spec"]["template"]
        assert [entry["name"] for entry in template["spec"]["initContainers"]] == ["key", "agent", "wait", "own"]
        assert template["metadata"]["labels"] == {"app": name, "edgefolio.dev/endpoint": "adopted"}
        assert template["spec"]["containers"][0]["image"] == "triton:1"
    assert named(documents, "Deployment", "c")["spec"]["template"]["spec"].keys() == {"containers", "initContainers"}
    binding = named(documents, "RoleBinding", "edgefolio-agent")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "edgefolio-agent", "namespace": "models"}]


def test_every_kustomization_builds(kustomize: Kustomize) -> None:
    found = [*MANIFESTS.rglob("kustomization.yaml"), *(ROOT / "examples").rglob("kustomization.yaml")]
    kinds = {path: yaml.safe_load(path.read_text())["kind"] for path in found}
    assert sorted(kinds.values()).count("Component") == 2
    for path, kind in kinds.items():
        if kind == "Kustomization":
            assert kustomize.documents(path.parent), path
