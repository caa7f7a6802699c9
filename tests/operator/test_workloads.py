"""The pods that serve, and who reaches what in them."""

from __future__ import annotations

from typing import Any

import pytest

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.jobs import Images
from edgefolio_operator.workloads import (
    build_access,
    build_daemon_set,
    build_service,
    service_url,
    serving_key,
)

IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")
OWNER = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "digits", "uid": "u"}


def portfolio(*, repository: dict[str, Any] | None = None, **managed: Any) -> ModelPortfolio:
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {
                "repository": repository or {"uri": "s3://bucket/portfolios"},
                "serving": {"modelName": "fashion", "managed": managed},
            },
        }
    )


def pod(**managed: Any) -> dict[str, Any]:
    built = build_daemon_set(portfolio(**managed), owner=OWNER, images=IMAGES)
    result: dict[str, Any] = built["spec"]["template"]["spec"]
    return result


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in (*spec["initContainers"], *spec["containers"])}


def test_the_selector_finds_the_pods_of_daemon_set_and_service() -> None:
    daemon_set = build_daemon_set(portfolio(), owner=OWNER, images=IMAGES)
    labels = daemon_set["spec"]["template"]["metadata"]["labels"].items()
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= labels
    service = build_service(portfolio(), owner=OWNER)
    assert service["spec"]["selector"].items() <= labels
    ports = {port["name"] for port in containers(pod())["triton"]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert service_url(portfolio()) == "http://digits.models.svc:8000"


def test_every_container_is_restricted() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(spec).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_who_reaches_what() -> None:
    spec = pod(resources={"limits": {"memory": "1Gi"}})
    mounts = {
        name: {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
        for name, container in containers(spec).items()
    }
    assert mounts["key"] == {"key": False}
    assert mounts["agent"]["key"] is True
    assert mounts["triton"]["key"] is True
    assert mounts["triton"]["models"] is True, "Triton cannot write models"
    assert "token" in mounts["agent"]
    assert "token" not in mounts["triton"], "Triton has no business with the API"
    assert spec["automountServiceAccountToken"] is False
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {name for mounted in mounts.values() for name in mounted} == volumes
    environment = {entry["name"]: entry.get("value") for entry in containers(spec)["agent"]["env"]}
    assert environment["EDGEFOLIO_MEMORY_LIMIT"] == str(2**30)


def test_control_is_closed_on_both_protocols_and_the_agent_is_a_sidecar() -> None:
    script = containers(pod())["triton"]["command"][-1]
    for option in ("--grpc-restricted-protocol=", "--http-restricted-api="):
        (line,) = (line for line in script.splitlines() if option in line)
        assert "model-repository,model-config,shared-memory,trace,logging:$key" in line
    assert containers(pod())["agent"]["restartPolicy"] == "Always"


def test_settings_reach_the_pod() -> None:
    repository = {"uri": "s3://bucket/portfolios", "secretRef": {"name": "s3"}}
    given = portfolio(
        repository=repository,
        image="own/triton:2",
        agentImage="own/agent:2",
        imagePullPolicy="Never",
        nodeSelector={"class": "edge"},
        tolerations=[{"key": "edge", "operator": "Exists"}],
        storage={"sizeLimit": "512Mi"},
    )
    spec = build_daemon_set(given, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]
    found = containers(spec)
    assert (found["triton"]["image"], found["agent"]["image"], found["key"]["image"]) == (
        "own/triton:2",
        "own/agent:2",
        "own/agent:2",
    )
    assert {container["imagePullPolicy"] for container in found.values()} == {"Never"}
    assert spec["nodeSelector"] == {"class": "edge"}
    assert spec["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert found["agent"]["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert "envFrom" not in found["triton"]
    (models,) = (volume for volume in spec["volumes"] if volume["name"] == "models")
    assert models["emptyDir"] == {"sizeLimit": "512Mi"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"imagePullPolicy": "IfNotPresent"}, True, id="a default written out"),
        pytest.param({"image": "own/triton:2"}, False, id="image"),
        pytest.param({"repository": {"uri": "s3://bucket/portfolios", "secretRef": {"name": "s"}}}, False, id="secret"),
    ],
)
def test_when_pods_are_made_anew(change: dict[str, Any], same: bool) -> None:
    assert (serving_key(portfolio(**change)) == serving_key(portfolio())) is same


def test_agents_are_bound_to_their_own_role() -> None:
    account, binding = build_access(portfolio())
    assert account["metadata"]["namespace"] == "models"
    assert binding["roleRef"]["name"] == account["metadata"]["name"] == "edgefolio-agent"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "edgefolio-agent", "namespace": "models"}]
