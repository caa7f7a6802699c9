"""The operator's policy on a running site: its work passes, its stolen token is worth little; a broken release goes."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from cluster_site import wait_for
from control_plane import Refused
from edge_site import CHART, SYSTEM, EdgeSite

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

OWN = {"app.kubernetes.io/managed-by": "edgefolio-operator"}


def send(site: EdgeSite, method: str, path: str, token: str, document: object = None) -> dict[str, Any]:
    """A request with a token and nothing else."""
    headers = {"Authorization": f"Bearer {token}"}
    return dict(site.anonymous().kubernetes.request(method, path, document, headers=headers))


@pytest.fixture
def token(site: EdgeSite) -> str:
    """A token of the operator's account, as its pod has one."""
    return str(site.kubernetes.within(SYSTEM).kubectl("create", "token", "edgefolio-operator").strip())


def test_the_policy_stands_in_the_way_of_no_work(site: EdgeSite) -> None:
    """Made, published, served, switched, settled again: under the policy, without a refusal."""
    assert "edgefolio-operator-own-objects" in site.kubernetes.kubectl(
        "get", "validatingadmissionpolicies", "-o", "name"
    )
    before = site.portfolio()["status"]["currentRevision"]
    site.kubernetes.kubectl("annotate", "mpf/digits", f"edgefolio.dev/make-requested-at={int(time.time())}")
    wait_for(lambda: site.portfolio()["status"]["currentRevision"] > before, seconds=300)

    def is_rolled_out() -> bool:
        current = site.portfolio()["status"]["currentRevision"]
        return all(entry["status"].get("activeRevision") == current for entry in site.endpoints().values())

    wait_for(is_rolled_out, seconds=240)
    pod = site.pod_on("edge-1")["metadata"]["name"]
    site.kubernetes.kubectl("annotate", "pod", pod, f"edgefolio.dev/pin-variant={site.fastest}")
    site.settle_on(site.fastest, "edge-1", seconds=120)
    assert [event for event in site.events() if event["reason"] == "WriteRefused"] == []
    log = site.kubernetes.within(SYSTEM).kubectl("logs", "deployment/edgefolio-operator", "--tail=-1")
    assert [line for line in log.splitlines() if "denied request" in line or "orbidden" in line] == []


def test_a_stolen_token_starts_no_pod_of_its_own(site: EdgeSite, token: str) -> None:
    stored = site.kubernetes.request("GET", site.kubernetes.path("apps/v1", "DaemonSet", "digits"))
    metadata = {key: stored["metadata"][key] for key in ("name", "labels", "ownerReferences")}
    template = stored["spec"]["template"]
    template["metadata"].pop("creationTimestamp", None)
    spec = {"selector": stored["spec"]["selector"], "template": template}
    good = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": spec}

    def attempt(name: str, change: Any, *, namespace: str = site.namespace) -> str:
        document = copy.deepcopy(good)
        document["metadata"]["name"] = name
        document["metadata"]["ownerReferences"][0]["name"] = name
        change(document["spec"]["template"]["spec"])
        try:
            send(site, "POST", f"/apis/apps/v1/namespaces/{namespace}/daemonsets?dryRun=All", token, document)
        except Refused as refusal:
            return str(refusal)
        return ""

    def nothing(_: dict[str, Any]) -> None:
        pass

    assert attempt("twin", nothing) == "", "as such it would be admitted"
    assert "kube-*" in attempt("twin", nothing, namespace="kube-system")
    volume = {"name": "node", "hostPath": {"path": "/"}}
    for change in (
        lambda pod: pod["volumes"].append(volume),
        lambda pod: pod.update(hostPID=True),
        lambda pod: pod.update(serviceAccountName="default"),
        lambda pod: pod["containers"][0]["securityContext"].update(privileged=True, allowPrivilegeEscalation=True),
    ):
        assert "edgefolio-operator-own-objects" in attempt("twin", change)
    # Nor does it read a Secret, or touch what others made.
    with pytest.raises(Refused, match="forbidden"):
        send(site, "GET", site.kubernetes.path("v1", "Secret", "s3"), token)
    system = site.kubernetes.within("kube-system")
    with pytest.raises(Refused, match="forbidden"):
        send(site, "DELETE", system.path("apps/v1", "Deployment", "coredns"), token)


def test_what_has_an_owner_that_is_none_goes_within_seconds(site: EdgeSite, token: str) -> None:
    owner = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio", "name": "none", "uid": "0" * 8}
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "forged", "labels": OWN, "ownerReferences": [owner]},
    }
    send(site, "POST", site.kubernetes.path("v1", "ConfigMap"), token, document)

    def is_gone() -> bool:
        found = site.kubernetes.request("GET", site.kubernetes.path("v1", "ConfigMap"))["items"]
        return "forged" not in [entry["metadata"]["name"] for entry in found]

    wait_for(is_gone, seconds=60)


def test_a_release_with_a_wrong_image_goes(site: EdgeSite) -> None:
    """Beside the site, whose definitions and endpoints it does not touch."""
    before = json.dumps(site.endpoints(), sort_keys=True).count('"uid"')
    settings = (
        "crds.enabled=false",
        "agent.rbac.create=false",
        "watchNamespaces={broken}",
        "image.repository=registry.invalid/no-such-image",
        "image.pullPolicy=IfNotPresent",
        "uninstall.activeDeadlineSeconds=20",
    )
    where = ("--namespace", "broken")
    given = [f"--set={setting}" for setting in settings]
    site.helm("install", "broken", str(CHART), *where, "--create-namespace", *given)
    try:
        began = time.monotonic()
        with pytest.raises(AssertionError, match=r"DeadlineExceeded|failed"):
            site.helm("uninstall", "broken", *where)
        assert time.monotonic() - began < 90
        site.helm("uninstall", "broken", *where, "--no-hooks")
        assert "broken" not in site.helm("list", "--all", *where)
    finally:
        site.kubernetes.within("default").kubectl("delete", "namespace", "broken", "--timeout=120s")
    assert json.dumps(site.endpoints(), sort_keys=True).count('"uid"') == before
