"""What has its source elsewhere is not stale, and is what its source says."""

from __future__ import annotations

import shlex
from pathlib import Path

import generate_manifests
import pytest
import yaml
from rendering import CHART, ROOT, Chart, Kustomize, named, of_kind

from edgefolio.components import TRITON_IMAGE
from edgefolio.crd import definitions
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.endpoints.adoption_preflight import missing_parts
from edgefolio_operator.resources.pruning_job import Images
from edgefolio_operator.resources.triton_pod import build_pod


def test_generated_manifests_are_not_stale() -> None:
    assert generate_manifests.stale() == [], "run: make manifests"


def test_a_changed_file_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, content in generate_manifests.files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    for path in generate_manifests.sources():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text((ROOT / path).read_text())
    monkeypatch.setattr(generate_manifests, "ROOT", tmp_path)
    assert generate_manifests.stale() == []
    changed = tmp_path / generate_manifests.CHART / "templates" / "crds" / "modelendpoints.edgefolio.dev.yaml"
    changed.write_text(changed.read_text().replace("maximum", "minimum", 1))
    (changed.parent / "modelthings.edgefolio.dev.yaml").write_text("left behind")
    rights = tmp_path / generate_manifests.BASE / "rights.yaml"
    rights.write_text(rights.read_text().replace("list, watch", "list, watch, delete", 1))
    assert {path.name for path in generate_manifests.stale()} == {
        "modelendpoints.edgefolio.dev.yaml",
        "modelthings.edgefolio.dev.yaml",
        "rights.yaml",
    }


def test_the_chart_s_definitions_are_those_of_the_specification(chart: Chart) -> None:
    for definition in (definitions.model_portfolio(), definitions.model_endpoint()):
        rendered = named(chart.documents(), "CustomResourceDefinition", definition["metadata"]["name"])
        assert rendered["spec"] == definition["spec"]


def test_braces_in_a_description_are_no_template(chart: Chart, tmp_path: Path) -> None:
    content = "metadata:\n  name: x.example.com\nspec: {description: 'like {{ this }} or {{- that }}'}\n"
    folder = tmp_path / "edgefolio"
    (folder / "templates").mkdir(parents=True)
    for name in ("Chart.yaml", "templates/_helpers.tpl"):
        (folder / name).write_text((CHART / name).read_text())
    (folder / "values.yaml").write_text("crds: {enabled: true, keep: true}\ncommonLabels: {}\ncommonAnnotations: {}\n")
    (folder / "templates" / "x.yaml").write_text(generate_manifests.chart_definition(content))
    text = chart.run("template", "edgefolio", str(folder), "--kube-version", "1.36.0")
    assert yaml.safe_load(text)["spec"]["description"] == "like {{ this }} or {{- that }}"


def test_an_adopted_pod_is_like_the_operator_s_own(kustomize: Kustomize) -> None:
    """All that the agent needs is as in a managed pod; only what the user must bring stays the user's."""
    documents = kustomize.documents(ROOT / "examples" / "cluster" / "adopt")
    (deployment,) = of_kind(documents, "Deployment")
    adopted = deployment["spec"]["template"]["spec"]
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "a"}}
    spec = {"repository": {"uri": "s3://bucket/path"}, "serving": {"modelName": "m"}}
    agent_image = "ghcr.io/edgefolio/agent:0.1.0"
    images = Images(pruner="", agent=agent_image, triton=TRITON_IMAGE)
    managed = build_pod(ModelPortfolio.model_validate({**head, "spec": spec}), images=images, http=False)

    # The operator's pods make the key in Triton's image, so that it is pulled early; whose image that is, the component
    # cannot know.
    key, own = adopted["initContainers"][0], managed["initContainers"][0]
    assert key["image"] == agent_image
    assert {**key, "image": own["image"]} == own
    agent, own = adopted["initContainers"][1], managed["initContainers"][1]
    assert agent.keys() - own.keys() == {"envFrom"}
    assert all(agent[key] == own[key] for key in own if key != "env")
    # Limits of the owner's Triton are its owner's.
    limits = ("EDGEFOLIO_MEMORY_LIMIT", "EDGEFOLIO_SHARED_MEMORY")
    assert [each for each in agent["env"] if each["name"] not in limits] == [
        each for each in own["env"] if each["name"] not in limits
    ]
    wait, own = adopted["initContainers"][2], managed["initContainers"][2]
    assert {**wait, "image": own["image"]} == own

    (triton,), (other,) = adopted["containers"], managed["containers"]
    # A Service of its owner's may name the port of HTTP.
    assert [port for port in triton["ports"] if port["name"] != "http"] == other["ports"]
    for key in ("name", "image", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"):
        assert triton[key] == other[key], key
    assert words(triton["command"]) == words(other["command"])
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in other["volumeMounts"]}
    assert {mount["mountPath"]: mount.get("readOnly", False) for mount in triton["volumeMounts"]} == mounts

    volumes = {entry["name"]: entry for entry in adopted["volumes"]}
    shared = {mount["name"] for mount in agent["volumeMounts"]}
    assert {name: volumes[name] for name in shared} == {
        entry["name"]: entry for entry in managed["volumes"] if entry["name"] in shared
    }
    for key in (
        "serviceAccountName",
        "automountServiceAccountToken",
        "terminationGracePeriodSeconds",
        "securityContext",
    ):
        assert adopted[key] == managed[key], key


def test_the_operator_misses_nothing_in_an_adopted_pod(kustomize: Kustomize) -> None:
    folder = ROOT / "examples" / "cluster" / "adopt"
    (adopted,) = of_kind(kustomize.documents(folder), "Deployment")
    assert missing_parts(adopted["spec"]["template"]) == ()
    (plain,) = yaml.safe_load_all((folder / "triton.yaml").read_text())
    lacking = " ".join(missing_parts(plain["spec"]["template"]))
    assert all(part in lacking for part in ("edgefolio.dev/endpoint", "agent", "key", "models"))
    assert "at Triton" not in lacking, "the flags are its own"


def words(command: list[str]) -> list[str]:
    """A command as its shell reads it."""
    return shlex.split(" ".join(command).replace("\\\n", " "))
