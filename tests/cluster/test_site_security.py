"""Who may do what on a running site: tokens, keys, tenants, secrets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
from bed_machine import container_id
from cluster_site import wait_for
from control_plane import Refused
from edge_portfolio import MODEL
from edge_site import SYSTEM, EdgeSite
from tritonclient.utils import InferenceServerException

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


def report(site: EdgeSite, pod: str, *, token: str, name: str | None = None) -> None:
    """Write the status of an endpoint with the token of an agent."""
    kubernetes = site.kubernetes
    document = {
        "apiVersion": "edgefolio.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": name or pod},
        "status": {"activeVariant": "forged"},
    }
    path = kubernetes.path("edgefolio.dev/v1alpha1", "ModelEndpoint", name or pod)
    kubernetes.request(
        "PATCH",
        f"{path}/status?fieldManager=forger&force=true&dryRun=All",
        document,
        content_type="application/apply-patch+yaml",
        headers={"Authorization": f"Bearer {token}"},
    )


def test_an_agent_writes_of_its_own_node_only(site: EdgeSite) -> None:
    first, second = (site.pod_on(node)["metadata"]["name"] for node in ("edge-1", "edge-2"))
    token = site.kubernetes.kubectl(
        *("create", "token", "edgefolio-agent", "--bound-object-kind=Pod", f"--bound-object-name={first}")
    ).strip()
    anonymous = site.anonymous()
    report(anonymous, first, token=token)
    with pytest.raises(Refused, match="own pod"):
        report(anonymous, second, token=token)
    with pytest.raises(Refused, match="forbidden"):
        anonymous.kubernetes.request(
            "GET", anonymous.kubernetes.path("v1", "Secret"), headers={"Authorization": f"Bearer {token}"}
        )


def test_control_is_refused_without_the_key(site: EdgeSite) -> None:
    address = site.pod_on("edge-1")["status"]["podIP"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 8000), timeout=10)
    with triton_grpc.InferenceServerClient(f"{address}:8001") as client:
        for call in (client.load_model, client.unload_model):
            with pytest.raises(InferenceServerException, match="restricted"):
                call(MODEL)
    assert site.active("edge-1") == site.most_accurate


def test_no_secret_is_told(site: EdgeSite) -> None:
    inside = Path("/proc", str(site.machine.process_of("edge-1", container_id(site.pod_on("edge-1"), "agent"))), "root")
    key = (inside / "run/edgefolio/key").read_text().strip().split("=")[1]
    secrets = (key, "bed-secret")
    system = site.kubernetes.within(SYSTEM)
    texts = [json.dumps(site.events()), json.dumps(site.portfolio()), json.dumps(site.endpoints())]
    for kubernetes in (site.kubernetes, system):
        for pod in kubernetes.request("GET", kubernetes.path("v1", "Pod"))["items"]:
            texts.append(kubernetes.kubectl("logs", pod["metadata"]["name"], "--all-containers", "--ignore-errors"))
    assert max(map(len, texts)) > 1000
    for secret in secrets:
        assert len(secret) >= 10
        assert not [text for text in texts if secret in text]


@pytest.fixture
def tenant(site: EdgeSite) -> Iterator[EdgeSite]:
    """Another namespace whose portfolio serves on the same nodes."""
    other = EdgeSite(site.kubernetes, site.machine.run, namespace="tenant")
    other.prepare()
    follow = {"source": None, "data": None, "methods": None, "job": None, "rollout": None}
    other.apply(**follow)
    other.wait_ready(seconds=240)
    yield other
    other.kubernetes.within("default").kubectl("delete", "namespace", "tenant", "--timeout=120s")


def test_two_tenants_on_one_node(site: EdgeSite, tenant: EdgeSite) -> None:
    assert set(tenant.endpoints()) == set(site.endpoints()) == {"edge-1", "edge-2"}
    tenant.settle_on(tenant.most_accurate, "edge-1")
    pod = tenant.pod_on("edge-1")["metadata"]["name"]
    tenant.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={tenant.fastest}")
    tenant.settle_on(tenant.fastest, "edge-1")
    assert site.active("edge-1") == site.most_accurate
    # An editor of one namespace, and its agents, see nothing of the other.
    to, user = "--serviceaccount=tenant:somebody", "--as=system:serviceaccount:tenant:somebody"
    tenant.kubernetes.kubectl("create", "rolebinding", "somebody", "--clusterrole=edit", to)
    wait_for(lambda: _may(tenant.kubernetes, user, "tenant"))
    assert not _may(tenant.kubernetes, user, site.namespace)
    token = tenant.kubernetes.kubectl(
        *("create", "token", "edgefolio-agent", "--bound-object-kind=Pod", f"--bound-object-name={pod}")
    ).strip()
    stranger = site.pod_on("edge-1")["metadata"]["name"]
    with pytest.raises(Refused, match="forbidden"):
        report(site.anonymous(), stranger, token=token)


def _may(kubernetes: Any, user: str, namespace: str) -> bool:
    try:
        return kubernetes.kubectl("auth", "can-i", "patch", "mpf", user, "-n", namespace).strip() == "yes"
    except Refused:
        return False
