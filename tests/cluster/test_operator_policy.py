"""A stolen token of the operator, on a real API server: its own work passes, every attempt beyond it is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import wait_for
from control_plane import Kubernetes, Refused
from policy_attempts import LOOSE, OTHERS, Change, Object, pod_of

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator import labels
from edgefolio_operator.kube.objects import owner_reference
from edgefolio_operator.kube.server_version import ServerVersion
from edgefolio_operator.resources.daemonset import build_access, build_daemon_set, build_service
from edgefolio_operator.resources.pruning_job import Images, build_job, build_specification
from edgefolio_operator.resources.repository_jobs import build_check_job, build_reclaim_job

BASE = Path(__file__).parents[2] / "manifests" / "base"
FOLLOWING, MAKING, ENDPOINT = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())["bases"]
IMAGES = Images(pruner="pruner:1", agent="agent:1", triton="triton:1")
OPERATOR = {
    "Impersonate-User": "system:serviceaccount:edgefolio-system:edgefolio-operator",
    "Impersonate-Group": "system:serviceaccounts",
}
KEY = "0" * 16


class Thief:
    """Whoever has the operator's token."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self.kubernetes = kubernetes

    def apply(self, document: Object, *, subresource: str = "", dry_run: bool = False) -> Object:
        """Server-side apply, as the operator writes."""
        return self.kubernetes.apply(
            document, subresource=subresource, manager=labels.MANAGER, headers=OPERATOR, dry_run=dry_run
        )

    def create(self, document: Object) -> Object:
        path = self.kubernetes.path(document["apiVersion"], document["kind"])
        return self.kubernetes.request("POST", path, document, headers=OPERATOR)

    def merge(self, version: str, kind: str, name: str, patch: Object) -> Object:
        return self.kubernetes.request(
            "PATCH",
            self.kubernetes.path(version, kind, name),
            patch,
            content_type="application/merge-patch+json",
            headers=OPERATOR,
        )

    def delete(self, version: str, kind: str, name: str) -> Object:
        return self.kubernetes.request("DELETE", self.kubernetes.path(version, kind, name), headers=OPERATOR)


@pytest.fixture(scope="module")
def installed(api_server: Kubernetes) -> Kubernetes:
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(BASE))
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}

    def is_enforced() -> bool:
        try:
            Thief(api_server).apply(probe, dry_run=True)
        except Refused as refusal:
            return "carry its label" in str(refusal)
        return False

    # The API server reads a new policy with a delay of its own.
    wait_for(is_enforced)
    return api_server


@pytest.fixture
def thief(installed: Kubernetes, namespace: Kubernetes) -> Thief:
    """In a namespace with a portfolio, a pod that serves it, and things of others."""
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    namespace.apply({**head, "spec": MAKING}, manager="user")
    for document in foreign():
        namespace.apply(copy.deepcopy(document))
    return Thief(namespace)


def foreign() -> list[Object]:
    """What others have in the namespace."""
    run = {"containers": [{"name": "web", "image": "web:1"}]}
    pod = {"metadata": {"labels": {"app": "web"}}, "spec": run}
    job = {"metadata": pod["metadata"], "spec": {**run, "restartPolicy": "Never"}}
    ports = [{"port": 80}]
    meta: Object = {"metadata": {"name": "web"}}
    subjects = [{"kind": "ServiceAccount", "name": "web", "namespace": "default"}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edgefolio-agent"}
    selected = {"selector": {"matchLabels": {"app": "web"}}, "template": pod}
    return [
        {"apiVersion": "v1", "kind": "Service", **meta, "spec": {"selector": {"app": "web"}, "ports": ports}},
        {"apiVersion": "v1", "kind": "ConfigMap", **meta, "data": {"a": "b"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", **meta},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", **meta, "spec": selected},
        {"apiVersion": "batch/v1", "kind": "Job", **meta, "spec": {"template": job}},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            **meta,
            "roleRef": role,
            "subjects": subjects,
        },
    ]


def portfolio_of(kubernetes: Kubernetes) -> tuple[ModelPortfolio, Object]:
    """The portfolio of the namespace, and the reference to it as owner."""
    stored = kubernetes.request("GET", kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits"))
    return ModelPortfolio.model_validate({**stored, "status": None}), owner_reference(stored)


def own(kubernetes: Kubernetes) -> dict[str, Object]:
    """What the operator makes of the portfolio, by a name for each."""
    portfolio, owner = portfolio_of(kubernetes)
    account, binding = build_access(portfolio)
    return {
        "specification": build_specification(portfolio, key=KEY, owner=owner),
        "making": build_job(portfolio, key=KEY, owner=owner, images=IMAGES),
        "pieces": build_job(portfolio, key=KEY, owner=owner, images=IMAGES, pieces=3),
        "check": build_check_job(portfolio, name="digits-check-0", key=KEY, owner=owner, images=IMAGES),
        "reclaim": build_reclaim_job(portfolio, uid="u", images=IMAGES),
        "daemon set": build_daemon_set(portfolio, owner=owner, images=IMAGES),
        "service": build_service(portfolio, owner=owner, server_version=ServerVersion()),
        "account": account,
        "binding": binding,
        "endpoint": endpoint(pod="digits-abcde"),
    }


def endpoint(*, pod: str) -> Object:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "u", "controller": True, "blockOwnerDeletion": True}
    carried = labels.object_labels("digits", component=labels.ENDPOINT_COMPONENT)
    metadata = {"name": pod, "labels": carried, "ownerReferences": [owner]}
    spec = {**ENDPOINT, "podName": pod}
    return {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": metadata, "spec": spec}


def event(namespace: str, **about: Any) -> Object:
    involved = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "digits", "uid": "u"}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "digits.0"},
        "involvedObject": {**involved, "namespace": namespace, **about},
        "type": "Normal",
        "reason": "Test",
        "message": "test",
        "source": {"component": labels.MANAGER},
    }


def test_what_the_operator_writes_passes(thief: Thief) -> None:
    documents = own(thief.kubernetes)
    for document in documents.values():
        thief.apply(document)
        # Once more is an update.
        thief.apply(document)
    thief.create(event(thief.kubernetes.namespace))
    suspended = {"spec": {"suspend": True}}
    thief.merge("batch/v1", "Job", documents["making"]["metadata"]["name"], suspended)
    for finalizers in ([labels.FINALIZER], []):
        thief.merge("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits", {"metadata": {"finalizers": finalizers}})
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "metadata": {"name": "digits"}}
    thief.apply({**head, "status": {"observedGeneration": 1}}, subresource="status")
    for name in ("making", "daemon set", "endpoint"):
        document = documents[name]
        thief.delete(document["apiVersion"], document["kind"], document["metadata"]["name"])


def test_what_others_changed_in_its_objects_is_set_right(thief: Thief) -> None:
    """A label that was taken off, fields and labels that others added, a Service that others opened."""
    documents = own(thief.kubernetes)
    for name in ("service", "daemon set", "account"):
        thief.apply(documents[name])
    kubernetes = thief.kubernetes
    kubernetes.kubectl("label", "service/digits", "app.kubernetes.io/managed-by-", "team=edge")
    kubernetes.kubectl("patch", "service/digits", "-p", '{"spec": {"type": "NodePort", "externalIPs": ["192.0.2.1"]}}')
    kubernetes.kubectl("patch", "service/digits", "-p", '{"spec": {"selector": {"app": "web"}}}')
    kubernetes.kubectl("label", "daemonset/digits", "team=edge")
    others = {"labels": {"team": "edge"}, "annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}
    kubernetes.kubectl("patch", "daemonset/digits", "-p", json.dumps({"spec": {"template": {"metadata": others}}}))
    pod_of(documents["daemon set"])["terminationGracePeriodSeconds"] = 99
    for name in ("service", "daemon set"):
        thief.apply(documents[name])
    found = kubernetes.request("GET", kubernetes.path("v1", "Service", "digits"))
    assert found["metadata"]["labels"][labels.MANAGED_BY_LABEL] == labels.MANAGER
    assert found["metadata"]["labels"]["team"] == "edge"
    assert found["spec"]["type"] == "NodePort"
    template = kubernetes.request("GET", kubernetes.path("apps/v1", "DaemonSet", "digits"))["spec"]["template"]
    assert template["spec"]["terminationGracePeriodSeconds"] == 99
    assert template["metadata"]["labels"]["team"] == "edge"


def test_it_may_look_at_what_others_made_of_its_objects(thief: Thief) -> None:
    """A write that changes nothing is how the operator reads what it then sets right."""
    documents = own(thief.kubernetes)
    changes = {
        "service": {"spec": {"selector": {"app": "web"}}, "metadata": {"ownerReferences": None}},
        "daemon set": {"spec": {"template": {"spec": {"hostNetwork": True}}}},
        "account": {"automountServiceAccountToken": True},
        "binding": {"subjects": []},
    }
    for name, change in changes.items():
        document = documents[name]
        version, kind, called = document["apiVersion"], document["kind"], document["metadata"]["name"]
        thief.apply(document)
        kubernetes = thief.kubernetes
        path = kubernetes.path(version, kind, called)
        kubernetes.request("PATCH", path, change, content_type="application/merge-patch+json")
        thief.merge(version, kind, called, {})
        found = thief.apply(document)
        assert found["metadata"]["name"] == called
    # It cannot make more of what others made.
    added = {"subjects": [{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}]}
    with pytest.raises(Refused, match="binds the role"):
        thief.merge("rbac.authorization.k8s.io/v1", "RoleBinding", "edgefolio-agent", added)


@pytest.mark.parametrize("kind", ["making", "check", "daemon set"])
@pytest.mark.parametrize("change", LOOSE.values(), ids=LOOSE.keys())
def test_no_pod_is_more_than_the_operators_own(thief: Thief, kind: str, change: Change) -> None:
    document = own(thief.kubernetes)[kind]
    change(document)
    with pytest.raises(Refused, match="edgefolio-operator-own-objects"):
        thief.apply(document, dry_run=True)


@pytest.mark.parametrize(("kind", "change"), OTHERS.values(), ids=OTHERS.keys())
def test_nothing_else_is_more_than_its_own(thief: Thief, kind: str, change: Change) -> None:
    document = own(thief.kubernetes)[kind]
    change(document)
    with pytest.raises(Refused, match="edgefolio-operator-own-objects"):
        thief.apply(document, dry_run=True)


@pytest.mark.parametrize("document", foreign(), ids=lambda document: document["kind"])
def test_nothing_of_others_is_taken_over(thief: Thief, document: Object) -> None:
    """Neither changed, nor given the operator's label, nor deleted."""
    version, kind = document["apiVersion"], document["kind"]
    mine = {labels.MANAGED_BY_LABEL: labels.MANAGER}
    _, owner = portfolio_of(thief.kubernetes)
    for metadata in ({"annotations": {"a": "b"}}, {"labels": mine}, {"labels": mine, "ownerReferences": [owner]}):
        with pytest.raises(Refused, match="carry its label"):
            thief.merge(version, kind, "web", {"metadata": metadata})
    if kind in ("DaemonSet", "Job"):
        with pytest.raises(Refused, match="carry its label"):
            thief.delete(version, kind, "web")
    else:
        with pytest.raises(Refused, match="cannot delete resource"):
            thief.delete(version, kind, "web")


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"job": {"image": "evil:1"}}},
        {"metadata": {"annotations": {"edgefolio.dev/make-requested": "now"}}},
        {"metadata": {"labels": {"team": "thieves"}}},
        {"metadata": {"finalizers": ["example.com/never"]}},
        {"metadata": {"finalizers": [labels.FINALIZER, "example.com/never"]}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "u"}]}},
    ],
    ids=lambda patch: str(patch)[:60],
)
def test_a_portfolio_is_its_users(thief: Thief, patch: Object) -> None:
    with pytest.raises(Refused, match="the status and its own finalizer alone"):
        thief.merge("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits", patch)


def test_a_finalizer_of_others_stays(thief: Thief) -> None:
    kubernetes = thief.kubernetes
    others = {"metadata": {"finalizers": ["example.com/other"]}}
    path = kubernetes.path("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits")
    kubernetes.request("PATCH", path, others, content_type="application/merge-patch+json")
    try:
        both = {"metadata": {"finalizers": ["example.com/other", labels.FINALIZER]}}
        thief.merge("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits", both)
        with pytest.raises(Refused, match="its own finalizer alone"):
            thief.merge("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits", {"metadata": {"finalizers": None}})
        thief.merge("edgefolio.dev/v1alpha1", "ModelPortfolio", "digits", others)
    finally:
        kubernetes.request(
            "PATCH", path, {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json"
        )


@pytest.mark.parametrize(
    "document",
    [
        event("default", apiVersion="v1", kind="Node", name="edge-1"),
        event("default", apiVersion="apps/v1", kind="Deployment"),
        {**event("default"), "source": {"component": "kubelet"}},
    ],
    ids=["of a node", "of others", "in the name of others"],
)
def test_events_are_its_own(thief: Thief, document: Object) -> None:
    document = copy.deepcopy(document)
    document["involvedObject"]["namespace"] = thief.kubernetes.namespace
    with pytest.raises(Refused, match="the operator's Events"):
        thief.create(document)


def test_system_and_protected_namespaces_are_closed(installed: Kubernetes, thief: Thief) -> None:
    system = installed.within("kube-system")
    document = own(thief.kubernetes)["daemon set"]
    document["metadata"].pop("namespace")
    with pytest.raises(Refused, match="writes nothing in kube-"):
        Thief(system).apply(document, dry_run=True)
    # The namespace that manifests/base makes for the operator itself carries the label.
    home = Thief(installed.within("edgefolio-system"))
    with pytest.raises(Refused, match="with the label edgefolio"):
        home.apply(document, dry_run=True)
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "edgefolio-operator", "namespace": "edgefolio-system"},
        "spec": {"holderIdentity": "somebody"},
    }
    stored = home.create(lease)
    path = home.kubernetes.path("coordination.k8s.io/v1", "Lease", "edgefolio-operator")
    home.kubernetes.request("PUT", path, stored, headers=OPERATOR)
    with pytest.raises(Refused, match="the lease edgefolio-operator and no other"):
        home.create({**lease, "metadata": {"name": "kube-scheduler"}})
    home.kubernetes.request("DELETE", path)
    # Any namespace may be protected.
    thief.apply(own(thief.kubernetes)["account"], dry_run=True)
    thief.kubernetes.kubectl("label", "namespace", thief.kubernetes.namespace, "edgefolio.dev/protected=true")

    def is_closed() -> bool:
        try:
            thief.apply(own(thief.kubernetes)["account"], dry_run=True)
        except Refused as refusal:
            return "edgefolio.dev/protected=true" in str(refusal)
        return False

    wait_for(is_closed)


def test_roles_keep_out_the_rest(thief: Thief) -> None:
    """What no role gives needs no policy."""
    kubernetes = thief.kubernetes
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"}, "spec": {"containers": []}}
    for document in (
        pod,
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "own"}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "own"}},
    ):
        with pytest.raises(Refused, match="cannot create resource"):
            thief.create(document)
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    with pytest.raises(Refused, match="cannot create resource"):
        kubernetes.request("POST", kubernetes.path("v1", "ServiceAccount", "web") + "/token", token, headers=OPERATOR)
    binding = own(kubernetes)["binding"]
    binding["roleRef"]["name"] = "cluster-admin"
    with pytest.raises(Refused, match=r"attempting to grant RBAC permissions|own-objects"):
        thief.apply(binding, dry_run=True)


def test_every_kind_that_its_roles_let_it_write_is_judged() -> None:
    """A right that is added to the roles is one that the policy must know."""
    documents = [
        document
        for name in ("rights.yaml", "operator-policy.yaml")
        for document in yaml.safe_load_all((BASE / name).read_text())
    ]
    (policy,) = (entry for entry in documents if entry["kind"] == "ValidatingAdmissionPolicy")
    judged = {
        (group, resource)
        for rule in policy["spec"]["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    written = {
        (group, resource)
        for role in documents
        if role["kind"] in ("Role", "ClusterRole") and role["metadata"]["name"] == "edgefolio-operator"
        for rule in role["rules"]
        if set(rule["verbs"]) & {"create", "update", "patch", "delete", "deletecollection"}
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    # The first is asked for whoever owns something of a portfolio, and is nothing that could be written.
    written.discard(("edgefolio.dev", "modelportfolios/finalizers"))
    lacking = {
        (group, resource)
        for group, resource in written
        if (group, resource) not in judged and (group, f"{resource.partition('/')[0]}/*") not in judged
    }
    assert len(written) >= 10
    assert lacking == set()
