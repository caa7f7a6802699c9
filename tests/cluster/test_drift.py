"""What others do to the objects of a portfolio, on a real API server: its own are put right, those of others left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from cluster_site import Operator, Site, controller, wait_for
from control_plane import Refused

SHARED = "edgefolio-agent"
KINDS = {
    "Service": ("v1", "digits"),
    "DaemonSet": ("apps/v1", "digits"),
    "ServiceAccount": ("v1", SHARED),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", SHARED),
}


def get(kubernetes: Any, kind: str) -> dict[str, Any]:
    version, name = KINDS[kind]
    found: dict[str, Any] = kubernetes.request("GET", kubernetes.path(version, kind, name))
    return found


def is_there(kubernetes: Any, kind: str) -> bool:
    try:
        get(kubernetes, kind)
    except Refused:
        return False
    return True


def edit(kubernetes: Any, kind: str, patch: Any) -> None:
    """As ``kubectl edit`` does."""
    version, name = KINDS[kind]
    kubernetes.request(
        "PATCH",
        kubernetes.path(version, kind, name) + "?fieldManager=kubectl-edit",
        patch,
        content_type="application/merge-patch+json",
    )


def of_spec(kubernetes: Any) -> dict[str, Any]:
    """What decides whether requests are answered, and whether pods are made anew."""
    found = {kind: get(kubernetes, kind) for kind in KINDS}
    template = found["DaemonSet"]["spec"]["template"]
    return {
        "selector": found["Service"]["spec"]["selector"],
        "ports": found["Service"]["spec"]["ports"],
        "template": template["spec"],
        "labels": template["metadata"]["labels"],
        "strategy": found["DaemonSet"]["spec"]["updateStrategy"],
        "token": found["ServiceAccount"].get("automountServiceAccountToken"),
        "subjects": found["RoleBinding"].get("subjects"),
    }


def change_everything(kubernetes: Any) -> None:
    edit(kubernetes, "Service", {"spec": {"selector": {"app": "elsewhere"}}, "metadata": {"ownerReferences": None}})
    container = {"name": "triton", "image": "example.com/mine:1"}
    template = {"metadata": {"labels": {"edgefolio.dev/endpoint": "x"}}, "spec": {"containers": [container]}}
    edit(kubernetes, "DaemonSet", {"spec": {"template": template, "updateStrategy": {"type": "OnDelete"}}})
    edit(kubernetes, "ServiceAccount", {"automountServiceAccountToken": True})
    edit(kubernetes, "RoleBinding", {"subjects": []})


def reasons_told(kubernetes: Any) -> list[str]:
    return [entry["reason"] for entry in kubernetes.request("GET", kubernetes.path("v1", "Event"))["items"]]


def test_edits_are_put_back_and_fields_of_others_are_left_alone(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.served()
    before = of_spec(namespace)
    annotations = {"metadata": {"annotations": {"example.com/team": "vision"}, "labels": {"team": "vision"}}}
    for kind in KINDS:
        edit(namespace, kind, annotations)
    restarted = {"kubectl.kubernetes.io/restartedAt": "2026-11-30T10:00:00Z"}
    edit(namespace, "DaemonSet", {"spec": {"template": {"metadata": {"annotations": restarted}}}})
    change_everything(namespace)

    wait_for(lambda: of_spec(namespace) == before, seconds=20)
    for kind in KINDS:
        metadata = get(namespace, kind)["metadata"]
        assert metadata["annotations"]["example.com/team"] == "vision"
        assert metadata["labels"]["team"] == "vision"
    assert get(namespace, "Service")["metadata"]["ownerReferences"][0]["kind"] == "ModelPortfolio"
    # kubectl rollout restart is a person's right.
    assert get(namespace, "DaemonSet")["spec"]["template"]["metadata"]["annotations"] == restarted
    wait_for(lambda: reasons_told(namespace).count("DriftCorrected") >= 4)
    versions = {kind: get(namespace, kind)["metadata"]["resourceVersion"] for kind in KINDS}
    time.sleep(4)
    assert {kind: get(namespace, kind)["metadata"]["resourceVersion"] for kind in KINDS} == versions, (
        "and then is quiet"
    )


def test_what_is_deleted_is_made_again(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.served()
    before = of_spec(namespace)
    for kind, (version, name) in KINDS.items():
        namespace.request("DELETE", namespace.path(version, kind, name))
        wait_for(lambda kind=kind: is_there(namespace, kind), seconds=15)
    assert of_spec(namespace) == before
    assert site.endpoint(0)["spec"]["targetVariant"] == "dense", "its endpoint stayed"
    assert site.condition("Ready") == ("True", "Serving")


def test_a_restarted_operator_of_another_version_puts_back_what_was_applied(
    namespace: Any, start: Callable[..., Operator]
) -> None:
    operator = start()
    site = Site(namespace, nodes=1)
    site.served()
    before = of_spec(namespace)
    assert operator.end() == 0
    change_everything(namespace)
    namespace.request("DELETE", namespace.path("v1", "ServiceAccount", SHARED))
    # It would build other pods: that alone restarts none.
    start(
        "operator-b", environment={"EDGEFOLIO_TRITON_IMAGE": "example.com/newer:2", "EDGEFOLIO_AGENT_IMAGE": "newer:2"}
    )
    wait_for(lambda: is_there(namespace, "ServiceAccount") and of_spec(namespace) == before)
    told = reasons_told(namespace).count("DriftCorrected")
    assert told >= 3
    generation = get(namespace, "DaemonSet")["metadata"]["generation"]
    time.sleep(3)
    assert get(namespace, "DaemonSet")["metadata"]["generation"] == generation
    # A change of its settings is another matter.
    site.portfolio(serving={"modelName": "digits", "managed": {"nodeSelector": {"class": "edge"}}})
    wait_for(lambda: get(namespace, "DaemonSet")["spec"]["template"]["spec"].get("nodeSelector") == {"class": "edge"})
    site.portfolio()
    wait_for(lambda: "nodeSelector" not in get(namespace, "DaemonSet")["spec"]["template"]["spec"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_of_somebody_else_is_left_as_it_is(namespace: Any, start: Callable[..., Operator], kind: str) -> None:
    version, name = KINDS[kind]
    template = {"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "a", "image": "shop:1"}]}}
    fields: dict[str, Any] = {
        "Service": {"spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}},
        "DaemonSet": {"spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": template}},
        "ServiceAccount": {"automountServiceAccountToken": True},
        "RoleBinding": {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "shop"},
            "subjects": [{"kind": "ServiceAccount", "name": "shop", "namespace": namespace.namespace}],
        },
    }[kind]
    # Also one with the operator's labels: anybody can set them.
    labels = {"app": "shop"}
    if kind in ("Service", "DaemonSet"):
        labels = {"app.kubernetes.io/managed-by": "edgefolio-operator", "edgefolio.dev/portfolio": "digits"}
        labels |= {"app.kubernetes.io/component": "endpoint", "edgefolio.dev/endpoint": "digits"}
    before = namespace.request(
        "POST",
        namespace.path(version, kind),
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **fields},
    )
    start()
    site = Site(namespace, nodes=1)
    site.portfolio()
    wait_for(lambda: site.condition("Stalled") == ("True", "ResourceConflict"))
    assert site.condition("Ready") == ("False", "ResourceConflict")
    assert site.message("Stalled").startswith(f"{kind} {name} exists and is not this portfolio's")
    wait_for(lambda: reasons_told(namespace).count("ResourceConflict") == 1)
    time.sleep(3)
    assert get(namespace, kind) == before
    assert reasons_told(namespace).count("ResourceConflict") == 1
    namespace.kubectl("delete", "mpf/digits")
    time.sleep(1)
    assert get(namespace, kind) == before, "nor does it go with the portfolio"
    site.portfolio()
    wait_for(lambda: site.condition("Stalled") == ("True", "ResourceConflict"))
    namespace.request("DELETE", namespace.path(version, kind, name))
    wait_for(lambda: site.condition("Stalled")[0] == "False", seconds=45)
    assert is_there(namespace, kind)


def test_pods_with_the_portfolio_s_labels_are_not_its_own(namespace: Any, start: Callable[..., Operator]) -> None:
    start()
    site = Site(namespace, nodes=1)
    site.served()
    labels = {"edgefolio.dev/portfolio": "digits", "edgefolio.dev/endpoint": "digits"}
    spec = {"nodeName": site.nodes[0], "containers": [{"name": "triton", "image": "bed.local/pause:1"}]}
    for name, owner in (("forged", {}), ("of-another", controller("apps/v1", get(namespace, "DaemonSet")))):
        owners = [{**owner, "uid": "11111111-2222-3333-4444-555555555555"}] if owner else []
        metadata = {"name": name, "labels": labels, "ownerReferences": owners}
        namespace.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        site.ready("Pod", name)
    time.sleep(3)
    items = namespace.request("GET", namespace.path("edgefolio.dev/v1alpha1", "ModelEndpoint"))["items"]
    assert [entry["metadata"]["name"] for entry in items] == [f"digits-{site.nodes[0]}"]
    assert site.get()["status"]["endpoints"]["total"] == 1


def test_a_restart_changes_nothing_and_says_nothing(namespace: Any, start: Callable[..., Operator]) -> None:
    operator = start()
    site = Site(namespace, nodes=1)
    site.served()
    before = {kind: get(namespace, kind)["metadata"]["resourceVersion"] for kind in KINDS}
    assert operator.end() == 0
    start("operator-b")
    site.report(0, slowdown=4.0)
    wait_for(lambda: site.target(0) == "small")
    assert {kind: get(namespace, kind)["metadata"]["resourceVersion"] for kind in KINDS} == before
    assert "DriftCorrected" not in reasons_told(namespace)
