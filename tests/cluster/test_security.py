"""Rights and pods on a real API server: who may do what, and that restricted namespaces take what we make."""

from __future__ import annotations

import copy
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_site import wait_for

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.resources.daemonset import build_access, build_daemon_set
from edgefolio_operator.resources.pruning_job import Images, build_job
from edgefolio_operator.resources.repository_jobs import build_check_job, build_reclaim_job

BASE = Path(__file__).parents[2] / "manifests" / "base"
CASES = yaml.safe_load((Path(__file__).parent / "rules.yaml").read_text())
FOLLOWING, MAKING, ENDPOINT = CASES["bases"]
IMAGES = Images(pruner="pruner:1", agent="agent:1", triton="triton:1")
POD_NAME = "authentication.kubernetes.io/pod-name"


@pytest.fixture(scope="module")
def installed(api_server: Any) -> Any:
    """The API server with what ``kubectl apply -k manifests/base`` brings."""
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(BASE))
    return api_server


@pytest.fixture
def site(installed: Any, namespace: Any) -> Any:
    """A namespace of this test's own with the agents' rights."""
    for document in build_access(portfolio(namespace.namespace)):
        namespace.request(
            "POST",
            namespace.path(document["apiVersion"], document["kind"]),
            document,
        )
    return namespace


def portfolio(namespace: str) -> ModelPortfolio:
    head = {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelPortfolio"}
    return ModelPortfolio.model_validate(
        {**head, "metadata": {"name": "digits", "namespace": namespace}, "spec": MAKING}
    )


def agent_of(namespace: str, pod: str | None) -> dict[str, str]:
    """Headers that make a request one of the agent in this pod."""
    headers = {
        "Impersonate-User": f"system:serviceaccount:{namespace}:edgefolio-agent",
        "Impersonate-Group": "system:serviceaccounts",
    }
    if pod is not None:
        headers[f"Impersonate-Extra-{urllib.parse.quote(POD_NAME, safe='')}"] = pod
    return headers


def endpoint(name: str, **parts: Any) -> dict[str, Any]:
    return {"apiVersion": "edgefolio.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": name}, **parts}


def report(site: Any, *, of: str, by: str | None) -> None:
    """Write the status of the endpoint ``of`` as the agent in the pod ``by``."""
    site.apply(
        endpoint(of, status={"activeVariant": "small"}),
        subresource="status",
        headers=agent_of(site.namespace, by),
    )


def test_an_agent_reports_of_its_own_pod_only(site: Any) -> None:
    for name in ("pod-a", "pod-b"):
        site.apply(endpoint(name, spec={**ENDPOINT, "podName": name}))
    # The API server reads a new policy with a delay of its own.
    wait_for(lambda: _is_refused(site, of="pod-a", by="pod-b"))
    assert _is_refused(site, of="pod-a", by=None)
    assert not _is_refused(site, of="pod-a", by="pod-a")


def _is_refused(site: Any, *, of: str, by: str | None) -> bool:
    try:
        report(site, of=of, by=by)
    except AssertionError as refusal:
        return "an agent reports of its own pod only" in str(refusal)
    return False


def test_an_agent_orders_nothing_and_makes_nothing(site: Any) -> None:
    site.apply(endpoint("pod-a", spec={**ENDPOINT, "podName": "pod-a"}))
    for document in (endpoint("pod-a", spec=ENDPOINT), endpoint("pod-c", spec={**ENDPOINT, "podName": "pod-c"})):
        with pytest.raises(AssertionError, match="forbidden"):
            site.apply(document, headers=agent_of(site.namespace, document["metadata"]["name"]))


def test_an_agent_of_another_namespace_is_nobody_here(site: Any) -> None:
    site.apply(endpoint("pod-a", spec={**ENDPOINT, "podName": "pod-a"}))
    with pytest.raises(AssertionError, match="forbidden"):
        site.apply(
            endpoint("pod-a", status={"activeVariant": "small"}),
            subresource="status",
            headers=agent_of("elsewhere", "pod-a"),
        )


def rights(site: Any, user: str, namespace: str) -> set[tuple[str, str, str]]:
    """(verb, group, resource) that a service account may do, beyond what everybody may."""
    head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    answer = site.request(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        {**head, "spec": {"namespace": namespace}},
        headers={"Impersonate-User": user, "Impersonate-Group": "system:authenticated"},
    )
    return {
        (verb, group, resource)
        for rule in answer["status"]["resourceRules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        if group not in ("authorization.k8s.io", "authentication.k8s.io")
    }


def test_an_agent_may_do_this_and_nothing_else(site: Any) -> None:
    user = f"system:serviceaccount:{site.namespace}:edgefolio-agent"
    assert rights(site, user, site.namespace) == {
        ("get", "edgefolio.dev", "modelendpoints"),
        ("list", "edgefolio.dev", "modelendpoints"),
        ("watch", "edgefolio.dev", "modelendpoints"),
        ("patch", "edgefolio.dev", "modelendpoints/status"),
    }


def test_the_operator_reads_no_secret_and_enters_no_pod(installed: Any) -> None:
    found = rights(installed, "system:serviceaccount:edgefolio-system:edgefolio-operator", "default")
    resources = {resource for _, _, resource in found}
    assert not resources & {"secrets", "pods/exec", "pods/proxy", "nodes/proxy", "services/proxy", "*"}
    assert not {verb for verb, _, _ in found} & {"*", "escalate", "impersonate"}
    assert {verb for verb, _, resource in found if resource == "clusterroles"} == {"bind"}
    assert {verb for verb, _, resource in found if resource == "modelportfolios"} == {"list", "watch", "patch"}
    assert {verb for verb, _, resource in found if resource == "pods/log"} == {"get"}


def test_restricted_namespaces_take_what_we_make(site: Any) -> None:
    site.kubectl("label", "namespace", site.namespace, "pod-security.kubernetes.io/enforce=restricted")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}
    given = portfolio(site.namespace)
    templates = {
        "job": build_job(given, key="0" * 16, owner=owner, images=IMAGES),
        "check": build_check_job(given, name="check", key="0" * 16, owner=owner, images=IMAGES),
        "reclaim": build_reclaim_job(given, uid="u", images=IMAGES),
        "daemon-set": build_daemon_set(given, owner=owner, images=IMAGES),
    }
    for name, made in templates.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": made["spec"]["template"]["spec"]}
        assert site.apply(pod)["status"]["phase"] == "Pending"
        loose = copy.deepcopy(pod)
        loose["metadata"]["name"] = f"loose-{name}"
        loose["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        with pytest.raises(AssertionError, match="violates PodSecurity"):
            site.apply(loose)


def test_the_base_makes_a_restricted_operator(installed: Any) -> None:
    deployment = installed.request("GET", "/apis/apps/v1/namespaces/edgefolio-system/deployments/edgefolio-operator")
    template = deployment["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": {**template}}
    assert installed.within("edgefolio-system").apply(pod)["status"]["phase"] == "Pending"
    assert deployment["spec"]["strategy"]["type"] == "Recreate"
