"""An operator that looks after one namespace, with Roles alone: no right outside it, not even to read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from cluster_site import Operator, Site, wait_for

RIGHTS = Path(__file__).parents[2] / "manifests" / "base" / "rights.yaml"
AGENTS = Path(__file__).parents[2] / "manifests" / "base" / "agents.yaml"
ACCOUNT = "edgefolio-operator"
#: What belongs to no namespace, so that no Role can give it.
CLUSTER_SCOPED = {"nodes", "namespaces"}


def roles(namespace: str) -> list[dict[str, Any]]:
    """The rights of manifests/base as Roles of one namespace."""
    documents = list(yaml.safe_load_all(RIGHTS.read_text()))
    (everywhere,) = (
        entry for entry in documents if entry["kind"] == "ClusterRole" and entry["metadata"]["name"] == ACCOUNT
    )
    (own,) = (entry for entry in documents if entry["kind"] == "Role")
    rules = []
    for rule in copy.deepcopy([*everywhere["rules"], *own["rules"]]):
        rule["resources"] = [name for name in rule["resources"] if name not in CLUSTER_SCOPED]
        rules += [rule] if rule["resources"] else []
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": ACCOUNT, "namespace": namespace}}
    return [
        {**head, "kind": "Role", "rules": rules},
        {
            **head,
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        },
    ]


def entered_as_the_account(namespace: Any, folder: Path) -> Path:
    """A kubeconfig with a token of the operator's service account."""
    namespace.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}})
    for document in roles(namespace.namespace):
        namespace.apply(document)
    for document in yaml.safe_load_all(AGENTS.read_text()):
        if document["kind"] == "ClusterRole":
            namespace.kubectl("apply", "--server-side", "-f", "-", stdin=document)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    path = namespace.path("v1", "ServiceAccount", ACCOUNT) + "/token"
    token = namespace.request("POST", path, asked)["status"]["token"]
    document = yaml.safe_load(namespace.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": token}
    found = folder / "kubeconfig"
    found.write_text(yaml.safe_dump(document))
    return found


def test_one_namespace_with_roles_alone(namespace: Any, start: Callable[..., Operator], tmp_path: Path) -> None:
    operator = start(
        kubeconfig=entered_as_the_account(namespace, tmp_path),
        environment={"EDGEFOLIO_NAMESPACES": namespace.namespace},
    )
    site = Site(namespace)
    other = namespace.within(f"{namespace.namespace}-other")
    other.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other.namespace}})
    elsewhere = Site(other, nodes=0)
    elsewhere.portfolio()
    try:
        override = {"name": "x", "nodeSelector": {"class": "slow"}, "objectives": {"latencyP95Milliseconds": 50}}
        site.served(objectiveOverrides=[override])
        # It says what it cannot see, and what that means.
        assert site.condition("NodeMetricsAvailable") == ("False", "SourceUnavailable")
        assert "reads neither nodes nor namespaces" in site.message("NodeMetricsAvailable")
        assert site.condition("ObjectivesAccepted") == ("False", "ObjectiveIgnored")
        assert "spec.objectiveOverrides" in site.message("ObjectivesAccepted")
        # A node's annotation is not seen, the pod's is.
        key = "slo.edgefolio.dev/latency-p95-ms"
        namespace.kubectl("annotate", "node", site.nodes[0], f"{key}=5")
        namespace.kubectl("annotate", "pod", f"digits-{site.nodes[1]}", f"{key}=5")
        wait_for(lambda: site.target(1) == "small")
        assert site.target(0) == "dense"
        # Switches, adoption and deletion work as ever.
        site.report(0, slowdown=4.0)
        wait_for(lambda: site.target(0) == "small")
        namespace.kubectl("delete", "mpf/digits")
        wait_for(lambda: not namespace.kubectl("get", "mep", "-o", "name").strip())
        # The other namespace is nobody's here.
        assert elsewhere.get()["status"]["observedGeneration"] == 0
        assert operator.end() == 0
        log = operator.log.read_text()
        assert "forbidden" not in log.lower()
        assert '"level": "error"' not in log
    finally:
        other.request("DELETE", other.path("edgefolio.dev/v1alpha1", "ModelPortfolio"))
