"""The pods that serve, and who reaches what in them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from edgefolio.contract.pod import claim_mount
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.daemonset import (
    build_access,
    build_daemon_set,
    build_service,
    service_url,
    serving_key,
)
from edgefolio_operator.resources.pruning_job import Images

IMAGES = Images(pruner="example.com/pruner:1", agent="example.com/agent:1", triton="example.com/triton:1")
OWNER = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "digits", "uid": "u"}


def portfolio(*, repository: dict[str, Any] | None = None, http: str | None = None, **managed: Any) -> ModelPortfolio:
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {
                "repository": repository or {"uri": "s3://bucket/portfolios"},
                "serving": {"modelName": "fashion", "managed": managed, **({} if http is None else {"http": http})},
            },
        }
    )


def pod(*, http: str | None = None, **managed: Any) -> dict[str, Any]:
    built = build_daemon_set(portfolio(http=http, **managed), owner=OWNER, images=IMAGES)
    result: dict[str, Any] = built["spec"]["template"]["spec"]
    return result


def environment(spec: dict[str, Any]) -> dict[str, str | None]:
    return {entry["name"]: entry.get("value") for entry in containers(spec)["agent"]["env"]}


def command(probe: dict[str, Any]) -> str:
    shell, option, text = probe["exec"]["command"]
    assert (shell, option) == ("/bin/sh", "-c")
    return str(text)


def mount_path(container: dict[str, Any], name: str) -> str:
    (mount,) = (entry for entry in container["volumeMounts"] if entry["name"] == name)
    return str(mount["mountPath"])


def containers(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in (*spec["initContainers"], *spec["containers"])}


def test_the_selector_finds_the_pods_of_daemon_set_and_service() -> None:
    daemon_set = build_daemon_set(portfolio(), owner=OWNER, images=IMAGES)
    labels = daemon_set["spec"]["template"]["metadata"]["labels"].items()
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= labels
    service = build_service(portfolio(), owner=OWNER, server_version=ServerVersion())
    assert service["spec"]["selector"].items() <= labels
    ports = {port["name"] for port in containers(pod())["triton"]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert service_url(portfolio()) == "grpc://digits.models.svc:8001"


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
    assert mounts["triton"]["health"] is mounts["agent"]["health"] is False
    assert "token" in mounts["agent"]
    assert "token" not in mounts["triton"], "Triton has no business with the API"
    assert spec["automountServiceAccountToken"] is False
    volumes = {volume["name"] for volume in spec["volumes"]}
    assert {name for mounted in mounts.values() for name in mounted} == volumes
    assert environment(spec)["EDGEFOLIO_MEMORY_LIMIT"] == str(2**30)


def test_control_is_closed_on_both_protocols_and_the_agent_is_a_sidecar() -> None:
    script = containers(pod(http="Enabled"))["triton"]["command"][-1]
    for option in ("--grpc-restricted-protocol=", "--http-restricted-api="):
        (line,) = (line for line in script.splitlines() if option in line)
        assert "model-repository,model-config,shared-memory,trace,logging:$key" in line
    assert containers(pod())["agent"]["restartPolicy"] == "Always"


def secrets(spec: dict[str, Any]) -> set[str]:
    """The Secrets that the pod sees, as files or as variables."""
    files = {volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
    variables = {
        source["secretRef"]["name"] for each in containers(spec).values() for source in each.get("envFrom") or ()
    }
    assert files == variables
    return files


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
        "own/triton:2",
    )
    assert {container["imagePullPolicy"] for container in found.values()} == {"Never"}
    assert spec["nodeSelector"] == {"class": "edge"}
    assert spec["tolerations"] == [{"key": "edge", "operator": "Exists"}]
    assert secrets(spec) == {"s3"}
    assert "envFrom" not in found["triton"]
    assert {mount["name"] for mount in found["triton"]["volumeMounts"]} & {"credentials"} == set()
    assert environment(spec)["EDGEFOLIO_CREDENTIALS"] == mount_path(found["agent"], "credentials")
    (models,) = (volume for volume in spec["volumes"] if volume["name"] == "models")
    assert models["emptyDir"] == {"sizeLimit": "512Mi"}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({}, True, id="nothing"),
        pytest.param({"imagePullPolicy": "IfNotPresent"}, True, id="a default written out"),
        pytest.param({"image": "own/triton:2"}, False, id="image"),
        pytest.param({"repository": {"uri": "s3://bucket/portfolios", "secretRef": {"name": "s"}}}, False, id="secret"),
        pytest.param({"http": "Enabled"}, False, id="HTTP"),
        pytest.param({"http": "Disabled"}, False, id="no HTTP, said"),
        pytest.param({"sharedMemory": "1Gi"}, False, id="shared memory"),
    ],
)
def test_when_pods_are_made_anew(change: dict[str, Any], same: bool) -> None:
    assert (serving_key(portfolio(**change)) == serving_key(portfolio())) is same


def test_a_repository_on_a_claim_is_mounted_where_the_agent_looks_and_makes_pods_anew() -> None:
    given = portfolio(repository={"uri": "pvc://store/portfolios"})
    assert serving_key(given) != serving_key(portfolio())
    spec = build_daemon_set(given, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]
    agent = containers(spec)["agent"]
    (mount,) = (entry for entry in agent["volumeMounts"] if entry["name"] == "repository")
    assert (mount["mountPath"], mount["readOnly"]) == (claim_mount("store"), True)
    assert {"name": "repository", "persistentVolumeClaim": {"claimName": "store"}} in spec["volumes"]
    assert "repository" not in {entry["name"] for entry in containers(spec)["triton"]["volumeMounts"]}


def test_threads_reach_the_agent_and_make_pods_anew() -> None:
    document = portfolio().model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["serving"]["threads"] = 2
    given = ModelPortfolio.model_validate(document)
    assert serving_key(given) != serving_key(portfolio())
    spec = build_daemon_set(given, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]
    assert environment(spec)["EDGEFOLIO_THREADS"] == "2"


@pytest.mark.parametrize(
    ("cpu", "threads"), [("1", "1"), ("500m", "1"), ("1500m", "2"), ("2.5", "3"), ("4", "4"), ("64", "4"), (None, "4")]
)
def test_a_limit_bounds_threads(cpu: str | None, threads: str) -> None:
    document = portfolio().model_dump(mode="json", by_alias=True, exclude_none=True)
    document["spec"]["serving"]["threads"] = 4
    if cpu is not None:
        document["spec"]["serving"]["managed"]["resources"]["limits"] = {"cpu": cpu}
    given = ModelPortfolio.model_validate(document)
    spec = build_daemon_set(given, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]
    assert environment(spec)["EDGEFOLIO_THREADS"] == threads


@pytest.mark.parametrize(
    ("version", "traffic"),
    [
        pytest.param({"major": "1", "minor": "34"}, {"internalTrafficPolicy": "Local"}, id="1.34"),
        pytest.param({"major": "1", "minor": "35+"}, {"trafficDistribution": "PreferSameNode"}, id="1.35 of a cloud"),
        pytest.param({"major": "1", "minor": "36"}, {"trafficDistribution": "PreferSameNode"}, id="1.36"),
        pytest.param({"major": "2", "minor": "0"}, {"trafficDistribution": "PreferSameNode"}, id="2.0"),
        pytest.param({}, {"internalTrafficPolicy": "Local"}, id="unknown"),
        pytest.param({"major": "", "minor": "x"}, {"internalTrafficPolicy": "Local"}, id="nonsense"),
    ],
)
def test_clients_are_answered_by_their_own_node(version: dict[str, str], traffic: dict[str, str]) -> None:
    spec = build_service(portfolio(), owner=OWNER, server_version=ServerVersion.of(version))["spec"]
    fields = {"internalTrafficPolicy", "trafficDistribution"}
    assert {name: value for name, value in spec.items() if name in fields} == traffic


def test_probes_look_for_what_the_agent_writes_and_need_no_agent() -> None:
    spec = pod()
    triton, agent = containers(spec)["triton"], containers(spec)["agent"]
    assert environment(spec)["EDGEFOLIO_HEALTH"] == mount_path(triton, "health") == mount_path(agent, "health")
    assert command(triton["readinessProbe"]) == "[ -e /run/edgefolio-health/serving ]"
    assert command(triton["livenessProbe"]) == "[ ! -e /run/edgefolio-health/restart ]"
    assert triton["startupProbe"]["grpc"] == {"port": 8001}, "whether or not HTTP is served"
    wait = containers(spec)["wait"]["command"][-1]
    assert "until [ -e /run/edgefolio-health/synced ]" in wait, "a first pruning run takes hours"
    assert list(containers(spec)) == ["key", "agent", "wait", "triton"]
    assert triton["command"][-1].startswith("rm -f /run/edgefolio-health/serving /run/edgefolio-health/restart\n")
    probes = {"livenessProbe", "readinessProbe", "startupProbe"}
    assert not probes & set(agent), "a silent agent is no reason to end anything"


def test_the_end_of_a_pod_leaves_time_for_clients_and_requests() -> None:
    spec = pod()
    triton = containers(spec)["triton"]
    script = command(triton["lifecycle"]["preStop"])
    (drain,) = map(int, re.findall(r"^sleep (\d+)$", script, re.MULTILINE))
    (late,) = map(int, re.findall(r"-lt (\d+)", script))
    assert drain + late < spec["terminationGracePeriodSeconds"]
    assert "@" not in script
    # Triton varies the age of a connection by a tenth: all of them end, and go elsewhere, before it does.
    (milliseconds,) = re.findall(r"--grpc-max-connection-age=(\d+)", triton["command"][-1])
    assert 1.1 * int(milliseconds) / 1000 < drain


def test_limits_of_storage_and_speed_reach_the_agent() -> None:
    assert environment(pod())["EDGEFOLIO_STORAGE_LIMIT"] == str(2 * 2**30)
    assert "EDGEFOLIO_BYTES_PER_SECOND" not in environment(pod())
    given = environment(pod(storage={"sizeLimit": "64Mi", "maxBytesPerSecond": 4096}))
    assert (given["EDGEFOLIO_STORAGE_LIMIT"], given["EDGEFOLIO_BYTES_PER_SECOND"]) == (str(64 * 2**20), "4096")


def test_a_memory_limit_may_have_any_suffix_of_kubernetes() -> None:
    assert environment(pod(resources={"limits": {"memory": "134217728000m"}}))["EDGEFOLIO_MEMORY_LIMIT"] == str(2**27)


def test_an_agent_asks_for_what_it_takes_and_never_for_more_than_its_limit() -> None:
    assert containers(pod())["agent"]["resources"]["requests"] == {"cpu": "25m", "memory": "128Mi"}
    assert containers(pod())["agent"]["resources"]["limits"] == {"memory": "512Mi"}
    asked = containers(pod(agentResources={"requests": {"memory": "1Gi"}}))["agent"]["resources"]
    assert asked == {"requests": {"cpu": "25m", "memory": "1Gi"}}
    given = pod(agentResources={"limits": {"memory": "64Mi"}, "requests": {"cpu": "1"}})
    found = containers(given)["agent"]["resources"]
    assert found == {"requests": {"cpu": "1", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}


def test_agents_are_bound_to_their_own_role() -> None:
    account, binding = build_access(portfolio())
    assert account["metadata"]["namespace"] == "models"
    assert binding["roleRef"]["name"] == account["metadata"]["name"] == "edgefolio-agent"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "edgefolio-agent", "namespace": "models"}]
