"""What clients and thieves reach of a pod: HTTP, credentials, and what it may take of its node."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError
from test_workloads import IMAGES, OWNER, containers, environment, pod, portfolio, secrets

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.daemonset import build_daemon_set, build_service, service_url, serving_key
from edgefolio_operator.resources.pruning_job import build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job, build_reclaim_job


def test_nodes_get_the_credentials_that_only_read() -> None:
    repository = {"uri": "s3://b/p", "secretRef": {"name": "publisher"}, "readSecretRef": {"name": "reader"}}
    given = portfolio(repository=repository)
    spec = build_daemon_set(given, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]
    assert secrets(spec) == {"reader"}
    check = build_check_job(given, name="check", key="k", owner=OWNER, images=IMAGES)
    assert "publisher" not in str(check)
    assert "reader" in str(check)
    reclaim = build_reclaim_job(given, uid="u", images=IMAGES)
    assert "publisher" in str(reclaim)
    assert "reader" not in str(reclaim)
    alone = portfolio(repository={"uri": "s3://b/p", "readSecretRef": {"name": "reader"}})
    assert secrets(build_daemon_set(alone, owner=OWNER, images=IMAGES)["spec"]["template"]["spec"]) == {"reader"}


def test_a_pod_starts_without_its_secret_and_its_agent_says_what_is_missing() -> None:
    spec = build_daemon_set(
        portfolio(repository={"uri": "s3://b/p", "secretRef": {"name": "s"}}), owner=OWNER, images=IMAGES
    )["spec"]["template"]["spec"]
    (volume,) = (volume for volume in spec["volumes"] if "secret" in volume)
    assert volume["secret"]["optional"] is True
    assert all(source["secretRef"]["optional"] for source in containers(spec)["agent"]["envFrom"])


def ports_of(given: ModelPortfolio, stored: dict[str, Any] | None = None) -> tuple[set[str], set[str], str]:
    """Ports of Triton and of the Service, and Triton's command."""
    daemon_set = build_daemon_set(given, owner=OWNER, images=IMAGES, stored=stored)
    triton = containers(daemon_set["spec"]["template"]["spec"])["triton"]
    service = build_service(given, owner=OWNER, server_version=ServerVersion(), stored=stored)
    names = {port["name"] for port in service["spec"]["ports"]}
    return {port["name"] for port in triton["ports"]}, names, triton["command"][-1]


@pytest.mark.parametrize("http", [None, "Disabled"])
def test_new_pods_serve_no_http(http: str | None) -> None:
    ports, service, command_line = ports_of(portfolio(http=http))
    assert (ports, service) == ({"grpc", "metrics"}, {"grpc"})
    assert "--allow-http=false" in command_line
    assert "--http-" not in command_line


def test_http_is_served_where_it_is_asked_for() -> None:
    ports, service, command_line = ports_of(portfolio(http="Enabled"))
    assert (ports, service) == ({"http", "grpc", "metrics"}, {"http", "grpc"})
    assert "--allow-http" not in command_line
    assert service_url(portfolio(http="Enabled")) == "http://digits.models.svc:8000"


def test_an_upgrade_takes_no_clients_port_away() -> None:
    """Pods of before the choice served HTTP: it stays, also where something else of theirs is changed."""
    stored = build_daemon_set(portfolio(http="Enabled"), owner=OWNER, images=IMAGES)
    spec = stored["spec"]["template"]["spec"]
    spec["initContainers"] = [each for each in spec["initContainers"] if each["name"] != "wait"]
    for _ in range(3):
        ports, service, _ = ports_of(portfolio(), stored)
        assert "http" in ports & service
        assert service_url(portfolio(), stored=stored) == "http://digits.models.svc:8000"
        stored = build_daemon_set(portfolio(image="own/triton:2"), owner=OWNER, images=IMAGES, stored=stored)
    ports, service, _ = ports_of(portfolio(http="Disabled"), stored)
    assert "http" not in ports | service
    without = build_daemon_set(portfolio(http="Disabled"), owner=OWNER, images=IMAGES, stored=stored)
    assert "http" not in ports_of(portfolio(), without)[0]


def test_who_takes_back_that_http_is_enabled_has_none() -> None:
    stored = build_daemon_set(portfolio(http="Enabled"), owner=OWNER, images=IMAGES)
    assert serving_key(portfolio(http="Enabled")) != serving_key(portfolio())
    ports, service, _ = ports_of(portfolio(), stored)
    assert "http" not in ports | service


@pytest.mark.parametrize(
    ("managed", "mebibytes"),
    [
        ({}, 512),
        ({"resources": {"limits": {"memory": "1Gi"}}}, 256),
        ({"resources": {"limits": {"memory": "128Mi"}}}, 64),
        ({"sharedMemory": "96Mi", "resources": {"limits": {"memory": "1Gi"}}}, 96),
    ],
)
def test_shared_memory_is_a_part_of_the_memory_limit(managed: dict[str, Any], mebibytes: int) -> None:
    spec = pod(**managed)
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "shared-memory")
    assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": str(mebibytes << 20)}
    assert environment(spec)["EDGEFOLIO_SHARED_MEMORY"] == str(mebibytes << 20)


def test_every_volume_that_a_pod_writes_to_is_bounded() -> None:
    spec = pod()
    scratch = [volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume]
    assert len(scratch) >= 7
    assert all("sizeLimit" in volume for volume in scratch)
    assert spec["shareProcessNamespace"] is False


def test_models_and_orders_can_outlive_the_pod() -> None:
    spec = pod(storage={"hostPath": "/var/lib/edgefolio/digits"})
    kept = {volume["name"]: volume["hostPath"] for volume in spec["volumes"] if "hostPath" in volume}
    assert kept == {
        name: {"path": f"/var/lib/edgefolio/digits/{name}", "type": "Directory"} for name in ("models", "state")
    }
    assert "hostPath" not in str(pod())


@pytest.mark.parametrize("path", ["relative", "/", "/a/../etc", "/..", "/a/", "/a//b", "", "/a b", "/.ssh"])
def test_a_directory_of_the_node_is_named_without_steps_back(path: str) -> None:
    with pytest.raises(ValidationError):
        portfolio(storage={"hostPath": path})


def test_an_older_pruner_is_not_told_of_fields_that_only_endpoints_need() -> None:
    repository = {"uri": "s3://b/p", "secretRef": {"name": "publisher"}, "readSecretRef": {"name": "reader"}}
    given = portfolio(repository=repository, http="Disabled", sharedMemory="1Gi")
    (text,) = build_specification(given, key="k", owner=OWNER)["data"].values()
    spec = json.loads(text)["spec"]
    assert spec["serving"] == {"modelName": "fashion"}
    assert spec["repository"] == {"uri": "s3://b/p", "secretRef": {"name": "publisher"}}
