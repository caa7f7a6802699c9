"""``kubectl auth can-i --list`` for each service account is what docs/reference/rights.md says, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cluster_site import wait_for

from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.resources.daemonset import build_access

ROOT = Path(__file__).parents[2]
#: (group, resource, name or nothing) -> verbs
Rights = dict[tuple[str, str, str], set[str]]


def documented(*titles: str) -> Rights:
    """What the page says of the roles ``titles`` together."""
    found: Rights = {}
    seen = set()
    title = ""
    for line in (ROOT / "docs" / "reference" / "rights.md").read_text().splitlines():
        if line.startswith("## "):
            title = line.removeprefix("## ")
        elif title in titles and (row := re.fullmatch(r"\| (\S+) \| `(\S+)`(?: named `(\S+)`)? \| (.+) \|", line)):
            seen.add(title)
            group = "" if row[1] == "core" else row[1]
            found.setdefault((group, row[2], row[3] or ""), set()).update(row[4].split(", "))
    assert seen == set(titles)
    return found


def listed(kubernetes: Any, *user: str) -> Rights:
    """What kubectl lists for ``user``, beyond what everybody who is known may do."""
    text = kubernetes.kubectl("auth", "can-i", "--list", "--no-headers", *(f"--as={name}" for name in user))
    found: Rights = {}
    for line in text.splitlines():
        row = re.fullmatch(r"(\S*)\s+\[(.*?)\]\s+\[(.*?)\]\s+\[(.*?)\]\s*", line)
        assert row is not None, line
        # modelportfolios.edgefolio.dev/status
        path, slash, part = row[1].partition("/")
        resource, _, group = path.partition(".")
        if not resource or group in ("authorization.k8s.io", "authentication.k8s.io"):
            continue  # paths that are no resources, and questions about oneself
        resource += slash + part
        for name in row[3].split() or [""]:
            found.setdefault((group, resource, name), set()).update(row[4].split())
    return found


@pytest.fixture(scope="module")
def installed(api_server: Any) -> Any:
    api_server.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests" / "base"))
    return api_server


def account(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def test_the_operator_in_its_namespace_and_elsewhere(installed: Any, namespace: Any) -> None:
    user = account("edgefolio-system", "edgefolio-operator")
    everywhere = documented("ClusterRole edgefolio-operator")
    at_home = documented("ClusterRole edgefolio-operator", "Role edgefolio-operator")
    assert listed(namespace, user) == everywhere
    assert listed(installed.within("edgefolio-system"), user) == at_home
    assert ("coordination.k8s.io", "leases", "") in at_home.keys() - everywhere.keys()


def test_an_agent_in_its_namespace_and_elsewhere(installed: Any, namespace: Any) -> None:
    portfolio = ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": namespace.namespace},
            "spec": {"repository": {"uri": "s3://bucket/portfolios"}, "serving": {"modelName": "digits"}},
        }
    )
    for document in build_access(portfolio):
        namespace.request("POST", namespace.path(document["apiVersion"], document["kind"]), document)
    user = account(namespace.namespace, "edgefolio-agent")
    wait_for(lambda: listed(namespace, user) == documented("ClusterRole edgefolio-agent"))
    assert listed(installed.within("edgefolio-system"), user) == {}


def test_the_pods_of_a_making_may_do_nothing(installed: Any, namespace: Any) -> None:
    assert listed(namespace, account(namespace.namespace, "default")) == {}


@pytest.mark.parametrize("role", ["edgefolio-view", "edgefolio-edit"])
def test_the_roles_for_people(installed: Any, namespace: Any, role: str) -> None:
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": "somebody", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    namespace.request("POST", namespace.path("rbac.authorization.k8s.io/v1", "RoleBinding"), binding)
    wait_for(lambda: listed(namespace, "somebody") == documented(f"ClusterRole {role}"))
