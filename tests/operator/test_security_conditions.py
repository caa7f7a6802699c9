"""Old Tritons, and the publisher's credentials on nodes: said in a condition and, once, in an Event."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from reconciled_site import Site
from test_workloads import IMAGES, OWNER

from edgefolio.components import TRITON_IMAGE
from edgefolio.specification.resource import ModelPortfolio
from edgefolio_operator.resources.daemonset import build_daemon_set
from edgefolio_operator.resources.pruning_job import Images
from edgefolio_operator.status.security_conditions import known_vulnerabilities, publisher_credentials_on_nodes

OLD = "nvcr.io/nvidia/tritonserver:24.10-py3"


def portfolio(
    *, repository: dict[str, Any], source: bool = True, serving: dict[str, Any] | None = None
) -> ModelPortfolio:
    made = {
        "source": {"architecture": {"library": "edgefolio", "name": "cnn"}},
        "data": {"trainingURI": "builtin:digits"},
        "methods": {"sparseTraining": {}},
    }
    return ModelPortfolio.model_validate(
        {
            "apiVersion": "edgefolio.dev/v1alpha1",
            "kind": "ModelPortfolio",
            "metadata": {"name": "digits", "namespace": "models"},
            "spec": {
                **(made if source else {}),
                "repository": {"uri": "s3://bucket/portfolios", **repository},
                "serving": {"modelName": "digits", **(serving or {})},
            },
        }
    )


def daemon_set(image: str) -> dict[str, Any]:
    images = Images(pruner=IMAGES.pruner, agent=IMAGES.agent, triton=image)
    return build_daemon_set(portfolio(repository={}), owner=OWNER, images=images)


@pytest.mark.parametrize(
    ("image", "status"),
    [(OLD, "True"), (TRITON_IMAGE, "False"), ("ghcr.io/edgefolio/triton:0.1.0", "False"), ("a@sha256:00", "False")],
)
def test_an_old_image_is_said_with_what_mends_it(image: str, status: str) -> None:
    found, reason, message = known_vulnerabilities(daemon_set(image), [])
    assert (found, reason) == (status, "OutdatedTriton" if status == "True" else "NoneKnown")
    assert ("CVE-2025-23310" in message) is (status == "True")


def test_nothing_is_said_without_pods() -> None:
    assert known_vulnerabilities(None, [])[0] == "False"
    assert known_vulnerabilities({"spec": {"template": None}}, [])[0] == "False"


def test_what_agents_say_of_their_servers_is_said_of_the_portfolio_once() -> None:
    site = Site().served()
    for name in list(site.endpoints):
        status = copy.deepcopy(site.endpoints[name].get("status") or {})
        said = {
            "type": "KnownVulnerabilities",
            "status": "True",
            "reason": "OutdatedTriton",
            "message": "Triton 24.10 is older.",
            "lastTransitionTime": "2027-01-15T08:00:00Z",
        }
        status["conditions"] = [*status.get("conditions", ()), said]
        site.endpoints[name]["status"] = status
    plan = site.cycle()
    assert plan is not None
    assert site.condition("KnownVulnerabilities") == ("True", "OutdatedTriton")
    assert "Triton 24.10 is older." in site.message("KnownVulnerabilities")
    assert [event.reason for event in plan.events].count("OutdatedTriton") == 1
    again = site.cycle()
    assert again is None or "OutdatedTriton" not in [event.reason for event in again.events]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"repository": {"secretRef": {"name": "s"}}}, "True"),
        ({"repository": {"secretRef": {"name": "s"}, "readSecretRef": {"name": "s"}}}, "True"),
        ({"repository": {"secretRef": {"name": "s"}, "readSecretRef": {"name": "r"}}}, "False"),
        ({"repository": {"readSecretRef": {"name": "r"}}}, "False"),
        ({"repository": {}}, "False"),
        ({"repository": {"secretRef": {"name": "s"}}, "source": False}, "False"),
        (
            {
                "repository": {"secretRef": {"name": "s"}},
                "serving": {"mode": "Adopt", "adopt": {"selector": {"matchLabels": {"a": "b"}}}},
            },
            "False",
        ),
    ],
)
def test_the_publisher_s_secret_on_nodes_is_said(given: dict[str, Any], status: str) -> None:
    found, reason, message = publisher_credentials_on_nodes(portfolio(**given))
    assert (found, reason) == (status, "SharedSecret" if status == "True" else "NoSharedSecret")
    assert ("repository.readSecretRef" in message) is (status == "True")
