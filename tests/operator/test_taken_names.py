"""Objects of others under the names of a portfolio's own: nothing is written to them, and people are told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from test_controller import Cluster, run, until

from edgefolio_operator.kube.objects import controller_of
from edgefolio_operator.kube.owned_objects import foreign_owner

PLACES = {
    "Service": "/api/v1/namespaces/models/services/payments",
    "DaemonSet": "/apis/apps/v1/namespaces/models/daemonsets/payments",
    "ServiceAccount": "/api/v1/namespaces/models/serviceaccounts/edgefolio-agent",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/models/rolebindings/edgefolio-agent",
}
LABELS = {"app.kubernetes.io/managed-by": "edgefolio-operator", "edgefolio.dev/portfolio": "payments"}
OTHER = {"ownerReferences": [{"kind": "Deployment", "name": "shop", "uid": "x", "controller": True}]}


def foreign(kind: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"selector": {"app": "payments"}}}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({"labels": {"app": "payments"}}, id="not labelled"),
        pytest.param({"labels": LABELS, **OTHER}, id="labelled as ours, owned by others"),
    ],
)
def test_an_object_of_somebody_else_is_left_alone_and_named(kind: str, metadata: dict[str, Any]) -> None:
    async def work() -> None:
        before = cluster.api.put(PLACES[kind], foreign(kind, copy.deepcopy(metadata)))
        cluster.add("payments")
        await until(lambda: "ResourceConflict" in reasons())
        place = next(place for place, thing in cluster.api.objects.items() if thing["metadata"]["uid"] == PLACES[kind])
        assert cluster.api.objects[place] == before
        message = portfolio()["status"]["lastFailure"]["message"]
        assert message.startswith(f"{kind} {before['metadata']['name']} exists and is not this portfolio's")
        assert "Rename or delete that" in message
        assert told("ResourceConflict") == 1
        if kind == "Service":
            assert "address" not in portfolio()["status"], "clients are not led to it"
        if kind in ("ServiceAccount", "RoleBinding"):
            assert not [place for place in cluster.api.objects if place[1] == "daemonsets"], "no pods with its rights"
        # Its owner takes it away: all is made, and said to be well.
        cluster.api.remove(PLACES[kind])
        await until(lambda: all(path_is_ours(path) for path in PLACES.values()))
        await until(lambda: "ResourceConflict" not in reasons())

    def portfolio() -> dict[str, Any]:
        found: dict[str, Any] = cluster.api.find("modelportfolios", "payments")
        return found

    def reasons() -> set[str]:
        return {entry["reason"] for entry in portfolio().get("status", {}).get("conditions", ())}

    def told(reason: str) -> int:
        events = [thing for place, thing in cluster.api.objects.items() if place[1] == "events"]
        return sum(event["reason"] == reason for event in events)

    def path_is_ours(path: str) -> bool:
        found = [thing for thing in cluster.api.objects.values() if thing["metadata"]["uid"] == path]
        return bool(found) and found[0]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "edgefolio-operator"

    cluster = Cluster()
    run(cluster, work)


def test_a_job_of_somebody_else_with_the_name_of_the_making_is_not_heard() -> None:
    async def work() -> None:
        cluster.add("payments")
        await until(lambda: jobs() != [])
        (name,) = jobs()
        path = f"/apis/batch/v1/namespaces/models/jobs/{name}"
        mine = copy.deepcopy(cluster.api.find("jobs", name))
        cluster.api.remove(path)
        foreign_job = {**mine, "metadata": {key: mine["metadata"][key] for key in ("labels", "annotations")}}
        cluster.api.put(path, {**foreign_job, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})
        await until(lambda: "ResourceConflict" in str(cluster.api.find("modelportfolios", "payments").get("status")))
        assert "ownerReferences" not in cluster.api.find("jobs", name)["metadata"]
        assert [
            entry["number"] for entry in cluster.api.find("modelportfolios", "payments")["status"]["revisions"]
        ] == [1]

    def jobs() -> list[str]:
        return [place[3] for place in cluster.api.objects if place[1] == "jobs"]

    cluster = Cluster()
    run(cluster, work)


def test_a_change_of_the_workload_is_put_back_once() -> None:
    async def work() -> None:
        cluster.add("payments")
        for path in PLACES.values():
            await until(lambda path=path: exists(path))
        for path in PLACES.values():
            thing = copy.deepcopy(next(entry for entry in cluster.api.objects.values() if uid(entry) == path))
            thing["spec"] = {"selector": {"app": "elsewhere"}}
            thing["subjects"] = []
            cluster.api.put(path, thing)
        await until(lambda: all("elsewhere" not in str(entry["spec"]) for entry in stored("Service", "DaemonSet")))
        await until(lambda: all(entry["subjects"] for entry in stored("RoleBinding")))
        cluster.api.written.clear()
        for path in PLACES.values():
            cluster.api.remove(path)
        await until(lambda: all(map(exists, PLACES.values())))

    def uid(entry: dict[str, Any]) -> str:
        return str(entry["metadata"]["uid"])

    def exists(path: str) -> bool:
        return any(uid(entry) == path for entry in cluster.api.objects.values())

    def stored(*kinds: str) -> list[dict[str, Any]]:
        return [entry for entry in cluster.api.objects.values() if entry.get("kind") in kinds]

    cluster = Cluster()
    run(cluster, work)


def test_an_object_that_lost_its_owner_is_ours_if_we_made_it() -> None:
    document = {"kind": "Service", "metadata": {"labels": LABELS, "ownerReferences": [
        {"kind": "ModelPortfolio", "name": "payments", "uid": "u", "controller": True}]}}  # fmt: skip
    made = [{"manager": "edgefolio-operator", "operation": "Update"}]
    assert controller_of(document) is not None
    assert foreign_owner({"metadata": {"labels": LABELS, "managedFields": made}}, document) is None
    assert foreign_owner({"metadata": {"labels": LABELS}}, document) == "nobody owns it"
    helm = {"app.kubernetes.io/managed-by": "Helm"}
    assert foreign_owner({"metadata": {"labels": helm, "managedFields": made}}, document) == "it is managed by Helm"
    not_controlling = {"ownerReferences": [{"kind": "ModelPortfolio", "name": "payments", "uid": "u"}]}
    assert foreign_owner({"metadata": {"labels": LABELS, **not_controlling}}, document) == "nobody owns it"


def test_what_a_portfolio_of_before_left_is_no_conflict() -> None:
    async def work() -> None:
        left = {"ownerReferences": [{"kind": "ModelPortfolio", "name": "payments", "uid": "gone", "controller": True}]}
        cluster.api.put(PLACES["Service"], foreign("Service", {"labels": LABELS, **left}))
        cluster.add("payments")
        await until(lambda: cluster.told("payments") == 20)
        status = cluster.api.find("modelportfolios", "payments")["status"]
        assert "ResourceConflict" not in str(status)
        cluster.api.remove(PLACES["Service"])  # Kubernetes collects it
        await until(lambda: any(entry.get("kind") == "Service" for entry in cluster.api.objects.values()))

    cluster = Cluster()
    run(cluster, work)
